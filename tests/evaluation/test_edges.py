"""What is printed at the edges: one class, constant, two rows, perfect, inverted, one positive, certainty, NaN, unbounded.

The cases are the reference's i_* files; what other programs do there is in its records of kind "behaviour".
"""

from pathlib import Path

import pandas as pd
import pytest

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.assessment import assess
from medcnn.tables import Record, check_predictions

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference" / "inputs"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs shared/reference beside the repository")


def records(case: str) -> dict[str, Record]:
    """The first record of each metric."""
    table = pd.read_csv(FOLDER / f"i_{case}.csv").rename(columns={"y": "y_x", "score": "p_x"})
    done = assess(check_predictions(table, source=case), config=EvaluationConfig(n_bootstrap=200), thresholds={"x": [0.5]}, task="binary")
    return {record.metric: record for record in reversed(done.records)}


def interval(record: Record) -> tuple[float | None, float | None]:
    return record.low, record.high


@pytest.mark.parametrize("case", ["only_neg", "only_pos"])
def test_one_class_only(case: str) -> None:
    found = records(case)
    for metric in (
        "auroc",
        "average_precision",
        "partial_auroc",
        "calibration_intercept",
        "calibration_slope",
        "scaled_brier",
        "ici",
        "lr_positive",
    ):
        assert found[metric].value is None, metric
        assert "not estimable" in found[metric].note, metric
        assert found[metric].n > 0
    for metric in ("brier", "log_loss", "oe_ratio", "ece", "accuracy"):
        assert found[metric].value is not None, metric


def test_constant_scores_have_an_auroc_of_one_half_with_a_real_interval() -> None:
    found = records("constant")
    assert found["auroc"].value == 0.5
    assert found["auroc"].method == "newcombe"
    assert found["auroc"].low < 0.5 < found["auroc"].high
    assert found["calibration_slope"].value is None
    assert found["brier"].value == 0.25
    assert interval(found["brier"]) == (None, None)


@pytest.mark.parametrize(("case", "auroc"), [("n2_right", 1.0), ("n2_wrong", 0.0), ("n2_tie", 0.5)])
def test_two_rows(case: str, auroc: float) -> None:
    found = records(case)
    assert found["auroc"].value == auroc
    assert found["auroc"].method == "newcombe"
    assert found["auroc"].high - found["auroc"].low > 0.5
    assert found["calibration_slope"].value is None
    assert found["ici"].value is None


@pytest.mark.parametrize(("case", "auroc"), [("perfect", 1.0), ("inverted", 0.0)])
def test_perfect_and_inverted_keep_their_direction_and_no_interval_is_empty(case: str, auroc: float) -> None:
    found = records(case)
    assert found["auroc"].value == auroc
    assert found["auroc"].low < found["auroc"].high
    assert "separate" in found["calibration_slope"].note
    assert found["average_precision"].value == pytest.approx(1.0 if auroc else found["average_precision"].value)


def test_one_positive_has_no_delong_interval() -> None:
    found = records("one_positive")
    assert found["auroc"].method == "newcombe"
    assert "only 1 case" in found["auroc"].note
    assert found["calibration_slope"].value is not None


def test_certainties_are_counted_and_said() -> None:
    found = records("probs_0_and_1")
    assert found["auroc"].value == pytest.approx(0.87)
    assert found["auroc"].n == 20, "no row is dropped"
    assert found["log_loss"].value is None
    assert "infinite: 2 wrong rows" in found["log_loss"].note
    assert "14 probabilities of exactly 0 or 1 moved to 1e-07" in found["calibration_slope"].note
    assert found["brier"].value == pytest.approx(0.129)


@pytest.mark.parametrize(
    ("case", "words"), [("nan_scores", r"p_x is nan in row 3.*2 such rows: 3, 14"), ("unbounded_scores", r"p_x is 1.44 in row 2")]
)
def test_what_is_no_probability_is_refused_by_row(case: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        records(case)
