import numpy as np
import pytest
from sklearn import metrics

from medcnn.config import EvaluationConfig
from medcnn.evaluation.class_measures import across_labels, whole_vector_measures
from medcnn.evaluation.levels import UnitTable


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 2], 300)
    return np.array([rng.choice(3, p=row) for row in p]), p


def test_whole_vector_measures_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, p = rows
    found = whole_vector_measures(target, p)
    np.testing.assert_allclose(found["brier"].value, metrics.brier_score_loss(target, p, scale_by_half=False), rtol=1e-12)
    np.testing.assert_allclose(found["log_loss"].value, metrics.log_loss(target, p), rtol=1e-12)
    rng = np.random.default_rng(1)
    replicates = [whole_vector_measures(target[draw], p[draw])["scaled_brier"].value for draw in rng.integers(0, 300, (1500, 300))]
    np.testing.assert_allclose(found["scaled_brier"].se, np.std(replicates), rtol=0.06)


def test_frequencies_alone_have_a_scaled_brier_of_0(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target = rows[0]
    share = np.bincount(target) / target.size
    np.testing.assert_allclose(whole_vector_measures(target, np.tile(share, (300, 1)))["scaled_brier"].value, 0, atol=1e-12)


def test_impossible_true_classes_and_one_class() -> None:
    p = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert whole_vector_measures(np.array([0, 1]), p)["log_loss"].value == np.inf
    assert whole_vector_measures(np.array([0, 0]), p)["scaled_brier"].value is None


def test_labels_of_the_records(rows: tuple[np.ndarray, np.ndarray]) -> None:
    target, p = rows
    n = target.size
    table = UnitTable(("a", "b", "c"), np.eye(3)[target], p, np.arange(n), np.zeros(n, dtype=np.int64), np.arange(n))
    found = {
        (label, measured[0]): measured[1]
        for label, measured in across_labels(table, None, EvaluationConfig(), task="multiclass", n_resamples=0)
    }
    np.testing.assert_allclose(
        found["macro", "auroc"].value, metrics.roc_auc_score(target, p, multi_class="ovr", average="macro"), rtol=1e-12
    )
    np.testing.assert_allclose(
        found["weighted", "auroc"].value, metrics.roc_auc_score(target, p, multi_class="ovr", average="weighted"), rtol=1e-12
    )
    np.testing.assert_allclose(found["micro", "auroc"].value, metrics.roc_auc_score(np.eye(3)[target], p, average="micro"), rtol=1e-12)
    np.testing.assert_allclose(
        found["macro", "hand_till_m"].value, metrics.roc_auc_score(target, p, multi_class="ovo", average="macro"), rtol=1e-12
    )
    np.testing.assert_allclose(found["macro", "f1"].value, metrics.f1_score(target, p.argmax(axis=1), average="macro"), rtol=1e-12)
    assert {metric for label, metric in found if label == "all"} == {
        "brier",
        "scaled_brier",
        "log_loss",
        "ece",
        "accuracy",
        "balanced_accuracy",
        "mcc",
        "kappa",
    }
    several = [label for label, _ in across_labels(table, None, EvaluationConfig(), task="multilabel", n_resamples=0)]
    assert several == ["macro", "weighted", "micro"]
