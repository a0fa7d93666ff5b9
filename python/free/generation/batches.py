"""Drawing many images with one sampler, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from free.images.autoencoder import LatentCoder, PixelCoder
from free.rounds.report import Report
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler


def draw_batches(
    sampler: SpeculativeSampler | SequentialSampler,
    coder: LatentCoder | PixelCoder,
    labels: Sequence[int],
    seed: int,
    batch_size: int,
    title: str | None,
) -> tuple[Tensor, Report]:
    """Images [n, C, H, W] on the CPU and the merged report of all batches, under one progress bar.

    Label ``i`` is drawn with seed ``seed + i``; the coder makes images of samples. ``title`` is of
    the bar; None shows none.
    """
    parts, reports = [], []
    total = len(sampler.schedule) * len(labels)
    with tqdm(total=total, desc=title, unit="step", disable=title is None) as bar:
        for start in range(0, len(labels), batch_size):
            batch = labels[start : start + batch_size]
            samples, report = sampler.sample(batch, seed + start, progress=bar.update)
            parts.append(coder.decode(samples).cpu())
            reports.append(report)
    return torch.cat(parts), Report.merge(reports)
