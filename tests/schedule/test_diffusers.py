"""Schedulers of diffusers as schedules: configurations, laws by name, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from free import Schedule, SequentialSampler, SpeculativeSampler
from free.schedule import Clipping
from free.schedule.diffusers import ddpm_config
from tests.networks import CallableDrafter, MixtureTeacher

PLAIN = {"clip_sample": False}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _class(name: str) -> Any:
    return getattr(pytest.importorskip("diffusers"), name)


def _same(one: Schedule, other: Schedule, rtol: float = 1e-6) -> None:
    for name in ("timesteps", "a", "b", "c", "sigma", "image", "signal", "noise", "input_scale"):
        found, expected = getattr(one, name), getattr(other, name)
        assert (found is None) == (expected is None), name
        if found is not None:
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9, err_msg=name)
    assert one.clipping == other.clipping
    assert one.start == pytest.approx(other.start)


def test_a_configuration_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDPM is read by our own grids, in float64; the others say what is missing."""
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    schedule = Schedule.from_scheduler({}, 50)
    assert schedule.clipping == Clipping(1.0)
    np.testing.assert_array_equal(schedule.timesteps, np.arange(50)[::-1] * 20)
    plain = Schedule.from_scheduler(ddpm_config(), 50)
    assert plain.key() == Schedule.ddpm(50).key()
    config = {"_class_name": "PNDMScheduler", "beta_schedule": "linear", "skip_prk_steps": True}
    assert Schedule.from_scheduler(config, 50, "ddpm").clipping is None
    for arguments in (({"_class_name": "LCMScheduler"}, 4), (config, 4, "euler-ancestral")):
        with pytest.raises(ValueError, match=r"needs diffusers to be a .*pip install"):
            Schedule.from_scheduler(*arguments)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"timestep_spacing": "linspace", "beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "steps_offset": 1},
        {"thresholding": True, "sample_max_value": 2.0, "beta_schedule": "sigmoid"},
        {"timestep_spacing": "trailing", "variance_type": "fixed_large", "clip_sample_range": 3.0},
        {"timestep_spacing": "trailing", "variance_type": "fixed_large_log", **PLAIN},
    ],
)
def test_a_configuration_is_its_scheduler(config: dict) -> None:
    zero = config.get("rescale_betas_zero_snr", False)  # which diffusers computes in float32
    own, theirs = (
        Schedule.from_scheduler(scheduler, 40)
        for scheduler in (config, _class("DDPMScheduler")(**config))
    )
    _same(own, theirs, rtol=2e-3 if zero else 1e-9)


def test_trailing_grids_are_those_of_diffusers_or_refused() -> None:
    config = {"clip_sample": False, "timestep_spacing": "trailing"}
    scheduler = _class("DDPMScheduler")(**config)
    refused = 0
    for steps in range(2, 1001, 7):
        scheduler.set_timesteps(steps)
        expected = scheduler.timesteps.tolist()
        for each in (config, scheduler) if steps % 5 == 0 else (config,):
            if len(expected) == steps and expected[-1] >= 0:
                assert Schedule.from_scheduler(each, steps).timesteps.tolist() == expected
                continue
            refused += 1
            with pytest.raises(ValueError, match="steps .* timestep_spacing='trailing'"):
                Schedule.from_scheduler(each, steps)
    assert refused > 1


def test_a_last_step_with_noise_is_sampled_with_it() -> None:
    """fixed_large on a grid that ends above 0: both samplers draw the last noise."""
    config = {**PLAIN, "timestep_spacing": "trailing", "variance_type": "fixed_large"}
    schedule = Schedule.from_scheduler(config, 10)
    skipped = np.linspace(1e-4, 2e-2, 1000)[:100]
    assert schedule.sigma[-1] == pytest.approx(np.sqrt(1 - np.prod(1 - skipped)), rel=1e-12)
    teacher = MixtureTeacher(4)
    plain = SequentialSampler(teacher, schedule).sample([0, 1], 3).samples
    sampler = SpeculativeSampler(teacher, CallableDrafter(teacher), schedule, 4, recycle="reuse")
    torch.testing.assert_close(sampler.sample([0, 1], 3).samples, plain, rtol=1e-3, atol=1e-3)
    quiet = Schedule.from_betas(np.linspace(1e-4, 2e-2, 1000), schedule.timesteps, "upper")
    quiet = SequentialSampler(teacher, quiet).sample([0, 1], 3).samples
    assert (quiet - plain).abs().max() > 0.01


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V = {"prediction_type": "v_prediction"}
ONE = {"set_alpha_to_one": False}  # as PNDMScheduler has it
OFFSET = {"timestep_spacing": "leading", "steps_offset": 1}


@pytest.mark.parametrize(
    ("scheduler", "config", "law", "relative", "changes"),
    [
        ("PNDMScheduler", SD | OFFSET, "ddpm", "DDPMScheduler", SD | OFFSET | PLAIN),
        ("DDIMScheduler", {}, "ddpm", "DDPMScheduler", {}),  # clipped as it is itself
        ("PNDMScheduler", SD | V, "ddim", "DDIMScheduler", SD | V | PLAIN | ONE),
        ("HeunDiscreteScheduler", SD | V, "euler-ancestral", "EulerAncestralDiscreteScheduler",
         SD | V | {"timestep_spacing": "linspace"}),
        ("DDPMScheduler", OFFSET, "sde-dpmsolver++", "DPMSolverMultistepScheduler",
         OFFSET | {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", SD | {"use_karras_sigmas": True, "solver_order": 3},
         "sde-dpmsolver++", "DPMSolverMultistepScheduler",
         SD | {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}),
        ("LCMScheduler", {}, "euler-ancestral", "EulerAncestralDiscreteScheduler",
         SD | {"timestep_spacing": "leading"}),  # with the betas of its own defaults
    ],
)  # fmt: skip
def test_another_law_for_the_same_network(
    scheduler: str, config: dict, law: str, relative: str, changes: dict
) -> None:
    given = _class(scheduler)(**config)
    eta = {"eta": 1.0} if law == "ddim" else {}
    expected = Schedule.from_scheduler(_class(relative)(**changes), 12, **eta)
    _same(Schedule.from_scheduler(given, 12, law), expected)
    _same(Schedule.from_scheduler({**given.config, "_class_name": scheduler}, 12, law), expected)


@pytest.mark.parametrize(
    ("scheduler", "config", "arguments"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, {"mu": 1.2}),
        ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, {}),
        ("LTXEulerAncestralRFScheduler", {}, {}),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "flow_shift": 3.0,
                                     "use_flow_sigmas": True}, {}),
    ],
)  # fmt: skip
def test_flow_laws_take_the_grid_of_any_flow_scheduler(
    scheduler: str, config: dict, arguments: dict
) -> None:
    given = _class(scheduler)(**config)
    schedule = Schedule.from_scheduler(given, 8, "cps", 0.5, **arguments)
    if "Heun" in scheduler:
        given = _class("FlowMatchEulerDiscreteScheduler")(**config)
    given.set_timesteps(8, **arguments)
    np.testing.assert_array_equal(schedule.timesteps, given.timesteps[:8].double())
    after = given.sigmas[1:].double().numpy()
    np.testing.assert_allclose(schedule.sigma, after * np.sin(np.pi / 4), rtol=1e-6)
    np.testing.assert_allclose(schedule.noise, given.sigmas[:8].double(), rtol=1e-6)


def test_another_law_where_a_configuration_leaves_things_out() -> None:
    """They are as that scheduler has them by default, not as the other has."""
    for name, betas in (("LCMScheduler", 0.00085), ("DDPMScheduler", 1e-4)):
        found = Schedule.from_scheduler({"_class_name": name}, 10, "euler-ancestral")
        end = 0.012 if name == "LCMScheduler" else 0.02
        kind = "scaled_linear" if name == "LCMScheduler" else "linear"
        config = {"beta_start": betas, "beta_end": end, "beta_schedule": kind}
        relative = _class("EulerAncestralDiscreteScheduler")
        spaced = relative(**config, timestep_spacing="leading")
        _same(found, Schedule.from_scheduler(spaced, 10))


def test_two_transitions_of_one_timestep() -> None:
    """Karras' levels are closer than whole timesteps."""
    scheduler = _class("DPMSolverMultistepScheduler")(
        algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    )
    schedule = Schedule.from_scheduler(scheduler, 100)
    assert (np.diff(schedule.timesteps) == 0).any()
    assert (schedule.sigma[:-1] > 0).all()
    teacher = MixtureTeacher(4)
    plain = SequentialSampler(teacher, schedule).sample([0, 1], 3).samples
    assert plain.isfinite().all()


def test_states_that_start_at_another_scale() -> None:
    """Ancestral Euler steps are DDPM's, of states scaled by sqrt(1 + sigma^2)."""
    config = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, **V}
    scheduler = _class("EulerAncestralDiscreteScheduler")(**config)
    schedule = Schedule.from_scheduler(scheduler, 10)
    scheduler.set_timesteps(10)
    assert schedule.start == pytest.approx(float(scheduler.init_noise_sigma)) == 4096.0
    plain = Schedule.from_scheduler({**config, **PLAIN}, 10)
    teacher = MixtureTeacher(4)
    one, other = (
        SequentialSampler(teacher, s).sample([0, 1], 3).samples for s in (schedule, plain)
    )
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    speculative = SpeculativeSampler(teacher, "frozen", schedule, 3)
    assert speculative.sample([0, 1], 3).samples.isfinite().all()


BETAS = r"pass law='ddpm', law='ddim', law='euler-ancestral' or law='sde-dpmsolver\+\+'"
NEAR = r"pass stochasticity=0.01 for images some 41 dB from its own .*"
FLOWS = r"pass law='renoise', law='flow-sde', law='cps' or law='dance'"


@pytest.mark.parametrize(
    ("scheduler", "config", "message"),
    [
        ("DDIMScheduler", {}, rf"got DDIMScheduler with eta=0: {NEAR}{BETAS}"),
        ("EulerDiscreteScheduler", {}, f"got EulerDiscreteScheduler: {NEAR}{BETAS}"),
        *(
            (f"{name}Scheduler", {}, rf"must be a stochastic one .* got {name}Scheduler: .*{BETAS}")
            for name in ("PNDM", "UniPCMultistep", "DEISMultistep", "LMSDiscrete")
        ),
        ("DPMSolverMultistepScheduler", {}, f"with algorithm_type='dpmsolver..': {NEAR}{BETAS}"),
        ("FlowMatchEulerDiscreteScheduler", {}, f"with stochastic_sampling=False: {NEAR}{FLOWS}"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
         f"got UniPCMultistepScheduler: .*{FLOWS}"),
        *(
            (f"{name}Scheduler", {}, f"network once a step, got {name}Scheduler, .* twice: .*{way}")
            for name, way in (("HeunDiscrete", BETAS), ("KDPM2Discrete", BETAS),
                              ("KDPM2AncestralDiscrete", BETAS), ("FlowMatchHeunDiscrete", FLOWS))
        ),
        ("IPNDMScheduler", {}, "got IPNDMScheduler: no other law of its network is known here"),
        ("TCDScheduler", {}, "must be one of DDPMScheduler, .* whose laws are known, got TCDSched"),
        ("DDPMScheduler", {"clip_sample_range": -1.0}, "clip_sample_range must be .* got -1.0"),
        ("LCMScheduler", {"clip_sample": True, "clip_sample_range": 0.0}, "clip_sample_range must"),
        ("DDPMScheduler", {"thresholding": True, "sample_max_value": 0.5}, "sample_max_value must"),
        ("DDPMScheduler", {"thresholding": True, "dynamic_thresholding_ratio": 1.5},
         r"dynamic_thresholding_ratio must be in \(0, 1\], got 1.5"),
        ("DDPMScheduler", {"prediction_type": "velocity"}, "prediction_type must be one of 'epsi"),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "sample"},
         "prediction_type must be one of 'epsilon', 'v_prediction' with .* got 'sample'"),
        ("DDPMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
         "prediction must not be 'epsilon' where no signal is left .*rescale_betas_zero_snr"),
        ("DDPMScheduler", {"variance_type": "learned_range"}, "type='learned_range', which"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
         "solver_order must be 1 or 2 .* got 3"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "solver_order": 2,
                                         "final_sigmas_type": "sigma_min"},
         r"algorithm_type must be 'sde-dpmsolver\+\+' with solver_order=2"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++",
                                         "variance_type": "learned"}, "variance_type must be None"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun",
                                         "use_karras_sigmas": True, "lower_order_final": False,
                                         "final_sigmas_type": "sigma_min"},
         "sigmas must fall .* with solver_type='heun', .* with final_sigmas_type='sigma_min'"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True, "invert_sigmas": True},
         "sigmas must not rise from step to step, got 0 and then 0.05"),
        ("FlowMatchLCMScheduler", {"scale_factors": [0.5]}, r"scale_factors must be None, .*0.5"),
        ("LTXEulerAncestralRFScheduler", {"eta": 0.0}, "eta and s_noise must be > 0 in an LTX"),
    ],
)  # fmt: skip
def test_what_cannot_be_speculated(scheduler: str, config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.from_scheduler(_class(scheduler)(**config), 20)


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (PLAIN, {"steps": 0}, r"steps \(num_inference_steps\) must be .* 1\.\.1000, got 0"),
        (PLAIN, {"steps": 1001}, r"in 1\.\.1000, got 1001"),
        (PLAIN, {"steps": 2.0}, r"got 2\.0"),
        (PLAIN, {"steps": None}, "steps must be given, or timesteps or sigmas, got none of them"),
        (PLAIN, {"stochasticity": 1.0}, "must be left out with a DDPMScheduler whose"),
        (ddpm_config({"beta_schedule": "linear"}) | {"_class_name": "PNDMScheduler"},
         {"stochasticity": 0.1}, "must be left out with PNDMScheduler, near which no .*='ddim'"),
        ({"_class_name": "DDIMScheduler", **PLAIN}, {"stochasticity": -0.1},
         "stochasticity must be finite and >= 0, got -0.1"),
        (FLOW, {"stochasticity": [0.1] * 19 + [np.nan]},
         "stochasticity must be finite and >= 0, got nan at step 19"),
        (FLOW, {"stochasticity": [0.1, 0.2]}, r"must be a number or one a transition \(20\), got"),
        (FLOW, {"stochasticity": "much"}, "stochasticity must be finite and >= 0, got 'much'"),
        (PLAIN, {"law": "heun"}, "law must be None or one of 'ddpm', .* got 'heun'"),
        (ddpm_config({"beta_schedule": "linear"}), {"law": "cps"},
         "law must be 'ddpm', .* for the network of a DDPMScheduler, got 'cps'"),
        (FLOW, {"law": "ddpm"}, "law must be 'renoise', .* for the network of a FlowMatchEul"),
        (FLOW, {"law": "cps", "stochasticity": 2.0}, "stochasticity must .* at most 1, with 'cps'"),
        (FLOW, {"law": "renoise", "stochasticity": 0.5}, "must be None with 'renoise'.* got 0.5"),
        (FLOW, {"law": "cps", "steps": 3, "sigmas": [0.2, 0.5, 0.1]}, "sigmas must not rise"),
        (FLOW, {"law": "cps", "steps": 2, "sigmas": [0.5, 0.1, 0.02]}, "same length as num"),
        ({"_class_name": "LTXEulerAncestralRFScheduler"}, {"steps": 3, "sigmas": [1.0, 0.5, 0.0]},
         "steps must be the 2 of the timesteps or sigmas, got 3"),
        (FLOW, {"law": "cps", "steps": 2, "sigmas": [0.5, 0.0]}, "sigmas must be > 0"),
        (FLOW, {"law": "cps", "steps": 1, "sigmas": [np.nan]}, "timesteps of a .* nan with 1"),
        ({"_class_name": "Mine"}, {}, "must be one of DDPMScheduler, .* got Mine"),
        ({"_class_name": "Mine", "shift": 1.0}, {"law": "cps"}, "must name a scheduler"),
        ({"_class_name": "DDIMScheduler", "clip_sample": True}, {"eta": 0.5},
         "use_clipped_model_output must be True where a DDIMScheduler clips x0"),
        ({"_class_name": "DDIMScheduler", **PLAIN}, {"eta": 9.0}, "eta must be at most .* got 9.0"),
        ({"final_sigma": 1}, {}, "must have keys of DDPMScheduler, got final_sigma, which may cha"),
        ({"beta_schedule": "cubic"}, {}, "beta_schedule must be 'linear', .* got 'cubic'"),
        ({"timestep_spacing": "even"}, {}, "timestep_spacing must be 'linspace', .* got 'even'"),
        ({"trained_betas": [0.1]}, {}, r"trained_betas must have .*\(1000\) entr"),
        ({"beta_start": -0.1}, {}, r"betas must be in \(0, 1\), got -0.1"),
        ({"num_train_timesteps": 2**40}, {"steps": 20}, r"num_train_timesteps must be"),
        ({"steps_offset": 60}, {}, r"steps_offset must leave .*\(1000\), got 60 with 20 steps"),
    ],
)  # fmt: skip
def test_bad_input(config: dict, arguments: dict, message: str) -> None:
    if config.get("_class_name", "DDPMScheduler") not in ("DDPMScheduler", "Mine"):
        pytest.importorskip("diffusers")
    with pytest.raises(ValueError, match=message):
        Schedule.from_scheduler(config, **{"steps": 20, **arguments})


def test_a_step_of_ones_own_is_not_taken_for_its_parents() -> None:
    class Mine(_class("DDPMScheduler")):
        pass

    assert len(Schedule.from_scheduler(Mine(), 5)) == 5  # only the name is its own
    Mine.step = lambda *arguments: None
    with pytest.raises(ValueError, match="must step as DDPMScheduler does, got Mine, whi"):
        Schedule.from_scheduler(Mine(), 5)
    assert len(Schedule.from_scheduler(Mine(), 5, "ddpm")) == 5  # whose step is ours
    with pytest.raises(ValueError, match="must be the scheduler itself, or .* with _class_name"):
        Schedule.from_scheduler(Mine().config, 5)  # which does not tell its class
    for wrong in (3, _class("DDPMScheduler")):
        with pytest.raises(TypeError, match="scheduler must be a scheduler of diffusers or"):
            Schedule.from_scheduler(wrong, 5)


def test_levels_that_were_set_by_hand_are_followed() -> None:
    given, other = _class("DDPMScheduler")(), _class("DDPMScheduler")(beta_end=0.015)
    given.alphas_cumprod = other.alphas_cumprod
    assert given.config.beta_end == 0.02
    _same(Schedule.from_scheduler(given, 50), Schedule.from_scheduler(other, 50), rtol=1e-2)
    plain = Schedule.from_scheduler(_class("DDPMScheduler")(), 50)
    assert abs(plain.sigma[0] - Schedule.from_scheduler(given, 50).sigma[0]) > 0.01


def test_ddpm_is_not_advised_where_there_are_no_betas() -> None:
    with pytest.raises(ValueError, match=r"needs a config with betas .* got FlowMatch.*flow-sde"):
        ddpm_config(FLOW)


def test_eta_is_called_stochasticity_with_a_law() -> None:
    for law in ("ddim", "cps"):
        with pytest.raises(
            ValueError, match=f"eta must be called stochasticity .* law='{law}', eta"
        ):
            Schedule.from_scheduler({"_class_name": "DDIMScheduler"}, 10, law=law, eta=0.5)
