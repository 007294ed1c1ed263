"""Unpenalised logistic regression by maximum likelihood, to the last digit: Newton's method, profile and robust intervals.

scikit-learn penalises by default and stops early, statsmodels costs a second to import; calibration slopes,
temperature, Platt and beta calibration need the exact optimum of the same small likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import chi2

from medcnn.evaluation.estimates import FloatArray, IntArray

MAX_STEPS = 60
DIVERGED = 1e4  # a coefficient beyond this (in logit units per unit of the design) means that the data are separated


@dataclass(frozen=True)
class LogisticFit:
    """coefficients (k,), covariance (k, k) by expected information, log-likelihood; converged False: no finite optimum."""

    coefficients: FloatArray
    covariance: FloatArray
    log_likelihood: float
    converged: bool


def log_likelihood(y: FloatArray, eta: FloatArray, weights: FloatArray | None = None) -> float:
    """Bernoulli log-likelihood, sum over rows, of log odds eta (n,) for y (n,) in [0, 1]."""
    terms = y * eta - np.logaddexp(0.0, eta)
    return float(terms.sum() if weights is None else terms @ weights)


def fit_logistic(
    design: FloatArray,
    y: FloatArray,
    *,
    offset: FloatArray | float = 0.0,
    weights: FloatArray | None = None,
    start: FloatArray | None = None,
) -> LogisticFit:
    """Maximise the likelihood of logit P(y) = design @ b + offset. design (n, k), y (n,) in [0, 1], weights (n,) counts.

    Newton-Raphson with step halving until the step is below 1e-12 relative. Separated data or a singular design give
    converged=False with the last coefficients; nothing is raised.
    """
    beta = np.zeros(design.shape[1]) if start is None else np.asarray(start, dtype=np.float64)
    eta = design @ beta + offset
    current = log_likelihood(y, eta, weights)
    covariance = np.full((beta.size, beta.size), np.nan)
    for _ in range(MAX_STEPS):
        gradient, information = _derivatives(design, y, eta, weights)
        if not np.isfinite(information).all() or np.linalg.matrix_rank(information, hermitian=True) < beta.size:
            return LogisticFit(beta, covariance, current, False)
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        step = covariance @ gradient
        for _ in range(30):
            candidate_eta = design @ (beta + step) + offset
            candidate = log_likelihood(y, candidate_eta, weights)
            if candidate >= current - 1e-10 * abs(current):
                break
            step = step / 2
        beta, eta, current = beta + step, candidate_eta, candidate
        if np.abs(beta).max() > DIVERGED:
            return LogisticFit(beta, covariance, current, False)
        if np.abs(step).max() <= 1e-12 * max(1.0, float(np.abs(beta).max())):
            return LogisticFit(beta, covariance, current, current < -1e-9 * y.size)
    return LogisticFit(beta, covariance, current, False)


def _derivatives(design: FloatArray, y: FloatArray, eta: FloatArray, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    p = expit(eta)
    residual, variance = y - p, p * (1 - p)
    if weights is not None:
        residual, variance = residual * weights, variance * weights
    return design.T @ residual, (design.T * variance) @ design


def robust_covariance(
    fit: LogisticFit, design: FloatArray, y: FloatArray, *, patients: IntArray, offset: FloatArray | float = 0.0
) -> FloatArray:
    """Cluster-robust (sandwich) covariance (k, k), HC0 with the factor G/(G-1). patients: int codes (n,).

    Liang & Zeger 1986, doi:10.1093/biomet/73.1.13; the same as R's sandwich::vcovCL(type="HC0", cadjust=TRUE).
    """
    score = design * (y - expit(design @ fit.coefficients + offset))[:, None]
    summed = np.stack([np.bincount(patients, weights=column) for column in score.T], axis=1)
    groups = summed.shape[0]
    factor = groups / (groups - 1) if groups > 1 else np.nan
    covariance: FloatArray = factor * fit.covariance @ (summed.T @ summed) @ fit.covariance
    return covariance


def profile_interval(
    fit: LogisticFit, index: int, design: FloatArray, y: FloatArray, *, offset: FloatArray | float = 0.0, level: float = 0.95
) -> tuple[float, float]:
    """Profile-likelihood limits of coefficient `index`: where twice the log-likelihood drop meets the chi-square quantile.

    The other coefficients are refitted at every trial value (Venzon & Moolgavkar 1988, doi:10.2307/2347496).
    A side on which the likelihood never drops that far is infinite.
    """
    drop = float(chi2.ppf(level, 1)) / 2
    kept = [column for column in range(design.shape[1]) if column != index]
    others, axis = design[:, kept], design[:, index]
    start = fit.coefficients[kept]

    def excess(value: float) -> float:
        trial = offset + value * axis
        best = fit_logistic(others, y, offset=trial, start=start).log_likelihood if kept else log_likelihood(y, trial)
        return fit.log_likelihood - drop - best

    centre, spread = float(fit.coefficients[index]), float(np.sqrt(fit.covariance[index, index]))
    low, high = (_crossing(excess, centre, side * spread) for side in (-1, 1))
    return low, high


def _crossing(excess: Callable[[float], float], centre: float, spread: float) -> float:
    outer = 2 * spread
    for _ in range(40):
        if excess(centre + outer) > 0:
            return float(brentq(excess, centre, centre + outer, xtol=1e-13, rtol=1e-14))
        outer *= 2
    return float(np.copysign(np.inf, spread))
