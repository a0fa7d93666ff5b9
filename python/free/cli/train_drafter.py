"""``free train-drafter``: a drafter for a DiT of one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from free.cli import training
from free.cli.training import parse_duration, tell_of_first_weights, training_run

__all__ = ["train_drafter"]

_DATA, _RECIPE, _EVALUATION, _MACHINE = "Data", "Recipe", "Evaluation", "Machine"
_FOLDER = "Run folder"

#: What a drafter is saved to draft with, and evaluated by besides the paper's way with
#: --evaluate-recycling.
_RECOMMENDED = {"window": 16, "sweeps": 1, "recycle": "response"}


def train_drafter(
    out: Annotated[Path, typer.Option(help="Folder that gets drafter/ and training/drafter/.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Teacher: mnist, a checkpoint's file or folder, or a hub id. Default: OUT/teacher."
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Length: 12000 (batches), or 120epochs.")] = "12000",
    data: Annotated[
        str,
        typer.Option(
            help="mnist, or a folder of images: root/class/*.jpeg, or one with labels.csv.",
            rich_help_panel=_DATA,
        ),
    ] = "mnist",
    vae: Annotated[
        str | None,
        typer.Option(
            help="VAE of a teacher of latents, a folder: stabilityai/sd-vae-ft-ema's.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    subset: Annotated[
        float | None,
        typer.Option(
            help="Share of the images; default 0.3 of a folder, the paper's.", rich_help_panel=_DATA
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the crop; default: the teacher's.", rich_help_panel=_DATA),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the images.", rich_help_panel=_DATA)
    ] = False,
    upscale: Annotated[
        bool,
        typer.Option(
            "--upscale", help="Enlarge small images, not skip them.", rich_help_panel=_DATA
        ),
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            help="What it is trained for: free, or paper. The flags below change single fields.",
            rich_help_panel=_RECIPE,
        ),
    ] = "free",
    sampling_steps: Annotated[
        int | None,
        typer.Option(help="Length of the schedule to be sampled.", rich_help_panel=_RECIPE),
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(
            help="Of the second teacher pass: sampling, or unit (one timestep).",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    feature_weight: Annotated[
        float | None, typer.Option(help="lambda_f.", rich_help_panel=_RECIPE)
    ] = None,
    smooth_weight: Annotated[
        float | None, typer.Option(help="lambda_s; 0.01 at 512 pixels.", rich_help_panel=_RECIPE)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="L_noise: mse (the paper's), delta or delta_squared.", rich_help_panel=_RECIPE
        ),
    ] = None,
    rollout: Annotated[
        int | None,
        typer.Option(
            help="Transitions drafted from one teacher pass; paper: 1.", rich_help_panel=_RECIPE
        ),
    ] = None,
    fed: Annotated[
        str | None,
        typer.Option(help="Where they start: teacher, own or sweeps.", rich_help_panel=_RECIPE),
    ] = None,
    sweeps: Annotated[
        int | None,
        typer.Option(
            help="With --fed sweeps: drafter calls for a window.", rich_help_panel=_RECIPE
        ),
    ] = None,
    times: Annotated[
        str | None,
        typer.Option(help="Of the first pass: uniform, or rejections.", rich_help_panel=_RECIPE),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale of guided targets; 1 for none.", rich_help_panel=_RECIPE),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Blocks of the drafter.", rich_help_panel=_RECIPE)
    ] = None,
    gate: Annotated[
        bool | None,
        typer.Option("--gate/--no-gate", help="Gated drafter.", rich_help_panel=_RECIPE),
    ] = None,
    batch_size: training.BatchSize = 128,
    learning_rate: training.LearningRate = 1e-4,
    warmup: training.Warmup = 0,
    decay: training.Decay = "constant",
    ema_decay: training.EmaDecay = 0.9999,
    seed: training.Seed = 0,
    evaluate_every: Annotated[
        str | None,
        typer.Option(
            help="Measure parallel efficiency every so many batches, or epochs: 30epochs.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    evaluate_images: Annotated[
        int, typer.Option(min=1, help="Images drawn for it.", rich_help_panel=_EVALUATION)
    ] = 50,
    evaluate_window: Annotated[
        int, typer.Option(min=2, help="Its window, W.", rich_help_panel=_EVALUATION)
    ] = 8,
    evaluate_cfg: Annotated[
        float, typer.Option(help="Its guidance scale.", rich_help_panel=_EVALUATION)
    ] = 1.5,
    evaluate_recycling: Annotated[
        bool,
        typer.Option(
            "--evaluate-recycling",
            help="Also with one sweep, recycling and a window of 16.",
            rich_help_panel=_EVALUATION,
        ),
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            help="Which drafter goes to OUT/drafter: best (by evaluation) or last.",
            rich_help_panel=_EVALUATION,
        ),
    ] = "best",
    device: training.TrainDevice = "auto",
    precision: training.Precision = "fp32",
    micro_batch: training.MicroBatch = None,
    gradient_checkpointing: training.Checkpointing = False,
    compile_teacher: Annotated[
        bool,
        typer.Option(
            "--compile", help="torch.compile the frozen teacher.", rich_help_panel=_MACHINE
        ),
    ] = False,
    threads: training.Threads = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Refuse to begin anew: there must be a checkpoint to go on from.",
            rich_help_panel=_FOLDER,
        ),
    ] = False,
    save_every: training.SaveEvery = 500,
    log_every: training.LogEvery = 100,
    tensorboard: training.TensorBoard = True,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", help="File for the final record.", rich_help_panel=_FOLDER),
    ] = None,
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

    `free train-drafter --model mnist --out runs/own --recipe paper --objective delta --rollout 3
    --steps 3000 --learning-rate 1e-3 --decay cosine --ema-decay .999`

    `torchrun --nproc-per-node 4 -m free train-drafter --recipe paper --model DiT-XL-2-256x256.pt
    --vae sd-vae --data imagenet/train --out runs/xl --steps 120epochs --batch-size 256
    --precision bf16 --evaluate-every 30epochs`
    """
    from free.files import check_writable, digest, write_json
    from free.models.dit import DiT
    from free.models.drafter import DrafterNet
    from free.models.summary import inspect
    from free.training.dataset.open import open_images
    from free.training.drafter_score import DrafterEvaluation
    from free.training.losses import ForwardProcess, drafter_loss
    from free.training.randomness import RowRandom
    from free.training.recipe import recipe_named
    from free.training.run_folder import FILE
    from free.training.trainer import TrainConfig, train

    run = out / "training" / "drafter"
    with training_run(device, threads) as ranks:
        if keep not in ("best", "last"):
            raise ValueError(f"--keep must be best or last, got {keep!r}")
        if resume and not (run / FILE).is_file():
            raise ValueError(f"--resume needs a checkpoint to go on from, got none in {run}")
        if json_path is not None:
            check_writable(json_path, "--json")
        chosen = recipe_named(
            recipe,
            sampling_steps=sampling_steps,
            stride=stride,
            feature_weight=feature_weight,
            smooth_weight=smooth_weight,
            objective=objective,
            rollout=rollout,
            fed=fed,
            sweeps=sweeps,
            times=times,
            guidance=guidance,
            depth=depth,
            gate=gate,
        )
        source = out / "teacher" if model is None else model
        teacher = DiT.from_pretrained(source, device=ranks.device)
        images = open_images(
            data,
            teacher,
            vae,
            subset,
            seed=seed,
            image_size=image_size,
            flip=flip,
            upscale=upscale,
            device=ranks.device,
        )
        config = TrainConfig(
            steps=parse_duration(steps, batch_size, len(images), "--steps"),
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup=warmup,
            decay=decay,
            ema_decay=ema_decay,
            precision=precision,
            seed=seed,
            micro_batch=micro_batch,
            gradient_checkpointing=gradient_checkpointing,
            save_every=save_every,
            log_every=log_every,
            evaluate_every=None
            if evaluate_every is None
            else parse_duration(evaluate_every, batch_size, len(images), "--evaluate-every"),
        )
        tell_of_first_weights(config, ranks)
        torch.manual_seed(seed)
        drafter = DrafterNet(teacher.config, chosen.depth, chosen.gate)
        drafter.initialize_from(teacher)
        # Its weights stay float32 whatever the precision: in bfloat16 its residual stream would be
        # too, and what the drafter learns from would be further off than autocast makes it.
        if compile_teacher:
            teacher.compile()
        process = ForwardProcess()

        def loss(
            network: Any, x0: torch.Tensor, labels: torch.Tensor, random: RowRandom
        ) -> dict[str, torch.Tensor]:
            return drafter_loss(network, teacher, process, x0, labels, random, chosen)

        evaluation = DrafterEvaluation(
            teacher,
            chosen.sampling_steps,
            evaluate_images,
            evaluate_window,
            evaluate_cfg,
            recommended=_RECOMMENDED if evaluate_recycling else None,
        )
        network, record = train(
            drafter,
            loss,
            images,
            config,
            run,
            ranks=ranks,
            evaluate=evaluation if evaluate_every else None,
            extra={**dataclasses.asdict(chosen), "teacher": digest(inspect(source).path)},
            tensorboard=tensorboard,
        )
        if not ranks.first:
            return
        assert isinstance(network, DrafterNet)
        which = ""
        if "best" in record and keep == "best":
            best = record["best"]
            network = DrafterNet.from_pretrained(run / "best")
            which = (
                f", the best of the run: step {best['step']:.0f}, "
                f"parallel efficiency {best['parallel_efficiency']:.2f}"
            )
        network.save_pretrained(
            out / "drafter", dtype=torch.float16, training=record, sampling=_RECOMMENDED
        )
        if json_path is not None:
            write_json(json_path, record)
    seconds = record["seconds"]
    typer.echo(f"drafter saved to {out / 'drafter'} after {seconds:.0f} s of training{which}")
    typer.echo(f"next: free tune --model {source} --drafter {out / 'drafter'} --save")
