"""Choosing a threshold, on validation rows only. Positive if and only if p >= threshold.

Attainable points only: a threshold separates two adjacent distinct probabilities and stands midway between them (0 calls
everyone positive, the next number above 1 calls nobody positive), so that it names the same patients after rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig, ThresholdConfig
from medcnn.evaluation.estimates import FloatArray, IntArray, check_labels_and_probabilities
from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.tables import Task

NOBODY = float(np.nextafter(1.0, 2.0))


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold with the rule that chose it and what it did on the rows it was chosen on. threshold None: not choosable, see note."""

    rule: str
    value: float | None
    threshold: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    n: int = 0
    n_positive: int = 0
    label: str = ""
    level: str = "image"
    fold: int = 0
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `OperatingPoint(**values)` reads them back."""
        return asdict(self)


@dataclass(frozen=True)
class AttainablePoints:
    """Every partition of the rows, thresholds ascending (m,), with the counts of true and false positives at each (m,)."""

    thresholds: FloatArray
    tp: IntArray
    fp: IntArray
    n_positive: int
    n_negative: int


def attainable_points(y: FloatArray, p: FloatArray) -> AttainablePoints:
    """All partitions that a threshold can make of y (n,) in {0, 1} by p (n,) in [0, 1]."""
    y, p = check_labels_and_probabilities(y, p)
    distinct, index = np.unique(p, return_inverse=True)
    n_at = np.bincount(index)
    positive_at = np.bincount(index, weights=y).astype(np.int64)
    tp = np.concatenate([np.cumsum(positive_at[::-1])[::-1], [0]])
    called = np.concatenate([np.cumsum(n_at[::-1])[::-1], [0]])
    middle = (distinct[:-1] + distinct[1:]) / 2
    # Two adjacent doubles have no number between them: then the upper one itself is the threshold.
    middle = np.where(middle > distinct[:-1], middle, distinct[1:])
    return AttainablePoints(np.concatenate([[0.0], middle, [NOBODY]]), tp, called - tp, int(tp[0]), int(called[0] - tp[0]))


def choose_threshold(rule: ThresholdConfig, y: FloatArray, p: FloatArray) -> OperatingPoint:
    """The threshold that `rule` picks on y (n,) in {0, 1} and p (n,) in [0, 1].

    fixed: the value itself. sensitivity / specificity: the point with the highest specificity / sensitivity among those
    that reach at least the value. youden: the highest sensitivity + specificity - 1 (Youden 1950); of equals the one with
    the highest sensitivity. cost: the lowest value * false negatives + false positives; of equals the most sensitive.
    """
    points = attainable_points(y, p)
    n = points.n_positive + points.n_negative
    if rule.rule == "fixed":
        return _fixed(rule, y, p, points)
    if min(points.n_positive, points.n_negative) == 0:
        note = "not choosable: one class only on the rows that choose the threshold"
        return OperatingPoint(rule=rule.rule, value=rule.value, threshold=None, n=n, n_positive=points.n_positive, note=note)
    index = _best(rule, points)
    note = "nobody is called positive" if index == points.tp.size - 1 else "everybody is called positive" if index == 0 else ""
    if rule.rule == "cost" and rule.value is not None:
        note = "; ".join(filter(None, (note, f"calibrated probabilities would use 1/(1 + {rule.value:g}) = {1 / (1 + rule.value):.4g}")))
    return OperatingPoint(
        rule=rule.rule,
        value=rule.value,
        threshold=float(points.thresholds[index]),
        sensitivity=float(points.tp[index] / points.n_positive),
        specificity=float(1 - points.fp[index] / points.n_negative),
        n=n,
        n_positive=points.n_positive,
        note=note,
    )


def _best(rule: ThresholdConfig, points: AttainablePoints) -> int:
    """Index of the chosen point. Counts are integers, so that equal points are recognised as equal."""
    value = 0.0 if rule.value is None else rule.value
    tp, fp = points.tp, points.fp
    if rule.rule == "sensitivity":
        return int(np.flatnonzero(tp >= value * points.n_positive - 1e-9)[-1])
    if rule.rule == "specificity":
        return int(np.flatnonzero(points.n_negative - fp >= value * points.n_negative - 1e-9)[0])
    if rule.rule == "youden":
        return int(np.argmax(tp * points.n_negative - fp * points.n_positive))
    return int(np.argmin(value * (points.n_positive - tp) + fp))


def _fixed(rule: ThresholdConfig, y: FloatArray, p: FloatArray, points: AttainablePoints) -> OperatingPoint:
    called = np.asarray(p) >= float(rule.value or 0.0)
    tp, fp = int(np.sum(np.asarray(y)[called])), int(called.sum() - np.sum(np.asarray(y)[called]))
    return OperatingPoint(
        rule="fixed",
        value=rule.value,
        threshold=float(rule.value or 0.0),
        sensitivity=tp / points.n_positive if points.n_positive else None,
        specificity=1 - fp / points.n_negative if points.n_negative else None,
        n=points.n_positive + points.n_negative,
        n_positive=points.n_positive,
    )


# ---------------------------------------------------------------- tables


def choose_operating_points(frame: pd.DataFrame, config: EvaluationConfig, *, task: Task) -> list[OperatingPoint]:
    """A point for each fold, level, label and configured rule, from a checked predictions table of validation rows.

    Levels and aggregation as in the evaluation, so that a patient-level decision has a patient-level threshold.
    """
    chosen: list[OperatingPoint] = []
    for fold in np.unique(frame["fold"].to_numpy(dtype=np.int64)):
        rows = frame[frame["fold"] == fold]
        for level in config.units:
            table = at_level(rows, level, config.aggregation, task)
            chosen.extend(
                _point(rule, table, column, level, int(fold)) for column in range(len(table.labels)) for rule in config.thresholds
            )
    return chosen


def _point(rule: ThresholdConfig, table: UnitTable, column: int, level: str, fold: int) -> OperatingPoint:
    known = ~np.isnan(table.y[:, column])
    if known.any():
        point = choose_threshold(rule, table.y[known, column], table.p[known, column])
    else:
        point = OperatingPoint(rule=rule.rule, value=rule.value, threshold=None, note="not choosable: no row has this label")
    return replace(point, label=table.labels[column], level=level, fold=fold)


Thresholds = Mapping[str, Sequence[float | Mapping[int, float]]]


def thresholds_at(points: Sequence[OperatingPoint], level: str) -> Thresholds:
    """label -> one mapping of fold -> threshold per rule, in the order of the rules; a rule no fold could choose is left out."""
    table: dict[str, dict[tuple[str, float | None], dict[int, float]]] = {}
    for point in points:
        if point.level == level and point.threshold is not None:
            table.setdefault(point.label, {}).setdefault((point.rule, point.value), {})[point.fold] = point.threshold
    return {label: list(rules.values()) for label, rules in table.items()}
