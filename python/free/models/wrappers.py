"""What torch.compile, parallel training and quantising make of a network, taken off or refused."""

from __future__ import annotations

import re

from torch import Tensor, nn

#: What they put into the names of weights.
_NAMES = re.compile(r"(?<![^.])(?:_orig_mod|module)\.")


def strip_wrappers(name: str) -> str:
    """A weight's name without what torch.compile and parallel training put into it."""
    return _NAMES.sub("", name)


def unwrap(network: nn.Module) -> nn.Module:
    """The network that torch.compile, DataParallel or DistributedDataParallel was given."""
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(compiled := network._modules.get("_orig_mod"), nn.Module):
            network = compiled
        else:
            return network


def plain_state(network: nn.Module, argument: str = "network") -> dict[str, Tensor]:
    """A network's weights by their names, whatever wraps it or its blocks; shared, not copied.

    Raises ValueError, which names ``argument``, if they are no plain floating-point tensors.
    """
    state = {}
    for name, value in unwrap(network).state_dict().items():
        if type(value) is not Tensor or not value.is_floating_point():
            got = str(value.dtype) if type(value) is Tensor else type(value).__name__
            raise ValueError(
                f"{argument} must have plain floating-point weights, got {name} of {got}: take "
                "the network from before it was quantised or sharded"
            )
        state[strip_wrappers(name)] = value.detach()
    return state
