import json

import ladder_cases as cases
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.assessment import assess
from medcnn.evaluation.comparison import compare_models
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.ladder import RungNumbers, ladder_numbers, whole_sets
from medcnn.tables import Task, check_predictions

CONFIG = EvaluationConfig(n_bootstrap=300)


def combined(members: list[pd.DataFrame]) -> pd.DataFrame:
    return combine(members, how="probability", task="binary")


def weaker(members: list[pd.DataFrame]) -> list[pd.DataFrame]:
    return [member.assign(p_x=0.1 + 0.8 * np.abs(np.sin(37 * member["p_x"]))) for member in members]


def several(task: Task, n: int = 90, skill: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(int(skill * 10))
    target = np.random.default_rng(0).integers(0, 3, n)
    y = np.eye(3)[target]
    p = 0.1 + 0.6 * rng.random((n, 3)) + 0.25 * skill * y
    if task == "multiclass":
        p /= p.sum(axis=1, keepdims=True)
    else:
        p = np.clip(p - 0.2, 0.01, 0.99)
        y[::7, 1] = np.nan
    columns = {f"{kind}_{name}": values[:, k] for kind, values in (("y", y), ("p", p)) for k, name in enumerate("abc")}
    return check_predictions(pd.DataFrame({"patient_id": np.arange(n) // 2, **columns}), source="made up")


def test_numbers_of_a_binary_rung_are_those_of_scikit_learn_and_of_metrics_json() -> None:
    rungs = {"shortcuts": combined(weaker(cases.kfold())), "main": combined(cases.kfold())}
    first, main = ladder_numbers(rungs, CONFIG, task="binary", headline="main")
    y, p = (rungs["main"][column].to_numpy() for column in ("y_x", "p_x"))
    assert main.auroc.value == pytest.approx(roc_auc_score(y, p))
    assert main.brier.value == pytest.approx(brier_score_loss(y, p))
    assert main.log_loss.value == pytest.approx(log_loss(y, p))
    assert main.accuracy.value == pytest.approx(accuracy_score(y, p >= 0.5))
    records = {record.metric: record for record in reversed(assess(rungs["main"], config=CONFIG, task="binary").records)}
    for metric in ("auroc", "brier", "log_loss"):
        record, estimate = records[metric], getattr(main, metric)
        assert (estimate.low, estimate.high, estimate.method) == pytest.approx((record.low, record.high, record.method))
    assert main.auroc.method == "obuchowski"
    (test,) = [row for row in compare_models({"m": rungs["main"], "s": rungs["shortcuts"]}, CONFIG, {}) if row.metric == "auroc"]
    assert (main.to_previous.difference, main.to_previous.low, main.to_previous.high) == pytest.approx(
        (test.difference, test.low, test.high)
    )
    assert first.to_headline.difference == pytest.approx(-main.to_previous.difference)
    assert first.to_previous is main.to_headline is None
    assert (main.n, main.n_patients) == (cases.N, cases.N // cases.PER_PATIENT)


def test_numbers_of_several_classes() -> None:
    rungs = {"a": several("multiclass"), "b": several("multiclass", skill=2.0)}
    _, found = ladder_numbers(rungs, CONFIG, task="multiclass", headline="b")
    y, p = (rungs["b"][[f"{kind}_{name}" for name in "abc"]].to_numpy() for kind in "yp")
    assert found.auroc.value == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert found.accuracy.value == pytest.approx(accuracy_score(y.argmax(axis=1), p.argmax(axis=1)))
    assert found.log_loss.value == pytest.approx(log_loss(y, p))
    record = next(
        row for row in assess(rungs["b"], config=CONFIG, task="multiclass").records if (row.metric, row.label) == ("auroc", "macro")
    )
    assert (found.auroc.low, found.auroc.high) == (record.low, record.high)
    (test,) = [
        row for row in compare_models({"b": rungs["b"], "a": rungs["a"]}, CONFIG, {}) if (row.metric, row.label) == ("auroc", "macro")
    ]
    assert (found.to_previous.difference, found.to_previous.low) == pytest.approx((test.difference, test.low))


def test_numbers_of_several_findings_are_means_over_known_labels() -> None:
    table = several("multilabel")
    (found,) = ladder_numbers({"main": table}, CONFIG, task="multilabel", headline="main")
    y, p = (table[[f"{kind}_{name}" for name in "abc"]].to_numpy() for kind in "yp")
    known = ~np.isnan(y)
    assert found.brier.value == pytest.approx(np.mean((p - y)[known] ** 2))
    assert found.accuracy.value == pytest.approx(np.mean((p >= 0.5)[known] == y[known]))
    assert found.log_loss.value == pytest.approx(log_loss(y[known], p[known]))
    assert found.auroc.value == pytest.approx(np.mean([roc_auc_score(y[known[:, k], k], p[known[:, k], k]) for k in range(3)]))
    assert found.brier.method == found.log_loss.method == "cluster_robust"


@pytest.mark.parametrize(
    ("members", "n"),
    [
        (cases.kfold(n_repeats=2, n_seeds=2), 4),
        (cases.kfold_holdout(k=3, n_seeds=2), 6),
        (cases.holdout(3), 3),
        (cases.kfold(), 0),
    ],
)
def test_single_models_tell_how_far_chance_moves_a_rung(members: list[pd.DataFrame], n: int) -> None:
    rung = combined(members)
    (found,) = ladder_numbers({"main": rung}, CONFIG, task="binary", headline="main", members={"main": members[::-1]})
    if n == 0:
        assert found.single is None
        return
    sets = whole_sets(members, rung[rung["part"] == "test"])
    values = [roc_auc_score(table["y_x"], table["p_x"]) for table in sets]
    assert found.single.n == len(values) == n
    assert (found.single.mean, found.single.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.auroc.value > found.single.mean  # the mean of several models is better than each: their errors differ


def test_repeats_in_any_order_make_whole_sets() -> None:
    members = cases.kfold(k=10, n_repeats=2)
    rung = combined(members)
    mixed = [members[number] for number in np.random.default_rng(0).permutation(len(members))]
    assert [sorted(table["fold"].unique()) for table in whole_sets(mixed, rung)] == [list(range(10)), list(range(10, 20))]


def test_json_brings_it_back() -> None:
    members = cases.holdout(2)
    rungs = {"main": combined(members), "other": combined(weaker(members))}
    for numbers in ladder_numbers(rungs, CONFIG, task="binary", headline="main", members={"main": members}):
        assert RungNumbers.from_dict(json.loads(json.dumps(numbers.as_dict(), allow_nan=False))) == numbers


def test_an_infinite_log_loss_is_written_as_none() -> None:
    table = combined(cases.holdout())
    certain = table.assign(p_x=table["p_x"].where(table["y_x"] == 0, 0.0))
    (found,) = ladder_numbers({"main": certain}, CONFIG, task="binary", headline="main")
    assert found.log_loss.value == np.inf
    assert found.as_dict()["log_loss"]["value"] is None
    assert "infinite" in found.as_dict()["log_loss"]["note"]


def test_what_does_not_fit_is_refused() -> None:
    members = cases.kfold(n_seeds=2)
    rung = combined(members)
    with pytest.raises(InputError, match="headline 'soup' is none of the rungs main"):
        ladder_numbers({"main": rung}, CONFIG, task="binary", headline="soup")
    with pytest.raises(InputError, match=r"rung main has no test rows; its parts are \['val'\]"):
        ladder_numbers({"main": rung.assign(part="val")}, CONFIG, task="binary", headline="main")
    with pytest.raises(InputError, match="not tested on the same images"):
        ladder_numbers({"main": rung, "soup": rung.iloc[1:]}, CONFIG, task="binary", headline="main")
    with pytest.raises(InputError, match="model 1 and the rung were not tested on the same images, first i0"):
        ladder_numbers({"main": rung}, CONFIG, task="binary", headline="main", members={"main": members[:-1]})


def test_one_class_only_is_said() -> None:
    table = combined(cases.holdout(2)).assign(y_x=0.0)
    found = ladder_numbers({"a": table, "b": table}, CONFIG, task="binary", headline="b", members={"b": cases.holdout(2)})
    assert found[1].auroc.value is None
    assert "not estimable" in found[1].to_previous.note
