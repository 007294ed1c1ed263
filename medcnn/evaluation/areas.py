"""Areas under a part of the ROC curve and under the precision-recall curve, with patient-level intervals.

Up to the budget of `bootstrap.py` the interval is the percentile bootstrap of patients ("bootstrap"). Beyond it the
linearised variance answers ("linearised"): each patient's influence on the area, squared and summed. It costs one sort.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from medcnn.errors import InputError
from medcnn.evaluation.bootstrap import N_RESAMPLES, affordable, bootstrap_metric
from medcnn.evaluation.clustered import influence_variance
from medcnn.evaluation.curves import Curve, Ranking, rank_rows
from medcnn.evaluation.discrimination import bootstrap_estimate, lacking_class
from medcnn.evaluation.estimates import Estimate, FloatArray, not_estimable
from medcnn.evaluation.intervals import normal_quantile, patient_codes, sum_by_patient, with_note
from medcnn.evaluation.placements import check_scores

Focus = Literal["specificity", "sensitivity"]


# ---------------------------------------------------------------- partial AUROC


def partial_auroc(y: ArrayLike, score: ArrayLike, low: float, high: float, focus: Focus = "specificity") -> float:
    """Area under the linearly interpolated ROC curve where specificity (or sensitivity) lies in [low, high]; at most high - low.

    y: (n,) 0/1; score: (n,). Raises InputError for NaN, an empty class, or a range that is not 0 <= low < high <= 1.
    """
    ranking, start, stop = _oriented(y, score, low, high, focus)
    return _partial_area(ranking.curve(), start, stop)


def mcclish_corrected(area: float, low: float, high: float) -> float | None:
    """The partial area rescaled so that 0.5 is chance and 1 is perfect (McClish 1989, doi:10.1177/0272989X8900900307).

    (1 + (A - min)/(max - min))/2 with the diagonal's area as min; None for an area below the diagonal, where it is undefined.
    """
    corrected = _rescale(area, low, high)
    return max(corrected, 0.5) if corrected >= 0.5 - 1e-12 else None


def partial_auroc_intervals(
    y: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    low: float,
    high: float,
    focus: Focus = "specificity",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """The partial AUROC with its 95% interval, raw and McClish-corrected.

    y: (n,) 0/1; score: (n,); patient: (n,) ids or None. The corrected limits are the raw ones rescaled; one below 0.5
    lies below the diagonal. One class only: not estimable. Raises InputError as `partial_auroc` does.
    """
    positive, scores = check_scores(y, score)
    lacking = lacking_class(int(positive.sum()), len(scores))
    if lacking:
        return not_estimable(lacking), not_estimable(lacking)
    ranking, start, stop = _oriented(positive, scores, low, high, focus)
    curve = ranking.curve()
    area = _partial_area(curve, start, stop)
    if affordable(len(scores), n_resamples):
        metric = _defined(ranking, lambda resampled: _partial_area(resampled, start, stop))
        raw = bootstrap_estimate(area, bootstrap_metric(metric, patient, len(scores), n_resamples=n_resamples, seed=seed), "bootstrap")
    else:
        raw = _linearised(area, _partial_influence(ranking, curve, start, stop), patient, upper=high - low)
    return raw, _corrected(raw, low, high)


def _corrected(raw: Estimate, low: float, high: float) -> Estimate:
    value = None if raw.value is None else mcclish_corrected(raw.value, low, high)
    if value is None:
        return with_note(Estimate(value=None, method=raw.method, note=raw.note), "the corrected area is not defined below the diagonal")
    limits = [None if limit is None else _rescale(limit, low, high) for limit in (raw.low, raw.high)]
    return Estimate(value=value, low=limits[0], high=limits[1], method=raw.method, note=raw.note)


def _rescale(area: float, low: float, high: float) -> float:
    chance = (high - low) * (2 - low - high) / 2
    return (1 + (area - chance) / (high - low - chance)) / 2


def _oriented(y: ArrayLike, score: ArrayLike, low: float, high: float, focus: str) -> tuple[Ranking, float, float]:
    """The ranking and the range of false positive rates. A range of sensitivity is one of specificity with the classes swapped."""
    if not 0 <= low < high <= 1:
        raise InputError(f"partial AUROC: expected a range 0 <= low < high <= 1 of {focus}, got {low} to {high}")
    if focus == "specificity":
        return rank_rows(y, score), 1 - high, 1 - low
    if focus == "sensitivity":
        positive, scores = check_scores(y, score)
        return rank_rows(~positive, -scores), 1 - high, 1 - low
    raise InputError(f"partial AUROC: expected the focus specificity or sensitivity, got {focus!r}")


def _clipped_segments(curve: Curve, start: float, stop: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Area of each segment of the ROC curve within [start, stop], and its parts left of start and right of stop, all (g,)."""
    x, y = 1 - curve.specificity, curve.sensitivity
    x[-1] = 1.0
    left, right, width = x[:-1], x[1:], np.diff(x)
    begin, end = np.clip(left, start, stop), np.clip(right, start, stop)
    slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    middle = y[:-1] + slope * ((begin + end) / 2 - left)
    return (
        np.where(end > begin, (end - begin) * middle, 0.0),
        np.minimum(right, start) - np.minimum(left, start),
        np.maximum(right, stop) - np.maximum(left, stop),
    )


def _partial_area(curve: Curve, start: float, stop: float) -> float:
    return float(_clipped_segments(curve, start, stop)[0].sum())


def _partial_influence(ranking: Ranking, curve: Curve, start: float, stop: float) -> FloatArray:
    """Derivative of the partial area by the weight of each row, in original order (n,); sums to 0.

    A positive adds the part of the range in which it is already called positive; a negative moves the curve below it
    sideways (the partial version of DeLong's placements; Zhang, Zhou, Freeman & Freeman 2002, doi:10.1002/sim.1011).
    """
    x, y = 1 - curve.specificity, curve.sensitivity
    inside, before, after = _clipped_segments(curve, start, stop)
    at_start, at_stop = _height(x, y, start), _height(x, y, stop)
    area, width = inside.sum(), np.diff(x)
    called = _ramp(x, stop) - _ramp(x, start)
    level = np.clip(x[:-1], start, stop)
    mean_height = np.divide(inside + before * at_start + after * at_stop, width, out=np.interp(level, x, y), where=width > 0)
    shift = mean_height - at_stop + stop * at_stop - start * at_start - area
    group = np.repeat(np.arange(len(ranking.ends)), np.diff(ranking.ends, prepend=-1))
    influence = np.empty(len(ranking.order))
    influence[ranking.order] = np.where(ranking.positive > 0, (called - area)[group] / curve.n_positive, shift[group] / curve.n_negative)
    return influence


def _ramp(x: FloatArray, t: float) -> FloatArray:
    """Integral up to t of the share of a tie already called positive, which rises from 0 at x[k] to 1 at x[k + 1]."""
    left, right, width = x[:-1], x[1:], np.diff(x)
    within = np.divide((t - left) ** 2, 2 * width, out=np.zeros_like(width), where=width > 0)
    return np.where(t >= right, t - (left + right) / 2, np.where(t > left, within, 0.0))


def _height(x: FloatArray, y: FloatArray, at: float) -> float:
    return float(np.interp(at, x, y))


# ---------------------------------------------------------------- average precision


def average_precision(y: ArrayLike, score: ArrayLike) -> float:
    """Sum over distinct thresholds of (R_k - R_(k-1)) P_k, the step definition without interpolation.

    Equals scikit-learn's `average_precision_score` (Su, Yuan & Zhu 2015, doi:10.1145/2808194.2809481). A random ranking
    has the prevalence. Raises InputError for NaN, strange labels or an empty class.
    """
    return _average_precision(rank_rows(y, score).curve())


def average_precision_interval(
    y: ArrayLike, score: ArrayLike, patient: ArrayLike | None = None, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Average precision with its 95% interval; the note states the prevalence, which is what chance attains.

    y: (n,) 0/1; score: (n,); patient: (n,) ids or None. The linearised interval is formed on the logit scale. One class
    only: not estimable.
    """
    positive, scores = check_scores(y, score)
    lacking = lacking_class(int(positive.sum()), len(scores))
    if lacking:
        return not_estimable(lacking)
    ranking = rank_rows(positive, scores)
    curve = ranking.curve()
    value = _average_precision(curve)
    if affordable(len(scores), n_resamples):
        resampled = bootstrap_metric(_defined(ranking, _average_precision), patient, len(scores), n_resamples=n_resamples, seed=seed)
        estimate = bootstrap_estimate(value, resampled, "bootstrap")
    else:
        estimate = _linearised(value, _precision_influence(ranking, curve), patient, upper=1.0)
    return with_note(estimate, f"prevalence {positive.mean():.4g}")


def boyd_limits(value: float, n_positive: int, confidence: float = 0.95) -> tuple[float, float]:
    """The logit interval of an average precision, expit(logit AP +- z/sqrt(n_positive AP (1 - AP))), for independent cases.

    Boyd, Eng & Page 2013, doi:10.1007/978-3-642-40994-3_29. (NaN, NaN) at 0 and 1, where it is undefined.
    """
    if not 0 < value < 1:
        return math.nan, math.nan
    half = normal_quantile(confidence) / math.sqrt(n_positive * value * (1 - value))
    return float(special.expit(special.logit(value) - half)), float(special.expit(special.logit(value) + half))


def _average_precision(curve: Curve) -> float:
    return float(np.diff(curve.tp) @ curve.precision[1:] / curve.n_positive)


def _precision_influence(ranking: Ranking, curve: Curve) -> FloatArray:
    """Derivative of the average precision by the weight of each row, in original order (n,); sums to 0."""
    gained, precision = np.diff(curve.tp), curve.precision[1:]
    called = (curve.tp + curve.fp)[1:]
    from_here = np.cumsum((gained * curve.fp[1:] / called**2)[::-1])[::-1]
    lost = np.cumsum((gained * curve.tp[1:] / called**2)[::-1])[::-1]
    group = np.repeat(np.arange(len(ranking.ends)), np.diff(ranking.ends, prepend=-1))
    influence = np.empty(len(ranking.order))
    of_positive = precision + from_here - _average_precision(curve)
    influence[ranking.order] = np.where(ranking.positive > 0, of_positive[group], -lost[group]) / curve.n_positive
    return influence


def resampled_precision(y: ArrayLike, score: ArrayLike) -> Callable[[FloatArray], float]:
    """The average precision as a function of row weights (n,), for `bootstrap_metric`; NaN where a class has no weight."""
    return _defined(rank_rows(y, score), _average_precision)


def precision_influence(y: ArrayLike, score: ArrayLike) -> FloatArray:
    """Derivative of the average precision by the weight of each row, (n,); sums to 0. Raises InputError for an empty class."""
    ranking = rank_rows(y, score)
    return _precision_influence(ranking, ranking.curve())


# ---------------------------------------------------------------- intervals


def _defined(ranking: Ranking, area: Callable[[Curve], float]) -> Callable[[FloatArray], float]:
    """area(curve) of a resample given by row weights; NaN where the resample lacks a class."""
    positive = np.empty(len(ranking.order))
    positive[ranking.order] = ranking.positive

    def metric(weights: FloatArray) -> float:
        cases = positive @ weights
        return area(ranking.curve(weights)) if 0 < cases < weights.sum() else math.nan

    return metric


def _linearised(value: float, influence: FloatArray, patient: ArrayLike | None, *, upper: float) -> Estimate:
    """Limits on the logit scale of value / upper from the patients' influences; none at 0 or at the upper bound."""
    codes, n_patients = patient_codes(patient, len(influence))
    variance = influence_variance(sum_by_patient(influence, codes, n_patients))
    share = value / upper
    if not (variance > 0 and 0 < share < 1):
        return Estimate(value=value, method="linearised", note="no interval: the variance cannot be estimated")
    se = math.sqrt(variance)
    half = normal_quantile(0.95) * se / upper / (share * (1 - share))
    centre = special.logit(share)
    low, high = special.expit(centre - half) * upper, special.expit(centre + half) * upper
    return Estimate(value=value, low=float(low), high=float(high), method="linearised", se=se)
