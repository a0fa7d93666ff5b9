"""``free train-drafter``: a drafter for a DiT of one's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import training
from free.cli.options import JSON_HELP
from free.cli.records import with_records

_recipe, _evaluation = map(training.options_of, ("Recipe", "Evaluation"))

#: What a drafter is saved to draft with, and evaluated by besides the paper's way with
#: --evaluate-recycling.
_RECOMMENDED = {"window": 16, "sweeps": 1, "recycle": "response"}


@dataclass(frozen=True)
class _Data(training.Images):
    subset: Annotated[
        float | None,
        training.images_option("Share of the images; default 0.3 of a folder, the paper's."),
    ] = None


@dataclass(frozen=True)
class _Recipe:
    """A recipe, and the fields of it that are changed."""

    recipe: Annotated[
        str,
        _recipe("What it is trained for: free, or paper. The flags below change single fields."),
    ] = "free"
    sampling_steps: Annotated[int | None, _recipe("Length of the schedule to be sampled.")] = None
    feature_weight: Annotated[float | None, _recipe("lambda_f.")] = None
    smooth_weight: Annotated[float | None, _recipe("lambda_s; 0.01 at 512 pixels.")] = None
    objective: Annotated[str | None, _recipe("L_noise: mse (the paper's), or delta.")] = None
    depth: Annotated[int | None, _recipe("Blocks of the drafter.")] = None
    gate: Annotated[bool | None, _recipe("Gated drafter.", "--gate/--no-gate")] = None


@dataclass(frozen=True)
class _Optimiser(training.Optimiser):
    warmup: Annotated[int, training.optimiser_option("Batches over which the rate rises.")] = 0
    decay: Annotated[str, training.optimiser_option("Of the rate: constant or cosine.")] = (
        "constant"
    )


@dataclass(frozen=True)
class _Evaluation:
    """How drafters are measured while they are trained, and which one is the result."""

    evaluate_every: Annotated[
        str | None,
        _evaluation("Measure parallel efficiency every so many batches, or epochs: 30epochs."),
    ] = None
    evaluate_images: Annotated[int, _evaluation("Images drawn for it.", min=1)] = 50
    evaluate_window: Annotated[int, _evaluation("Its window, W.", min=2)] = 8
    evaluate_cfg: Annotated[float, _evaluation("Its guidance scale.")] = 1.5
    evaluate_recycling: Annotated[
        bool,
        _evaluation("Also with one sweep, recycling and a window of 16.", "--evaluate-recycling"),
    ] = False
    keep: Annotated[
        str, _evaluation("Which drafter goes to OUT/drafter: best (by evaluation) or last.")
    ] = "best"


@dataclass(frozen=True)
class _Machine(training.Machine):
    gradient_checkpointing: Annotated[
        bool,
        training.machine_option(
            "Compute the trained blocks' activations twice instead of keeping them.",
            "--gradient-checkpointing",
        ),
    ] = False
    compile_teacher: Annotated[
        bool, training.machine_option("torch.compile the frozen teacher.", "--compile")
    ] = False


@dataclass(frozen=True)
class _Folder:
    """What is kept of a run, and how often."""

    resume: Annotated[
        bool,
        training.folder_option(
            "Refuse to begin anew: there must be a checkpoint to go on from.", "--resume"
        ),
    ] = False
    save_every: Annotated[int, training.folder_option("Batches between checkpoints.")] = 500
    log_every: Annotated[int, training.folder_option("Batches a line of log.csv.")] = 100
    tensorboard: training.TensorBoard = True
    json_path: Annotated[Path | None, training.folder_option(JSON_HELP, "--json")] = None


@with_records
def train_drafter(
    *,
    out: Annotated[Path, typer.Option(help="Folder that gets drafter/ and training/drafter/.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Teacher: mnist, a checkpoint's file or folder, or a hub id. Default: OUT/teacher."
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Length: 12000 (batches), or 120epochs.")] = "12000",
    data: _Data,
    recipe: _Recipe,
    optimiser: _Optimiser,
    evaluation: _Evaluation,
    machine: _Machine,
    folder: _Folder,
) -> None:
    """Train a drafter for a frozen DiT, by our recipe or the paper's as far as we know it.

    The supplement does not tell all of it; docs/recipes.md lists where `--recipe paper` differs.
    The run lives in `OUT/training/drafter`: checkpoint, settings, `log.csv`, `loss.png`,
    evaluations. A run that was stopped, or killed, goes on from its last checkpoint when the same
    command is given again; on more or fewer processes too.

    Examples
    --------
    `free train-drafter --model mnist --out runs/mnist --steps 3000 --learning-rate 1e-3
    --decay cosine --ema-decay .999 --evaluate-every 500`

    `free train-drafter --model mnist --out runs/own --recipe paper --objective delta --steps 3000
    --learning-rate 1e-3 --decay cosine --ema-decay .999`

    `torchrun --nproc-per-node 4 -m free train-drafter --recipe paper --model DiT-XL-2-256x256.pt
    --vae sd-vae --data imagenet/train --out runs/xl --steps 120epochs --batch-size 256
    --evaluate-every 30epochs`
    """
    from free.files import check_writable, digest, write_json
    from free.models.dit import DiT
    from free.models.drafter import DrafterNet
    from free.models.summary import inspect
    from free.training.dataset.open import open_images
    from free.training.drafter_score import DrafterEvaluation
    from free.training.losses import drafter_loss
    from free.training.recipe import FORMER_FIELDS, recipe_named
    from free.training.run_folder import RunFolder
    from free.training.trainer import train

    run = RunFolder(out / "training" / "drafter")
    with training.training_run(machine) as ranks:
        if evaluation.keep not in ("best", "last"):
            raise ValueError(f"--keep must be best or last, got {evaluation.keep!r}")
        if folder.resume and not run.checkpoint.is_file():
            raise ValueError(f"--resume needs a checkpoint to go on from, got none in {run.path}")
        if folder.json_path is not None:
            check_writable(folder.json_path, "--json")
        changes = asdict(recipe)
        terms = recipe_named(changes.pop("recipe"), **changes)
        source = out / "teacher" if model is None else model
        teacher = DiT.from_pretrained(source, device=ranks.device)
        images = open_images(
            data.data,
            teacher,
            data.vae,
            data.subset,
            seed=optimiser.seed,
            image_size=data.image_size,
            flip=data.flip,
            upscale=data.upscale,
            device=ranks.device,
        )
        training.tell_of_left_out(images, ranks)

        def batches(text: str, option: str) -> int:
            return training.parse_duration(text, optimiser.batch_size, len(images), option)

        every = evaluation.evaluate_every
        config = training.train_config(
            batches(steps, "--steps"),
            optimiser,
            machine,
            gradient_checkpointing=machine.gradient_checkpointing,
            save_every=folder.save_every,
            log_every=folder.log_every,
            evaluate_every=None if every is None else batches(every, "--evaluate-every"),
        )
        training.tell_of_first_weights(config, ranks)
        torch.manual_seed(config.seed)
        with torch.device("cpu"):  # first weights do not depend on the default
            drafter = DrafterNet(teacher.config, terms.depth, terms.gate)
        drafter.initialize_from(teacher)
        # Its weights stay float32 whatever the precision: in bfloat16 its residual stream would be
        # too, and what the drafter learns from would be further off than autocast makes it.
        if machine.compile_teacher:
            teacher.compile()
        evaluate = DrafterEvaluation(
            teacher,
            terms.sampling_steps,
            evaluation.evaluate_images,
            evaluation.evaluate_window,
            evaluation.evaluate_cfg,
            recommended=_RECOMMENDED if evaluation.evaluate_recycling else None,
        )
        network, record = train(
            drafter,
            partial(drafter_loss, teacher=teacher, recipe=terms),
            images,
            config,
            run.path,
            ranks=ranks,
            evaluate=evaluate if every else None,
            extra={**asdict(terms), "teacher": digest(inspect(source).path)},
            former=FORMER_FIELDS,
            tensorboard=folder.tensorboard,
        )
        if not ranks.first:
            return
        assert isinstance(network, DrafterNet)
        which = ""
        if "best" in record and evaluation.keep == "best":
            best = record["best"]
            network = DrafterNet.from_pretrained(run.path / "best")
            which = (
                f", the best of the run: step {best['step']:.0f}, "
                f"parallel efficiency {best['parallel_efficiency']:.2f}"
            )
        network.save_pretrained(
            out / "drafter", dtype=torch.float16, training=record, sampling=_RECOMMENDED
        )
        if folder.json_path is not None:
            write_json(folder.json_path, record)
    seconds = record["seconds"]
    typer.echo(f"drafter saved to {out / 'drafter'} after {seconds:.0f} s of training{which}")
    vae = "" if data.vae is None else f" --vae {data.vae}"
    typer.echo(f"next: free tune --model {source} --drafter {out / 'drafter'}{vae} --save")
