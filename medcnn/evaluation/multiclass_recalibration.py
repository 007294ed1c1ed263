"""Recalibration of softmax outputs: one temperature for all classes, or each class against the rest and rows rescaled to sum 1."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import softmax

from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.evaluation.folds import deal_folds
from medcnn.evaluation.recalibration import CANDIDATES, N_FOLDS, Recalibrator, fit_recalibration, log_odds_of

ONE_VS_REST = ("platt", "beta", "isotonic")
METHODS = ("none", "temperature", *ONE_VS_REST)
SMALLEST = 1e-12  # a probability of 0 has no finite logit; used only for tables without logits


@dataclass(frozen=True)
class SoftmaxRecalibrator:
    """A map from softmax logits (n, k) to probabilities (n, k). temperature: softmax(z / T), Guo et al. 2017, arXiv:1706.04599.

    platt, beta, isotonic: a `Recalibrator` for each class against the rest, then each row divided by its sum
    (Zadrozny & Elkan 2002, doi:10.1145/775047.775151). Fields as in `Recalibrator`.
    """

    method: str
    temperature: float = 1.0
    classes: tuple[Recalibrator, ...] = ()
    requested: str = ""
    n: int = 0
    scores: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""

    def apply(self, logits: FloatArray) -> FloatArray:
        """Probabilities (n, k), rows sum to 1."""
        logits = np.asarray(logits, dtype=np.float64)
        if self.method in ("none", "temperature"):
            scaled: FloatArray = softmax(logits / self.temperature, axis=1)
            return scaled
        p = softmax(logits, axis=1)
        each = np.column_stack([part.apply(log_odds_of(p[:, column])) for column, part in enumerate(self.classes)])
        total = each.sum(axis=1, keepdims=True)
        # Isotonic maps may call every class impossible: such a row keeps the probabilities it had.
        return np.where(total > 0, each / np.where(total > 0, total, 1), p)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return vars(self) | {"classes": [part.as_dict() for part in self.classes], "scores": dict(self.scores)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SoftmaxRecalibrator":
        """The inverse of `as_dict`; raises InputError for a method that is not known."""
        if values.get("method") not in METHODS:
            raise InputError(f"recalibration: method {values.get('method')!r} is unknown; expected one of {', '.join(METHODS)}")
        return cls(**{**values, "classes": tuple(Recalibrator.from_dict(part) for part in values.get("classes", ()))})


def fit_softmax_recalibration(
    method: str, target: IntArray, logits: FloatArray, *, patients: IntArray | None = None, seed: int = 0
) -> SoftmaxRecalibrator:
    """Fit to classes target (n,) in 0..k-1 and finite softmax logits (n, k). "auto": lowest cross-validated log-loss.

    patients: codes (n,) that keep a patient in one fold. Raises InputError for an unknown method or logits that are not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise InputError(
            f"recalibration: the logits are not finite in row {int(np.argmax(~np.isfinite(logits).all(axis=1)))}; expected numbers"
        )
    if method != "auto" and method not in METHODS:
        raise InputError(
            f"recalibration: method {method!r} is unknown for several classes; expected one of {', '.join((*METHODS, 'auto'))}"
        )
    chosen = _choose(target, logits, patients, seed) if method == "auto" else _fit(method, target, logits)
    return SoftmaxRecalibrator(chosen.method, chosen.temperature, chosen.classes, method, target.size, chosen.scores, chosen.note)


def logits_of(p: FloatArray) -> FloatArray:
    """ln p (n, k), probabilities below 1e-12 moved there: softmax logits for a table without logits."""
    return np.log(np.maximum(p, SMALLEST))


def _fit(method: str, target: IntArray, logits: FloatArray) -> SoftmaxRecalibrator:
    if method == "none":
        return SoftmaxRecalibrator("none")
    if method == "temperature":
        return _fit_temperature(target, logits)
    p = softmax(logits, axis=1)
    classes = tuple(fit_recalibration(method, (target == k).astype(np.float64), log_odds_of(p[:, k])) for k in range(p.shape[1]))
    notes = [f"class {k}: {part.note}" for k, part in enumerate(classes) if part.note]
    return SoftmaxRecalibrator(method, classes=classes, note="; ".join(notes))


def _fit_temperature(target: IntArray, logits: FloatArray) -> SoftmaxRecalibrator:
    """Newton's method on 1/T, in which the log-likelihood is concave."""
    true_logit = logits[np.arange(target.size), target]
    inverse = 0.0
    for _ in range(200):
        p = softmax(inverse * logits, axis=1)
        mean = (p * logits).sum(axis=1)
        gradient = float(np.sum(true_logit - mean))
        curvature = float(np.sum((p * logits**2).sum(axis=1) - mean**2))
        if not curvature > 1e-12 * target.size:
            return SoftmaxRecalibrator("none", note="temperature cannot be fitted: the validation rows are separated perfectly or constant")
        # Far from the optimum a full step may overshoot where the likelihood is flat; doubling 1/T at most keeps it convergent.
        step = float(np.clip(gradient / curvature, -1 - abs(inverse), 1 + abs(inverse)))
        inverse += step
        if abs(step) <= 1e-13 * max(1.0, abs(inverse)):
            break
    if inverse <= 0:
        return SoftmaxRecalibrator(
            "none", note=f"temperature cannot be fitted: the best 1/T is {inverse:.3g}, which would turn the order round"
        )
    return SoftmaxRecalibrator("temperature", temperature=1 / inverse)


def _choose(target: IntArray, logits: FloatArray, patients: IntArray | None, seed: int) -> SoftmaxRecalibrator:
    common = int(np.bincount(target).argmax())
    folds = deal_folds((target != common).astype(np.float64), patients, n_folds=N_FOLDS, seed=seed, tie_break=logits[:, common])
    if folds is None:
        return SoftmaxRecalibrator("none", note=f"auto needs at least {N_FOLDS} patients with and {N_FOLDS} without the commonest class")
    scores = {method: _cross_validated_log_loss(method, target, logits, folds) for method in CANDIDATES}
    best = min(scores, key=lambda method: scores[method])
    fitted = _fit(best, target, logits)
    readable = {name: score if np.isfinite(score) else None for name, score in scores.items()}
    return SoftmaxRecalibrator(fitted.method, fitted.temperature, fitted.classes, scores=readable, note=fitted.note)


def _cross_validated_log_loss(method: str, target: IntArray, logits: FloatArray, folds: IntArray) -> float:
    losses = np.empty(target.size)
    for fold in np.unique(folds):
        held = folds == fold
        p = _fit(method, target[~held], logits[~held]).apply(logits[held])
        with np.errstate(divide="ignore"):
            losses[held] = -np.log(p[np.arange(int(held.sum())), target[held]])
    return float(losses.mean())
