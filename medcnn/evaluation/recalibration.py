"""Recalibration: maps from log odds (or softmax logits) to better probabilities, fitted on rows the model was not trained on.

Methods, by maximum likelihood without a penalty:
    none         the probabilities as they are
    intercept    logit p' = a + logit p                    recalibration-in-the-large, for a new site with few labelled cases
    temperature  logit p' = logit p / T, or softmax(z / T)  Guo et al. 2017, arXiv:1706.04599
    platt        logit p' = a + b logit p                  Platt 1999, without his smoothed targets; logistic recalibration
    beta         logit p' = c + a ln p - b ln(1 - p)       Kull, Silva Filho & Flach 2017, doi:10.1214/17-EJS1338SI; a, b >= 0
    isotonic     a rising step function, ties averaged first, linear between knots; may yield 0 and 1
    auto         of none, temperature, platt, beta and isotonic the lowest cross-validated log-loss, folds dealt by patient
A method that these rows cannot fit (one class, perfect separation, an order that would be turned round) becomes "none",
and the note says why: nothing is made up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from medcnn.errors import InputError
from medcnn.evaluation.calibration import clip_note, log_odds
from medcnn.evaluation.estimates import FloatArray, IntArray, check_labels_and_probabilities
from medcnn.evaluation.folds import deal_folds
from medcnn.evaluation.logistic import fit_logistic

METHODS = ("none", "intercept", "temperature", "platt", "beta", "isotonic")
CANDIDATES = ("none", "temperature", "platt", "beta", "isotonic")  # simplest first: a tie goes to the earlier
N_FOLDS = 5


@dataclass(frozen=True)
class Recalibrator:
    """One label's map. `method` is what is applied, `requested` what was asked for; `parameters` are numbers or lists of numbers.

    `scores`: cross-validated log-loss of each candidate when requested is "auto". `n`, `n_positive`: the fitting rows.
    """

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    requested: str = ""
    n: int = 0
    n_positive: int = 0
    scores: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""

    def apply(self, logit: FloatArray) -> FloatArray:
        """Probabilities (n,) in [0, 1] for log odds (n,); +-inf is allowed."""
        return _APPLY[self.method](np.asarray(logit, dtype=np.float64), self.parameters)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recalibrator":
        """The inverse of `as_dict`; raises InputError for a method that is not known."""
        if values.get("method") not in METHODS:
            raise InputError(f"recalibration: method {values.get('method')!r} is unknown; expected one of {', '.join(METHODS)}")
        return cls(**values)


def fit_recalibration(method: str, y: FloatArray, logit: FloatArray, *, patients: IntArray | None = None, seed: int = 0) -> Recalibrator:
    """Fit `method` (see the module) to y (n,) in {0, 1} and log odds (n,), on validation or out-of-fold rows only.

    patients: codes (n,) that keep a patient within one fold of "auto"; None: each row is its own. Log odds of +-inf
    (probabilities of exactly 0 or 1) are fitted at the clip value of `calibration.log_odds`, counted in the note.
    Raises InputError for NaN, labels other than 0 and 1, or an unknown method.
    """
    logit = np.asarray(logit, dtype=np.float64)
    if np.isnan(logit).any():
        raise InputError(
            f"recalibration: the log odds are NaN in {int(np.isnan(logit).sum())} rows, first row {int(np.argmax(np.isnan(logit)))}; expected numbers"
        )
    y, _ = check_labels_and_probabilities(y, expit(logit))
    finite, n_moved = _finite(logit)
    if method == "auto":
        chosen = _choose(y, finite, patients, seed)
    elif method in METHODS:
        chosen = _fit(method, y, finite)
    else:
        raise InputError(f"recalibration: method {method!r} is unknown; expected one of {', '.join((*METHODS, 'auto'))}")
    note = "; ".join(filter(None, (chosen.note, clip_note(n_moved))))
    return Recalibrator(chosen.method, chosen.parameters, method, y.size, int(y.sum()), chosen.scores, note)


def log_odds_of(p: FloatArray) -> FloatArray:
    """logit(p), +-inf at 0 and 1: what a table without logits is recalibrated from."""
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)


def _finite(logit: FloatArray) -> tuple[FloatArray, int]:
    infinite = np.isinf(logit)
    if not infinite.any():
        return logit, 0
    return log_odds(np.where(infinite, logit > 0, expit(logit)))[0], int(infinite.sum())


# ---------------------------------------------------------------- fitting one method


def _fit(method: str, y: FloatArray, logit: FloatArray) -> Recalibrator:
    if method == "none":
        return Recalibrator("none")
    if y.min() == y.max():
        return Recalibrator("none", note=f"{method} cannot be fitted: one class only")
    return _FIT[method](y, logit)


def _fit_intercept(y: FloatArray, logit: FloatArray) -> Recalibrator:
    fit = fit_logistic(np.ones((y.size, 1)), y, offset=logit)
    return Recalibrator("intercept", {"intercept": float(fit.coefficients[0]), "se": float(np.sqrt(fit.covariance[0, 0]))})


def _fit_temperature(y: FloatArray, logit: FloatArray) -> Recalibrator:
    fit = fit_logistic(logit[:, None], y, start=np.array([0.0]))
    if not fit.converged:
        return Recalibrator("none", note="temperature cannot be fitted: the validation rows are separated perfectly")
    slope = float(fit.coefficients[0])
    if slope <= 0:
        return Recalibrator("none", note=f"temperature cannot be fitted: the best 1/T is {slope:.3g}, which would turn the order round")
    return Recalibrator("temperature", {"temperature": 1 / slope, "slope_se": float(np.sqrt(fit.covariance[0, 0]))})


def _fit_platt(y: FloatArray, logit: FloatArray) -> Recalibrator:
    fit = fit_logistic(np.column_stack([np.ones(y.size), logit]), y)
    if not fit.converged:
        return Recalibrator("none", note="platt cannot be fitted: the validation rows are separated perfectly or constant")
    intercept, slope = (float(value) for value in fit.coefficients)
    if slope <= 0:
        return Recalibrator("none", note=f"platt cannot be fitted: its slope is {slope:.3g}, which would turn the order round")
    return Recalibrator("platt", {"intercept": intercept, "slope": slope})


def _fit_beta(y: FloatArray, logit: FloatArray) -> Recalibrator:
    """Drops a coefficient whose estimate is negative, as Kull et al. do, so that the map never falls."""
    columns = {"a": log_expit(logit), "b": -log_expit(-logit)}
    while columns:
        fit = fit_logistic(np.column_stack([np.ones(y.size), *columns.values()]), y)
        if not fit.converged:
            return Recalibrator("none", note="beta cannot be fitted: the validation rows are separated perfectly or constant")
        slopes = dict(zip(columns, (float(value) for value in fit.coefficients[1:]), strict=True))
        lowest = min(slopes, key=lambda name: slopes[name])
        if slopes[lowest] >= 0:
            return Recalibrator("beta", {"intercept": float(fit.coefficients[0]), "a": slopes.get("a", 0.0), "b": slopes.get("b", 0.0)})
        del columns[lowest]
    return Recalibrator("none", note="beta cannot be fitted: it would turn the order round")


def _fit_isotonic(y: FloatArray, logit: FloatArray) -> Recalibrator:
    """Pool-adjacent-violators on tie-averaged outcomes; the knots kept are the ends of each level (Zadrozny & Elkan 2002, doi:10.1145/775047.775151)."""
    from scipy.optimize import isotonic_regression

    x, inverse, count = np.unique(expit(logit), return_inverse=True, return_counts=True)
    means = np.bincount(inverse, weights=y) / count
    level = isotonic_regression(means, weights=count.astype(np.float64)).x
    change = np.flatnonzero(np.diff(level)) + 1
    ends = np.unique(np.concatenate([[0], change - 1, change, [x.size - 1]]))
    return Recalibrator("isotonic", {"p": x[ends].tolist(), "level": np.clip(level[ends], 0, 1).tolist()})


_FIT: Mapping[str, Callable[[FloatArray, FloatArray], Recalibrator]] = {
    "intercept": _fit_intercept,
    "temperature": _fit_temperature,
    "platt": _fit_platt,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
}


# ---------------------------------------------------------------- applying one


def _apply_beta(logit: FloatArray, parameters: Mapping[str, Any]) -> FloatArray:
    # a = 0 times ln 0 must be 0, not NaN.
    low = parameters["a"] * log_expit(logit) if parameters["a"] else 0.0
    high = parameters["b"] * log_expit(-logit) if parameters["b"] else 0.0
    return np.asarray(expit(parameters["intercept"] + low - high), dtype=np.float64)


_APPLY: Mapping[str, Callable[[FloatArray, Mapping[str, Any]], FloatArray]] = {
    "none": lambda logit, _: np.asarray(expit(logit), dtype=np.float64),
    "intercept": lambda logit, values: np.asarray(expit(logit + values["intercept"]), dtype=np.float64),
    "temperature": lambda logit, values: np.asarray(expit(logit / values["temperature"]), dtype=np.float64),
    "platt": lambda logit, values: np.asarray(expit(values["intercept"] + values["slope"] * logit), dtype=np.float64),
    "beta": _apply_beta,
    "isotonic": lambda logit, values: np.interp(expit(logit), values["p"], values["level"]),
}


# ---------------------------------------------------------------- choosing


def _choose(y: FloatArray, logit: FloatArray, patients: IntArray | None, seed: int) -> Recalibrator:
    folds = deal_folds(y, patients, n_folds=N_FOLDS, seed=seed, tie_break=logit)
    if folds is None:
        return Recalibrator("none", note=f"auto needs at least {N_FOLDS} patients with and {N_FOLDS} without the finding")
    scores = {method: _cross_validated_log_loss(method, y, logit, folds) for method in CANDIDATES}
    best = min(scores, key=lambda method: scores[method])
    fitted = _fit(best, y, logit)
    # JSON has no infinity: a candidate whose log-loss is infinite is written as null.
    return Recalibrator(
        fitted.method,
        fitted.parameters,
        scores={name: score if np.isfinite(score) else None for name, score in scores.items()},
        note=fitted.note,
    )


def _cross_validated_log_loss(method: str, y: FloatArray, logit: FloatArray, folds: IntArray) -> float:
    losses = np.empty(y.size)
    for fold in np.unique(folds):
        held = folds == fold
        p = _fit(method, y[~held], logit[~held]).apply(logit[held])
        with np.errstate(divide="ignore"):
            losses[held] = np.where(y[held] == 1, -np.log(p), -np.log1p(-p))
    return float(losses.mean())
