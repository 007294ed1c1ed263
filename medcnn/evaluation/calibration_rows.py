"""Which predictions may fit a fold's recalibration and thresholds: always those of patients whom the fold does not test."""

from typing import Literal

import pandas as pd

from medcnn.errors import InputError

Source = Literal["own", "out_of_fold", "other_folds"]
FITTED_ON: dict[Source, str] = {
    "own": "validation rows",
    "out_of_fold": "out-of-fold predictions of the development patients",
    "other_folds": "out-of-fold predictions of the other folds",
}


def never_tested(predictions: pd.DataFrame) -> bool:
    """Whether there are test rows and none of them, in any fold, is of a patient who has a val row (holdout, kfold_holdout)."""
    parts = {part: set(rows["patient_id"]) for part, rows in predictions.groupby("part")}
    return "test" in parts and not parts.get("val", set()) & parts["test"]


def fitting_source(predictions: pd.DataFrame) -> Source:
    """What fits each fold's map. own: the fold's val rows. out_of_fold: the val rows of all folds. other_folds: their test rows.

    out_of_fold needs that each image is val in one fold at most and that no val patient is tested anywhere; other_folds is
    for tables without val rows. Raises InputError for a table with train rows, or without val rows and with fewer than two folds.
    """
    strangers = sorted(set(predictions["part"]) - {"val", "test"})
    if strangers or predictions.empty:
        raise InputError(f"calibration and thresholds are fitted on rows of part val or test; got {strangers or 'no rows'}")
    val = predictions[predictions["part"] == "val"]
    if val.empty:
        if predictions["fold"].nunique() < 2:
            raise InputError(
                "calibration and thresholds need rows of part val, or the test rows of other folds; there is one fold without val rows: "
                "set split.val_fraction above 0, or split.scheme to kfold"
            )
        return "other_folds"
    several = val["fold"].nunique() > 1 and not val["image_id"].duplicated().any()
    return "out_of_fold" if several and never_tested(predictions) else "own"


def calibration_rows(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows that fit each fold's recalibration and thresholds: part val, and `fold` says for which fold's map they are.

    predictions: a checked table of val and test rows, of single models or combined. A row that fits several folds' maps
    stands there once for each. Test rows are read only where there are no val rows; those of a patient whom the fold itself
    tests (in another repeat) never fit its map. Raises InputError as `fitting_source` does, and where a patient
    would stand on both sides of a fold's map.
    """
    source = fitting_source(predictions)
    folds = sorted(predictions["fold"].unique())
    val, test = (predictions[predictions["part"] == part] for part in ("val", "test"))
    if source == "own":
        rows = val
    elif source == "out_of_fold":
        rows = pd.concat([val.assign(fold=fold) for fold in folds], ignore_index=True)
    else:
        rows = pd.concat([_of_others(test, fold) for fold in folds], ignore_index=True)
    _require_other_patients(rows, test)
    return rows


def _of_others(test: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Test rows of the other folds' patients, for this fold's map; the table says val, because here they only fit."""
    own = test.loc[test["fold"] == fold, "patient_id"]
    return test[~test["patient_id"].isin(own)].assign(fold=fold, part="val")


def _require_other_patients(rows: pd.DataFrame, test: pd.DataFrame) -> None:
    fits = rows[["fold", "patient_id"]].drop_duplicates()
    both = fits.merge(test[["fold", "patient_id"]].drop_duplicates(), on=["fold", "patient_id"])
    if len(both):
        fold, patient = both.sort_values(["fold", "patient_id"]).iloc[0]
        raise InputError(
            f"calibration: {len(both)} patients would fit the map of a fold that tests them, first {patient} (fold {fold}); "
            "deal the split by patient"
        )
