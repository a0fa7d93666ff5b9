"""Which feature network a name means."""

from __future__ import annotations

import torch

from free.evaluation.efficientnet import EfficientNetFeatures, efficientnet_path
from free.evaluation.features import EMBEDDED, ClassifierFeatures, FeatureNetwork
from free.evaluation.inception import InceptionFeatures, inception_path


def load_network(
    features: str | FeatureNetwork, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """Make a feature network.

    Parameters
    ----------
    features : str or FeatureNetwork
        "inception:PATH", or "inception" where the file is where pytorch-fid puts it;
        "efficientnet"; "digits" or "emoji", the classifiers of the embedded models; or "auto":
        digits for 28x28 images of one channel, else efficientnet. A network itself is returned.
    shape : tuple of int
        (H, W, C) of the images.
    device : torch.device or str

    Raises
    ------
    ValueError
        If there is no such network, its weights are missing or damaged, or the images do not fit.
    ImportError
        If its weights are in a package that is not installed.
    """
    if not isinstance(features, str):
        return features
    if features == "auto":
        features = "digits" if shape == (28, 28, 1) else "efficientnet"
    if features in EMBEDDED:
        classifier = ClassifierFeatures(features, device)
        height, width, channels = classifier.network.shape
        if shape != (height, width, channels):
            raise ValueError(
                f"features {features} must be of images of {height} x {width} pixels and "
                f"{channels} channel{'s' * (channels > 1)}, got {list(shape)}"
            )
        return classifier
    if features == "efficientnet":
        return EfficientNetFeatures(efficientnet_path(), device)
    kind, _, path = features.partition(":")
    if kind == "inception":
        return InceptionFeatures(inception_path(path or None), device)
    raise ValueError(
        f"features must be auto, inception:PATH, efficientnet, digits or emoji, got {features!r}"
    )
