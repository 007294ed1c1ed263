"""What a training learns from, how far it has come, and what makes it this training and no other."""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from medcnn.artifact import digest
from medcnn.model.batches import BatchSource
from medcnn.model.signature import Signature
from medcnn.plan import TrainingPlan

# Settings that a continued training may change. Another device or compiler rounds otherwise, which a person who changes it knows.
FREE_TO_CHANGE = {"checkpoint_minutes", "n_workers", "device", "compile"}


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What is learnt from. y: float (N, n_labels), 0/1/NaN, by row of `images`; rows_train, rows_val: int."""

    images: BatchSource
    y: np.ndarray
    rows_train: np.ndarray
    rows_val: np.ndarray
    signature: Signature


@dataclass
class Journey:
    """How far a training is, apart from weights and optimiser: plain values, as they stand in a checkpoint."""

    epoch: int = 0
    step: int = 0  # of the epoch
    losses: list[float] = field(default_factory=list)  # of the epoch's steps so far
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0  # from 1
    n_images: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loading_seconds: float = 0.0


def training_key(model: nn.Module, data: TrainingData, plan: TrainingPlan, seed: int) -> str:
    """Digest of all that decides the result but the pixels: only the same training may continue from a checkpoint."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    for rows in (np.sort(data.rows_train), np.sort(data.rows_val)):
        sha.update(rows.astype(np.int64).tobytes() + data.y[rows].astype(np.float32).tobytes())
    settings = plan.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    return digest({"arrays": sha.hexdigest(), "signature": data.signature.model_dump(), "settings": settings, "seed": seed})
