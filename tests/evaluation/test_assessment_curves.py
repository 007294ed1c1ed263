import numpy as np
import pytest
from sklearn.metrics import roc_curve

from medcnn.config import EvaluationConfig
from medcnn.evaluation.assessment_curves import NUMBERS, label_curves
from medcnn.evaluation.measures import Sample


def sample(n: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    p = np.sort(rng.beta(1, 2, n))
    return Sample((rng.random(n) < p).astype(float), p, None, np.zeros(n, dtype=np.int64), n)


def test_every_curve_is_there_and_drawn_in_order() -> None:
    rows = sample(300)
    curves = label_curves(rows, EvaluationConfig(n_bootstrap=50))
    assert list(curves.columns) == ["curve", *NUMBERS]
    names = list(dict.fromkeys(curves["curve"]))
    expected = ["roc", "precision_recall", "calibration_smooth", "calibration_grouped", "distribution_positive", "distribution_negative"]
    assert names == [*expected, "decision_curve", "decision_curve_all", "decision_curve_none"]
    roc = curves[curves["curve"] == "roc"]
    fpr, tpr, _ = roc_curve(rows.y, rows.p, drop_intermediate=False)
    np.testing.assert_allclose(roc["x"], fpr)
    np.testing.assert_allclose(roc["y"], tpr)
    assert np.isfinite(roc["threshold"]).all()
    spread = curves[curves["curve"] == "distribution_positive"]
    assert spread["n"].sum() == rows.y.sum()
    np.testing.assert_allclose(spread["y"].sum(), 1)
    assert curves[curves["curve"] == "calibration_grouped"]["n"].sum() == 300
    band = curves[curves["curve"] == "decision_curve"]
    assert (band["low"] <= band["y"]).all()


def test_large_tables_have_small_curves() -> None:
    curves = label_curves(sample(20_000), EvaluationConfig(n_bootstrap=20))
    assert curves.groupby("curve").size().max() <= 500


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_roc_and_no_smooth_curve(label: float) -> None:
    rows = Sample(np.full(30, label), np.linspace(0.1, 0.9, 30), None, np.zeros(30, dtype=np.int64), 30)
    names = set(label_curves(rows, EvaluationConfig(n_bootstrap=0))["curve"])
    assert not names & {"roc", "precision_recall", "calibration_smooth"}
    assert "calibration_grouped" in names
