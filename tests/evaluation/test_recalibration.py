import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medcnn.errors import InputError
from medcnn.evaluation.calibration import log_loss
from medcnn.evaluation.recalibration import METHODS, Recalibrator, fit_recalibration, log_odds_of


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lp = rng.normal(-0.5, 2, 1500)
    return (rng.random(1500) < expit(0.4 + 0.5 * lp)).astype(float), lp


def test_platt_is_unpenalised_logistic_regression(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, lp = rows
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(lp[:, None], y)
    fitted = fit_recalibration("platt", y, lp)
    np.testing.assert_allclose(
        [fitted.parameters["intercept"], fitted.parameters["slope"]], [theirs.intercept_[0], theirs.coef_[0, 0]], rtol=1e-5
    )
    np.testing.assert_allclose(fitted.apply(lp).mean(), y.mean(), rtol=1e-10)


def test_temperature_minimises_the_log_loss(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, lp = rows
    best = minimize_scalar(lambda t: log_loss(y, expit(lp / t)).value, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10})
    np.testing.assert_allclose(fit_recalibration("temperature", y, lp).parameters["temperature"], best.x, rtol=1e-6)


def test_isotonic_is_that_of_scikit_learn_with_ties(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows[0], np.clip(np.round(expit(rows[1]), 2), 0.01, 0.99)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, y)
    grid = np.linspace(0.001, 0.999, 200)
    np.testing.assert_allclose(fit_recalibration("isotonic", y, log_odds_of(p)).apply(logit(grid)), theirs.predict(grid), atol=1e-10)


def test_every_method_beats_none_on_its_own_rows(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, lp = rows
    losses = {method: log_loss(y, np.clip(fit_recalibration(method, y, lp).apply(lp), 1e-9, 1 - 1e-9)).value for method in METHODS}
    assert all(losses[method] < losses["none"] for method in METHODS if method != "none")
    assert losses["beta"] < losses["platt"] < losses["intercept"]
    assert losses["platt"] < losses["temperature"]


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_json_brings_the_same_map_back(rows: tuple[np.ndarray, np.ndarray], method: str) -> None:
    fitted = fit_recalibration(method, *rows)
    again = Recalibrator.from_dict(json.loads(json.dumps(fitted.as_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.apply(rows[1]), fitted.apply(rows[1]))
    assert again == fitted


@pytest.mark.parametrize("method", METHODS)
def test_maps_rise_and_bear_infinite_log_odds(rows: tuple[np.ndarray, np.ndarray], method: str) -> None:
    fitted = fit_recalibration(method, *rows)
    p = fitted.apply(np.array([-np.inf, -30, -1, 0, 1, 30, np.inf]))
    assert (np.diff(p) >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1


def test_auto_takes_the_lowest_cross_validated_log_loss(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, lp = rows
    chosen = fit_recalibration("auto", y, lp)
    known = {method: score for method, score in chosen.scores.items() if score is not None}
    assert chosen.method == min(known, key=known.get)
    assert chosen.method in {"platt", "beta"}, "the truth is a shift and a stretch"
    calibrated = (np.random.default_rng(1).random(lp.size) < expit(lp)).astype(float)
    assert fit_recalibration("auto", calibrated, lp).scores["none"] < chosen.scores["none"]
    order = np.random.default_rng(2).permutation(y.size)
    shuffled = fit_recalibration("auto", y[order], lp[order]).scores
    assert {method: score for method, score in shuffled.items() if score is not None} == pytest.approx(known, rel=1e-9)


def test_auto_keeps_a_patient_within_one_fold() -> None:
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(60), 10)
    lp = np.repeat(rng.normal(size=60), 10) + rng.normal(0, 0.01, 600)
    y = np.repeat((rng.random(60) < 0.5).astype(float), 10)
    # The label is noise shared by a patient's images: leaking a patient would let isotonic learn it by heart.
    leaking, honest = (fit_recalibration("auto", y, lp, patients=who) for who in (None, patients))
    assert leaking.scores["isotonic"] is None or leaking.scores["isotonic"] < leaking.scores["platt"]
    assert honest.scores["isotonic"] is None or honest.scores["isotonic"] > honest.scores["platt"]


@pytest.mark.parametrize("method", ["temperature", "platt", "beta"])
def test_perfect_separation_leaves_the_probabilities_alone_and_says_so(method: str) -> None:
    y, lp = np.array([0, 0, 0, 1, 1, 1.0]), np.array([-3, -2, -1, 1, 2, 3.0])
    fitted = fit_recalibration(method, y, lp)
    assert fitted.method == "none"
    assert fitted.requested == method
    assert "separated" in fitted.note


@pytest.mark.parametrize("method", ["temperature", "platt", "beta"])
def test_a_map_that_would_turn_the_order_round_is_refused(method: str, rows: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = fit_recalibration(method, 1 - rows[0], rows[1] - 1)
    if method == "beta":
        assert fitted.method == "none" or min(fitted.parameters["a"], fitted.parameters["b"]) >= 0
    else:
        assert fitted.method == "none"
        assert "order" in fitted.note


def test_beta_drops_a_negative_coefficient() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(4000)
    y = (rng.random(4000) < expit(-2 - 1.5 * np.log1p(-p) - 0.4 * np.log(p))).astype(float)
    fitted = fit_recalibration("beta", y, logit(p))
    assert fitted.parameters["a"] == 0
    assert fitted.parameters["b"] > 0
    assert np.isfinite(fitted.apply(np.array([-np.inf, np.inf]))).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("method", [*METHODS[1:], "auto"])
def test_one_class_only_cannot_be_fitted(label: float, method: str) -> None:
    fitted = fit_recalibration(method, np.full(20, label), np.linspace(-1, 1, 20))
    assert fitted.method == "none"
    assert fitted.note


def test_probabilities_of_exactly_0_and_1_are_counted() -> None:
    y, lp = np.array([0, 1, 0, 1, 1, 0.0]), np.array([-np.inf, -1, 1, 0.5, np.inf, -2])
    fitted = fit_recalibration("platt", y, lp)
    assert "2 probabilities of exactly 0 or 1" in fitted.note
    assert fitted.n == 6
    assert fitted.n_positive == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="NaN in 1 rows, first row 1"):
        fit_recalibration("platt", np.array([0, 1.0]), np.array([0.0, np.nan]))
    with pytest.raises(InputError, match="'spline' is unknown"):
        fit_recalibration("spline", np.array([0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="'spline' is unknown"):
        Recalibrator.from_dict({"method": "spline"})


def test_log_odds_of_0_and_1_are_infinite() -> None:
    np.testing.assert_array_equal(log_odds_of(np.array([0.0, 0.5, 1.0])), [-np.inf, 0, np.inf])
