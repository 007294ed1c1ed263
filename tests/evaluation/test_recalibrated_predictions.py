import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from medcnn.errors import InputError
from medcnn.evaluation.recalibrated_predictions import Recalibration, fit_predictions
from medcnn.tables import check_predictions


def made_up(n: int = 2000, *, logits: bool = True, folds: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": rng.integers(0, n // 2, n), "part": "val", "fold": np.arange(n) % folds})
    for number, label in enumerate(("mass", "fluid")):
        lp = rng.normal(-0.5 * number, 2, n)
        stretch = 1 + table["fold"].to_numpy()
        table[f"y_{label}"] = (rng.random(n) < expit(lp / stretch)).astype(float)
        if logits:
            table[f"logit_{label}"] = lp
        table[f"p_{label}"] = expit(lp)
    table.loc[:20, "y_fluid"] = np.nan
    return check_predictions(table, source="made up")


def test_each_fold_and_label_has_its_own_map() -> None:
    table = made_up()
    fitted = fit_predictions(table, "temperature", task="multilabel")
    temperatures = {fold: {label: part.parameters["temperature"] for label, part in maps.items()} for fold, maps in fitted.maps.items()}
    assert sorted(fitted.maps) == [0, 1]
    assert all(temperatures[1][label] > temperatures[0][label] + 0.5 for label in ("mass", "fluid"))
    assert fitted.maps[0]["fluid"].n == int(((table["fold"] == 0) & table["y_fluid"].notna()).sum())
    after = fitted.apply(table)
    rows = (table["fold"] == 1).to_numpy()
    np.testing.assert_allclose(after["p_mass"][rows], expit(table["logit_mass"][rows] / temperatures[1]["mass"]), rtol=1e-12)
    pd.testing.assert_series_equal(after["logit_mass"], table["logit_mass"])


def test_a_table_without_logits_gives_the_same() -> None:
    with_logits, without = (fit_predictions(made_up(logits=logits), "platt", task="multilabel") for logits in (True, False))
    one, other = (fitted.maps[0]["mass"].parameters for fitted in (with_logits, without))
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-9)


@pytest.mark.parametrize("method", ["none", "isotonic", "auto"])
def test_json_brings_the_same_probabilities_back(method: str) -> None:
    table = made_up()
    fitted = fit_predictions(table, method, task="multilabel")
    again = Recalibration.from_dict(json.loads(json.dumps(fitted.as_dict(), allow_nan=False)))
    pd.testing.assert_frame_equal(again.apply(table), fitted.apply(table))
    assert again.methods() == fitted.methods()


def test_several_classes_share_one_map() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 1.5, (500, 3))
    target = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = softmax(3 * z, axis=1)
    columns = {
        f"{kind}_{name}": values[:, k]
        for kind, values in (("y", np.eye(3)[target]), ("logit", 3 * z), ("p", p))
        for k, name in enumerate("abc")
    }
    table = check_predictions(pd.DataFrame(columns).assign(part="val"), source="made up")
    fitted = fit_predictions(table, "temperature", task="multiclass")
    assert list(fitted.maps[0]) == ["all"]
    assert fitted.methods() == {"all": "temperature"}
    after = fitted.apply(table)[["p_a", "p_b", "p_c"]].to_numpy()
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-12)
    assert abs(fitted.maps[0]["all"].temperature - 3) < 0.6
    np.testing.assert_array_equal(Recalibration.from_dict(fitted.as_dict()).apply(table)["p_a"], after[:, 0])


def test_a_label_nobody_has_and_failed_fits_are_noted() -> None:
    table = made_up()
    table["y_fluid"] = np.nan
    table.loc[table["fold"] == 1, "y_mass"] = 0.0
    fitted = fit_predictions(table, "platt", task="multilabel")
    assert fitted.methods() == {"mass": "none/platt", "fluid": "none"}
    assert "fold 1, mass: platt cannot be fitted: one class only" in fitted.notes()
    assert any("no row has this label" in note for note in fitted.notes())


def test_what_must_not_be_is_refused() -> None:
    table = made_up()
    with pytest.raises(InputError, match="no row to fit on"):
        fit_predictions(table.iloc[:0], "platt", task="multilabel")
    mixed = table.assign(part=np.where(np.arange(len(table)) % 7, "val", "test"))
    with pytest.raises(InputError, match="fold 0 brings rows of several parts"):
        fit_predictions(mixed, "platt", task="multilabel")
    fitted = fit_predictions(table, "platt", task="multilabel")
    with pytest.raises(InputError, match="fold 5 has no map"):
        fitted.apply(table.assign(fold=5))
    with pytest.raises(InputError, match="labels is missing"):
        Recalibration.from_dict({"task": "binary", "maps": {}})
