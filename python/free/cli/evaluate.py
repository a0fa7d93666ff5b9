"""``free evaluate``: quality of a set of images beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import options
from free.devices import MOST_THREADS
from free.evaluation import Quality
from free.evaluation import quality as measure_quality
from free.evaluation.image_stream import open_images
from free.files import parse_json, write_json


def evaluate(
    samples: Annotated[
        str, typer.Argument(help="A folder of images, or an .npz of free generate or ADM.")
    ],
    reference: Annotated[
        str, typer.Argument(help="Another such set, or mnist or emoji: what those models learnt.")
    ],
    *,
    features: Annotated[
        str,
        typer.Option(
            help="inception:PATH, for FID, sFID and Inception Score; efficientnet, digits or emoji "
            "for figures of the same formulas that are none of those. auto: digits for 28x28 grey "
            "images, else efficientnet."
        ),
    ] = "auto",
    accuracy: Annotated[
        bool | None,
        typer.Option(
            help="Count the samples whose class the network names as SAMPLES' arr_1 says. "
            "Default: for digits."
        ),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(help="Nearest neighbours of precision and recall.")
    ] = 3,
    keep_reference: Annotated[
        Path | None,
        typer.Option(
            help="Write the measured reference to this .safetensors, to give as REFERENCE again."
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Bootstrap resamples for the intervals; 0 for none.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images a call of the network.")] = 64,
    device: options.Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads.")] = 1,
    json_path: options.Figures = None,
) -> None:
    """Measure SAMPLES beside REFERENCE: Frechet distance, score, precision, recall.

    Each with a 95 % interval. Only with Inception's usual weights are they called FID, sFID and
    Inception Score.

    Examples
    --------
    `free evaluate samples.npz mnist`

    `free evaluate samples.npz VIRTUAL_imagenet256_labeled.npz
    --features inception:pt_inception-2015-12-05-6726825d.pth --device cuda`

    `free evaluate drawn/ real/ --features efficientnet --json -`
    """
    options.check_outputs(json=json_path)
    place = options.parse_device(device)
    torch.set_num_threads(threads)
    images = open_images(samples, "samples")
    if accuracy is None:
        auto = features == "auto" and images.shape == (28, 28, 1)
        labels = images.labels
        are_digits = labels is not None and 0 <= labels.min() <= labels.max() < 10
        accuracy = are_digits and (auto or features == "digits")
    result = measure_quality(
        images,
        reference,
        features,
        labels="archive" if accuracy else None,
        neighbours=neighbours,
        resamples=resamples,
        seed=seed,
        batch_size=batch_size,
        device=place,
        keep_reference=keep_reference,
        progress=True,
    )
    for line in _describe(result, samples, reference):
        typer.echo(line)
    if json_path is not None:
        record = {"paths": {"samples": samples, "reference": reference}}
        write_json(json_path, record | parse_json(result.to_json()))


def _describe(result: Quality, samples: str, reference: str) -> list[str]:
    """The figures in plain words."""
    beside = f"{result.reference} of {reference}"
    if result.published:
        beside += ", whose own statistics serve the distances"
    lines = [f"{result.samples} images of {samples} beside {beside}; {result.features} features"]
    lines += [f"{name}: {text}" for name, text in result.left_out.items()]
    width = max(len(result.title(name)) for name in result.figures)
    for name, figure in result.figures.items():
        interval = "" if figure.low is None else f"  [{figure.low:.4g}, {figure.high:.4g}]"
        lines.append(f"  {result.title(name):{width}s}  {figure.value:9.4g}{interval}")
    if not result.is_inception:
        lines.append("None of these is FID, sFID or Inception Score: those are Inception's.")
    return lines
