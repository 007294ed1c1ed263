"""What training minimises, and what class imbalance does to it and to the probabilities.

Weighting or repeating rare classes trains a model for a population with other prevalences. What was done is undone in
the outputs: with z' = z + log(prior of the cohort / prior in training) the probabilities refer to the cohort again
(Saerens, Latinne & Decaestecker 2002, doi:10.1162/089976602753284446).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from medcnn.errors import InputError
from medcnn.tables import Task

Imbalance = Literal["none", "loss_weights", "class_balanced", "logit_adjusted", "oversample"]


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How rare classes are treated.

    weights: float32 (n_outputs,), the loss weight of each class (multilabel: of each label's positives).
    classes: int (n_rows,), when each class is to be drawn equally often. prior_correction: see Signature.
    """

    weights: np.ndarray
    classes: np.ndarray | None
    prior_correction: tuple[float, ...]


def balance(y: np.ndarray, task: Task, imbalance: Imbalance) -> Balance:
    """Decide weights, drawing and prior correction from the training labels.

    y: float (n, n_labels), 0/1, NaN only for multilabel. loss_weights: a class with share s of K classes weighs
    1 / (K s), so weights average 1 over the images; the positives of a label weigh negatives / positives.
    Raises InputError for oversampling with several findings per image, which has no single class to draw by.
    """
    if task == "multilabel":
        if imbalance == "oversample":
            raise InputError(
                "training.imbalance is oversample, which needs one class per image, but the task is multilabel; use loss_weights"
            )
        positives, negatives = np.nansum(y == 1, axis=0), np.nansum(y == 0, axis=0)
        weights = negatives / positives if imbalance == "loss_weights" else np.ones(y.shape[1])
        return Balance(weights=weights.astype(np.float32), classes=None, prior_correction=_unless_zero(-np.log(weights)))
    classes = class_of(y, task)
    shares = np.bincount(classes, minlength=max(2, y.shape[1])) / len(classes)
    even = 1 / (len(shares) * shares)
    weights = even if imbalance == "loss_weights" else np.ones(len(shares))
    return Balance(
        weights=weights.astype(np.float32),
        classes=classes if imbalance == "oversample" else None,
        prior_correction=() if imbalance == "none" else _unless_zero(-np.log(even)),
    )


def class_of(y: np.ndarray, task: Task) -> np.ndarray:
    """The class of each row, int64 (n,): the label itself for binary, the column that is 1 for multiclass."""
    classes: np.ndarray = y[:, 0].astype(np.int64) if task == "binary" else y.argmax(axis=1)
    return classes


def is_labelled(y: np.ndarray, task: Task) -> np.ndarray:
    """bool (n,): rows that can be learnt from. multilabel: any label known; else: all known."""
    known = ~np.isnan(y)
    labelled: np.ndarray = known.any(axis=1) if task == "multilabel" else known.all(axis=1)
    return labelled


def check_classes(y: np.ndarray, task: Task, labels: Sequence[str] | None = None) -> None:
    """Raise InputError when a class has no training image, naming it; y: float (n, n_labels)."""
    names = list(labels) if labels else [f"label {number}" for number in range(y.shape[1])]
    for column, name in zip(y.T, names, strict=True):
        n_positive, n_negative = int((column == 1).sum()), int((column == 0).sum())
        if n_positive == 0 or n_negative == 0:
            lacking = "positive" if n_positive == 0 else "negative"
            raise InputError(
                f"the training part has no {lacking} image for {name} ({n_positive} positive, {n_negative} negative); "
                "a classifier needs both: check the labels, or deal the patients with another split.seed"
            )
    if task == "multiclass" and not bool(np.all(y.sum(axis=1) == 1)):
        row = int(np.flatnonzero(y.sum(axis=1) != 1)[0])
        raise InputError(f"training row {row} has {y[row].sum():.0f} classes; a multiclass image has exactly one: use task multilabel")


def training_loss(
    outputs: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, *, task: Task, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean loss of a batch, a scalar.

    outputs: (B, n_outputs). y: float (B, n_labels), 0/1, NaN (multilabel only: that label of that image is left out).
    Cross-entropy of the softmax, each image weighted by its class; multilabel: binary cross-entropy over the known
    labels. Smoothing moves each target towards the uniform one.
    """
    outputs = outputs.float()
    if task == "multilabel":
        return _multilabel_loss(outputs, y, weights, label_smoothing)
    classes = y[:, 0].long() if task == "binary" else y.argmax(dim=1)
    log_p = functional.log_softmax(outputs, dim=1)
    of_class = log_p.gather(1, classes[:, None]).squeeze(1)
    per_image = -(1 - label_smoothing) * of_class - label_smoothing * log_p.mean(dim=1)
    return (per_image * weights[classes]).mean()


def _multilabel_loss(outputs: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    known = ~torch.isnan(y)
    targets = torch.where(known, y * (1 - label_smoothing) + label_smoothing / 2, 0.0)
    each = functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights, reduction="none")
    return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def log_loss(logits: np.ndarray, y: np.ndarray, task: Task) -> float:
    """Mean log-loss of logits, float64: over rows for binary and multiclass, over known labels for multilabel.

    logits, y: (n, n_labels). Rows that are not labelled are left out; NaN when none is.
    """
    logits = logits.astype(np.float64)
    if task == "multiclass":
        labelled = is_labelled(y, task)
        logits, y = logits[labelled], y[labelled]
        peak = logits.max(axis=1, initial=-np.inf)
        norm = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
        losses = norm - (logits * y).sum(axis=1)
    else:
        known = ~np.isnan(y)
        losses = np.logaddexp(0, np.where(y[known] == 1, -logits[known], logits[known]))
    return float(losses.mean()) if len(losses) else float("nan")


def _unless_zero(correction: np.ndarray) -> tuple[float, ...]:
    return tuple(correction.tolist()) if np.any(correction != 0) else ()
