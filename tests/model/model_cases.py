"""Made-up images and plans for the tests of the model room."""

from typing import Any

import numpy as np

from medcnn.plan import ModelPlan, TrainingPlan


class Arrays:
    """Images in memory; in training each one is brightened by a random amount that (epoch, row, show) decides."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def batch(self, rows: np.ndarray, epoch: int | None, shows: np.ndarray | None = None) -> np.ndarray:
        images = self.images[rows]
        if epoch is None:
            return images
        repeats = np.zeros(len(rows), int) if shows is None else shows
        offsets = [np.random.default_rng([epoch, row, show]).integers(0, 30) for row, show in zip(rows, repeats, strict=True)]
        return np.clip(images.astype(int) + np.array(offsets)[:, None, None, None], 0, 255).astype(np.uint8)


def blobs(n: int, *, size_px: int = 16, channels: int = 1, n_classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square whose place tells the class: uint8 (n, S, S, C) and int (n,)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (n, size_px, size_px, channels))
    classes = rng.integers(0, n_classes, n)
    half = size_px // 2
    for image, place in zip(images, classes, strict=True):
        top, left = half * (place // 2), half * (place % 2)
        image[top : top + half, left : left + half] += 60
    return images.astype(np.uint8), classes


def training_plan(**changes: Any) -> TrainingPlan:
    """A short, plain training on one thread."""
    values: dict[str, Any] = {
        "epochs": 3, "batch_size": 16, "learning_rate": 0.003, "backbone_lr_factor": 1.0, "head_epochs": 0, "imbalance": "none",
        "precision": "float32", "n_workers": 0, "device": "cpu", "n_threads": 1,
    }  # fmt: skip
    return TrainingPlan(**(values | changes))


def model_plan(name: str = "simple_cnn", **changes: Any) -> ModelPlan:
    """A network without pretraining."""
    return ModelPlan(**({"name": name, "pretrained": False, "dropout": 0.3} | changes))
