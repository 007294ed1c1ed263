import ladder_cases as cases
import numpy as np
import pandas as pd
import pytest

from medcnn.config import CalibrationConfig, EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.calibration_rows import calibration_rows, fitting_source, never_tested
from medcnn.evaluation.calibrator import Calibrator, fit_calibrator
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.recalibrated_predictions import fit_predictions

SETTINGS = {"task": "binary", "seed": 0}


def combined(members: list[pd.DataFrame]) -> pd.DataFrame:
    return combine(members, how="probability", task="binary")


def fit(table: pd.DataFrame) -> Calibrator:
    return fit_calibrator(table, CalibrationConfig(method="platt"), EvaluationConfig(n_bootstrap=0), task="binary", seed=0)


DESIGNS = {
    "holdout": (pd.concat(cases.holdout()), "own"),
    "kfold with val": (pd.concat(cases.kfold(val=True)), "own"),
    "kfold with val, repeats, combined": (combined(cases.kfold(val=True, n_repeats=2, n_seeds=2)), "own"),
    "kfold_holdout": (pd.concat(cases.kfold_holdout()), "out_of_fold"),
    "kfold_holdout, combined": (combined(cases.kfold_holdout(n_repeats=2, n_seeds=2)), "out_of_fold"),
    "kfold": (pd.concat(cases.kfold()), "other_folds"),
    "kfold, repeats": (pd.concat(cases.kfold(n_repeats=2)), "other_folds"),
    "kfold, combined": (combined(cases.kfold(n_repeats=2, n_seeds=2)), "other_folds"),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_no_patient_fits_the_map_of_a_fold_that_tests_him(name: str) -> None:
    table, source = DESIGNS[name]
    assert fitting_source(table) == source
    rows = calibration_rows(table)
    assert set(rows["part"]) == {"val"}
    assert set(rows["fold"]) == set(table["fold"])
    for fold, fits in rows.groupby("fold"):
        tested = table[(table["part"] == "test") & (table["fold"] == fold)]
        assert not set(fits["patient_id"]) & set(tested["patient_id"])
    fit(table).apply(table)  # every fold of the table has a map


def test_own_val_rows_as_they_are() -> None:
    table = DESIGNS["kfold with val"][0]
    pd.testing.assert_frame_equal(calibration_rows(table), table[table["part"] == "val"])
    alone = table[table["part"] == "val"]  # what the stage gave before: the same maps, whether test rows are there or not
    assert fit(alone).recalibration == fit(table).recalibration == fit_predictions(alone, "platt", **SETTINGS)
    assert fit(table).fitted_on == "validation rows"


def test_all_development_patients_fit_each_map_of_a_common_test_part() -> None:
    table = DESIGNS["kfold_holdout"][0]
    rows = calibration_rows(table)
    val = table[table["part"] == "val"].sort_values("image_id")
    for _, fits in rows.groupby("fold"):
        np.testing.assert_array_equal(fits.sort_values("image_id")["p_x"], val["p_x"])
    found = fit(table)
    assert found.recalibration.maps[0] == found.recalibration.maps[2] == fit_predictions(val.assign(fold=0), "platt", **SETTINGS).maps[0]
    assert found.fitted_on == "out-of-fold predictions of the development patients"


def test_the_other_folds_test_rows_where_there_is_no_val() -> None:
    table = DESIGNS["kfold, combined"][0]
    rows = calibration_rows(table)
    for fold, fits in rows.groupby("fold"):
        assert set(fits["image_id"]) == set(table.loc[table["fold"] != fold, "image_id"])
    found = fit(table)
    others = table[table["fold"] != 1].assign(fold=1, part="val")
    assert found.recalibration.maps[1] == fit_predictions(others, "platt", **SETTINGS).maps[1]
    assert found.fitted_on == "out-of-fold predictions of the other folds"


def test_a_folds_own_truth_does_not_move_its_map() -> None:
    table = DESIGNS["kfold"][0]
    turned = table.assign(y_x=np.where(table["fold"] == 0, 1 - table["y_x"], table["y_x"]))
    before, after = fit(table), fit(turned)
    assert before.recalibration.maps[0] == after.recalibration.maps[0]
    assert before.recalibration.maps[1] != after.recalibration.maps[1]
    for level in ("none", "method"):
        one, other = (found.points[found.method if level == "method" else level] for found in (before, after))
        assert [point.threshold for point in one if point.fold == 0] == [point.threshold for point in other if point.fold == 0]


def test_val_patients_who_are_tested_elsewhere_are_not_pooled() -> None:
    parts = [{"val": np.arange(10), "test": np.arange(20, 40)}, {"val": np.arange(20, 30), "test": np.arange(20)}]
    table = pd.concat([cases.model(fold, each) for fold, each in enumerate(parts)])
    assert not never_tested(table)
    assert fitting_source(table) == "own"


def test_files_bring_it_back(tmp_path) -> None:
    found = fit(DESIGNS["kfold"][0])
    found.write(tmp_path)
    again = Calibrator.read(tmp_path)
    assert again.fitted_on == found.fitted_on
    assert again.recalibration.maps == found.recalibration.maps
    older = (tmp_path / "calibrator.json").read_text().replace('"fitted_on"', '"unknown"')
    (tmp_path / "calibrator.json").write_text(older)
    assert Calibrator.read(tmp_path).fitted_on == "validation rows"


def test_what_must_not_be_is_refused() -> None:
    holdout = DESIGNS["holdout"][0]
    with pytest.raises(InputError, match=r"part val or test; got \['train'\]"):
        fit(holdout.assign(part=holdout["part"].replace("val", "train")))
    with pytest.raises(InputError, match="got no rows"):
        fit(holdout.iloc[:0])
    with pytest.raises(InputError, match=r"one fold without val rows: set split\.val_fraction"):
        fit(holdout[holdout["part"] == "test"])
    torn = holdout.assign(patient_id=holdout["patient_id"].replace({"p25": "p15"}))
    with pytest.raises(InputError, match=r"1 patients would fit the map of a fold that tests them, first p15 \(fold 0\)"):
        fit(torn)
    with pytest.raises(InputError, match="y_LABEL"):
        fit(holdout.drop(columns="y_x"))
