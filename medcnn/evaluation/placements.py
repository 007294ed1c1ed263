"""Where each case stands among the cases of the other class: placements, AUROC and DeLong's covariance.

Everything rests on mid-ranks, so ties count one half, and on one direction: a higher score means more positive.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medcnn.errors import InputError
from medcnn.evaluation.estimates import BoolArray, FloatArray
from medcnn.evaluation.intervals import named_rows


def check_scores(y: ArrayLike, score: ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Labels as bool (n,) and scores as float64 (n,).

    y: 0 or 1 in every row (leave out rows with a missing label before); score: any real number or +-inf.
    Raises InputError naming the rows of a NaN score or of a label that is not 0 or 1.
    """
    labels, scores = np.asarray(y), np.asarray(score, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(f"scores: expected one label and one score for each case, got shapes {labels.shape} and {scores.shape}")
    positive = labels == 1
    strange = np.flatnonzero(~(positive | (labels == 0)))
    if len(strange):
        where = f"{labels[strange[0]]} in row {strange[0]} ({len(strange)} such rows: {named_rows(strange)})"
        raise InputError(f"labels: expected 0 or 1, got {where}; leave out rows without a label")
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        where = f"NaN in {len(missing)} rows ({named_rows(missing)})"
        raise InputError(f"scores: {where}; give every case a score, or leave those rows out and say so")
    return positive, scores


@dataclass(frozen=True)
class Placements:
    """v10[i]: share of negatives that the i-th positive exceeds, ties one half; v01[j]: share of positives above the j-th negative.

    In row order within the class, float64 in [0, 1]. auroc is the mean of either, computed from integer counts.
    """

    v10: FloatArray
    v01: FloatArray
    auroc: float


def placements(y: ArrayLike, score: ArrayLike) -> Placements:
    """Placements of every case in O(n log n) time and O(n) memory (Sun & Xu 2014, doi:10.1109/LSP.2014.2337313).

    Raises InputError for NaN, for labels other than 0 and 1, or when a class is empty.
    """
    positive, scores = check_scores(y, score)
    cases, controls = scores[positive], scores[~positive]
    if not len(cases) or not len(controls):
        raise InputError(f"AUROC: needs both classes, got {len(cases)} positive and {len(controls)} negative cases")
    # Keys that are themselves sorted keep the binary search in cache: ten times faster than unsorted ones.
    order_cases, order_controls = np.argsort(cases), np.argsort(controls)
    sorted_cases, sorted_controls = cases[order_cases], controls[order_controls]
    twice_below = np.searchsorted(sorted_controls, sorted_cases, "left") + np.searchsorted(sorted_controls, sorted_cases, "right")
    twice_below_control = np.searchsorted(sorted_cases, sorted_controls, "left") + np.searchsorted(sorted_cases, sorted_controls, "right")
    v10, v01 = np.empty(len(cases)), np.empty(len(controls))
    v10[order_cases] = twice_below / (2 * len(controls))
    v01[order_controls] = 1 - twice_below_control / (2 * len(cases))
    return Placements(v10, v01, int(twice_below.sum()) / (2 * len(cases) * len(controls)))


def auroc(y: ArrayLike, score: ArrayLike) -> float:
    """P(s1 > s0) + P(s1 = s0)/2, the Mann-Whitney statistic (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    Direction is fixed: higher means positive. Raises InputError for NaN or when a class is empty.
    """
    return placements(y, score).auroc


def delong_covariance(models: list[Placements]) -> FloatArray:
    """Covariance (k, k) of the AUROCs of k scores of the same cases (DeLong 1988, doi:10.2307/2531595).

    S10/m + S01/n with divisors m-1 and n-1; NaN when a class has fewer than two cases.
    """
    v10 = np.column_stack([model.v10 - model.auroc for model in models])
    v01 = np.column_stack([model.v01 - model.auroc for model in models])
    m, n = len(v10), len(v01)
    if m < 2 or n < 2:
        return np.full((len(models), len(models)), np.nan)
    covariance: FloatArray = v10.T @ v10 / ((m - 1) * m) + v01.T @ v01 / ((n - 1) * n)
    return covariance


def delong_variance(y: ArrayLike, score: ArrayLike) -> float:
    """DeLong's variance of one AUROC; NaN when a class has fewer than two cases."""
    return float(delong_covariance([placements(y, score)])[0, 0])
