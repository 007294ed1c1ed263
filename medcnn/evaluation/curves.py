"""The curve over all thresholds: counts at every distinct score, from which ROC and precision-recall points follow.

A case is called positive when score >= threshold. Ties share one point: nothing is ever stepped through within a tie.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.evaluation.placements import check_scores

N_POINTS = 500  # what a plot needs; hover and print show no more


@dataclass(frozen=True)
class Curve:
    """True and false positives at each threshold, from +inf (nobody is positive) down to the lowest score (everybody is).

    threshold, tp, fp: float64 (g + 1,) for g distinct scores; counts, or sums of weights. n_positive, n_negative > 0.
    """

    threshold: FloatArray
    tp: FloatArray
    fp: FloatArray
    n_positive: float
    n_negative: float

    @property
    def sensitivity(self) -> FloatArray:
        """Share of positives at or above the threshold; rises from 0 to 1."""
        return self.tp / self.n_positive

    @property
    def specificity(self) -> FloatArray:
        """Share of negatives below the threshold; falls from 1 to 0."""
        return (self.n_negative - self.fp) / self.n_negative

    @property
    def precision(self) -> FloatArray:
        """Share of positives among those at or above the threshold; 1 by convention where there are none."""
        called = self.tp + self.fp
        return np.divide(self.tp, called, out=np.ones_like(called), where=called > 0)

    def take(self, points: IntArray) -> "Curve":
        """The curve at some of its points only."""
        return Curve(self.threshold[points], self.tp[points], self.fp[points], self.n_positive, self.n_negative)


@dataclass(frozen=True)
class Ranking:
    """Rows from the highest score to the lowest: order (n,), whether each is positive, and the last place of each distinct score (g,)."""

    order: IntArray
    positive: FloatArray
    ends: IntArray
    threshold: FloatArray

    def curve(self, weights: FloatArray | None = None) -> Curve:
        """The curve, with weights (n,) of the rows in their original order. Raises InputError when a class has no weight."""
        if weights is None:
            cases = np.cumsum(self.positive)[self.ends]
            everyone = self.ends + 1.0
        else:
            sorted_weights = weights[self.order]
            cases = np.cumsum(sorted_weights * self.positive)[self.ends]
            everyone = np.cumsum(sorted_weights)[self.ends]
        tp, fp = np.concatenate([[0.0], cases]), np.concatenate([[0.0], everyone - cases])
        if not (tp[-1] > 0 and fp[-1] > 0):
            raise InputError(f"ROC curve: needs both classes, got {tp[-1]:.0f} positive and {fp[-1]:.0f} negative cases")
        return Curve(np.concatenate([[np.inf], self.threshold]), tp, fp, float(tp[-1]), float(fp[-1]))


def rank_rows(y: ArrayLike, score: ArrayLike) -> Ranking:
    """Sort once; weights may then change cheaply. y: (n,) 0/1; score: (n,). Raises InputError for NaN or strange labels."""
    positive, scores = check_scores(y, score)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, dtype=np.int64)
    return Ranking(order, positive[order].astype(np.float64), ends, ranked[ends])


def threshold_curve(y: ArrayLike, score: ArrayLike) -> Curve:
    """Counts at every distinct score (g + 1 points). Raises InputError for NaN, strange labels or an empty class."""
    return rank_rows(y, score).curve()


def roc_coordinates(curve: Curve, *, sensitivity: float | None = None, specificity: float | None = None) -> dict[str, float]:
    """The point of the linearly interpolated ROC curve with this sensitivity, or this specificity (give one, 0 to 1).

    Where the curve runs level, the better end is taken. Between observed points no threshold exists and the counts are
    fractions: report the attainable operating point instead, and use this one to compare with pROC's `coords`.
    """
    if (sensitivity is None) == (specificity is None):
        raise InputError("ROC coordinates: give either a sensitivity or a specificity")
    target = sensitivity if sensitivity is not None else specificity
    if target is None or not 0 <= target <= 1:
        raise InputError(f"ROC coordinates: expected a share from 0 to 1, got {target}")
    if sensitivity is not None:
        found = _interpolate(curve.sensitivity, curve.specificity, target)
        return _coordinates(curve, target, found)
    # Seen from the lowest threshold upwards, specificity rises and sensitivity is what is looked up.
    found = _interpolate(curve.specificity[::-1], curve.sensitivity[::-1], target)
    return _coordinates(curve, found, target)


def _interpolate(rising: FloatArray, other: FloatArray, target: float) -> float:
    """`other` where `rising` first reaches target, linear between the points on either side."""
    place = int(np.searchsorted(rising, target, "left"))
    if rising[place] == target:
        return float(other[place])
    share = (target - rising[place - 1]) / (rising[place] - rising[place - 1])
    return float(other[place - 1] + share * (other[place] - other[place - 1]))


def _coordinates(curve: Curve, sensitivity: float, specificity: float) -> dict[str, float]:
    tp, tn = sensitivity * curve.n_positive, specificity * curve.n_negative
    fn, fp = curve.n_positive - tp, curve.n_negative - tn
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "ppv": tp / (tp + fp) if tp + fp > 0 else float("nan"),
        "npv": tn / (tn + fn) if tn + fn > 0 else float("nan"),
        "accuracy": (tp + tn) / (curve.n_positive + curve.n_negative),
    }


# ---------------------------------------------------------------- for plots


def thin_curve(curve: Curve, n_points: int = N_POINTS) -> Curve:
    """At most n_points of the curve: both ends, the corners of its convex hull, and the rest evenly along the curve.

    A third of the even ones follow the rank on a logarithmic scale, since precision moves most among the first cases.
    Curves of fewer points come back whole. n_points >= 20.
    """
    n = len(curve.threshold)
    if n <= n_points:
        return curve
    corners = _hull_corners(curve)
    if len(corners) > n_points // 3:
        corners = corners[np.linspace(0, len(corners) - 1, n_points // 3).round().astype(np.int64)]
    along = curve.sensitivity + (1 - curve.specificity)
    n_even, n_early = n_points // 3, n_points // 3 - 2
    even = np.searchsorted(along, np.linspace(0, 2, n_even))
    early = np.geomspace(1, n - 1, n_early).astype(np.int64)
    return curve.take(np.unique(np.concatenate([[0, n - 1], corners, np.minimum(even, n - 1), early])))


def _hull_corners(curve: Curve) -> IntArray:
    from scipy.spatial import ConvexHull

    x, y = 1 - curve.specificity, curve.sensitivity
    # The bottom right corner keeps the hull two-dimensional even when the curve is the diagonal.
    hull = ConvexHull(np.append(np.column_stack([x, y]), [[1.0, 0.0]], axis=0)).vertices
    corners: IntArray = np.sort(hull[hull < len(x)]).astype(np.int64)
    return corners
