"""What choosing the best of several models costs: the bootstrap bias-corrected estimate of the winner's AUROC (BBC-CV)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.alignment import align_tables
from medcnn.evaluation.bootstrap import BUDGET, SortedScores, resample_counts
from medcnn.evaluation.calibration import row_log_loss
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.evaluation.multiclass import label_tasks
from medcnn.evaluation.multiclass_recalibration import SMALLEST
from medcnn.evaluation.resampling import FEWEST, percentile_estimate
from medcnn.tables import Task


@dataclass(frozen=True, kw_only=True)
class Selection:
    """best: the rung with the lowest log-loss; naive: its AUROC on the same rows; corrected: what it is worth on new patients.

    picked: rung -> share of the resamples in which it had the lowest log-loss. AUROC: macro where there are several labels.
    """

    best: str
    naive: float | None
    corrected: Estimate
    picked: Mapping[str, float]
    n: int
    n_patients: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Selection":
        """The inverse of `as_dict`."""
        return cls(**{**values, "corrected": Estimate(**values["corrected"])})


def corrected_best(rungs: Mapping[str, pd.DataFrame], config: EvaluationConfig, *, task: Task) -> Selection:
    """Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis 2018, doi:10.1007/s10994-018-5714-4).

    rungs: name -> checked table of out-of-fold predictions of the same images (the test rows of kfold, the val rows of
    kfold_holdout; `combine` gives them). Taken at the first of config.units. Patients are resampled config.n_bootstrap times;
    in each resample the rung with the lowest log-loss on the drawn patients is picked and its AUROC taken of the others.
    The corrected estimate is the mean of these, its limits their percentiles (wide, because a resample leaves out a third).
    Log-loss: of the true class, or the mean over labels and images whose label is known; probabilities of a wrong 0 or 1
    count as 1e-12 from there, so that one such row does not decide alone in every resample that draws it.
    Raises InputError for fewer than two rungs, or rungs of different images, labels or truth.
    """
    tables = align_tables(rungs)
    units = [at_level(table, config.units[0], config.aggregation, task) for table in tables.values()]
    first = units[0]
    codes, n_patients = patient_codes(first.patient, len(first.y))
    losses, weights = _loss_sums(units, codes, n_patients, task)
    scores = [_prepared(unit, codes) for unit in units]
    n_resamples = min(config.n_bootstrap, max(FEWEST, BUDGET // first.y.size))
    if n_resamples < 1:
        raise InputError("selection: the corrected estimate needs resamples; set evaluation.n_bootstrap above 0")
    picked, outside = np.empty(n_resamples, dtype=np.int64), np.empty(n_resamples)
    for number, counts in enumerate(resample_counts(n_patients, n_resamples, seed=config.seed)):
        picked[number] = int(np.argmin(counts @ losses / max(float(counts @ weights), 1.0)))
        outside[number] = _macro(scores[picked[number]], (counts == 0).astype(np.int64))
    names, best = list(tables), int(np.argmin(losses.sum(axis=0)))
    naive = _macro(scores[best], np.ones(n_patients, dtype=np.int64))
    return Selection(
        best=names[best],
        naive=naive if np.isfinite(naive) else None,
        corrected=_corrected(outside),
        picked={name: float(np.mean(picked == number)) for number, name in enumerate(names)},
        n=len(first.y),
        n_patients=n_patients,
    )


def _corrected(outside: FloatArray) -> Estimate:
    defined = outside[np.isfinite(outside)]
    if not defined.size:
        return not_estimable("no resample leaves out patients of both classes", "bbc_cv")
    found = percentile_estimate(float(defined.mean()), outside)
    return Estimate(value=found.value, low=found.low, high=found.high, se=found.se, method="bbc_cv", note=found.note)


def _loss_sums(units: list[UnitTable], codes: IntArray, n_patients: int, task: Task) -> tuple[FloatArray, FloatArray]:
    """Each patient's sum of losses by each rung, (n_patients, k), and how many losses that is, (n_patients,)."""
    known = ~np.isnan(units[0].y) if task != "multiclass" else units[0].y == 1
    patient = np.broadcast_to(codes[:, None], known.shape)[known]
    columns = []
    for unit in units:
        p = np.clip(unit.p[known], SMALLEST, 1 - SMALLEST)
        columns.append(np.bincount(patient, weights=row_log_loss(unit.y[known], p), minlength=n_patients))
    return np.column_stack(columns), np.bincount(patient, minlength=n_patients).astype(np.float64)


def _prepared(unit: UnitTable, codes: IntArray) -> list[SortedScores]:
    """One for each label that has both classes."""
    tasks = [task for task in label_tasks(unit.y, unit.p, unit.labels) if not task.lacking]
    return [SortedScores(task.y, task.score, codes[task.rows]) for task in tasks]


def _macro(scores: list[SortedScores], counts: IntArray) -> float:
    """Mean AUROC over the labels; NaN where one of them has one class only among these patients, or none has both."""
    return float(np.mean([score.auroc(counts) for score in scores])) if scores else float("nan")
