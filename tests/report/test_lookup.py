"""Finding the number to print among many."""

import numpy as np
import pandas as pd

from medcnn.report.facts import CURVE_COLUMNS
from medcnn.report.lookup import Results, thin
from medcnn.tables import Record

NO_CURVES = pd.DataFrame(columns=list(CURVE_COLUMNS))


def auroc(value: float | None, **changes: object) -> Record:
    return Record(**{"metric": "auroc", "label": "x", "value": value, "low": 0.1, "high": 0.9, **changes})  # type: ignore[arg-type]


def test_the_first_record_with_an_interval_is_printed() -> None:
    records = [auroc(1.0, method="delong", low=None, high=None), auroc(1.0, method="newcombe", low=0.95, high=1.0)]
    best = Results(records, NO_CURVES).best("auroc", "x")
    assert best is not None
    assert best.method == "newcombe"
    assert Results([auroc(0.8, method="obuchowski"), auroc(0.8, method="bootstrap")], NO_CURVES).best("auroc", "x").method == "obuchowski"  # type: ignore[union-attr]


def test_restated_predictive_values_are_never_the_headline() -> None:
    records = [
        Record(metric="ppv", label="x", value=0.1, low=0.05, high=0.2, method="restated_logit", threshold=0.5),
        Record(metric="ppv", label="x", value=0.7, method="wilson", threshold=0.5),
    ]
    results = Results(records, NO_CURVES)
    assert results.best("ppv", "x", threshold=0.5) is records[1]
    assert results.restated("ppv", "x", 0.5) is records[0]


def test_the_headline_is_the_test_part_the_asked_level_and_the_recalibrated_probabilities() -> None:
    records = [
        auroc(0.6, part="val"),
        auroc(0.7, level="image", recalibration="none"),
        auroc(0.8, level="patient", recalibration="none"),
        auroc(0.9, level="patient", recalibration="platt"),
    ]
    results = Results(records, NO_CURVES, level="patient")
    assert (results.part, results.level, results.recalibration) == ("test", "patient", "platt")
    assert results.best("auroc", "x").value == 0.9  # type: ignore[union-attr]
    assert results.best("auroc", "x", recalibration="none").value == 0.8  # type: ignore[union-attr]
    assert Results(records, NO_CURVES).level == "image"


def test_averages_are_no_labels_but_a_label_may_be_called_macro() -> None:
    several = Results([auroc(0.7, label="a"), auroc(0.8, label="b"), auroc(0.75, label="macro"), auroc(0.7, label="all")], NO_CURVES)
    assert several.labels == ["a", "b"]
    assert several.averages == ["macro", "all"]
    assert several.headline == "macro"
    alone = Results([auroc(0.7, label="macro")], NO_CURVES)
    assert alone.labels == ["macro"]
    assert alone.averages == []


def test_subgroups_and_their_test_are_told_apart() -> None:
    records = [auroc(0.7), auroc(0.6, subset="sex=F"), Record(metric="heterogeneity_auroc", label="x", value=0.4, subset="sex")]
    results = Results(records, NO_CURVES)
    assert results.subsets() == ["sex=F"]
    assert [record.subset for record in results.heterogeneity("x")] == ["sex"]


def test_thin_keeps_both_ends() -> None:
    frame = pd.DataFrame({"x": np.arange(10_000)})
    short = thin(frame, 500)
    assert len(short) == 500
    assert short["x"].iloc[0] == 0
    assert short["x"].iloc[-1] == 9_999
    assert short["x"].is_monotonic_increasing
    assert thin(short, 500) is short


def test_no_records_at_all() -> None:
    results = Results([], NO_CURVES)
    assert results.headline == ""
    assert results.best("auroc", "x") is None


def test_each_threshold_has_its_own_record() -> None:
    records = [Record(metric="sensitivity", label="x", value=value, threshold=at) for at, value in ((0.2, 0.9), (0.5, 0.7))]
    results = Results(records, NO_CURVES)
    assert results.thresholds("x") == [0.2, 0.5]
    assert results.best("sensitivity", "x", threshold=0.5) is records[1]
    assert results.best("sensitivity", "x", threshold=0.5 + 1e-12) is records[1]
    assert results.best("sensitivity", "x", threshold=0.6) is None
    assert results.best("sensitivity", "x", threshold=None) is None
