import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss

from medcnn.evaluation import bootstrap
from medcnn.evaluation.bootstrap import resample_counts
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.paired_metrics import PairedMetric, difference_of, paired_metric, weighted_slope

METRICS = ("brier", "log_loss", "net_benefit", "average_precision", "calibration_slope")


def sample(n: int = 300, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.35).astype(float)
    lp = rng.normal(size=n) + y
    p = [1 / (1 + np.exp(-(lp + shift * rng.normal(size=n)))) for shift in (0.3, 0.8)]
    return y, p, rng.integers(0, n // 3, n)


def slope(y: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None) -> float:
    lp = np.log(p / (1 - p))[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=500, solver="newton-cholesky").fit(lp, y, sample_weight=weights)
    return float(fit.coef_[0, 0])


def net_benefit(y: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None) -> float:
    w = np.ones(len(y)) if weights is None else weights
    called = p >= 0.3
    return float((w @ (called & (y == 1)) - w @ (called & (y == 0)) * 0.3 / 0.7) / w.sum())


THEIRS = {
    "brier": lambda y, p, w: brier_score_loss(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: log_loss(y, p, sample_weight=w),
    "net_benefit": net_benefit,
    "average_precision": lambda y, p, w: average_precision_score(y, p, sample_weight=w),
    "calibration_slope": slope,
}


@pytest.mark.parametrize("name", METRICS)
def test_values_and_replicates_are_those_of_other_programs_on_the_same_resamples(name: str) -> None:
    y, p, patient = sample()
    codes, n_patients = patient_codes(patient, len(y))
    found = paired_metric(name, y, p, patient, n_resamples=12, seed=3, thresholds=np.full(len(y), 0.3))
    np.testing.assert_allclose(found.values, [THEIRS[name](y, each, None) for each in p], rtol=1e-6)
    for row, counts in zip(found.replicates, resample_counts(n_patients, 12, seed=3), strict=True):
        np.testing.assert_allclose(row, [THEIRS[name](y, each, counts[codes].astype(float)) for each in p], rtol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_linearised_difference_agrees_with_the_bootstrap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, patient = sample(1500, 1)
    at = np.full(len(y), 0.3)
    booted = difference_of(paired_metric(name, y, p, patient, n_resamples=500, seed=0, thresholds=at), 0, 1, patient)
    monkeypatch.setattr(bootstrap, "BUDGET", 1)
    analytic = difference_of(paired_metric(name, y, p, patient, n_resamples=500, seed=0, thresholds=at), 0, 1, patient)
    assert (booted.method, analytic.method) == ("bootstrap", "linearised")
    assert analytic.difference == booted.difference
    assert analytic.se == pytest.approx(booted.se, rel=0.12)
    np.testing.assert_allclose((analytic.low, analytic.high), (booted.low, booted.high), atol=0.4 * booted.se)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n_resamples", [50, 0])
def test_equal_probabilities_differ_by_nothing_with_p_one(name: str, n_resamples: int) -> None:
    y, p, patient = sample()
    metric = paired_metric(name, y, [p[0], p[0]], patient, n_resamples=n_resamples, seed=0, thresholds=np.full(len(y), 0.3))
    found = difference_of(metric, 0, 1, patient)
    assert (found.difference, found.statistic, found.p, found.low, found.high) == (0.0, 0.0, 1.0, 0.0, 0.0)


def test_difference_is_antisymmetric() -> None:
    y, p, patient = sample()
    metric = paired_metric("brier", y, p, patient, n_resamples=100, seed=0)
    one, other = difference_of(metric, 0, 1, patient), difference_of(metric, 1, 0, patient)
    assert (other.difference, other.low, other.statistic) == pytest.approx((-one.difference, -one.high, -one.statistic))
    assert other.p == one.p


def test_infinite_log_loss_is_not_compared() -> None:
    y, p, _ = sample()
    certain = p[1].copy()
    certain[np.argmax(y)] = 0.0
    metric = paired_metric("log_loss", y, [p[0], certain], None, n_resamples=20, seed=0)
    assert math.isinf(metric.values[1])
    found = difference_of(metric, 0, 1, None)
    assert (found.difference, found.p) == (None, None)
    assert "infinite" in found.note


@pytest.mark.parametrize("n_resamples", [20, 0])
def test_slope_of_separated_or_constant_probabilities_is_not_estimable(n_resamples: int) -> None:
    y, p, _ = sample()
    for useless in (np.where(y == 1, 0.8, 0.2), np.full(len(y), 0.4)):
        metric = paired_metric("calibration_slope", y, [p[0], useless], None, n_resamples=n_resamples, seed=0)
        assert difference_of(metric, 0, 1, None).difference is None
    one_class = paired_metric("average_precision", np.ones(5), [np.arange(5) / 5] * 2, None, n_resamples=5, seed=0)
    assert difference_of(one_class, 0, 1, None).difference is None


def test_slope_that_diverges_is_undefined() -> None:
    y, lp = np.array([0.0, 0.0, 1.0, 1.0]), np.array([-2.0, -1.0, 1.0, 2.0])
    assert math.isnan(weighted_slope(y, lp, np.ones(4), np.array([0.0, 1.0])))
    assert math.isnan(weighted_slope(y, np.ones(4), np.ones(4), np.zeros(2)))


def test_open_side_of_five_percent_is_said() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    replicates = np.column_stack([(z - z.mean()) / z.std(ddof=1), np.zeros(400)])
    near = difference_of(PairedMetric("brier", np.array([1.95, 0.0]), replicates, np.empty((0, 0))), 0, 1, None)
    assert near.p == pytest.approx(0.0512, abs=1e-3)
    assert "on which side of 0.05 it lies is open" in near.note
    far = difference_of(PairedMetric("brier", np.array([3.0, 0.0]), replicates, np.empty((0, 0))), 0, 1, None)
    assert far.note == ""


def test_undefined_resamples_are_counted() -> None:
    replicates = np.column_stack([np.append(np.arange(9.0), np.nan), np.zeros(10)])
    found = difference_of(PairedMetric("calibration_slope", np.array([4.0, 0.0]), replicates, np.empty((0, 0))), 0, 1, None)
    assert "undefined in 1 of 10 resamples" in found.note
    replicates[:6, 0] = np.nan
    found = difference_of(PairedMetric("calibration_slope", np.array([4.0, 0.0]), replicates, np.empty((0, 0))), 0, 1, None)
    assert (found.difference, found.low, found.p) == (4.0, None, None)


def test_probability_at_the_threshold_is_called_positive() -> None:
    y, p = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.25, 0.25, 0.1, 0.1])
    found = paired_metric("net_benefit", y, [p, p], None, n_resamples=0, seed=0, thresholds=np.full(4, 0.25))
    assert found.values[0] == pytest.approx((1 - 0.25 / 0.75) / 4)


def test_monte_carlo_error_of_p_is_what_repeated_bootstraps_show() -> None:
    rng = np.random.default_rng(1)
    p = []
    for _ in range(400):
        replicates = np.column_stack([rng.normal(size=250), np.zeros(250)])
        found = difference_of(PairedMetric("brier", np.array([2.0, 0.0]), replicates, np.empty((0, 0))), 0, 1, None)
        p.append(found.p)
    noted = [float(text.split("error of p ")[1].split(":")[0]) for text in [found.note] if "error of p" in text]
    assert noted == [pytest.approx(np.std(p), abs=0.0015)]
