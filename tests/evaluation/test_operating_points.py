import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from medcnn.config import EvaluationConfig, ThresholdConfig
from medcnn.evaluation.operating_points import (
    NOBODY,
    OperatingPoint,
    attainable_points,
    choose_operating_points,
    choose_threshold,
    thresholds_at,
)
from medcnn.tables import check_predictions


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = np.round(rng.beta(1, 2, 250), 2)
    return (rng.random(250) < p).astype(float), p


def rates(y: np.ndarray, p: np.ndarray, threshold: float) -> tuple[float, float]:
    return float((p >= threshold)[y == 1].mean()), float((p < threshold)[y == 0].mean())


def test_points_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    points = attainable_points(*rows)
    fpr, tpr, _ = roc_curve(*rows, drop_intermediate=False)
    np.testing.assert_allclose(points.tp[::-1] / points.n_positive, tpr)
    np.testing.assert_allclose(points.fp[::-1] / points.n_negative, fpr)
    for threshold, tp in zip(points.thresholds, points.tp, strict=True):
        assert np.sum(rows[0][rows[1] >= threshold]) == tp


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_target_sensitivity_costs_the_least_specificity(rows: tuple[np.ndarray, np.ndarray], target: float) -> None:
    point = choose_threshold(ThresholdConfig(rule="sensitivity", value=target), *rows)
    own = rates(*rows, point.threshold)
    assert own == (point.sensitivity, pytest.approx(point.specificity))
    assert own[0] >= target
    better = [spec for sens, spec in (rates(*rows, t) for t in np.linspace(0, 1.01, 500)) if sens >= target]
    assert own[1] == max(better)


@pytest.mark.parametrize("target", [0.5, 0.9, 1.0])
def test_target_specificity_costs_the_least_sensitivity(rows: tuple[np.ndarray, np.ndarray], target: float) -> None:
    point = choose_threshold(ThresholdConfig(rule="specificity", value=target), *rows)
    own = rates(*rows, point.threshold)
    assert own[1] >= target
    assert own[0] == max(sens for sens, spec in (rates(*rows, t) for t in np.linspace(0, 1.01, 500)) if spec >= target)


def test_youden_and_cost_by_trying_every_threshold(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows
    tried = np.linspace(0, 1.01, 500)
    best = max(sum(rates(y, p, t)) for t in tried)
    np.testing.assert_allclose(sum(rates(y, p, choose_threshold(ThresholdConfig(), y, p).threshold)), best)

    def cost(t: float) -> float:
        return 4 * np.sum((p < t) & (y == 1)) + np.sum((p >= t) & (y == 0))

    chosen = choose_threshold(ThresholdConfig(rule="cost", value=4), y, p)
    assert cost(chosen.threshold) == min(cost(t) for t in tried)
    assert "1/(1 + 4) = 0.2" in chosen.note


def test_of_equal_points_the_most_sensitive_is_taken() -> None:
    y, p = np.array([1, 0, 1, 0, 1, 0.0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    for rule in (ThresholdConfig(), ThresholdConfig(rule="cost", value=1)):
        point = choose_threshold(rule, y, p)
        assert point.threshold == 0
        assert (point.sensitivity, point.specificity) == (1, 0)
        assert "everybody" in point.note


def test_nobody_positive_is_a_number_above_1_that_json_keeps() -> None:
    point = choose_threshold(ThresholdConfig(rule="specificity", value=1), np.array([1, 0.0]), np.array([0.5, 1.0]))
    assert point.threshold == NOBODY > 1
    assert "nobody" in point.note
    assert json.loads(json.dumps(point.as_dict()))["threshold"] == NOBODY
    assert OperatingPoint(**json.loads(json.dumps(point.as_dict()))) == point


def test_adjacent_doubles_still_part() -> None:
    low = 0.3
    y, p = np.array([0, 1.0]), np.array([low, np.nextafter(low, 1)])
    threshold = choose_threshold(ThresholdConfig(), y, p).threshold
    np.testing.assert_array_equal(p >= threshold, [False, True])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_chooses_nothing_but_a_fixed_threshold(label: float) -> None:
    y, p = np.full(5, label), np.linspace(0.1, 0.9, 5)
    for rule in (ThresholdConfig(), ThresholdConfig(rule="sensitivity", value=0.9), ThresholdConfig(rule="cost", value=2)):
        point = choose_threshold(rule, y, p)
        assert point.threshold is None
        assert "one class only" in point.note
    fixed = choose_threshold(ThresholdConfig(rule="fixed", value=0.5), y, p)
    assert fixed.threshold == 0.5
    assert (fixed.sensitivity is None) != (fixed.specificity is None)


def test_a_point_for_each_fold_level_label_and_rule() -> None:
    rng = np.random.default_rng(1)
    n = 200
    table = pd.DataFrame(
        {
            "patient_id": np.arange(n) // 2,
            "part": "val",
            "fold": (np.arange(n) // 2) % 2,
            "y_a": rng.integers(0, 2, n),
            "p_a": rng.random(n),
        }
    )
    table["y_b"], table["p_b"] = np.where(np.arange(n) % 4 < 2, 0.0, np.nan), 0.2
    config = EvaluationConfig(levels=("image", "patient"), thresholds=(ThresholdConfig(), ThresholdConfig(rule="fixed", value=0.4)))
    points = choose_operating_points(check_predictions(table, source="made up"), config, task="multilabel")
    assert len(points) == 2 * 2 * 2 * 2
    patient = thresholds_at(points, "patient")
    assert sorted(patient["a"][0]) == [0, 1]
    assert patient["a"][1] == {0: 0.4, 1: 0.4}
    assert patient["b"] == [{0: 0.4}], "label b has one class in fold 0 and none in fold 1: only the fixed rule holds, where there is a row"
    assert thresholds_at(points, "image")["a"][0] != patient["a"][0]
    assert any("no row has this label" in point.note for point in points if point.label == "b" and point.fold == 1)
