"""One number for several labels: macro, weighted and micro AUROC, Hand and Till's M.

Labels may be the classes of a multi-class problem (one-hot) or independent findings with missing values; a label uses
the rows in which it is known (available cases). Labels with one class only are left out of a mean, and the note says so.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from medcnn.errors import InputError
from medcnn.evaluation.bootstrap import N_RESAMPLES, SortedScores, affordable, resample_counts
from medcnn.evaluation.clustered import auroc_influence, influence_variance
from medcnn.evaluation.discrimination import auroc_interval, bootstrap_estimate, lacking_class, wald_limits
from medcnn.evaluation.estimates import BoolArray, Estimate, FloatArray, IntArray, not_estimable
from medcnn.evaluation.intervals import patient_codes, sum_by_patient, with_note
from medcnn.evaluation.placements import auroc


@dataclass(frozen=True)
class Task:
    """One AUROC of several: its rows (n,) bool, their labels and scores, and what it is called."""

    name: str
    rows: BoolArray
    y: FloatArray
    score: FloatArray

    @property
    def lacking(self) -> str:
        """Why this AUROC cannot be estimated, or an empty string."""
        return lacking_class(int(self.y.sum()), len(self.y))


def label_tasks(y: ArrayLike, p: ArrayLike, labels: Sequence[str] | None = None) -> list[Task]:
    """One-vs-rest AUROC of each label on the rows where it is known.

    y: (n, k) 0, 1 or NaN; p: (n, k) probabilities. Raises InputError for shapes that differ.
    """
    truth, probability = _check_matrices(y, p)
    names = [str(number) for number in range(truth.shape[1])] if labels is None else list(labels)
    known = ~np.isnan(truth)
    return [
        Task(name, known[:, k], truth[known[:, k], k], probability[known[:, k], k])
        for k, name in zip(range(truth.shape[1]), names, strict=True)
    ]


def pair_tasks(y: ArrayLike, p: ArrayLike, labels: Sequence[str] | None = None) -> list[Task]:
    """The AUROCs A(i|j) and A(j|i) of every pair of classes: class i against class j by the probability of either.

    y: (n, k) one-hot; p: (n, k). Raises InputError unless exactly one class is 1 in every row.
    """
    truth, probability = _check_matrices(y, p)
    strange = np.flatnonzero(~(np.isin(truth, (0, 1)).all(axis=1) & (truth.sum(axis=1) == 1)))
    if len(strange):
        raise InputError(f"Hand-Till M: expected exactly one class in every row, row {strange[0]} has {truth[strange[0]].tolist()}")
    names = [str(number) for number in range(truth.shape[1])] if labels is None else list(labels)
    tasks = []
    for i, j in combinations(range(truth.shape[1]), 2):
        rows = (truth[:, i] == 1) | (truth[:, j] == 1)
        for one, other in ((i, j), (j, i)):
            tasks.append(Task(f"{names[one]} against {names[other]}", rows, truth[rows, one], probability[rows, one]))
    return tasks


def one_vs_rest_aurocs(y: ArrayLike, p: ArrayLike) -> FloatArray:
    """AUROC of each label against the rest on its known rows, (k,); NaN where a label has one class only."""
    return np.array([math.nan if task.lacking else auroc(task.y, task.score) for task in label_tasks(y, p)])


# ---------------------------------------------------------------- averages with intervals


def average_aurocs(
    y: ArrayLike,
    p: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The macro (plain mean over labels), weighted (by positives) and micro (all label-image pairs pooled) AUROC.

    y: (n, k) 0, 1 or NaN; p: (n, k); patient: (n,) ids or None. Intervals of macro and weighted: patient bootstrap, or
    the linearised one beyond the budget; of micro: Obuchowski's with all pairs of a patient as one cluster. Each note
    says how many labels were averaged. As scikit-learn's `average=` where no label is missing.
    """
    tasks = label_tasks(y, p, labels)
    usable = [task for task in tasks if not task.lacking]
    codes, n_patients = patient_codes(patient, len(np.asarray(y)))
    averages = {"macro": _mean(usable, codes, n_patients, n_resamples, seed, weighted=False)}
    averages["weighted"] = _mean(usable, codes, n_patients, n_resamples, seed, weighted=True)
    pooled = [np.concatenate(parts) for parts in zip(*((task.y, task.score, codes[task.rows]) for task in tasks), strict=True)]
    averages["micro"] = auroc_interval(*pooled)
    remark = _averaged(tasks, usable)
    return {name: estimate if name == "micro" else with_note(estimate, remark) for name, estimate in averages.items()}


def hand_till(
    y: ArrayLike,
    p: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Hand and Till's M: the mean over pairs of classes of (A(i|j) + A(j|i))/2 (Hand & Till 2001, doi:10.1023/A:1010920819831).

    y: (n, k) one-hot; p: (n, k); patient: (n,) ids or None. Does not depend on the class frequencies. Interval: as
    `average_aurocs`. Pairs with a class nobody has are left out, and the note says so.
    """
    tasks = pair_tasks(y, p, labels)
    usable = [task for task in tasks if not task.lacking]
    codes, n_patients = patient_codes(patient, len(np.asarray(y)))
    estimate = _mean(usable, codes, n_patients, n_resamples, seed, weighted=False)
    missing = (len(tasks) - len(usable)) // 2
    return with_note(estimate, f"{missing} of {len(tasks) // 2} pairs left out: a class has no case" if missing else "")


def mean_auroc_influence(tasks: Sequence[Task], codes: IntArray, n_patients: int, *, weighted: bool = False) -> tuple[float, FloatArray]:
    """Mean AUROC of these tasks and each patient's influence on it, (n_patients,); see `clustered.auroc_influence`.

    codes: (n,) of all rows. weighted: weights are the numbers of positives, whose own variation is part of the influence.
    """
    weights = np.array([task.y.sum() for task in tasks]) if weighted else np.ones(len(tasks))
    values, influence = np.empty(len(tasks)), np.zeros(n_patients)
    for number, task in enumerate(tasks):
        values[number], own = auroc_influence(task.y, task.score, codes[task.rows], n_patients)
        influence += own * weights[number] / weights.sum()
    mean = float(values @ weights / weights.sum())
    if weighted:
        for value, task in zip(values, tasks, strict=True):
            influence += (value - mean) * sum_by_patient(task.y, codes[task.rows], n_patients) / weights.sum()
    return mean, influence


def _mean(tasks: list[Task], codes: IntArray, n_patients: int, n_resamples: int, seed: int, *, weighted: bool) -> Estimate:
    if not tasks:
        return not_estimable("no label has cases of both classes")
    value, influence = mean_auroc_influence(tasks, codes, n_patients, weighted=weighted)
    if affordable(sum(len(task.y) for task in tasks), n_resamples):
        resampled = np.array(list(_resampled_means(tasks, codes, n_patients, n_resamples, seed, weighted=weighted)))
        estimate = bootstrap_estimate(value, resampled, "bootstrap")
        if estimate.low is not None:
            return estimate
    variance = influence_variance(influence)
    if not variance > 0:
        return Estimate(value=value, method="linearised", note="no interval: the variance cannot be estimated")
    low, high = wald_limits(value, variance)
    return Estimate(value=value, low=low, high=high, method="linearised", se=math.sqrt(variance))


def _resampled_means(
    tasks: list[Task], codes: IntArray, n_patients: int, n_resamples: int, seed: int, *, weighted: bool
) -> Iterator[float]:
    prepared = [SortedScores(task.y, task.score, codes[task.rows]) for task in tasks]
    positives = np.column_stack([sum_by_patient(task.y, codes[task.rows], n_patients) for task in tasks])
    for counts in resample_counts(n_patients, n_resamples, seed=seed):
        values = np.array([each.auroc(counts) for each in prepared])
        weights = counts @ positives if weighted else np.ones(len(tasks))
        yield float(values @ weights / weights.sum()) if weights.sum() > 0 else math.nan


def _averaged(tasks: list[Task], usable: list[Task]) -> str:
    left_out = [task.name for task in tasks if task.lacking]
    reason = f" (one class only: {', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''})" if left_out else ""
    return f"mean of {len(usable)} of {len(tasks)} labels{reason}"


def _check_matrices(y: ArrayLike, p: ArrayLike) -> tuple[FloatArray, FloatArray]:
    truth, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != probability.shape:
        raise InputError(f"labels: expected matrices of the same shape (rows, labels), got {truth.shape} and {probability.shape}")
    return truth, probability
