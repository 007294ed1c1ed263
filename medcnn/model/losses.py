"""What training minimises, and the labels it needs for that.

Every loss is an expected cost: the cost that each class would have if it were the true one, averaged over the target.
A target is a class, or after mixup and CutMix a share of several; for one class the same numbers come out, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from medcnn.config import Loss
from medcnn.errors import InputError
from medcnn.model.imbalance import Balance
from medcnn.model.posterior import MARGIN, ordinal_log_probabilities
from medcnn.plan import TrainingPlan
from medcnn.tables import Task

TINY = 1e-8  # of a share: a power of it below 1 has no finite slope at 0


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of a batch; call it with outputs and targets.

    weights, offsets: see Balance. gamma: of focal and asymmetric. smoothing: moves each target towards the uniform one.
    A batch may come in pieces: its loss is the sum of their `total` over the sum of their `n_terms`.
    """

    task: Task
    weights: torch.Tensor
    loss: Loss = "cross_entropy"
    gamma: float = 2.0
    smoothing: float = 0.0
    offsets: torch.Tensor | None = None

    def __call__(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean loss, a scalar: over images; multilabel: over known labels; ordinal: over the conditional subsets.

        outputs: (B, n_outputs). y: float (B, n_labels), from 0 to 1, NaN (multilabel only: that label of that image
        neither counts nor teaches).
        """
        return self.total(outputs, y) / self.n_terms(y).clamp(min=1)

    def n_terms(self, y: torch.Tensor) -> torch.Tensor:
        """What the total is divided by: images; multilabel: known labels; ordinal: images over all conditional subsets."""
        if self.task == "multilabel":
            return (~torch.isnan(y)).sum()
        if self.loss == "ordinal":
            steps = torch.arange(1, y.shape[1] + 1, device=y.device).clamp(max=y.shape[1] - 1)
            return (y * steps).sum()
        return y.new_full((), len(y))

    def total(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of the losses of a batch, a scalar; arguments as above."""
        outputs = outputs.float()
        if self.offsets is not None:
            outputs = outputs + self.offsets
        if self.task == "multilabel":
            return self._multilabel_total(outputs, y)
        costs = self._class_costs(outputs)
        if self.smoothing:
            costs = (1 - self.smoothing) * costs + self.smoothing * costs.mean(dim=1, keepdim=True)
        shares = torch.cat([1 - y, y], dim=1) if self.task == "binary" else y
        return (shares * self.weights * costs).sum(dim=1).sum()  # in this order, a class and the share 1 of it give the same bits

    def _class_costs(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B, n_classes), what an image costs if that is its class. Focal: doi:10.1109/ICCV.2017.324, over the softmax.

        Ordinal: the binary losses of the conditional subsets that the class is in add up to -log of its probability.
        """
        if self.loss == "ordinal":
            return -ordinal_log_probabilities(outputs)
        log_p = functional.log_softmax(outputs, dim=1)
        if self.loss == "focal":
            return -log_p * (-torch.expm1(log_p)).clamp(min=TINY) ** self.gamma
        return -log_p

    def _multilabel_total(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        known = ~torch.isnan(y)
        targets = torch.where(known, y * (1 - self.smoothing) + self.smoothing / 2, 0.0)
        if self.loss == "cross_entropy":
            each = functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=self.weights, reduction="none")
        else:
            if_positive, if_negative = self._focal_costs(outputs) if self.loss == "focal" else self._asymmetric_costs(outputs)
            each = targets * self.weights * if_positive + (1 - targets) * if_negative
        return torch.where(known, each, 0.0).sum()

    def _focal_costs(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cost of each label if positive, if negative: sigmoid focal loss, doi:10.1109/ICCV.2017.324."""
        log_p, log_q = functional.logsigmoid(outputs), functional.logsigmoid(-outputs)
        return -log_p * torch.exp(self.gamma * log_q), -log_q * torch.exp(self.gamma * log_p)

    def _asymmetric_costs(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positives cost what they do in cross-entropy; negatives are focal, and free below a share of MARGIN.

        doi:10.1109/ICCV48922.2021.00015, with a gamma of 0 for positives.
        """
        q = (outputs.sigmoid() - MARGIN).clamp(min=TINY)
        return -functional.logsigmoid(outputs), -(q**self.gamma) * torch.log1p(-q)


def make_objective(plan: TrainingPlan, task: Task, balanced: Balance, device: torch.device) -> Objective:
    """The planned loss, its weights on the device."""
    return Objective(
        task=task,
        weights=torch.from_numpy(balanced.weights).to(device),
        loss=plan.loss,
        gamma=plan.focal_gamma,
        smoothing=plan.label_smoothing,
        offsets=None if balanced.offsets is None else torch.from_numpy(balanced.offsets).to(device),
    )


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
