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
    for level in config.units:
        table = at_level(rows, level, config.aggregation, task)
        chosen = thresholds if isinstance(thresholds, Mapping) else thresholds_at(thresholds, level)
        job = _Job(rows, table, level, config, chosen, recalibration, task)
        for column in range(len(table.labels)):
            sample = label_sample(table, column)
            records += _label_records(job, column, sample)
            if sample is not None:
                places = {"label": table.labels[column], "part": "test", "level": level, "subset": "all", "recalibration": recalibration}
                curves.append(label_curves(sample, config).assign(**places))
        records += _records_across_labels(job)
    return Assessment(records, pd.concat(curves, ignore_index=True)[list(COLUMNS)] if curves else pd.DataFrame(columns=list(COLUMNS)))


@dataclass(frozen=True)
class _Job:
    """What one level's evaluation needs."""

    rows: pd.DataFrame
    table: UnitTable
    level: Level
    config: EvaluationConfig
    thresholds: Thresholds
    recalibration: str
    task: Task

    @property
    def n_resamples(self) -> int:
        """Of the bootstraps that sort: none where rows x labels x resamples exceed the budget; intervals are analytic then."""
        asked = self.config.n_bootstrap
        return asked if self.table.y.size * asked <= measures.SORTED_BUDGET else 0


def _label_records(job: _Job, column: int, sample: Sample | None) -> Iterator[Record]:
    label = job.table.labels[column]
    place = _Place(label, job.level, job.recalibration, note=job.table.note)
    if sample is None:
        yield place.count(("auroc", not_estimable("no row has this label"), None), 0, 0, 0)
        return
    points = thresholds_of(job.thresholds, label, sample.fold)
    yield from (
        place.record(measured, sample) for measured in measures.discrimination_measures(sample, job.config, n_resamples=job.n_resamples)
    )
    yield from (place.record(measured, sample) for measured in measures.calibration_measures(sample, job.config))
    yield from (place.record(measured, sample) for measured in measures.threshold_measures(sample, job.config, points))
    if job.level == job.config.units[0]:
        yield from _subgroup_records(job, column, place)


def _records_across_labels(job: _Job) -> Iterator[Record]:
    if job.task == "binary":
        return
    table = job.table
    patients = repeated_patients(table.patient, table.patient.size)
    n_patients = table.patient.size if patients is None else int(patients.max()) + 1
    for label, measured in class_measures.across_labels(table, patients, job.config, task=job.task, n_resamples=job.n_resamples):
        yield _Place(label, job.level, job.recalibration, note=table.note).count(measured, len(table.y), None, n_patients)


# ---------------------------------------------------------------- samples and thresholds


def label_sample(table: UnitTable, column: int, among: IntArray | None = None) -> Sample | None:
    """The units whose label is known (of those `among`, row numbers, if given); None when there is none."""
    known = np.flatnonzero(~np.isnan(table.y[:, column]))
    if among is not None:
        known = np.intersect1d(known, among, assume_unique=True)
    if not known.size:
        return None
    # Ties in p by label: then the order of the rows in the file does not decide which resample an independent row is in.
    known = known[np.lexsort((table.y[known, column], table.p[known, column]))]
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


def _subgroup_records(job: _Job, column: int, place: _Place) -> Iterator[Record]:
    for covariate in job.config.by:
        groups = unit_groups(job.rows, job.table, covariate)
        for name in subgroup_order(groups):
            here = _Place(place.label, place.level, place.recalibration, f"{covariate}={name}", place.note)
            sample = label_sample(job.table, column, np.flatnonzero(groups == name))
            if sample is None:
                yield here.count(("auroc", not_estimable("no row has this label"), None), 0, 0, 0)
                continue
            points = thresholds_of(job.thresholds, place.label, sample.fold)
            why = too_few(sample.y, sample.patients)
            found: Iterable[Measured] = measures.too_small(why, points) if why else measures.subgroup_measures(sample, points)
            yield from (here.record(measured, sample) for measured in found)
        yield _heterogeneity(job.table, column, groups, covariate, place)


def _heterogeneity(table: UnitTable, column: int, groups: pd.Series, covariate: str, place: _Place) -> Record:
    known = np.flatnonzero(~np.isnan(table.y[:, column]))
    names = groups.to_numpy()[known]
    y, patients = table.y[known, column], repeated_patients(table.patient[known], known.size)
    large = [
        name
        for name in np.unique(names)
        if name != "missing" and not too_few(y[names == name], None if patients is None else patients[names == name])
    ]
    rows = np.flatnonzero(np.isin(names, large))
    test = None
    if len(large) > 1:
        codes = None if patients is None else repeated_patients(patients[rows], rows.size)
        test = auroc_heterogeneity(y[rows], table.p[known[rows], column], np.unique(names[rows], return_inverse=True)[1], codes)
    measured = ("heterogeneity_auroc", heterogeneity_estimate(test), None)
    n_patients = int(np.unique(table.patient[known[rows]]).size)
    return _Place(place.label, place.level, place.recalibration, covariate, place.note).count(
        measured, rows.size, int(y[rows].sum()), n_patients
    )


def unit_groups(rows: pd.DataFrame, table: UnitTable, covariate: str) -> pd.Series:
    """Subgroup of each unit, text (n_units,): that of its rows, "several" where they differ. Raises InputError without the column."""
    if covariate not in rows:
        raise InputError(
            f"subgroups: there is no column {covariate!r}; the table has {[name for name in rows.columns if not str(name).startswith(('y_', 'p_', 'logit_'))]}"
        )
    groups = cut_covariate(rows[covariate], covariate)
    codes, names = pd.factorize(groups, sort=True)
    unit, n_units = table.unit_of_row, len(table.y)
    inside = unit >= 0
    lowest, highest = np.full(n_units, len(names)), np.full(n_units, -1)
    np.minimum.at(lowest, unit[inside], codes[inside])
    np.maximum.at(highest, unit[inside], codes[inside])
    return pd.Series(
        np.where(lowest == highest, np.asarray(names, dtype=object)[lowest.clip(max=len(names) - 1)], FOUND_IN_SEVERAL), dtype=str
    )
