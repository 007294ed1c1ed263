from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss, roc_auc_score

from medcnn.config import EvaluationConfig, ThresholdConfig
from medcnn.errors import InputError
from medcnn.evaluation import measures
from medcnn.evaluation.assessment import Assessment, assess
from medcnn.evaluation.assessment_curves import COLUMNS
from medcnn.evaluation.operating_points import choose_operating_points
from medcnn.tables import Record, check_predictions, read_records, records_frame, write_records

FAST = EvaluationConfig(n_bootstrap=100)
KEY = ["metric", "label", "part", "level", "subset", "threshold", "method", "recalibration"]
NAMES = {
    "auroc",
    "partial_auroc",
    "average_precision",
    "hand_till_m",
    "brier",
    "scaled_brier",
    "log_loss",
    "calibration_intercept",
    "calibration_slope",
    "oe_ratio",
    "ici",
    "e50",
    "e90",
    "emax",
    "eci",
    "ece",
    "smooth_ece",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "lr_positive",
    "lr_negative",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "mcc",
    "kappa",
    "net_benefit",
    "standardized_net_benefit",
}
OWN_NAMES = {"ece_noise_floor", "true_positives", "false_positives", "false_negatives", "true_negatives", "heterogeneity_auroc"}


def binary(n: int = 300, per_patient: int = 1, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // per_patient
    lp = rng.normal(-0.5, 1, n) + rng.normal(0, 1, patient.max() + 1)[patient]
    y = (rng.random(n) < expit(lp)).astype(float)
    table = {
        "patient_id": patient,
        "y_nodule": y,
        "p_nodule": expit(1.3 * lp),
        "sex": np.where(patient % 2, "F", "M"),
        "age": 20 + patient % 70,
    }
    return check_predictions(pd.DataFrame(table), source="made up")


def several(n: int = 300, k: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), n)
    target = np.array([rng.choice(k, p=row) for row in p])
    columns = {
        f"{kind}_{name}": values[:, c] for kind, values in (("y", np.eye(k)[target]), ("p", p)) for c, name in enumerate("abcdef"[:k])
    }
    return check_predictions(pd.DataFrame(columns), source="made up")


def the(done: Assessment, metric: str, method: str | None = None, **where: object) -> Record:
    where = {"subset": "all", **where}
    found = [
        r
        for r in done.records
        if r.metric == metric and (method is None or r.method == method) and all(getattr(r, k) == v for k, v in where.items())
    ]
    assert found, (metric, method, where)
    return found[0]


# ---------------------------------------------------------------- what a record is


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_one_record_per_key_known_names_and_counts(task: str) -> None:
    table = binary() if task == "binary" else several()
    if task == "multilabel":
        table.loc[:9, "y_a"] = np.nan
    by = ("sex",) if task == "binary" else ()
    config = EvaluationConfig(n_bootstrap=50, levels=("image", "patient"), by=by, prevalence=0.1)
    labels = [column[2:] for column in table if column.startswith("y_")]
    done = assess(table, config=config, thresholds={label: [0.3, 0.5] for label in labels}, recalibration="platt", task=task)
    frame = records_frame(done.records)
    assert not frame.duplicated(KEY).any(), frame[frame.duplicated(KEY, keep=False)][KEY]
    assert set(frame["metric"]) <= NAMES | OWN_NAMES
    assert (frame["n"] > 0).all()
    assert (frame["n_patients"] > 0).all()
    assert set(frame["recalibration"]) == {"platt"}
    assert frame.loc[frame["value"].isna(), "note"].str.contains("not estimable|infinite|not defined").all()
    limited = frame.dropna(subset=["value", "low", "high"])
    assert ((limited["low"] <= limited["high"]) & np.isfinite(limited[["value", "low", "high"]]).all(axis=1)).all()
    missing = NAMES - set(frame["metric"])
    assert missing == (set() if task == "multiclass" else {"hand_till_m"})
    assert list(done.curves.columns) == list(COLUMNS)


def test_numbers_are_those_of_scikit_learn_on_the_test_rows_alone() -> None:
    table = binary()
    table["part"] = np.where(np.arange(300) % 3 == 0, "val", "test")
    rows = table[table["part"] == "test"]
    done = assess(table, config=FAST, thresholds={"nodule": [0.4]}, task="binary")
    record = the(done, "auroc")
    np.testing.assert_allclose(record.value, roc_auc_score(rows["y_nodule"], rows["p_nodule"]), rtol=1e-12)
    np.testing.assert_allclose(the(done, "brier").value, brier_score_loss(rows["y_nodule"], rows["p_nodule"]), rtol=1e-12)
    assert (record.n, record.n_positive, record.n_patients) == (200, int(rows["y_nodule"].sum()), 200)
    called = rows["p_nodule"] >= 0.4
    assert the(done, "true_positives").value == int((called & (rows["y_nodule"] == 1)).sum())
    np.testing.assert_allclose(the(done, "sensitivity").value, called[rows["y_nodule"] == 1].mean())


@pytest.mark.parametrize("per_patient", [1, 3])
def test_methods_follow_the_design(per_patient: int) -> None:
    done = assess(binary(per_patient=per_patient), config=FAST, thresholds={"nodule": [0.4]}, task="binary")
    methods = [record.method for record in done.records if record.metric == "auroc"]
    assert methods == (
        ["delong", "logit", "newcombe", "bootstrap"]
        if per_patient == 1
        else ["obuchowski", "logit_obuchowski", "newcombe_clustered", "bootstrap"]
    )
    assert the(done, "brier").method == ("wald" if per_patient == 1 else "cluster_robust")
    assert the(done, "sensitivity").method == ("wilson" if per_patient == 1 else "wilson_clustered")
    assert the(done, "calibration_slope").method == ("profile" if per_patient == 1 else "cluster_robust")


def test_row_order_changes_nothing() -> None:
    config = EvaluationConfig(n_bootstrap=60, by=("sex", "age"), levels=("image", "patient"))
    for per_patient in (1, 3):
        table = binary(per_patient=per_patient).round({"p_nodule": 2})
        shuffled = table.sample(frac=1, random_state=1)
        one, other = (
            records_frame(assess(t, config=config, thresholds={"nodule": [0.4]}, task="binary").records) for t in (table, shuffled)
        )
        pd.testing.assert_frame_equal(one, other, rtol=1e-9)


def test_records_survive_json(tmp_path: Path) -> None:
    done = assess(binary(), config=FAST, thresholds={"nodule": [0.4]}, task="binary")
    write_records(done.records, tmp_path / "metrics.json")
    assert read_records(tmp_path / "metrics.json") == done.records


def test_large_tables_leave_out_the_bootstraps_that_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "SORTED_BUDGET", 60 * 100 - 1)
    ranked = {"auroc", "average_precision", "partial_auroc"}
    methods = {record.method for record in assess(binary(60), config=FAST, task="binary").records if record.metric in ranked}
    assert "bootstrap" not in methods
    assert "linearised" in methods


def test_no_bootstrap_at_all() -> None:
    done = assess(binary(), config=EvaluationConfig(n_bootstrap=0), thresholds={"nodule": [0.4]}, task="binary")
    assert "bootstrap" not in {record.method for record in done.records}
    assert the(done, "mcc").value is not None
    assert the(done, "mcc").low is None


# ---------------------------------------------------------------- levels, labels, thresholds


def test_patient_level_is_the_table_of_patients() -> None:
    table = binary(per_patient=3)
    patients = table.groupby("patient_id", as_index=False).agg(y_nodule=("y_nodule", "max"), p_nodule=("p_nodule", "mean"))
    config = EvaluationConfig(n_bootstrap=0, levels=("patient",))
    one, other = (
        assess(table, config=config, task="binary"),
        assess(check_predictions(patients, source="patients"), config=EvaluationConfig(n_bootstrap=0), task="binary"),
    )
    for metric in ("auroc", "brier", "calibration_slope"):
        np.testing.assert_allclose(the(one, metric).value, the(other, metric).value, rtol=1e-9)
    assert the(one, "auroc").n == 100
    assert the(one, "auroc").level == "patient"


def test_available_cases_of_each_label() -> None:
    table = several()
    table.loc[:99, "y_a"] = np.nan
    table["y_c"] = np.nan
    done = assess(table, config=FAST, task="multilabel")
    known = table.dropna(subset=["y_a"])
    np.testing.assert_allclose(the(done, "auroc", label="a").value, roc_auc_score(known["y_a"], known["p_a"]), rtol=1e-12)
    assert the(done, "auroc", label="a").n == 200
    assert the(done, "auroc", label="b").n == 300
    nobody = the(done, "auroc", label="c")
    assert (nobody.value, nobody.n) == (None, 0)
    assert "2 of 3 labels" in the(done, "auroc", label="macro").note


def test_one_class_of_one_label_leaves_the_others() -> None:
    table = several()
    table["y_a"] = 0.0
    done = assess(table, config=FAST, thresholds={"a": [0.5], "b": [0.5]}, task="multilabel")
    assert the(done, "auroc", label="a").value is None
    assert "no positive case" in the(done, "auroc", label="a").note
    assert the(done, "brier", label="a").value is not None
    assert the(done, "auroc", label="b").value is not None


def test_thresholds_of_folds_are_used_on_their_rows_and_their_mean_is_stated() -> None:
    table = binary().assign(fold=np.arange(300) % 2)
    done = assess(table, config=FAST, thresholds={"nodule": [{0: 0.2, 1: 0.6}]}, task="binary")
    cut = np.where(table["fold"] == 0, 0.2, 0.6)
    record = the(done, "specificity")
    assert record.threshold == pytest.approx(0.4)
    np.testing.assert_allclose(record.value, (table["p_nodule"] < cut)[table["y_nodule"] == 0].mean())
    same = assess(table, config=FAST, thresholds={"nodule": [{0: 0.4, 1: 0.4}]}, task="binary")
    assert the(same, "net_benefit").threshold == 0.4
    with pytest.raises(InputError, match="no threshold for fold 1"):
        assess(table, config=FAST, thresholds={"nodule": [{0: 0.2}]}, task="binary")


def test_stored_points_are_used_at_their_own_level() -> None:
    table = binary(per_patient=3)
    config = EvaluationConfig(
        n_bootstrap=0, levels=("image", "patient"), thresholds=(ThresholdConfig(), ThresholdConfig(rule="fixed", value=0.5))
    )
    points = choose_operating_points(table.assign(part="val"), config, task="binary")
    done = assess(table, config=config, thresholds=points, task="binary")
    chosen = {(point.level, point.rule): point.threshold for point in points}
    for level in ("image", "patient"):
        stated = [record.threshold for record in done.records if record.metric == "sensitivity" and record.level == level]
        assert stated == [chosen[level, "youden"], 0.5]


def test_equal_thresholds_are_stated_once() -> None:
    done = assess(binary(), config=FAST, thresholds={"nodule": [0.4, 0.4, 0.5]}, task="binary")
    assert [record.threshold for record in done.records if record.metric == "npv"] == [0.4, 0.5]


def test_predictive_values_restated() -> None:
    done = assess(binary(), config=EvaluationConfig(n_bootstrap=0, prevalence=0.02), thresholds={"nodule": [0.4]}, task="binary")
    assert the(done, "ppv", "restated_logit").value < the(done, "ppv", "wilson").value
    assert "0.02" in the(done, "ppv", "restated_logit").note


# ---------------------------------------------------------------- subgroups


def test_subgroups_are_the_rows_of_their_value() -> None:
    table = binary(per_patient=3)
    done = assess(table, config=EvaluationConfig(n_bootstrap=0, by=("sex", "age")), thresholds={"nodule": [0.4]}, task="binary")
    women = table[table["sex"] == "F"]
    record = the(done, "auroc", subset="sex=F")
    np.testing.assert_allclose(record.value, roc_auc_score(women["y_nodule"], women["p_nodule"]), rtol=1e-12)
    assert (record.n, record.n_patients, record.method) == (len(women), women["patient_id"].nunique(), "obuchowski")
    np.testing.assert_allclose(the(done, "sensitivity", subset="sex=F").value, (women["p_nodule"] >= 0.4)[women["y_nodule"] == 1].mean())
    assert [record.subset for record in done.records if record.metric == "oe_ratio"][1:] == [
        "sex=F",
        "sex=M",
        "age=18-39",
        "age=40-59",
        "age=60-79",
        "age=80 and over",
    ]
    test = the(done, "heterogeneity_auroc", subset="sex")
    assert 0 <= test.value <= 1
    assert "Q = " in test.note


def test_small_subgroups_are_counted_not_estimated() -> None:
    table = binary().assign(site=["rare"] * 8 + ["common"] * 292)
    done = assess(table, config=EvaluationConfig(n_bootstrap=0, by=("site",)), thresholds={"nodule": [0.4]}, task="binary")
    for metric in ("auroc", "calibration_slope", "oe_ratio", "sensitivity"):
        record = the(done, metric, subset="site=rare")
        assert (record.value, record.n) == (None, 8)
        assert "fewer than 5" in record.note
    assert the(done, "heterogeneity_auroc", subset="site").value is None


def test_thresholds_of_folds_reach_into_subgroups() -> None:
    table = binary().assign(fold=np.arange(300) % 2)
    done = assess(table, config=EvaluationConfig(n_bootstrap=0, by=("sex",)), thresholds={"nodule": [{0: 0.2, 1: 0.6}]}, task="binary")
    women = table[table["sex"] == "F"]
    cut = np.where(women["fold"] == 0, 0.2, 0.6)
    np.testing.assert_allclose(the(done, "specificity", subset="sex=F").value, (women["p_nodule"] < cut)[women["y_nodule"] == 0].mean())


def test_a_patient_in_two_subgroups_stands_apart_at_patient_level() -> None:
    table = binary(per_patient=2).assign(view=["AP", "AP"] * 50 + ["PA", "PA"] * 49 + ["AP", "PA"] * 51)
    done = assess(table, config=EvaluationConfig(n_bootstrap=0, by=("view",), levels=("patient",)), task="binary")
    assert {record.subset: record.n for record in done.records if record.metric == "auroc"} == {
        "all": 150,
        "view=AP": 50,
        "view=PA": 49,
        "view=several": 51,
    }


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no column 'scanner'"):
        assess(binary(), config=EvaluationConfig(by=("scanner",)), task="binary")
    with pytest.raises(InputError, match="no row has part test"):
        assess(binary().assign(part="val"), config=FAST, task="binary")
