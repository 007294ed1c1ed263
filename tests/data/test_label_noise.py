"""The confident joint as cleanlab has it; exchanged labels are found where classes can be told, and nothing is claimed where not."""

import numpy as np
import pandas as pd
import pytest

from medcnn.data.label_noise import confident_issues, doubt_finding, doubt_labels, exchange
from medcnn.errors import InputError


def probabilities(n: int, k: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + sharpness * np.eye(k)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return exchange(truth, k, 0.1, rng)[1], p


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (2, 1), (3, 2), (5, 3)])
def test_issues_are_those_of_cleanlab(k: int, seed: int) -> None:
    given, p = probabilities(600, k, seed)
    cleanlab_filter = pytest.importorskip("cleanlab.filter", reason="needs cleanlab (extra test)")
    expected = cleanlab_filter.find_label_issues(given, p, filter_by="confident_learning", n_jobs=1)
    found = confident_issues(given, p)
    assert 10 < found.sum() < 300
    np.testing.assert_array_equal(found, expected)


def cohort(n: int = 400, classes: int = 2, distance: float = 4.0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Manifest with 5% exchanged labels, features, and which were exchanged."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, n)
    features = rng.normal(size=(n, 6)) + distance * np.eye(6)[truth]
    exchanged, given = exchange(truth, classes, 0.05, rng)
    names = [f"i{row:04d}" for row in range(n)]
    table = pd.DataFrame({"image_id": names, "patient_id": names})
    for column in range(1 if classes == 2 else classes):
        table[f"y_{'abc'[column]}"] = (given == (1 if classes == 2 else column)).astype(float)
    return table, features, exchanged


@pytest.mark.parametrize("classes", [2, 3])
def test_exchanged_labels_are_found_first(classes: int) -> None:
    table, features, exchanged = cohort(classes=classes)
    labels = ["a"] if classes == 2 else ["a", "b", "c"]
    doubts = doubt_labels(table, features, labels, task="binary" if classes == 2 else "multiclass", seed=0)
    named = set(doubts.table["image_id"])
    planted = set(table.loc[exchanged, "image_id"])
    assert len(planted & named) / len(planted) > 0.7
    assert set(doubts.table["image_id"][:10]) <= planted
    assert (doubts.table["label"] != doubts.table["suggested"]).all()
    assert doubts.recall > 0.7
    finding = doubt_finding(doubts, seen="six numbers")
    assert finding.severity == "info"
    assert finding.image_ids[0] == doubts.table["image_id"][0]
    assert f"Of {doubts.n_tried} labels exchanged on purpose (5%)" in finding.text


def test_where_nothing_tells_the_classes_nothing_is_named() -> None:
    table, features, _ = cohort(distance=0.0)
    finding = doubt_finding(doubt_labels(table, features, ["a"], task="binary", seed=0), seen="noise")
    assert finding.image_ids == ()
    assert finding.text.startswith("Label noise cannot be told from noise")


def test_findings_are_judged_one_by_one_among_the_images_that_have_them() -> None:
    table, features, _ = cohort()
    table["y_b"] = np.nan
    table.loc[:199, "y_b"] = 1 - table.loc[:199, "y_a"]
    doubts = doubt_labels(table, features, ["a", "b"], task="multilabel", seed=0)
    assert doubts.n == 600
    assert {"a", "no a", "b", "no b"} == set(doubts.table["label"])


def test_row_order_does_not_matter() -> None:
    table, features, _ = cohort()
    order = np.random.default_rng(3).permutation(len(table))
    a = doubt_labels(table, features, ["a"], task="binary", seed=0)
    b = doubt_labels(table.iloc[order], features[order], ["a"], task="binary", seed=0)
    pd.testing.assert_frame_equal(a.table, b.table)


def test_what_does_not_fit_is_refused() -> None:
    table, features, _ = cohort()
    with pytest.raises(InputError, match="a row of features for each of 400"):
        doubt_labels(table, features[:-1], ["a"], task="binary", seed=0)
    few = table.assign(y_a=(np.arange(400) < 19).astype(float))
    finding = doubt_finding(doubt_labels(few, features, ["a"], task="binary", seed=0), seen="six numbers")
    assert finding.text.startswith("Label noise was not looked for: no label has 20 images")
