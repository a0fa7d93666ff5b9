"""What a captured round launches; that it looks at no value is tried in test_device.py."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule
from free.models.guidance import Guidance
from free.rounds.round import Rounds
from free.rounds.row_selection import EveryRow
from free.sampling.assembly import Plan, assemble
from free.sampling.cuda_graphs.graphed_round import GraphedRound, State, first_round, window_round
from tests.networks import randomized

B, W, N = 3, 3, 20
SCHEDULE = Schedule.ddpm(N)
CPU = torch.device("cpu")
CONFIG = DiTConfig(8, 4, 4, 32, 1, 2, num_classes=3)
TEACHER = randomized(DiT(CONFIG))
DRAFTER = FeatureDrafter(randomized(DrafterNet(CONFIG)), TEACHER)


def rounds(**options: Any) -> Rounds:
    plan = Plan(teacher=TEACHER, schedule=SCHEDULE, drafter=DRAFTER, **options)
    rows = EveryRow(B, N, CPU)
    return assemble(plan, B, CPU, width=W, rows=rows, phase=lambda name: nullcontext())


def initial(rounds: Rounds) -> State:
    y, seeds, x = torch.tensor([0, 1, 2]), torch.tensor([4, 5, 6]), torch.randn(B, 4, 8, 8)
    return State.begin(rounds.begin(y, seeds, x), N)


VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "unsqueeze", "squeeze", "expand", "slice", "select", "transpose"),
        *("permute", "t", "detach", "alias", "split", "split_with_sizes", "unbind", "as_strided"),
        *("chunk", "empty", "empty_like", "new_empty", "empty_strided"),
    ]
)


class Launches(TorchDispatchMode):
    """Counts what torch would launch: every op but those that only look at memory differently."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.within_networks = 0, False

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op.__name__.split(".")[0] not in VIEWS and not self.within_networks
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("recycle", "sweeps", "most"),
    [("response", 1, 19), (False, 1, 18), (False, None, 41), (True, 2, 39)],
)
@torch.no_grad()
def test_a_round_launches_as_little_as_the_docs_say(recycle, sweeps, most, monkeypatch) -> None:
    launches = Launches()
    for network in (TEACHER, DRAFTER.network):
        forward = network.forward

        def quiet(*arguments: Any, forward: Any = forward) -> Any:
            launches.within_networks = True
            out = forward(*arguments)
            launches.within_networks = False
            return out

        monkeypatch.setattr(network, "forward", quiet)
    guidance = Guidance(1.5, None, 3)
    made = rounds(recycle=recycle, guidance=guidance)
    state = first_round(made, W)(initial(made))

    def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        with launches:
            work()
        return work

    GraphedRound(window_round(made, W, sweeps), state, capture)
    assert launches.count == most
