"""The sampler as a table: one row of numbers per transition.

Transition ``k`` (``k = 0`` is the noisiest) maps the state ``x_k`` to

    x_{k+1} = mean + sigma[k] * z,        z ~ N(0, I)

with a mean that is affine in ``x_k`` and in what the network predicts there,

    mean = a[k] * x_k + b[k] * eps(x_k, timesteps[k]),

or, more generally, in the image x0 that the prediction y tells, which may be clipped, and in that
of the transition before:

    mean = a[k] * x_k + b[k] * x0_k + c[k] * x0_{k-1},    x0_k = clip(p[k] * x_k + q[k] * y_k)

So every Gaussian sampler with one isotropic variance per step is a different table and nothing
else in the package needs to know which one it runs. With ``c`` the chain is Markov in the pair
``(x_k, x0_{k-1})``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from free.arguments import as_integer, as_number
from free.schedule import ddpm, diffusers, flow, sde
from free.schedule.checked import checked
from free.schedule.clipping import Clipping
from free.schedule.ddpm import LONGEST
from free.schedule.stochasticity import amounts
from free.schedule.variance import Variance

#: ``mixture(x [R, ...], t [R]) -> w [R]``: where a variance lies at a state.
Mixture = Callable[[Tensor, Tensor], Tensor]

#: One amount of noise for all transitions, or one each, [N].
Stochasticity = float | ArrayLike


@dataclass(frozen=True, eq=False)
class Schedule:
    """Coefficients of the ``N`` transitions of a reverse diffusion sampler.

    Parameters
    ----------
    timesteps : ndarray of int64 or float64, shape [N]
        What the network is told the time is, >= 0 and falling; for DDPM the original training
        step. Whole numbers are kept as int64, and reach the network as such; others as float32.
    a, b : ndarray of float64, shape [N]
        ``mean = a * x + b * eps``, where eps is whatever the network predicts: a velocity for a
        teacher of flow matching. With an ``image``, b belongs to x0 instead.
    sigma : ndarray of float64, shape [N]
        Standard deviation of the transition, >= 0; 0 makes it deterministic.
    signal, noise : ndarray of float64, shape [N], optional
        What the prediction says about the image: ``x_k = signal[k] x0 + noise[k] eps``. It guides
        drafts and leaves the law alone. By default derived from ``a`` as it is for the
        variance-preserving tables that return x0 in the end (:meth:`ddpm`): each transition
        scales x0 by ``a``, so the signal is what is left to be multiplied, and
        ``signal^2 + noise^2 = 1``. A noise of 0 says that there is no such relation. With an
        ``image`` they are required, and eps is the noise of the state, whatever the network
        predicts.
    upper : ndarray of float64, shape [N], optional
        With ``mixture``, the largest standard deviation, >= ``sigma``, which is then the least.
    mixture : callable, optional
        ``mixture(x [R, ...], t [R]) -> w [R]`` makes the standard deviation depend on the state:
        ``sigma^(1 - w) upper^w``. A row's ``w`` must depend on that row only; a network must be on
        the states' device.
    image : ndarray of float64, shape [2, N], optional
        ``p`` and ``q`` of the image that a prediction y tells, ``x0 = p x + q y``. With it the
        mean is ``a x + b x0``; without, it is ``a x + b eps``.
    c : ndarray of float64, shape [N], optional
        With an ``image``: what the x0 of the transition before adds to the mean. ``c[0]`` is 0.
    clipping : Clipping, optional
        With an ``image``: how x0 is limited.
    input_scale : ndarray of float64, shape [N], optional
        The network is given the state times this, > 0; by default the state.
    start : float
        Standard deviation of the first state, which is noise, > 0.
    guided : ndarray of float64, shape [N], optional
        How much of a sampler's guidance counts: a scale ``s`` becomes ``1 + guided (s - 1)``. By
        default all of it; 0 outside of an interval that is guided.

    Raises
    ------
    ValueError
        If the arrays are not one-dimensional and of one length, are not finite, ``timesteps`` do
        not fall, a ``sigma`` is negative, or what needs an ``image`` comes without.
    """

    timesteps: NDArray[Any]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    sigma: NDArray[np.float64]
    signal: NDArray[np.float64] = None  # type: ignore[assignment]
    noise: NDArray[np.float64] = None  # type: ignore[assignment]
    upper: NDArray[np.float64] | None = None
    mixture: Mixture | None = None
    image: NDArray[np.float64] | None = None
    c: NDArray[np.float64] | None = None
    clipping: Clipping | None = None
    input_scale: NDArray[np.float64] | None = None
    guided: NDArray[np.float64] | None = None
    start: float = 1.0

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in checked(given).items():
            object.__setattr__(self, name, value)

    def key(self) -> tuple[Any, ...]:
        """What tells one law from another: equal for equal schedules; ``mixture`` is not in it."""
        parts = (getattr(self, field.name) for field in fields(self) if field.name != "mixture")
        return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in parts)

    def __len__(self) -> int:
        return int(self.timesteps.size)

    @classmethod
    def ddpm(
        cls,
        steps: int = 250,
        train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
        variance: Variance | Mixture = "posterior",
        stochasticity: Stochasticity = 1.0,
    ) -> Schedule:
        """DDPM with linear betas, respaced as DiT does (supplement, Eq. 29).

        Parameters
        ----------
        steps : int
            Number of transitions, 2 .. ``train_steps``. The network is called at
            ``round(linspace(0, train_steps - 1, steps))``, last first.
        train_steps : int
            Number of steps the network was trained with, at most a million.
        beta_start, beta_end : float
            Ends of the linear noise schedule, ``0 < beta_start <= beta_end < 1``.
        variance : str, float, array_like of shape [steps], VarianceFit or callable
            ``"posterior"`` is beta~, the smallest variance consistent with the forward process
            (the paper's choice); ``"upper"`` is beta, the largest. A number ``w`` in [0, 1] is
            the geometric mixture ``posterior^(1-w) upper^w``. An array holds the variances
            themselves; that of the last transition is not used. A
            :class:`free.schedule.variance.VarianceFit` is a mixture fitted to a network's own. A
            function ``w(x [R, ...], t [R]) -> [R]`` in [0, 1], such as
            :class:`free.models.sigma.SigmaNet`, is a mixture that depends on the state.
        stochasticity : float or array_like of float, shape [steps]
            1 is DDPM. Other values scale the noise and move the mean along DDIM's family
            (its eta): 0 is the deterministic DDIM, which can be sampled but not
            speculated. Needs ``variance="posterior"`` when it is not 1.

        Returns
        -------
        Schedule
            ``sigma[N-1] == 0``: the last transition returns the predicted image.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        steps, train_steps = _steps(steps, train_steps)
        if not 0.0 < beta_start <= beta_end < 1.0:
            raise ValueError(
                "beta_start and beta_end must satisfy 0 < beta_start <= beta_end < 1, "
                f"got {beta_start} and {beta_end}"
            )
        betas = np.linspace(beta_start, beta_end, train_steps)
        timesteps = np.round(np.linspace(0, train_steps - 1, steps))[::-1]
        return cls.from_betas(betas, timesteps, variance, stochasticity)

    @classmethod
    def from_betas(
        cls,
        betas: ArrayLike,
        timesteps: ArrayLike,
        variance: Variance | Mixture = "posterior",
        stochasticity: Stochasticity = 1.0,
        prediction: str = "epsilon",
        clipping: Clipping | None = None,
    ) -> Schedule:
        """DDPM with the betas that the network was trained with, on any of its timesteps.

        Parameters
        ----------
        betas : array_like of float, shape [T]
            Noise of each training step, in (0, 1).
        timesteps : array_like of int, shape [N]
            Training steps at which the network is called, in sampling order: falling, all in
            0 .. T - 1. Transition ``k`` goes from the noise level of ``timesteps[k]`` to that of
            ``timesteps[k + 1]``, the last to none.
        variance, stochasticity
            See :meth:`ddpm`, also for the result and what is raised.
        prediction : {"epsilon", "v_prediction", "sample"}
            What the network predicts; see :func:`free.schedule.renewal.image_of`.
        clipping : Clipping, optional
            How x0 is limited.
        """
        return cls(**ddpm.of_betas(betas, timesteps, variance, stochasticity, prediction, clipping))

    @classmethod
    def from_scheduler(
        cls,
        scheduler: Any,
        steps: int | None = None,
        law: str | None = None,
        stochasticity: Stochasticity | None = None,
        **arguments: Any,
    ) -> Schedule:
        """The sampler that a scheduler of diffusers is, step by step.

        Mean, variance, timesteps and the network's input are those of the scheduler's own ``step``,
        computed in float64 from its grid. The scheduler itself is left as it is.

        Parameters
        ----------
        scheduler : diffusers scheduler or mapping
            One of those of ``docs/samplers.md``, or its configuration (``scheduler_config.json``).
        steps : int, optional
            ``num_inference_steps``; may be left out where timesteps or sigmas are given.
        law : str, optional
            Another law for the same network: ``"ddpm"``, ``"ddim"``, ``"euler-ancestral"`` or
            ``"sde-dpmsolver++"`` where it was trained with betas; ``"renoise"``, ``"flow-sde"``,
            ``"cps"`` or ``"dance"`` (see :meth:`flow`) where it predicts flow matching's velocity.
            What the other scheduler knows of the configuration is kept. By default the
            scheduler's own law.
        stochasticity : float or array_like of float, shape [steps], optional
            How much noise, where the law leaves it open. Of a deterministic scheduler (DDIM, Euler,
            Euler of flow matching, DPM-Solver++) it makes the law of the same grid with this noise
            (:mod:`free.schedule.stochasticity`): 0 is the scheduler itself, which can be sampled
            but not speculated, and .01 so little that hardly anybody sees it. Of ``law="ddim"``
            and the flow laws it is their eta.
        **arguments
            What ``set_timesteps`` takes, such as ``timesteps``, ``sigmas`` or ``mu``; and what a
            ``DDIMScheduler``'s ``step`` does, ``eta`` and ``use_clipped_model_output``.

        Raises
        ------
        ValueError, TypeError
            If it cannot be speculated or is not known here; says what samples the same network.
        """
        return cls(**diffusers.columns_of(scheduler, steps, law, stochasticity, **arguments))

    @classmethod
    def flow(
        cls,
        kind: str,
        steps: int | None = None,
        *,
        sigmas: ArrayLike | None = None,
        shift: float = 1.0,
        stochasticity: Stochasticity | None = None,
        train_steps: float = 1000.0,
    ) -> Schedule:
        """Samplers of flow matching, ``x = (1 - t) x0 + t n``, of networks that predict ``n - x0``.

        Parameters
        ----------
        kind : {"renoise", "flow-sde", "cps", "dance"}
            Noise anew each step, as diffusers' ``stochastic_sampling``; Flow-GRPO's SDE, with noise
            in the last step too; coefficients-preserving sampling; or DanceGRPO's SDE.
        steps : int, optional
            Transitions from 1 to 0, in equal parts of t before it is shifted; or ``sigmas``.
        sigmas : array_like of float, shape [N], optional
            The states' t before it is shifted, falling; a last 0 is added.
        shift : float
            ``t`` becomes ``shift t / (1 + (shift - 1) t)``.
        stochasticity : float or array_like of float, shape [N], optional
            How much noise, called eta there, >= 0: by default 0.7, 0.7 and 0.3. ``"cps"`` allows
            at most 1, which is ``"renoise"``, and that takes none. 0 is the deterministic Euler
            step.
        train_steps : float
            The network is told ``train_steps * t``.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        levels = flow.levels_of_steps(steps, sigmas, shift)
        scale = as_number(train_steps, "train_steps must be a finite number > 0", math.ulp(0.0))
        return cls(**flow.flow(kind, levels, stochasticity, scale * levels[:-1]))

    @classmethod
    def repa(
        cls, steps: int = 250, guided: tuple[float, float] = (0.0, 1.0), last: float = 0.04
    ) -> Schedule:
        """SDE sampling of SiT, as REPA publishes it: Euler-Maruyama with g^2 = 2t.

        The network predicts ``n - x0`` and is told t, from 0 to 1; so those of SiT's own code, with
        time running the other way, are turned round.

        Parameters
        ----------
        steps : int
            At equal distances from t = 1 to ``last``, whose step goes to 0 without noise.
        guided : (float, float)
            The interval of t in which guidance counts, ``guidance_low`` and ``guidance_high``.
        last : float

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        return cls(**flow.repa(steps, last, guided))

    @classmethod
    def sde(
        cls,
        kind: str = "vp",
        steps: int = 250,
        stochasticity: Stochasticity = 1.0,
        train_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 2e-2,
    ) -> Schedule:
        """Euler-Maruyama of the reverse-time SDEs with one stochasticity (supplement, Eq. 33-39).

        All of them have the data's marginals as steps grow. The last transition returns the
        predicted image, without noise, as :meth:`ddpm`'s does.

        Parameters
        ----------
        kind : {"vp", "linear"}
            ``"vp"`` is for networks that predict the noise of a DDPM, at the timesteps of
            :meth:`ddpm`. ``"linear"`` is for flow matching, ``x = (1 - t) x0 + t n`` with noise
            ``n``: the network predicts the velocity ``n - x0``, and is called at
            ``round(linspace(train_steps, 0, steps + 1))`` but the last, with
            ``t = timestep / train_steps``.
        steps : int
            2 .. ``train_steps``.
        stochasticity : float or array_like of float, shape [steps]
            eps >= 0 of Eq. 37: 0 is the ODE, which can be sampled but not speculated; 1 is the
            reverse of the forward process. For ``"linear"``, whose g is unbounded at ``t = 1``,
            Eq. 39 is corrected: see :func:`free.schedule.sde.linear`.
        train_steps : int
        beta_start, beta_end : float
            See :meth:`ddpm`; of ``"vp"`` alone.

        Raises
        ------
        ValueError
            If an argument is out of its range.
        """
        if kind == "vp":
            plain = cls.ddpm(steps, train_steps, beta_start, beta_end)
            amount = amounts(stochasticity, len(plain))
            return cls(plain.timesteps, *sde.vp(plain.signal, amount))
        if kind != "linear":
            raise ValueError(f"kind must be 'vp' or 'linear', got {kind!r}")
        steps, train_steps = _steps(steps, train_steps)
        grid = np.round(np.linspace(train_steps, 0, steps + 1))
        columns = sde.linear(grid / train_steps, amounts(stochasticity, steps))
        return cls(grid[:-1].astype(np.int64), *columns)


def _steps(steps: int, train_steps: int) -> tuple[int, int]:
    """Both as Python's integers; a ValueError if they are none, or out of their range."""
    expected = f"train_steps must be an integer in 2..{LONGEST}"
    most = as_integer(train_steps, expected, 2, LONGEST)
    expected = f"steps must be an integer in 2..train_steps ({most})"
    return as_integer(steps, expected, 2, most), most
