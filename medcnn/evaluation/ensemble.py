"""Several models as one: predictions for the same image, averaged over seeds, repeats, folds and rungs."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from medcnn.errors import InputError
from medcnn.evaluation.calibration_rows import never_tested
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.evaluation.levels import group_means
from medcnn.evaluation.multiclass_recalibration import SMALLEST
from medcnn.evaluation.recalibrated_predictions import model_logits
from medcnn.tables import PREDICTION_COLUMNS, Task, label_names, probability_matrix

Combination = Literal["probability", "logit"]
LARGEST_LOGIT = float(-np.log(SMALLEST))  # 27.6


def combine(members: Sequence[pd.DataFrame], *, how: Combination, task: Task) -> pd.DataFrame:
    """The mean prediction of several models, sorted by fold, then image_id.

    members: checked predictions tables, each of one model (a seed of a fold) or of a whole rung (all its folds, combined
    before), so that a rung counts once in the mean of rungs whatever its number of models.
    Test rows: one for each image, the mean of every row that some member has for it (seeds, repeats, the fold models of a
    common test part); its fold is the lowest of theirs. Val rows: likewise where no val patient is tested in any fold
    (holdout, kfold_holdout), else one for each image and fold, because they belong to that fold's models.
    probability: p is averaged, its logit is log odds (multi-class: ln p) of the mean, with p moved to 1e-12 from 0 and 1
    in the logit alone. logit: logits are averaged (infinite ones moved to +-27.6, the same limit), p follows from their mean.
    A row of one model stays as that model gave it. Columns: those of the first member that all have.
    Raises InputError, naming the first difference, where members do not agree in labels, truth or patients, or where an
    image is predicted by more models than another.
    """
    if not members:
        raise InputError("ensemble: there is no member to combine; expected predictions of one model or more")
    if how not in get_args(Combination):
        raise InputError(f"ensemble: {how!r} cannot be averaged; expected probability or logit")
    rows = _stacked(members)
    labels = label_names(rows)
    pooled = (rows["part"] == "test") | ((rows["part"] == "val") & never_tested(rows))
    keys = pd.DataFrame({"part": rows["part"], "image_id": rows["image_id"], "fold": rows["fold"].where(~pooled, -1)})
    group: IntArray = keys.groupby(["part", "image_id", "fold"], sort=True).ngroup().to_numpy().astype(np.int64)
    _require_same_truth(rows, labels)
    _require_equal_counts(rows, group)
    first = np.unique(group, return_index=True)[1]  # rows ascend by fold: the first of a group has the lowest
    mean = rows.iloc[first].reset_index(drop=True)
    if len(first) < len(rows):
        p, logits = _averages(rows, labels, group, how, task)
        for column, label in enumerate(labels):
            mean[f"logit_{label}"], mean[f"p_{label}"] = logits[:, column], p[:, column]
    return mean.sort_values(["fold", "image_id", "part"], kind="stable", ignore_index=True)


def _averages(rows: pd.DataFrame, labels: Sequence[str], group: IntArray, how: Combination, task: Task) -> tuple[FloatArray, FloatArray]:
    """p and logits (n_groups, k) of the means."""
    return from_mean(_means(member_values(rows, labels, how, task), group), how, task)


def member_values(rows: pd.DataFrame, labels: Sequence[str], how: Combination, task: Task) -> FloatArray:
    """What is averaged of each row, (n, k): p, or logits with infinite ones at +-27.6. Raises InputError for a logit that is no number."""
    if how == "probability":
        return probability_matrix(rows, labels)
    logits = model_logits(rows, labels, task)
    if np.isnan(logits).any():
        row = int(np.flatnonzero(np.isnan(logits).any(axis=1))[0])
        raise InputError(f"ensemble: the logit of {rows['image_id'].iloc[row]} (fold {rows['fold'].iloc[row]}) is not a number")
    return np.where(np.isinf(logits), np.sign(logits) * LARGEST_LOGIT, logits)


def from_mean(values: FloatArray, how: Combination, task: Task) -> tuple[FloatArray, FloatArray]:
    """p and logits (n, k) of the averaged `member_values`."""
    if how == "probability":
        p = np.clip(values, 0, 1)
        inside = np.clip(p, SMALLEST, 1 if task == "multiclass" else 1 - SMALLEST)
        return p, np.log(inside) if task == "multiclass" else np.log(inside) - np.log1p(-inside)
    return np.asarray(softmax(values, axis=1) if task == "multiclass" else expit(values), dtype=np.float64), values


def _means(values: FloatArray, group: IntArray) -> FloatArray:
    return np.column_stack([group_means(column, group) for column in values.T])


# ---------------------------------------------------------------- do the members belong together?


def _stacked(members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows, ascending by fold. Members of one fold must cover the same images in the same parts."""
    labels = label_names(members[0])
    covered: dict[int, tuple[int, set[tuple[str, str]]]] = {}
    for number, member in enumerate(members):
        if set(label_names(member)) != set(labels):
            strange = sorted(set(label_names(member)) ^ set(labels))[0]
            raise InputError(f"ensemble: label {strange} is in only one of members 0 and {number}; combine models of the same labels")
        for fold, part in member.groupby("fold"):
            images = set(zip(part["part"].astype(str), part["image_id"].astype(str), strict=True))
            before, seen = covered.setdefault(int(str(fold)), (number, images))
            if images != seen:
                which, image = min(images ^ seen)
                raise InputError(
                    f"ensemble: {which} image {image} of fold {fold} is in only one of members {before} and {number}; combine models of one split"
                )
    columns = [column for column in members[0].columns if all(column in member for member in members)]
    rows = pd.concat([member[columns] for member in members], ignore_index=True)
    return rows.sort_values([*PREDICTION_COLUMNS[::-1]], kind="stable", ignore_index=True)


def _require_same_truth(rows: pd.DataFrame, labels: Sequence[str]) -> None:
    for column in ("patient_id", *(f"y_{label}" for label in labels)):
        first = rows["image_id"].map(rows.drop_duplicates("image_id").set_index("image_id")[column])
        differ = (rows[column] != first) & ~(rows[column].isna() & first.isna())
        if differ.any():
            row = int(np.argmax(differ))
            one, other = first.iloc[[row]].tolist()[0], rows[column].iloc[[row]].tolist()[0]  # plain values, not numpy's
            raise InputError(f"ensemble: {column} of {rows['image_id'].iloc[row]} is {one!r} in one member and {other!r} in another")


def _require_equal_counts(rows: pd.DataFrame, group: IntArray) -> None:
    """Every test row is the mean of as many predictions as every other, and so is every val row."""
    n_models = np.bincount(group)[group]
    for part in ("val", "test"):
        among = np.flatnonzero((rows["part"] == part).to_numpy())
        uneven = among[n_models[among] != n_models[among[:1]]] if among.size else among
        if uneven.size:
            one, other = rows.iloc[among[0]], rows.iloc[uneven[0]]
            raise InputError(
                f"ensemble: {part} image {one['image_id']} is predicted by {n_models[among[0]]} models, {other['image_id']} by {n_models[uneven[0]]}; "
                "give every model of every fold and repeat"
            )
