"""What the builders of tiny pipelines share: the record, parts of diffusers, and embeddings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

#: Steps of a tiny pipeline's call.
STEPS = 4
#: Width of every tiny text embedding.
WIDTH = 16
#: Tokens of a tiny prompt.
TOKENS = 6


class Tiny(NamedTuple):
    """A pipeline of diffusers with tiny random networks, and what to call it with.

    Attributes
    ----------
    pipe : diffusers.DiffusionPipeline
        An instance of the real class; its networks' weights are the same each time.
    arguments : dict
        ``pipe(**arguments)`` runs: several prompts as embeddings, guided, few steps, latents
        where the pipeline can return them. No generator is among them.
    note : str
        What is special about the pipeline's loop.
    """

    pipe: Any
    arguments: dict[str, Any]
    note: str


#: Builds a tiny pipeline whose arguments ask for so many prompts.
Builder = Callable[[int], Tiny]


def part(name: str, **config: Any) -> Any:
    """An instance of diffusers' class of that name.

    Raises
    ------
    ImportError
        If this diffusers has no such class, or lacks the library that it needs, as most pipelines
        need transformers: says what to install.
    """
    import diffusers

    needed = f"free.pipeline.tiny needs diffusers' {name}"
    try:
        found = getattr(diffusers, name)
    except AttributeError as error:
        version = diffusers.__version__
        raise ImportError(f"{needed}, which {version} lacks: pip install -U diffusers") from error
    if backends := getattr(found, "_backends", None):  # a stand-in for a class it cannot import
        libraries = " ".join(library for library in backends if library != "torch")
        raise ImportError(f"{needed}: pip install 'free-dit[diffusers]' {libraries}")
    return found(**config)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw new weights from a seed, and leave torch's own generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def network(name: str, seed: int = 0, gain: float = 1.0, **config: Any) -> Any:
    """A network of diffusers with random weights of a seed, ready for inference.

    Parameters
    ----------
    name : str
        The class; errors as :func:`part`.
    seed : int
        Of the weights.
    gain : float
        Multiplies all matrices: in narrow networks, fresh weights may hide the prompt or the
        timestep from the output.
    **config
        The network's configuration.
    """
    with seeded(seed):
        built = part(name, **config).eval().requires_grad_(False)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.mul_(gain)
    return built


def tiny(pipe: Any, note: str, **arguments: Any) -> Tiny:
    """The record of a pipeline, with the arguments that nearly all of them share."""
    pipe.set_progress_bar_config(disable=True)
    shared = {"num_inference_steps": STEPS, "output_type": "latent"}
    return Tiny(pipe, shared | arguments, note)


def absent(*names: str) -> dict[str, None]:
    """Components that a pipeline goes without."""
    return dict.fromkeys(names)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    """Standard normal numbers of a seed, ``shape`` float32: embeddings, pictures."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def embeddings(prompts: int, seed: int = 1, tokens: int = TOKENS) -> torch.Tensor:
    """Embeddings of prompts, ``[prompts, tokens, WIDTH]`` float32, no two the same."""
    return normal(prompts, tokens, WIDTH, seed=seed)


def masks(prompts: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """Masks of prompts of two lengths, ``[prompts, TOKENS]``: every other one is shorter."""
    lengths = TOKENS - torch.arange(prompts, device="cpu", dtype=torch.int64) % 2
    return (torch.arange(TOKENS, device="cpu", dtype=torch.int64) < lengths[:, None]).to(dtype)


def guided(prompts: int) -> dict[str, torch.Tensor]:
    """Embeddings of prompts and of negative prompts, by their usual names."""
    return {
        "prompt_embeds": embeddings(prompts),
        "negative_prompt_embeds": embeddings(prompts, seed=2),
    }


def masked(prompts: int) -> dict[str, torch.Tensor]:
    """Embeddings with their masks, by their usual names."""
    return guided(prompts) | {
        "prompt_attention_mask": masks(prompts),
        "negative_prompt_attention_mask": masks(prompts),
    }


def pooled(prompts: int) -> dict[str, torch.Tensor]:
    """Pooled embeddings, ``[prompts, WIDTH]``, by their usual names."""
    return {
        "pooled_prompt_embeds": normal(prompts, WIDTH, seed=3),
        "negative_pooled_prompt_embeds": normal(prompts, WIDTH, seed=4),
    }
