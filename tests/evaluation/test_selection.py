import json

import ladder_cases as cases
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.bootstrap import resample_counts
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.selection import Selection, corrected_best
from medcnn.tables import check_predictions

FEW = EvaluationConfig(n_bootstrap=200)


def rung(y: np.ndarray, p: np.ndarray, patient: np.ndarray | None = None) -> pd.DataFrame:
    names = np.arange(len(y)) if patient is None else patient
    return check_predictions(pd.DataFrame({"patient_id": names, "y_x": y, "p_x": p}), source="made up")


def noise(seed: int, n: int = 120, k: int = 20) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    return {f"rung{number}": rung(y, rng.uniform(0.3, 0.7, n)) for number in range(k)}


def test_the_best_of_noise_looks_good_and_is_worth_a_coin() -> None:
    found = [corrected_best(noise(seed), EvaluationConfig(n_bootstrap=100), task="binary") for seed in range(20)]
    naive, corrected = np.mean([each.naive for each in found]), np.mean([each.corrected.value for each in found])
    assert naive > 0.57
    assert abs(corrected - 0.5) < 0.03
    assert np.mean([each.corrected.low < 0.5 < each.corrected.high for each in found]) > 0.9
    assert max(found[0].picked.values()) < 0.9


def test_a_rung_that_is_far_better_is_always_picked_and_hardly_corrected() -> None:
    rng = np.random.default_rng(3)
    rungs = noise(3)
    y = rungs["rung0"]["y_x"].to_numpy()
    rungs["good"] = rung(y, np.clip(0.5 + 0.3 * (y - 0.5) + rng.normal(0, 0.1, len(y)), 0.01, 0.99))
    found = corrected_best(rungs, FEW, task="binary")
    assert found.best == "good"
    assert found.picked["good"] == 1
    assert abs(found.corrected.value - found.naive) < 0.01
    assert found.corrected.low < found.naive < found.corrected.high


def test_definition_row_by_row_with_patients_who_repeat() -> None:
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 30, 80)
    y = rng.integers(0, 2, 80)
    rungs = {name: rung(y, rng.uniform(0.05, 0.95, 80), patient) for name in "abc"}
    config = EvaluationConfig(n_bootstrap=50, seed=4)
    found = corrected_best(rungs, config, task="binary")
    names, codes = np.unique([str(number) for number in patient], return_inverse=True)
    outside, picked = [], []
    for counts in resample_counts(len(names), 50, seed=4):
        drawn = np.concatenate([np.flatnonzero(codes == who) for who in np.repeat(np.arange(len(names)), counts)])
        left = np.flatnonzero(counts[codes] == 0)
        losses = {name: log_loss(y[drawn], table["p_x"].to_numpy()[drawn], labels=[0, 1]) for name, table in rungs.items()}
        picked.append(min(losses, key=losses.__getitem__))
        outside.append(roc_auc_score(y[left], rungs[picked[-1]]["p_x"].to_numpy()[left]))
    assert found.corrected.value == pytest.approx(np.mean(outside), abs=1e-12)
    assert (found.corrected.low, found.corrected.high) == pytest.approx(tuple(np.quantile(outside, [0.025, 0.975])))
    assert found.picked == {name: pytest.approx(picked.count(name) / 50) for name in rungs}
    assert found.naive == pytest.approx(roc_auc_score(y, rungs[found.best]["p_x"]))
    assert (found.n, found.n_patients) == (80, len(names))


def test_several_classes_and_files() -> None:
    rng = np.random.default_rng(2)
    target = rng.integers(0, 3, 90)
    rungs = {}
    for name, skill in (("weak", 0.5), ("strong", 3.0)):
        p = rng.dirichlet(np.ones(3), 90) + skill * np.eye(3)[target]
        p /= p.sum(axis=1, keepdims=True)
        columns = {
            f"{kind}_{label}": values[:, k] for kind, values in (("y", np.eye(3)[target]), ("p", p)) for k, label in enumerate("abc")
        }
        rungs[name] = check_predictions(pd.DataFrame(columns), source="made up")
    found = corrected_best(rungs, FEW, task="multiclass")
    assert found.best == "strong"
    y, p = (rungs["strong"][[f"{kind}_{label}" for label in "abc"]] for kind in "yp")
    assert found.naive == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert Selection.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False))) == found


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_a_wrong_certainty_does_not_break_it(y: float) -> None:
    rungs = noise(5, k=2)
    row = int(np.argmax(rungs["rung0"]["y_x"] == y))
    rungs["rung0"].loc[row, "p_x"] = 1 - y
    found = corrected_best(rungs, FEW, task="binary")
    assert found.best == "rung1"
    assert 0 < found.picked["rung0"] < 0.3


def test_log_loss_of_several_classes_is_that_of_the_true_class() -> None:
    target = np.arange(30) % 3
    first = [np.where(np.eye(3)[k] == 1, 0.5, np.where(np.eye(3)[(k + 1) % 3] == 1, 0.5, 0.0)) for k in target]  # -ln 0.5
    second = [np.where(np.eye(3)[k] == 1, 0.48, 0.26) for k in target]  # -ln 0.48, but closer to the other classes' zeros
    rungs = {}
    for name, p in (("first", np.array(first)), ("second", np.array(second))):
        columns = {
            f"{kind}_{label}": values[:, k] for kind, values in (("y", np.eye(3)[target]), ("p", p)) for k, label in enumerate("abc")
        }
        rungs[name] = check_predictions(pd.DataFrame(columns), source="made up")
    assert corrected_best(rungs, FEW, task="multiclass").best == "first"


def test_what_cannot_be_corrected_is_said_or_refused() -> None:
    rungs = {name: combine(cases.kfold(n_seeds=seed), how="probability", task="binary") for name, seed in (("a", 1), ("b", 2))}
    with pytest.raises(InputError, match="needs resamples"):
        corrected_best(rungs, EvaluationConfig(n_bootstrap=0), task="binary")
    with pytest.raises(InputError, match="two models or more"):
        corrected_best({"a": rungs["a"]}, FEW, task="binary")
    with pytest.raises(InputError, match="not tested on the same images"):
        corrected_best({**rungs, "b": rungs["b"].iloc[1:]}, FEW, task="binary")
    one_class = {name: table.assign(y_x=0.0) for name, table in rungs.items()}
    found = corrected_best(one_class, FEW, task="binary")
    assert found.naive is None
    assert found.corrected.value is None
    assert "not estimable" in found.corrected.note
