import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medcnn.errors import InputError
from medcnn.evaluation.multiclass_recalibration import METHODS, SoftmaxRecalibrator, fit_softmax_recalibration, logits_of
from medcnn.evaluation.recalibration import fit_recalibration


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, (900, 4))
    target = (truth + rng.gumbel(size=(900, 4))).argmax(axis=1)
    return target, 2.5 * truth


def test_temperature_minimises_the_log_loss(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, logits = rows
    best = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(900), target].mean(),
        bounds=(0.1, 20),
        method="bounded",
        options={"xatol": 1e-10},
    )
    fitted = fit_softmax_recalibration("temperature", target, logits)
    np.testing.assert_allclose(fitted.temperature, best.x, rtol=1e-6)
    assert abs(fitted.temperature - 2.5) < 0.3
    np.testing.assert_array_equal(fitted.apply(logits).argmax(axis=1), logits.argmax(axis=1))


def test_two_classes_are_the_binary_case(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, logits = (rows[0] == 0).astype(int), rows[1][:, 0]
    two = np.column_stack([np.zeros(900), logits])
    binary = fit_recalibration("temperature", target.astype(float), logits)
    np.testing.assert_allclose(
        fit_softmax_recalibration("temperature", target, two).temperature, binary.parameters["temperature"], rtol=1e-9
    )


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_rows_sum_to_1_and_json_brings_the_map_back(rows: tuple[np.ndarray, np.ndarray], method: str) -> None:
    fitted = fit_softmax_recalibration(method, *rows)
    p = fitted.apply(rows[1])
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    again = SoftmaxRecalibrator.from_dict(json.loads(json.dumps(fitted.as_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.apply(rows[1]), p)


def test_auto_takes_the_lowest_cross_validated_log_loss(rows: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = fit_softmax_recalibration("auto", *rows)
    known = {method: score for method, score in fitted.scores.items() if score is not None}
    assert fitted.method == min(known, key=known.get)
    assert fitted.scores["temperature"] < fitted.scores["none"] - 0.1, "the truth is one temperature"
    calibrated = fit_softmax_recalibration("auto", rows[0], rows[1] / 2.5)
    assert calibrated.scores["none"] < fitted.scores["none"]


def test_what_cannot_be_fitted_says_so() -> None:
    logits = np.eye(3)[[0, 1, 2, 0, 1, 2]] * 5
    separated = fit_softmax_recalibration("temperature", np.array([0, 1, 2, 0, 1, 2]), logits)
    assert separated.method == "none"
    assert "separated" in separated.note
    wrong = fit_softmax_recalibration("temperature", np.array([1, 2, 0, 1, 2, 0, 0, 1]), np.vstack([logits, logits[:2] * 0.5]))
    assert wrong.method == "none"
    assert "order" in wrong.note
    assert "5 patients" in fit_softmax_recalibration("auto", np.array([0, 1, 2, 0, 1, 2]), logits).note


def test_bad_input_is_refused(rows: tuple[np.ndarray, np.ndarray]) -> None:
    bad = rows[1].copy()
    bad[7, 1] = np.inf
    with pytest.raises(InputError, match="row 7"):
        fit_softmax_recalibration("temperature", rows[0], bad)
    with pytest.raises(InputError, match="'vector' is unknown"):
        fit_softmax_recalibration("vector", *rows)
    with pytest.raises(InputError, match="'vector' is unknown"):
        SoftmaxRecalibrator.from_dict({"method": "vector"})


def test_a_row_that_every_isotonic_map_calls_impossible_keeps_its_probabilities() -> None:
    rng = np.random.default_rng(1)
    target, logits = rng.integers(0, 3, 60), rng.normal(0, 0.01, (60, 3))
    fitted = fit_softmax_recalibration("isotonic", target, logits)
    p = fitted.apply(rng.normal(0, 3, (50, 3)))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-9)


def test_logits_of_probabilities() -> None:
    p = np.array([[0.7, 0.3, 0.0]])
    np.testing.assert_allclose(softmax(logits_of(p), axis=1), p, atol=1e-11)
