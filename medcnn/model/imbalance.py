"""What is done about rare classes in training, and what has to be undone in the outputs.

Weighting or repeating rare classes trains a model for a population with other prevalences. What was done is undone in
the scores: with z' = z + log(prior of the cohort / prior in training) the probabilities refer to the cohort again
(Saerens, Latinne & Decaestecker 2002, doi:10.1162/089976602753284446). With weights w_k, the prior in training is
proportional to w_k times that of the cohort, so z' = z - log w_k.
"""

from dataclasses import dataclass

import numpy as np

from medcnn.config import Imbalance
from medcnn.errors import InputError
from medcnn.tables import Task


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How rare classes are treated.

    weights: float32 (n_classes,), the loss weight of each class; multilabel: (n_labels,), of each label's positives.
    offsets: float32, same shape, added to the outputs in the loss alone; None: nothing. classes: int (n_rows,), when
    each class is to be drawn equally often. prior_correction: see Signature.
    """

    weights: np.ndarray
    offsets: np.ndarray | None = None
    classes: np.ndarray | None = None
    prior_correction: tuple[float, ...] = ()


def balance(y: np.ndarray, task: Task, imbalance: Imbalance) -> Balance:
    """Decide weights, offsets, drawing and prior correction from the training labels.

    y: float (n, n_labels), 0/1, NaN only for multilabel; every class occurs (see check_classes).
    loss_weights: each class weighs the inverse of its number. class_balanced: the inverse of its effective number.
    Either way weights average 1 over the images; multilabel: the positives of a label weigh so much against its
    negatives, which weigh 1. logit_adjusted: the log prior is added to the outputs in the loss, which leaves them as
    they are for equally frequent classes (Menon et al. 2021, arXiv:2007.07314).
    Raises InputError for oversampling with several findings per image, which has no single class to draw by.
    """
    if task == "multilabel":
        return _balance_labels(y, imbalance)
    classes = class_of(y, task)
    counts = np.bincount(classes, minlength=max(2, y.shape[1])).astype(np.float64)
    if imbalance == "logit_adjusted":
        return _adjusted(np.log(counts / counts.sum()))
    scarcity = 1 / _mass(counts, counts.sum(), imbalance)
    scarcity *= counts.sum() / (counts @ scarcity)
    if imbalance == "oversample":
        return Balance(
            weights=np.ones(len(counts), np.float32), classes=classes, prior_correction=_unless_zero(np.log(counts / counts.mean()))
        )
    return _weighted(scarcity)


def _balance_labels(y: np.ndarray, imbalance: Imbalance) -> Balance:
    if imbalance == "oversample":
        raise InputError("training.imbalance is oversample, which needs one class per image, but the task is multilabel; use loss_weights")
    positives, negatives = (y == 1).sum(axis=0).astype(np.float64), (y == 0).sum(axis=0).astype(np.float64)
    if imbalance == "logit_adjusted":
        return _adjusted(np.log(positives / negatives))
    known = positives + negatives
    return _weighted(_mass(negatives, known, imbalance) / _mass(positives, known, imbalance))


def _mass(counts: np.ndarray, n_images: np.ndarray | np.float64, imbalance: Imbalance) -> np.ndarray:
    """What a class weighs the inverse of: 1, its number, or its effective number."""
    if imbalance == "class_balanced":
        return effective_number(counts, n_images)
    return counts if imbalance == "loss_weights" else np.ones_like(counts)


def effective_number(counts: np.ndarray, n_images: np.ndarray | np.float64) -> np.ndarray:
    """How many different images n are worth when each new one may resemble an old one: (1 - b^n) / (1 - b), b = 1 - 1 / N.

    With N images in all it lies between 1, for one image, and 0.63 N, for all (Cui et al. 2019, doi:10.1109/CVPR.2019.00949).
    """
    number: np.ndarray = n_images * (1 - (1 - 1 / n_images) ** counts)
    return number


def _weighted(weights: np.ndarray) -> Balance:
    return Balance(weights=weights.astype(np.float32), prior_correction=_unless_zero(-np.log(weights)))


def _adjusted(offsets: np.ndarray) -> Balance:
    """The same offsets that the loss adds are what a cohort with this prior needs."""
    return Balance(weights=np.ones(len(offsets), np.float32), offsets=offsets.astype(np.float32), prior_correction=_unless_zero(offsets))


def class_of(y: np.ndarray, task: Task) -> np.ndarray:
    """The class of each row, int64 (n,): the label itself for binary, the column that is 1 for multiclass."""
    classes: np.ndarray = y[:, 0].astype(np.int64) if task == "binary" else y.argmax(axis=1)
    return classes


def _unless_zero(correction: np.ndarray) -> tuple[float, ...]:
    return tuple(correction.tolist()) if np.any(correction != 0) else ()
