"""The network of a pipeline: found, listened to, and asked about other rows.

It is listened to by torch's own hooks. The module stays what and where it is, so that saving,
moving, offloading, adapters and compiled modules go on working; what hooks inside it see are the
rows that it is really asked about.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

#: Attributes of pipelines that hold the network.
ATTRIBUTES = ("transformer", "unet")
#: Components that make the network's arguments of each state, or another network of it.
_REFUSED = {
    "controlnet": "its residuals are computed from the state of each step, outside of the network",
    "transformer_2": "the pipeline changes its network on the way",
    "unet_2": "the pipeline changes its network on the way",
}
#: Arguments without a row for each sample, whatever their length.
UNBATCHED = frozenset({"txt_ids", "img_ids", "image_rotary_emb", "rotary_embedding", "rotary_emb"})

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Listener(Protocol):
    """What happens around the calls of a network; ``arguments`` are positional and named ones."""

    def asked(self, arguments: Arguments) -> Arguments | None:
        """What to call it with instead; None for what it was called with."""

    def answered(self, output: Any) -> Any:
        """What the pipeline is to be told instead of this output."""


def find_network(pipe: Any) -> nn.Module:
    """The one network that a pipeline calls in its loop.

    Raises ValueError, naming the pipeline's class, if there is none, or it is not alone.
    """
    kind = type(pipe).__name__
    for name, reason in _REFUSED.items():
        if getattr(pipe, name, None) is not None:
            raise ValueError(
                f"pipe must be a pipeline without {name} to be enabled, got {kind}: {reason}; call "
                "it without free.enable, or use one that has no such part"
            )
    found = [name for name in ATTRIBUTES if isinstance(getattr(pipe, name, None), nn.Module)]
    if len(found) != 1:
        raise ValueError(
            f"pipe must have one network, {' or '.join(ATTRIBUTES)}, got {kind} with "
            f"{' and '.join(found) if found else 'none'}"
        )
    return getattr(pipe, found[0])


def refuse_caching(network: nn.Module) -> None:
    """Raise ValueError if outputs of the network depend on its earlier calls.

    That is, if one of diffusers' hooks inside of it keeps something from call to call.
    """
    registries = (getattr(module, "_diffusers_hook", None) for module in network.modules())
    hooks = [hook for registry in registries if registry for hook in registry.hooks.values()]
    kept = [type(hook).__name__ for hook in hooks if getattr(hook, "_is_stateful", False)]
    if kept or getattr(network, "is_cache_enabled", False):
        raise ValueError(
            f"{type(network).__name__} must not cache what it computed at earlier steps, which is "
            f"neither exact nor row by row, got {kept[0] if kept else 'a cache'}: call "
            "disable_cache() on it before free.enable, or remove the hook"
        )


class Network:
    """A network whose calls are listened to between :meth:`attach` and :meth:`detach`.

    ``listener`` returns who listens at the moment, or None.
    """

    def __init__(self, module: nn.Module, listener: Callable[[], Listener | None]) -> None:
        self.module = module
        self._listener = listener
        self._inner = getattr(module, "_orig_mod", module)  # that of torch.compile
        parameters = inspect.signature(type(self._inner).forward).parameters
        self._names = list(parameters)[1:]
        self._handles: list[Any] = []
        self._own = False

    @property
    def kind(self) -> str:
        """Its class's name."""
        return type(self._inner).__name__

    @property
    def config(self) -> Any:
        """Its configuration, a mapping."""
        return self._inner.config

    def attach(self) -> None:
        """Begin to listen. Our hooks see a call before, and its output after, all others."""
        before, after = partial(_before, self), partial(_after, self)
        self._handles = [
            self.module.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
            self.module.register_forward_hook(after),
        ]

    def detach(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def named(self, arguments: Arguments) -> dict[str, Any]:
        """The arguments by name, in the order of the call."""
        args, kwargs = arguments
        names = self._names[: len(args)]
        names += [f"argument {place}" for place in range(len(names), len(args))]
        return {**dict(zip(names, args, strict=True)), **kwargs}

    def __call__(self, arguments: Arguments) -> Any:
        """Call it for ourselves: nobody listens."""
        args, kwargs = arguments
        self._own = True
        try:
            return self.module(*args, **kwargs)
        finally:
            self._own = False

    def __reduce__(self) -> tuple[Any, ...]:
        # What is saved or copied with the module belongs to no pipeline that is enabled.
        return _Deaf, ()


class _Deaf:
    """Listens to no module."""

    _own = True


# Were they traced, a compiled module would be compiled anew for every state of a run.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _before(network: Network, module: nn.Module, args: Any, kwargs: Any) -> Arguments | None:
    listener = None if network._own else network._listener()
    return None if listener is None else listener.asked((args, kwargs))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _after(network: Network, module: nn.Module, args: Any, output: Any) -> Any:
    listener = None if network._own else network._listener()
    return None if listener is None else listener.answered(output)


def with_values(arguments: Arguments, values: dict[str, Any]) -> Arguments:
    """Arguments with other ``values``, those of :meth:`Network.named`, in its order."""
    args, kwargs = arguments
    made = list(values.values())
    return tuple(made[: len(args)]), dict(zip(kwargs, made[len(args) :], strict=True))
