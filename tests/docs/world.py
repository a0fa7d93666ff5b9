"""The files that the docs speak of, all of them small."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from free import DiT, DiTConfig, DrafterNet
from free.models.sigma import SigmaNet
from tests.networks import randomized
from tests.pipelines import DDIM, tiny_dit, tiny_vae
from tests.training.dataset.folders import class_folders, picture

#: The embedded model's shape, and less of it.
DIGITS = DiTConfig(28, 14, 1, 16, 1, 2, num_classes=10, learn_sigma=False)
#: Of published width, so that the original's format says how many heads; latents of 8 x 8.
PUBLISHED = DiTConfig(8, 4, 4, 384, 1, 6)
SIT = dataclasses.replace(PUBLISHED, prediction="velocity", reversed_time=True)
#: Of pixels in colour.
OWN = DiTConfig(8, 4, 3, 16, 1, 2, num_classes=2, learn_sigma=False)


def build(folder: Path) -> None:
    """Make the files, whose names are those of the docs."""
    vae = tiny_vae()
    for name in (
        "stabilityai/sd-vae-ft-ema",
        "sd-vae-ft-ema",
        "sd-vae",
        "facebook/DiT-XL-2-256/vae",
    ):
        vae.save_pretrained(folder / name)
    published = mild(randomized(DiT(PUBLISHED)))
    for name in ("DiT-XL-2-256x256.pt", "SiT-XL-2-256x256.pt"):
        published.save_pretrained(folder / name, "original")
    projector = {"projectors.0.0.bias": torch.zeros(4)}
    torch.save({**published.state_dict(), **projector}, folder / "last.pt")
    mild(randomized(DiT(SIT))).save_pretrained(folder / "sit-xl")
    published.save_pretrained(folder / "dit-xl")
    published.save_pretrained(folder / "dit-xl-diffusers", "diffusers")
    for name in ("my-drafter", "runs/xl-256/drafter"):
        mild(randomized(DrafterNet(PUBLISHED), 7)).save_pretrained(folder / name)
    tiny_dit().save_pretrained(folder / "facebook/DiT-XL-2-256/transformer", "diffusers")
    scheduler = folder / "facebook/DiT-XL-2-256/scheduler"
    scheduler.mkdir()
    (scheduler / "scheduler_config.json").write_text(json.dumps(DDIM))
    for name, config in (
        ("digits", DIGITS), ("MODEL", DIGITS), ("OUT", DIGITS), ("runs/first", DIGITS),
        ("runs/model", DIGITS), ("my-dit", OWN),
    ):  # fmt: skip
        mild(randomized(DiT(config))).save_pretrained(folder / name / "teacher")
        mild(randomized(DrafterNet(config), 7)).save_pretrained(
            folder / name / "drafter", sampling={"window": 4, "sweeps": 1, "recycle": "response"}
        )
    SigmaNet(1, 2).save_pretrained(folder / "runs/sigma")
    class_folders(folder / "images", classes=2)
    class_folders(folder / "glyphs", classes=3)
    class_folders(folder / "photos", classes=2)
    for old, new in (("c0", "cat"), ("c1", "dog")):
        (folder / "photos" / old).rename(folder / "photos" / new)
    named = mild(randomized(DiT(OWN)))
    named.save_pretrained(folder / "runs/photos/teacher", training=_trained_on("cat", "dog"))
    glyphs = dataclasses.replace(OWN, image_size=32, num_classes=101, learn_sigma=True)
    mild(randomized(DiT(glyphs))).save_pretrained(folder / "runs/emoji/teacher")
    train = folder / "imagenet/train"
    train.mkdir(parents=True)
    lines = ["file,label"]
    for index in range(4):
        picture(80, 70, seed=index).save(train / f"{index}.jpeg")
        lines.append(f"{index}.jpeg,{index}")
    (train / "labels.csv").write_text("\n".join(lines) + "\n")
    for name, seed in (("samples", 0), ("reference", 1)):
        labels = np.arange(130) % 10
        noise = np.random.default_rng(seed).integers(0, 256, (130, 28, 28, 1), np.uint8)
        np.savez(folder / f"{name}.npz", arr_0=noise, arr_1=labels)
        pictures = folder / {"samples": "drawn", "reference": "real"}[name]
        pictures.mkdir()
        for index in range(3):
            picture(28, 28, seed=index + seed).save(pictures / f"{index}.png")


def _trained_on(*classes: str) -> dict[str, Any]:
    """A record of training, on a folder with these classes."""
    return {"data": {"classes": list(classes)}}


def mild(network: DiT) -> DiT:
    """So that some drafts are accepted, and images stay finite."""
    for weight in network.parameters():
        weight.data *= 0.5
    return network


def copy(world: Path, folder: Path) -> None:
    """Give a test files of its own: links, which what it writes replaces."""
    shutil.copytree(world, folder, copy_function=os.link, dirs_exist_ok=True)
