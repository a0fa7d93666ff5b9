"""The training loop, and a run that survives being killed.

Knows neither what is trained nor on which images: losses, data and evaluations are handed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from free.devices import allocated, explain_out_of_memory
from free.training.config import TrainConfig
from free.training.dataset.sets import TrainingImages
from free.training.evaluations import Evaluate
from free.training.journal import Journal, check_stored
from free.training.parallel import Ranks
from free.training.precision import choose_precision, products_in
from free.training.randomness import RowRandom
from free.training.run_folder import RunFolder
from free.training.weights import Weights, recomputed

__all__ = ["Loss", "TrainConfig", "train"]

#: ``loss(model, x0 [R, C, H, W], labels [R], random)``: means over the rows, among them "loss".
Loss = Callable[[Any, Tensor, Tensor, RowRandom], dict[str, Tensor]]


def train(
    model: nn.Module,
    loss: Loss,
    data: TrainingImages,
    config: TrainConfig,
    folder: str | Path,
    *,
    ranks: Ranks | None = None,
    evaluate: Evaluate | None = None,
    extra: dict[str, Any] | None = None,
    former: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    progress: bool = True,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train ``model`` in place and return its averaged copy.

    Everything random in a step, and which images it sees, are functions of the seed, the step and
    the row in the batch of all ranks. So a run that was killed continues from its last checkpoint
    to the same end, and neither the number of ranks nor the size of micro-batches matters, beyond
    rounding.

    Parameters
    ----------
    model : nn.Module
        Its trainable weights float32.
    loss : callable
        ``loss(model, x0 [R, C, H, W], labels [R], random)`` returns scalars, means over the rows,
        among them ``"loss"``; all that is random comes from ``random``, of these rows.
    data : TrainingImages
    config : TrainConfig
    folder : str or Path
        Of the run, seen by all ranks: ``state.pt`` (the checkpoint), ``config.json``, ``log.csv``,
        ``loss.png``, ``skipped.json``; with evaluations ``evaluations.csv``, ``evaluations.json``
        and ``best/``. A checkpoint of the same settings is continued.
    ranks : Ranks, optional
        This process among those of the run; alone on the CPU by default.
    evaluate : callable, optional
        ``evaluate(model, ranks) -> dict``, called on all ranks with the averaged weights, every
        ``config.evaluate_every`` steps and at the end, in float32; the best is kept by its
        ``parallel_efficiency``, of those whose ``images``, ``window``, ``cfg_scale`` and
        ``cfg_channels`` are the last one's. The model must then have
        ``save_pretrained(folder, training=)``.
    extra : dict, optional
        What else the result depends on (settings of the loss, what was started from), as JSON
        values; kept in the record and compared when a run is continued.
    former : mapping, optional
        Settings that only former versions had, with the values that this version stands for: a
        run that was begun with these can go on.
    tensorboard : bool
        Whether to write TensorBoard's events too, to ``tensorboard/``.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    model : nn.Module
        The averaged weights, in evaluation mode.
    record : dict
        The settings with the precision that was taken, seconds of training, losses of the log's
        last line and the best evaluation.

    Raises
    ------
    ValueError
        If ``folder`` is in use, its checkpoint is damaged or of another run, or batch, micro-batch
        and ranks do not divide each other.
    FloatingPointError
        If the loss or a gradient is not finite; nothing is saved of what comes after.
    OSError
        If a checkpoint cannot be written; the one before is still there.
    torch.OutOfMemoryError
        If a step does not fit the GPU's memory; says what would need less.
    """
    ranks, run = ranks or Ranks(), RunFolder(Path(folder))
    passes = ranks.rows(config.batch_size, config.micro_batch)
    with ExitStack() as closing:
        if ranks.first:
            closing.enter_context(run.locked())
        weights = Weights(model, config, ranks)
        state = run.read_checkpoint()
        stored = None if state is None else state["settings"].get("precision")
        precision = choose_precision(config.precision, ranks, stored)
        chosen = dataclasses.replace(config, precision=precision.name)
        extras = {**(extra or {}), "data": data.record}
        record = {**dataclasses.asdict(chosen), **extras}
        settings = {**chosen.decisive(), **extras}  # a run continues only with the same
        if state is not None:
            run.require_same(state, settings, model, former or {})
        step = 0 if state is None else state["step"]
        if not ranks.equal(step):
            raise ValueError(
                f"folder must be seen by all processes, got {run.path} at different steps"
            )
        if step > config.steps:
            raise ValueError(
                f"steps must be at least the {step} made in {run.path}, got {config.steps}"
            )
        if state is not None:
            with run.restoring():
                weights.load(state["weights"])
                check_stored(state["journal"])
        autocast = closing.enter_context(products_in(precision.name, ranks.device))
        closing.enter_context(recomputed(model, config.gradient_checkpointing))
        journal = Journal(
            run.path,
            config,
            ranks,
            images=len(data),
            step=step,
            stored=state and state["journal"],
            tensorboard=tensorboard,
            progress=progress,
        )
        closing.callback(journal.close)
        del state

        def due(every: int | None) -> bool:
            return every is not None and (step % every == 0 or step == config.steps)

        def save() -> None:
            skipped, notes = ranks.collect(data.skipped), journal.state(step)
            if ranks.first:
                run.note_skipped(skipped)
                state = {"settings": settings, "step": step, "journal": notes}
                run.write_checkpoint({**state, "weights": weights.state()})

        def evaluate_if_due() -> None:
            if evaluate is None or not due(config.evaluate_every) or journal.evaluated(step):
                return
            journal.evaluation(step, evaluate, weights.average, record)
            save()
            journal.publish()

        if config.precision == "auto":
            journal.tell(f"precision {precision.name}: {precision.reason}")
        if ranks.first:
            run.begin(record, step, ranks, f"{precision.name}: {precision.reason}")
        if step:
            evaluate_if_due()  # of a run that was killed while it evaluated
        while step < config.steps:
            with explain_out_of_memory(partial(_out_of_memory, chosen, ranks, len(passes[0]))):
                weights.clear()
                parts = []
                for rows in passes:
                    x0, labels = data.batch(
                        config.seed, step, rows, config.batch_size, ranks.device
                    )
                    with autocast():
                        random = RowRandom(config.seed, step, rows, ranks.device)
                        values = loss(model, x0, labels, random)
                    (values["loss"] / (len(passes) * ranks.world)).backward()
                    parts.append(values)
                journal.step(parts, weights.update(config.rate(step)))
            step += 1
            if due(config.log_every):
                journal.line(step)
            # An evaluation takes minutes, and may be what fails: the steps before it are safe.
            if due(config.save_every) or (evaluate is not None and due(config.evaluate_every)):
                save()
            evaluate_if_due()
        record |= journal.summary()
        if ranks.first:
            run.finish(record)
    ranks.wait()  # for the files of the first
    return weights.average, record


def _out_of_memory(config: TrainConfig, ranks: Ranks, rows: int) -> str:
    """What did not fit the memory, and what would need less."""
    less = ["a smaller micro_batch"]
    less += [] if config.gradient_checkpointing else ["gradient_checkpointing"]
    less += [] if config.precision == "bf16" else ["precision bf16"]
    return (
        f"out of memory in a training step of {config.batch_size} images in {ranks.world} "
        f"process{'es' * (ranks.world > 1)}, {rows} a pass, {allocated(ranks.device)}. "
        f"{' or '.join(less).capitalize()} needs less."
    )
