"""What every engine offers: run one graph on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from free.engines.interface import Contract

__all__ = ["Session"]


class Session(Protocol):
    """One graph, ready to run.

    Attributes
    ----------
    contract : Contract
    device : torch.device
        Where inputs are and outputs come.
    """

    contract: Contract
    device: torch.device

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Parameters
        ----------
        inputs : mapping of str to Tensor
            As the contract says, on ``device``.

        Returns
        -------
        dict of str to Tensor
            The outputs, in memory of their own.

        Raises
        ------
        ValueError
            If an input is not as agreed.
        """
