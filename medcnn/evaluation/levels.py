"""From images to studies and patients: whose label and whose probability it is that a number is about."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.tables import Task, label_matrix, label_names, probability_matrix


@dataclass(frozen=True)
class UnitTable:
    """The units of one level: y (n, k) in {0, 1, NaN}, p (n, k) in [0, 1], patient codes (n,), fold (n,).

    `unit_of_row`: the unit that each row of the table went into, -1 where it was left out; `n_left_out`: units without one
    class (multi-class patients whose images disagree); `note` says what was done.
    """

    labels: tuple[str, ...]
    y: FloatArray
    p: FloatArray
    patient: IntArray
    fold: IntArray
    unit_of_row: IntArray
    n_left_out: int = 0
    note: str = ""


def at_level(frame: pd.DataFrame, level: str, aggregation: str, task: Task) -> UnitTable:
    """Aggregate a checked predictions table to `level`: image (as it is), study (column study_id within a patient), patient.

    Probability of a unit: mean, max or noisy_or (1 - prod(1 - p)) over its images; per label over the images whose label is
    known. Label: 1 if any image has it, 0 if all known ones lack it, missing if none is known. Multi-class: rows are
    rescaled to sum 1, and units whose images have different classes are left out and counted.
    Raises InputError for level study without study_id.
    """
    labels = tuple(label_names(frame))
    y, p = label_matrix(frame, labels), probability_matrix(frame, labels)
    patient = pd.factorize(frame["patient_id"], sort=True)[0].astype(np.int64)
    fold = frame["fold"].to_numpy(dtype=np.int64)
    if level == "image":
        return UnitTable(labels, y, p, patient, fold, np.arange(len(frame)))
    unit = _units(frame, level, patient, fold)
    n_units = int(unit.max()) + 1
    columns = [_aggregate(y[:, k], p[:, k], unit, n_units, aggregation) for k in range(len(labels))]
    unit_y, unit_p = (np.column_stack([column[side] for column in columns]) for side in (0, 1))
    unit_patient, unit_fold = np.empty(n_units, dtype=np.int64), np.empty(n_units, dtype=np.int64)
    unit_patient[unit], unit_fold[unit] = patient, fold
    table = UnitTable(
        labels, unit_y, unit_p, unit_patient, unit_fold, unit, note=f"{level} level: {aggregation} of the probabilities of its images"
    )
    return _with_one_class(table) if task == "multiclass" else table


def _with_one_class(table: UnitTable) -> UnitTable:
    """Rows rescaled to sum 1; units whose images have different classes left out and counted."""
    keep = np.nansum(table.y, axis=1) == 1
    total = table.p.sum(axis=1, keepdims=True)
    p = np.where(total > 0, table.p / np.where(total > 0, total, 1), 1 / len(table.labels))
    n_left_out = int((~keep).sum())
    note = f"{table.note}; {n_left_out} units left out because their images have different classes" if n_left_out else table.note
    unit = np.where(keep, np.cumsum(keep) - 1, -1)[table.unit_of_row]
    return UnitTable(table.labels, table.y[keep], p[keep], table.patient[keep], table.fold[keep], unit, n_left_out, note)


def _units(frame: pd.DataFrame, level: str, patient: IntArray, fold: IntArray) -> IntArray:
    """Unit number of each row; a patient predicted by several folds' models is one unit per fold."""
    keys = [patient, fold]
    if level == "study":
        if "study_id" not in frame:
            raise InputError("level study needs a column study_id in the predictions; add it, or evaluate at image and patient level")
        if frame["study_id"].isna().any():
            raise InputError(
                f"study_id is blank in row {int(np.argmax(frame['study_id'].isna()))}; give every image a study, or leave level study out"
            )
        keys.append(pd.factorize(frame["study_id"].astype(str), sort=True)[0])
    # Ordered by patient, then study: the order of rows in the file changes nothing.
    _, unit = np.unique(np.column_stack(keys), axis=0, return_inverse=True)
    return unit.astype(np.int64)


def _aggregate(y: FloatArray, p: FloatArray, unit: IntArray, n_units: int, aggregation: str) -> tuple[FloatArray, FloatArray]:
    """Label (n_units,) in {0, 1, NaN} and probability (n_units,) over the rows whose label is known; over all rows where none is."""
    known = ~np.isnan(y)
    n_known = np.bincount(unit[known], minlength=n_units)
    label = np.where(n_known > 0, np.bincount(unit[known], weights=y[known], minlength=n_units) > 0, np.nan)
    used = known | (n_known == 0)[unit]
    if aggregation == "mean":
        return label, np.clip(group_means(p[used], unit[used]), 0, 1)
    order = np.lexsort((p[used], unit[used]))
    values = p[used][order].astype(np.longdouble)
    starts = np.flatnonzero(np.diff(unit[used][order], prepend=-1))
    if aggregation == "max":
        return label, np.maximum.reduceat(values, starts).astype(np.float64)
    return label, (1 - np.multiply.reduceat(1 - values, starts)).astype(np.float64)


def group_means(values: FloatArray, group: IntArray) -> FloatArray:
    """Mean of values (n,) within each group, float64 (n_groups,); group: (n,), every number from 0 to n_groups - 1.

    Ascending within a group, summed in extended precision: means that tie as decimals tie as numbers, in any row order.
    """
    order = np.lexsort((values, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sums = np.add.reduceat(values[order].astype(np.longdouble), starts)
    return np.asarray(sums / np.diff(np.append(starts, values.size)), dtype=np.float64)
