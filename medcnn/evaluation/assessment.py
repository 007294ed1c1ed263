"""The whole evaluation of one predictions table: every record of `metrics.json` and every curve of the report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation import class_measures, measures
from medcnn.evaluation.assessment_curves import COLUMNS, label_curves
from medcnn.evaluation.estimates import FloatArray, IntArray, not_estimable, repeated_patients
from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.evaluation.measures import Measured, Sample, Threshold
from medcnn.evaluation.operating_points import OperatingPoint, Thresholds, thresholds_at
from medcnn.evaluation.subgroups import auroc_heterogeneity, cut_covariate, heterogeneity_estimate, subgroup_order, too_few
from medcnn.tables import Level, Record, Task

FOUND_IN_SEVERAL = "several"  # a patient whose images lie in different subgroups


@dataclass(frozen=True)
class Assessment:
    """records: one per metric, label, level, subset, threshold and method; curves: tidy, see `assessment_curves`."""

    records: list[Record]
    curves: pd.DataFrame


@dataclass(frozen=True)
class _Place:
    """Where a record belongs."""

    label: str
    level: Level
    recalibration: str
    subset: str = "all"
    note: str = ""

    def record(self, measured: Measured, sample: Sample) -> Record:
        return self.count(measured, sample.y.size, int(sample.y.sum()), sample.n_patients)

    def count(self, measured: Measured, n: int, n_positive: int | None, n_patients: int) -> Record:
        metric, estimate, threshold = measured
        value, note = estimate.value, "; ".join(filter(None, (estimate.note, self.note)))
        finite = value is not None and bool(np.isfinite(value))
        return Record(
            metric=metric,
            label=self.label,
            value=value if finite else None,
            low=estimate.low if finite else None,
            high=estimate.high if finite else None,
            method=estimate.method,
            level=self.level,
            subset=self.subset,
            threshold=threshold,
            recalibration=self.recalibration,
            n=n,
            n_positive=n_positive,
            n_patients=n_patients,
            note=note,
        )


def assess(
    predictions: pd.DataFrame,
    *,
    config: EvaluationConfig,
    thresholds: Thresholds | Sequence[OperatingPoint] = (),
    recalibration: str = "none",
    task: Task,
) -> Assessment:
    """Every number and curve of the test rows of a checked predictions table (`tables.check_predictions`).

    thresholds: the stored operating points, each used at its level and fold; or label -> thresholds (a number, or fold ->
    number) that are used at every level. The records of a threshold that differs by fold carry the mean over the folds.
    recalibration: the name of what p_LABEL went through. Labels that are missing leave their row out of that label alone.
    Raises InputError when there is no test row, a covariate of config.by is absent, or a fold has no threshold.
    """
    rows = predictions[predictions["part"] == "test"].reset_index(drop=True)
    if rows.empty:
        raise InputError(f"evaluation: no row has part test; the table has {sorted(set(predictions['part']))}")
    records: list[Record] = []
    curves: list[pd.DataFrame] = []
    for level in config.levels:
        table = at_level(rows, level, config.aggregation, task)
        chosen = thresholds if isinstance(thresholds, Mapping) else thresholds_at(thresholds, level)
        records += _level_records(rows, table, level, config, chosen, recalibration, task)
        curves += _level_curves(table, level, config, recalibration)
    return Assessment(records, pd.concat(curves, ignore_index=True)[list(COLUMNS)] if curves else pd.DataFrame(columns=list(COLUMNS)))


def _level_records(
    rows: pd.DataFrame, table: UnitTable, level: Level, config: EvaluationConfig, thresholds: Thresholds, recalibration: str, task: Task
) -> Iterator[Record]:
    n_resamples = config.n_bootstrap if table.y.size * config.n_bootstrap <= measures.SORTED_BUDGET else 0
    for column, label in enumerate(table.labels):
        place = _Place(label, level, recalibration, note=table.note)
        sample = label_sample(table, column)
        if sample is None:
            yield place.count(("auroc", not_estimable("no row has this label"), None), 0, 0, 0)
            continue
        points = thresholds_of(thresholds, label, sample.fold)
        for measured in _measure(sample, config, points, n_resamples):
            yield place.record(measured, sample)
        if level == config.levels[0]:
            yield from _subgroup_records(rows, table, column, config, points, place)
    if task != "binary":
        patients = repeated_patients(table.patient, table.patient.size)
        n_patients = int(np.unique(table.patient).size)
        for label, measured in class_measures.across_labels(table, patients, config, task=task, n_resamples=n_resamples):
            yield _Place(label, level, recalibration, note=table.note).count(measured, len(table.y), None, n_patients)


def _measure(sample: Sample, config: EvaluationConfig, points: Sequence[Threshold], n_resamples: int) -> Iterator[Measured]:
    yield from measures.discrimination_measures(sample, config, n_resamples=n_resamples)
    yield from measures.calibration_measures(sample, config)
    yield from measures.threshold_measures(sample, config, points)


def _level_curves(table: UnitTable, level: Level, config: EvaluationConfig, recalibration: str) -> Iterator[pd.DataFrame]:
    for column, label in enumerate(table.labels):
        sample = label_sample(table, column)
        if sample is not None:
            yield label_curves(sample, config).assign(label=label, part="test", level=level, subset="all", recalibration=recalibration)


# ---------------------------------------------------------------- samples and thresholds


def label_sample(table: UnitTable, column: int, among: IntArray | None = None) -> Sample | None:
    """The units whose label is known (of those `among`, row numbers, if given); None when there is none."""
    known = np.flatnonzero(~np.isnan(table.y[:, column]))
    if among is not None:
        known = np.intersect1d(known, among, assume_unique=True)
    if not known.size:
        return None
    patients = repeated_patients(table.patient[known], known.size)
    n_patients = known.size if patients is None else int(patients.max()) + 1
    return Sample(table.y[known, column], table.p[known, column], patients, table.fold[known], n_patients)


def thresholds_of(thresholds: Thresholds, label: str, fold: IntArray) -> list[Threshold]:
    """The operating points of one label for rows of these folds (n,); equal ones once."""
    points: list[Threshold] = []
    for given in thresholds.get(label, ()):
        point = _threshold(given, label, fold)
        if all(abs(point.value - other.value) > 1e-12 for other in points):
            points.append(point)
    return points


def _threshold(given: float | Mapping[int, float], label: str, fold: IntArray) -> Threshold:
    if not isinstance(given, Mapping):
        return Threshold(float(given), float(given))
    present = np.unique(fold)
    absent = [int(number) for number in present if int(number) not in given]
    if absent:
        raise InputError(f"evaluation: label {label} has no threshold for fold {absent[0]}; there is one for folds {sorted(given)}")
    values = np.array([given[int(number)] for number in present], dtype=np.float64)
    by_row: float | FloatArray = values[np.searchsorted(present, fold)] if np.ptp(values) > 0 else float(values[0])
    return Threshold(float(values.mean()), by_row)


# ---------------------------------------------------------------- subgroups


def _subgroup_records(
    rows: pd.DataFrame, table: UnitTable, column: int, config: EvaluationConfig, points: Sequence[Threshold], place: _Place
) -> Iterator[Record]:
    for covariate in config.by:
        groups = unit_groups(rows, table, covariate)
        names = subgroup_order(groups)
        for name in names:
            yield from _one_subgroup(table, column, np.flatnonzero(groups == name), f"{covariate}={name}", points, place)
        yield _heterogeneity(table, column, groups, covariate, place)


def _one_subgroup(table: UnitTable, column: int, members: IntArray, subset: str, points: Sequence[Threshold], place: _Place) -> Iterator[Record]:
    here = _Place(place.label, place.level, place.recalibration, subset, place.note)
    sample = label_sample(table, column, members)
    if sample is None:
        yield here.count(("auroc", not_estimable("no row has this label"), None), 0, 0, 0)
        return
    known = np.intersect1d(np.flatnonzero(~np.isnan(table.y[:, column])), members, assume_unique=True)
    position = np.searchsorted(np.flatnonzero(~np.isnan(table.y[:, column])), known)
    own = [Threshold(point.value, point.by_row if np.ndim(point.by_row) == 0 else np.asarray(point.by_row)[position]) for point in points]
    why = too_few(sample.y, sample.patients)
    found: Iterable[Measured] = measures.too_small(why, own) if why else measures.subgroup_measures(sample, own)
    for measured in found:
        yield here.record(measured, sample)


def _heterogeneity(table: UnitTable, column: int, groups: pd.Series, covariate: str, place: _Place) -> Record:
    known = np.flatnonzero(~np.isnan(table.y[:, column]))
    names = groups.to_numpy()[known]
    y, patients = table.y[known, column], repeated_patients(table.patient[known], known.size)
    large = [name for name in np.unique(names) if name != "missing" and not too_few(y[names == name], None if patients is None else patients[names == name])]
    rows = np.flatnonzero(np.isin(names, large))
    test = None
    if len(large) > 1:
        codes = None if patients is None else repeated_patients(patients[rows], rows.size)
        test = auroc_heterogeneity(y[rows], table.p[known[rows], column], np.unique(names[rows], return_inverse=True)[1], codes)
    measured = ("heterogeneity_auroc", heterogeneity_estimate(test), None)
    n_patients = int(np.unique(table.patient[known[rows]]).size)
    return _Place(place.label, place.level, place.recalibration, covariate, place.note).count(measured, rows.size, int(y[rows].sum()), n_patients)


def unit_groups(rows: pd.DataFrame, table: UnitTable, covariate: str) -> pd.Series:
    """Subgroup of each unit, text (n_units,): that of its rows, "several" where they differ. Raises InputError without the column."""
    if covariate not in rows:
        raise InputError(f"subgroups: there is no column {covariate!r}; the table has {[name for name in rows.columns if not str(name).startswith(('y_', 'p_', 'logit_'))]}")
    groups = cut_covariate(rows[covariate], covariate)
    codes, names = pd.factorize(groups, sort=True)
    unit, n_units = table.unit_of_row, len(table.y)
    inside = unit >= 0
    lowest, highest = np.full(n_units, len(names)), np.full(n_units, -1)
    np.minimum.at(lowest, unit[inside], codes[inside])
    np.maximum.at(highest, unit[inside], codes[inside])
    return pd.Series(np.where(lowest == highest, np.asarray(names, dtype=object)[lowest.clip(max=len(names) - 1)], FOUND_IN_SEVERAL), dtype=str)
