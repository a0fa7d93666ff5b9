"""What a pipeline is asked for: classes, generators, and what is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from free import DiT, FreePipeline
from tests.networks import randomized
from tests.pipelines import CONFIG, LABELS, generator, latents, pipeline, tiny_dit, tiny_vae


def test_each_image_has_its_own_generator() -> None:
    pipe = pipeline()
    options = {"num_inference_steps": 4, "output_type": "latent"}
    both = pipe(LABELS, generator=[generator(8), generator(9)], **options).images
    alone = pipe([LABELS[1]], generator=[generator(9)], **options).images
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)
    assert (both[0] - both[1]).abs().max() > 0.1
    # One for all serves them in turn.
    one = pipe(LABELS, generator=generator(8), **options).images
    torch.testing.assert_close(one[0], both[0], rtol=1e-3, atol=1e-3)
    first, second = (pipe(LABELS, generator=(g := generator(8)), **options) for _ in range(2))
    assert torch.equal(first.images, second.images)
    again = pipe(LABELS, generator=g, **options).images  # it has moved on
    assert (again - one).abs().max() > 0.1
    torch.manual_seed(4)
    free_run = pipe(LABELS, **options)
    torch.manual_seed(4)
    assert torch.equal(pipe(LABELS, **options).images, free_run.images)
    assert pipe(LABELS, **options).report.seeds != free_run.report.seeds


def test_seeds_have_64_bits() -> None:
    pipe = pipeline()
    seeds = latents(pipe, [0] * 64, num_inference_steps=1).report.seeds
    assert len(set(seeds)) == 64
    assert min(seeds) < -(2**61)
    assert max(seeds) > 2**61


def test_labels_are_ids_and_names() -> None:
    pipe = pipeline()
    assert pipe.labels["golden retriever"] == 207
    assert pipe.get_label_ids("golden retriever") == [207]
    assert pipe.get_label_ids(["tench", "goldfish"]) == [0, 1]
    named = latents(pipe, [3, "golden retriever"], num_inference_steps=2).images
    for labels in (
        [3, 207],
        (3, 207),
        torch.tensor([3, 207]),
        np.array([3, 207]),
        [np.int64(3), 207],
    ):
        assert torch.equal(latents(pipe, labels, num_inference_steps=2).images, named)
    one = latents(pipe, "tench", num_inference_steps=2).images
    assert torch.equal(latents(pipe, 0, num_inference_steps=2).images, one)
    null = latents(pipe, [1000], num_inference_steps=2, guidance_scale=1.0)
    assert null.images.isfinite().all()


def test_a_model_without_a_null_class_is_not_guided() -> None:
    network = randomized(DiT(dataclasses.replace(CONFIG, null_class=False)))
    pipe = FreePipeline(network)
    pipe.set_progress_bar_config(disable=True)
    assert latents(pipe, num_inference_steps=2, guidance_scale=1.0).images.isfinite().all()
    with pytest.raises(ValueError, match="cfg_scale must be 1, no guidance, .* got 4.0"):
        latents(pipe)
    with pytest.raises(ValueError, match=r"class_labels must be in 0\.\.999, got 1000"):
        latents(pipe, [1000], guidance_scale=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_labels": ["goldfsh"]}, "got 'goldfsh': did you mean 'goldfish'?"),
        ({"class_labels": [0, 1001]}, r"in 0\.\.999 or 1000 \(the null class\), got 1001"),
        ({"class_labels": []}, "class_labels must be at least one class, got none"),
        ({"class_labels": [0.5]}, "class_labels must be ids or names of classes, got 0.5"),
        ({"class_labels": [True]}, "class_labels must be ids or names of classes, got True"),
        ({"guidance_scale": "4"}, "guidance_scale must be a finite number, got '4'"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number, got nan"),
        ({"generator": [generator()]}, r"generator must have one for each image \(2\), got 1"),
        ({"generator": 5}, "generator must be a torch.Generator, a list .* or None, got 5"),
        ({"num_inference_steps": 0}, r"\(num_inference_steps\) must be an integer in 1\.\.1000"),
        ({"num_inference_steps": 2.5}, r"\(num_inference_steps\) must be an integer in .* got 2.5"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, latent, got 'jpg'"),
    ],
)
def test_bad_requests_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline()(**{"class_labels": LABELS, "num_inference_steps": 2, **arguments})


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent channels of the samples, \[4, 8, 8\], got 3"):
        FreePipeline(tiny_dit(), tiny_vae(latent_channels=3))
    with pytest.raises(TypeError, match="vae must be an AutoencoderKL, got DiT"):
        FreePipeline(tiny_dit(), tiny_dit())
    without = FreePipeline(tiny_dit())
    with pytest.raises(ValueError, match=r"vae must be given for samples of shape \[4, 8, 8\]"):
        without(LABELS, num_inference_steps=2)
    without.set_progress_bar_config(disable=True)
    assert latents(without).images.shape == (2, 4, 8, 8)
    pipe = pipeline()
    pipe.sampling["sweep"] = 1
    with pytest.raises(ValueError, match=r"sampling must have keys among window, .* got \['sweep"):
        pipe(LABELS, num_inference_steps=2)
    pipe.sampling = 5
    with pytest.raises(ValueError, match="sampling must be a dict with keys among .* got 5"):
        pipe(LABELS, num_inference_steps=2)
