"""Metrics of several models on the same rows, resampled together so that their differences are paired.

Brier score, log-loss and net benefit are means over rows; average precision and the calibration slope are not. Each gives
its value per model, the values in each resample of patients, and, beyond the bootstrap's budget, each row's influence.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from medcnn.evaluation.areas import average_precision, precision_influence, resampled_precision
from medcnn.evaluation.bootstrap import affordable, bootstrap_metric, bootstrap_ratio, percentile_interval
from medcnn.evaluation.calibration import log_odds, row_log_loss
from medcnn.evaluation.clustered import influence_variance
from medcnn.evaluation.estimates import FloatArray
from medcnn.evaluation.intervals import normal_quantile, patient_codes, sum_by_patient
from medcnn.evaluation.logistic import fit_logistic
from medcnn.evaluation.significance import Difference, normal_p

LOWER_IS_BETTER = frozenset({"brier", "log_loss"})
NO_INFLUENCE = np.empty((0, 0))


@dataclass(frozen=True)
class PairedMetric:
    """One metric of each model. values (k,); replicates (n_resamples, k), or None beyond the budget; influences (k, n).

    influences are empty where there are replicates. NaN: not estimable (in this resample).
    """

    name: str
    values: FloatArray
    replicates: FloatArray | None
    influences: FloatArray


def paired_metric(
    name: str,
    y: FloatArray,
    probabilities: Sequence[FloatArray],
    patient: ArrayLike | None,
    *,
    n_resamples: int,
    seed: int,
    thresholds: FloatArray | None = None,
) -> PairedMetric:
    """brier, log_loss, net_benefit (which needs thresholds), average_precision or calibration_slope of each model.

    y: (n,) 0/1; probabilities: one (n,) in [0, 1] per model; patient: (n,) ids or None; thresholds: (n,) threshold
    probability of each row, in [0, 1).
    """
    if name in MEANS:
        rows = np.column_stack([MEANS[name](y, p, thresholds) for p in probabilities])
        values = rows.mean(axis=0)
        if not np.isfinite(rows).all():
            return PairedMetric(name, values, None, np.full((len(values), len(y)), np.nan))
        if affordable(len(y), n_resamples):
            return PairedMetric(name, values, bootstrap_ratio(rows, None, patient, n_resamples=n_resamples, seed=seed), NO_INFLUENCE)
        return PairedMetric(name, values, None, (rows - values).T / len(y))
    value, resampled, influence = CURVED[name]
    values = np.array([value(y, p) for p in probabilities])
    if affordable(len(y), n_resamples):
        columns = [bootstrap_metric(resampled(y, p), patient, len(y), n_resamples=n_resamples, seed=seed) for p in probabilities]
        return PairedMetric(name, values, np.column_stack(columns), NO_INFLUENCE)
    return PairedMetric(name, values, None, np.stack([influence(y, p) for p in probabilities]))


def difference_of(metric: PairedMetric, a: int, b: int, patient: ArrayLike | None) -> Difference:
    """The difference of models a and b with its 95% interval: "bootstrap" percentiles, or "linearised".

    The statistic is the difference over its standard error (of the resamples), with a normal p, as pROC's bootstrap test;
    the note says when its Monte Carlo error leaves the side of 0.05 open.
    """
    difference = float(metric.values[a] - metric.values[b])
    method = "linearised" if metric.replicates is None else "bootstrap"
    if not math.isfinite(difference):
        return Difference(difference=None, method=method, note="not estimable: the metric is undefined or infinite for a model")
    if metric.replicates is not None:
        gaps = metric.replicates[:, a] - metric.replicates[:, b]
        low, high, undefined = percentile_interval(gaps)
        se = float(np.nanstd(gaps, ddof=1))
        note = f"undefined in {undefined} of {len(gaps)} resamples" if undefined else ""
    else:
        gap = metric.influences[a] - metric.influences[b]
        codes, n_patients = patient_codes(patient, len(gap))
        se = math.sqrt(influence_variance(sum_by_patient(gap, codes, n_patients)))
        half, note = normal_quantile(0.95) * se, ""
        low, high = difference - half, difference + half
    if not se > 1e-15 * max(1.0, abs(difference)):
        return _without_spread(difference, method, note)
    if not low < high:
        return Difference(difference=difference, method=method, se=se, note=note or "no interval: too few resamples define it")
    statistic = difference / se
    p = normal_p(statistic)
    if metric.replicates is not None:
        error = math.sqrt(2 / len(metric.replicates)) * abs(statistic) * math.exp(-(statistic**2) / 2) / math.sqrt(2 * math.pi)
        if abs(p - 0.05) < 2 * error:
            note = "; ".join(part for part in (note, f"Monte Carlo error of p {error:.3f}: on which side of 0.05 it lies is open") if part)
    return Difference(difference=difference, low=low, high=high, statistic=statistic, p=p, se=se, method=method, note=note)


def _without_spread(difference: float, method: str, note: str) -> Difference:
    if difference == 0:
        return Difference(difference=0.0, low=0.0, high=0.0, statistic=0.0, p=1.0, se=0.0, method=method, note=note)
    return Difference(difference=difference, method=method, note=note or "no interval: the difference does not vary between patients")


# ---------------------------------------------------------------- means over rows


def _net_benefit_rows(y: FloatArray, p: FloatArray, thresholds: FloatArray | None) -> FloatArray:
    """tp - fp t/(1-t) of each row (Vickers & Elkin 2006, doi:10.1177/0272989X06295361)."""
    t = np.zeros_like(p) if thresholds is None else thresholds
    return np.where(p >= t, np.where(y == 1, 1.0, -t / (1 - t)), 0.0)


MEANS: dict[str, Callable[[FloatArray, FloatArray, FloatArray | None], FloatArray]] = {
    "brier": lambda y, p, _: np.square(p - y),
    "log_loss": lambda y, p, _: row_log_loss(y, p),
    "net_benefit": _net_benefit_rows,
}


# ---------------------------------------------------------------- calibration slope


def weighted_slope(y: FloatArray, lp: FloatArray, weights: FloatArray, start: FloatArray) -> float:
    """b in logit P(y) = a + b lp by weighted maximum likelihood from `start` (2,); NaN where no finite optimum exists."""
    a, b = float(start[0]), float(start[1])
    for _ in range(30):
        mu = expit(a + b * lp)
        residual, information = weights * (y - mu), weights * mu * (1 - mu)
        score_a, score_b = residual.sum(), residual @ lp
        i_aa, i_ab, i_bb = information.sum(), information @ lp, information @ (lp * lp)
        determinant = i_aa * i_bb - i_ab**2
        if not determinant > 1e-12 * i_aa * i_bb:
            return math.nan
        step_a, step_b = (i_bb * score_a - i_ab * score_b) / determinant, (i_aa * score_b - i_ab * score_a) / determinant
        a, b = a + step_a, b + step_b
        if not abs(b) < 1e4:
            return math.nan
        # Newton doubles the digits in each step: after a step of 1e-5 the error is below 1e-9.
        if abs(step_a) + abs(step_b) < 1e-5 * (1 + abs(a) + abs(b)):
            return float(b)
    return math.nan


def _slope_fit(y: FloatArray, p: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Log odds (n,) and (intercept, slope), or None when the slope cannot be estimated."""
    lp = log_odds(p)[0]
    if y.min() == y.max() or lp.min() == lp.max():
        return None
    fit = fit_logistic(np.column_stack([np.ones(len(y)), lp]), y)
    return (lp, fit.coefficients) if fit.converged else None


def _slope(y: FloatArray, p: FloatArray) -> float:
    fitted = _slope_fit(y, p)
    return math.nan if fitted is None else float(fitted[1][1])


def _resampled_slope(y: FloatArray, p: FloatArray) -> Callable[[FloatArray], float]:
    fitted = _slope_fit(y, p)
    if fitted is None:
        return lambda _: math.nan
    lp, start = fitted
    return lambda weights: weighted_slope(y, lp, weights, start)


def _slope_influence(y: FloatArray, p: FloatArray) -> FloatArray:
    fitted = _slope_fit(y, p)
    if fitted is None:
        return np.full(len(y), np.nan)
    lp, coefficients = fitted
    mu = expit(coefficients[0] + coefficients[1] * lp)
    design = np.column_stack([np.ones(len(y)), lp])
    information = design.T @ (design * (mu * (1 - mu))[:, None])
    influence: FloatArray = (design * (y - mu)[:, None]) @ np.linalg.inv(information)[1]
    return influence


def _precision(y: FloatArray, p: FloatArray) -> float:
    return average_precision(y, p) if y.min() < y.max() else math.nan


Curved = tuple[
    Callable[[FloatArray, FloatArray], float],
    Callable[[FloatArray, FloatArray], Callable[[FloatArray], float]],
    Callable[[FloatArray, FloatArray], FloatArray],
]
CURVED: dict[str, Curved] = {
    "average_precision": (_precision, resampled_precision, precision_influence),
    "calibration_slope": (_slope, _resampled_slope, _slope_influence),
}
