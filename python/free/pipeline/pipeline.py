"""The speculative sampler behind the interface of diffusers' ``DiTPipeline``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers import ImagePipelineOutput
from diffusers.utils.pil_utils import numpy_to_pil
from torch import Tensor, nn
from tqdm import tqdm

from free.drafters import Drafter
from free.images.labels import class_ids, imagenet_names, label_table
from free.models.adopt import adopt_transformer
from free.models.dit import DiT
from free.pipeline import arguments
from free.pipeline import folder as pipeline_folder
from free.pipeline.parts import Parts
from free.pipeline.scheduler import as_scheduler, schedule_of
from free.pipeline.words import missing_call, read_words
from free.rounds.report import Report
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule

_OUTPUT_TYPES = ("pil", "np", "pt", "latent")
#: ``callback(pipe, step, timestep, {"latents": ...})``.
StepCallback = Callable[["FreePipeline", int, int, dict[str, Any]], Any]


@dataclass
class FreePipelineOutput(ImagePipelineOutput):
    """What a pipeline returns: PIL images, an ndarray or a Tensor, and the report of the run."""

    images: Any
    report: Report | None = None


class FreePipeline(Parts):
    """Class-conditional images from a DiT, by speculative sampling.

    Parameters
    ----------
    transformer : DiT
        The teacher; any other teacher with ``sample_shape`` will do, and diffusers'
        ``DiTTransformer2DModel``, which is adopted with its constants.
    vae : diffusers.AutoencoderKL, optional
        None for models of pixels.
    scheduler : optional
        A stochastic scheduler of diffusers or its configuration, or the name of a law, see
        :meth:`free.Schedule.from_scheduler`; a :class:`free.Schedule`, or a function that makes one
        of a number of steps; or ``"ddpm"``, DiT's own sampler, which None is too.
    drafter : Drafter, str or Path, optional
        A drafter, or where one is saved; ``"frozen"``, which None is too, needs no training.
    id2label : mapping, optional
        Names of the classes, comma-separated, by id. Those of ImageNet by default for models of
        1000 classes.
    cfg_channels : int, optional
        How many leading channels are guided; all by default, as in diffusers, 3 for the original
        DiT's figures.

    Attributes
    ----------
    transformer, drafter, cfg_channels
        As given; may be changed.
    coder : LatentCoder or PixelCoder
        Turns latents into images; ``coder.slice_size`` of them at a time.
    labels : dict of str to int
        The names and their classes, as in ``DiTPipeline``.
    sampling : dict
        ``window``, ``sweeps``, ``recycle``, ``verifier`` and ``tolerance`` of
        :class:`free.SpeculativeSampler`; at first what the drafter recommends. ``{"window": 1}`` is
        the plain sampler.

    Raises
    ------
    ValueError, TypeError
        If a part is not what it should be, does not fit the others, or cannot be speculated.
    """

    def __init__(
        self,
        transformer: DiT,
        vae: Any = None,
        scheduler: Any = None,
        drafter: Drafter | str | Path | None = None,
        id2label: Mapping[int, str] | Mapping[str, str] | None = None,
        cfg_channels: int | None = None,
    ) -> None:
        super().__init__(transformer, vae, scheduler, drafter)
        self.sampling: dict[str, Any] = dict(getattr(self.drafter, "sampling", {}))
        self._interrupt = False
        if id2label is None and getattr(self.transformer, "num_classes", None) == 1000:
            id2label = imagenet_names()
        self.labels = label_table(id2label or {})
        self.cfg_channels = cfg_channels
        self._progress_bar_config: dict[str, Any] = {}

    @property
    def interrupt(self) -> bool:
        """Whether the run is to end: a callback that sets ``pipe._interrupt`` ends it."""
        return self._interrupt

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(missing_call(name))

    def _sampler_of(self, schedule: Schedule, cfg_scale: float) -> SpeculativeSampler:
        """The last one, if it is to do the same: it keeps what it has captured and measured."""
        settings = arguments.sampler_settings(self.sampling)
        settings |= {"cfg_scale": cfg_scale, "cfg_channels": self.cfg_channels}
        key = arguments.sampler_key((self.transformer, self.drafter), schedule, settings)
        latest = self._latest  # another thread may set it meanwhile
        if latest is None or latest[0] != key:
            sampler = SpeculativeSampler(self.transformer, self.drafter, schedule, **settings)
            self._latest = latest = key, sampler
        return latest[1]

    def set_progress_bar_config(self, **config: Any) -> None:
        """Options of tqdm for the progress bar, such as ``disable=True``."""
        self._progress_bar_config = config

    def get_label_ids(self, label: str | Sequence[str]) -> list[int]:
        """Ids of classes by their names, of which ``labels`` has all.

        A ValueError suggests the nearest where there is no such name.
        """
        return class_ids([label] if isinstance(label, str) else label, self.labels)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | Tensor,
        guidance_scale: float = 4.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_inference_steps: int = 250,
        output_type: str = "pil",
        return_dict: bool = True,
        *,
        callback_on_step_end: StepCallback | None = None,
    ) -> FreePipelineOutput | tuple[Any]:
        """Draw one image per label.

        Parameters
        ----------
        class_labels : int, str, or sequence of both, or Tensor of int, shape [B]
            Classes by id or by name.
        guidance_scale : float
            Classifier-free guidance; at most 1 is none.
        generator : torch.Generator or sequence of B of them, optional
            Each image's noise comes from one 64-bit seed, drawn from its generator: from its own
            if there is one for each, else from the one, in turn, or from torch's global one.
        num_inference_steps : int
            Transitions, 1 .. those of the training.
        output_type : {"pil", "np", "pt", "latent"}
            ``"np"`` is [B, H, W, C] and ``"pt"`` [B, C, H, W], both float32 in [0, 1]; ``"latent"``
            is what the VAE would be given, times its scale.
        return_dict : bool
            False returns the tuple ``(images,)``.
        callback_on_step_end : callable, optional
            ``callback(pipe, step, timestep, {"latents": [B, ...]})`` after every round. A round is
            several steps, and each image is at its own: ``step`` is the last one that all images
            have behind them, and ``timestep`` its timestep. Latents that are changed or returned
            otherwise are refused: they would change the law. One that sets ``pipe._interrupt`` ends
            the run: the images are of unfinished states, and there is no report.

        Returns
        -------
        FreePipelineOutput
            ``images`` and the ``report``.

        Raises
        ------
        ValueError
            If an argument is not what it should be; names it.
        FloatingPointError
            If a network returns NaN or inf.
        """
        if output_type not in _OUTPUT_TYPES:
            raise ValueError(
                f"output_type must be one of {', '.join(_OUTPUT_TYPES)}, got {output_type!r}"
            )
        if output_type != "latent":
            self.coder.require_fit(self.transformer.sample_shape)
        labels = arguments.classes(class_labels, self.transformer, self.labels)
        schedule = schedule_of(self.scheduler, num_inference_steps)
        sampler = self._sampler_of(schedule, arguments.cfg_scale(guidance_scale))
        seeds = arguments.seeds(generator, len(labels))
        observer = None
        if callback_on_step_end is not None:
            observer = arguments.observer(callback_on_step_end, self, schedule)
        self._interrupt = False
        report: Report | None
        with tqdm(total=len(labels) * len(schedule), **self._progress_bar_config) as bar:
            try:
                samples, report = sampler.sample(
                    labels, seeds, progress=bar.update, observer=observer
                )
            except arguments.Interrupted as interrupted:
                samples, report = interrupted.states, None
        images = samples if output_type == "latent" else self._images(samples, output_type)
        return FreePipelineOutput(images, report) if return_dict else (images,)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        drafter: Drafter | str | Path | None = None,
        vae: Any = None,
        scheduler: Any = None,
        torch_dtype: torch.dtype | None = None,
        constants: str | None = None,
        cfg_channels: int | None = None,
        **words: Any,
    ) -> FreePipeline:
        """Load a pipeline, or a model and what belongs to it.

        Parameters
        ----------
        source : str or Path
            A diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/``), a folder of
            :meth:`save_pretrained`, or any teacher's checkpoint (:func:`free.load_pretrained`).
        drafter : Drafter, str or Path, optional
            By default the folder's own, and frozen where there is none.
        vae : AutoencoderKL, str or Path, optional
            A VAE, or its folder or hub id; by default the folder's own. None is there for models
            of pixels.
        scheduler : optional
            As for the constructor; by default the folder's own, and DiT's where there is none.
            ``"ddpm"`` is DiT's sampler with the betas of the folder's own scheduler.
        torch_dtype : torch.dtype, optional
            Of the networks; float32 by default.
        constants : {"original", "diffusers"}, optional
            Of the teacher; see :meth:`free.DiT.from_pretrained`.
        cfg_channels : int, optional
            As for the constructor.
        **words
            Other words of diffusers: ``variant``, ``revision``, ``token``, ``cache_dir``,
            ``local_files_only``, ``force_download``, ``use_safetensors=True``, and ``dtype`` for
            ``torch_dtype``. ``variant`` and ``revision`` are the source's, the others also those of
            a drafter's or VAE's own hub id.

        Raises
        ------
        ValueError
            If a part is missing, damaged or does not fit, the scheduler cannot be speculated, or a
            word of diffusers does not work here; says what does.
        """
        parts = pipeline_folder.read(
            source,
            read_words(words, torch_dtype),
            drafter=drafter,
            vae=vae,
            scheduler=scheduler,
            constants=constants,
        )
        sampling = parts.pop("sampling")
        if cfg_channels is not None:
            parts["cfg_channels"] = cfg_channels
        pipe = cls(**parts)
        pipe.sampling.update(sampling)
        return pipe

    @classmethod
    def from_pipe(
        cls,
        pipeline: Any,
        *,
        drafter: Drafter | str | Path | None = None,
        scheduler: Any = None,
        constants: str | None = None,
    ) -> FreePipeline:
        """A pipeline of the parts of a ``diffusers.DiTPipeline``.

        Its VAE and most of its transformer's weights are shared, not copied. The scheduler is by
        default the pipeline's own, whose betas ``"ddpm"``, DiT's sampler, takes too. The other
        parameters are those of the constructor and of :meth:`from_pretrained`.

        Raises
        ------
        ValueError
            If the transformer is no DiT, or the scheduler cannot be speculated.
        """
        if not isinstance(getattr(pipeline, "transformer", None), nn.Module):
            raise ValueError(f"pipeline must be a DiTPipeline, got {type(pipeline).__name__}")
        pipe = cls(
            adopt_transformer(pipeline.transformer, constants),
            getattr(pipeline, "vae", None),
            as_scheduler(scheduler, getattr(pipeline, "scheduler", None)),
            drafter,
        )
        pipe.labels = dict(getattr(pipeline, "labels", {})) or pipe.labels
        return pipe

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all parts to a folder; :meth:`from_pretrained` reads them back.

        The folder is a bundle: its ``teacher/`` and ``drafter/`` load by themselves too.

        Raises
        ------
        ValueError
            If a part is none that can be saved: a teacher, drafter or scheduler of one's own.
        """
        pipeline_folder.write(
            folder, self.components, self.labels, self.sampling, self.cfg_channels
        )

    def _images(self, samples: Tensor, output_type: str) -> Any:
        images = (self.coder.decode(samples) / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).cpu().numpy()
        return array if output_type == "np" else numpy_to_pil(array)
