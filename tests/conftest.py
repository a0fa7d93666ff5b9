"""One thread, fixed seeds: the same numbers in every run, whatever else the machine does."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
