"""Resampling patients with replacement. A resample is a count per patient, so nothing is copied and the sort is done once.

Every function is reproducible by `seed` alone: neither row order nor the size of a chunk changes a draw.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from medcnn.errors import InputError
from medcnn.evaluation.estimates import BoolArray, FloatArray, IntArray
from medcnn.evaluation.intervals import patient_codes, sum_by_patient
from medcnn.evaluation.placements import check_scores

N_RESAMPLES = 2000
CHUNK = 1 << 16  # counts held at a time: half a megabyte stays in the cache (four times more takes twice as long), memory is O(n)
BUDGET = 40_000_000  # rows times resamples (20,000 rows, 2,000 times): beyond it an analytic interval answers in the place of the bootstrap


def affordable(n: int, n_resamples: int) -> bool:
    """Whether n_resamples of n rows stay within the budget (seconds, not minutes, for each area)."""
    return n_resamples > 0 and n * n_resamples <= BUDGET


def resample_counts(n_patients: int, n_resamples: int, *, seed: int, strata: ArrayLike | None = None) -> Iterator[IntArray]:
    """How often each patient is drawn, int64 (n_patients,), once for each of n_resamples resamples.

    strata: (n_patients,) integers; each stratum is resampled on its own and keeps its size. None: one stratum.
    Raises InputError without patients.
    """
    if n_patients < 1:
        raise InputError("bootstrap: there are no patients to resample")
    if strata is None:
        yield from _draw(np.random.SeedSequence(seed), n_patients, n_resamples)
        return
    groups = np.unique(np.asarray(strata), return_inverse=True)[1]
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    seeds = np.random.SeedSequence(seed).spawn(len(members))
    streams = [_draw(child, len(who), n_resamples) for child, who in zip(seeds, members, strict=True)]
    for drawn in zip(*streams, strict=True):
        counts = np.empty(n_patients, dtype=np.int64)
        for who, part in zip(members, drawn, strict=True):
            counts[who] = part
        yield counts


def _draw(seed: np.random.SeedSequence, n: int, n_resamples: int) -> Iterator[IntArray]:
    generator, size = np.random.default_rng(seed), max(1, CHUNK // n)
    for start in range(0, n_resamples, size):
        for drawn in generator.integers(0, n, size=(min(size, n_resamples - start), n)):
            yield np.bincount(drawn, minlength=n)


def _in_chunks(rows: Iterator[IntArray], n: int) -> Iterator[FloatArray]:
    """Rows of counts stacked to float64 (k, n), for matrix products."""
    while stacked := list(islice(rows, max(1, CHUNK // n))):
        yield np.array(stacked, dtype=np.float64)


# ---------------------------------------------------------------- AUROC


class SortedScores:
    """Scores sorted once, so that the AUROC under any case weights costs one cumulative sum.

    y: (n,) 0/1; score: (n,). Raises InputError for NaN or strange labels. `unit`: (n,) the patient of each row.
    """

    def __init__(self, y: ArrayLike, score: ArrayLike, unit: IntArray | None = None) -> None:
        positive, scores = check_scores(y, score)
        cases, controls = np.flatnonzero(positive), np.flatnonzero(~positive)
        cases, controls = cases[np.argsort(scores[cases], kind="stable")], controls[np.argsort(scores[controls], kind="stable")]
        # First case at or above, and first case above, each control; equal everywhere when no score is tied.
        self._from = np.searchsorted(scores[cases], scores[controls], "left")
        self._after = np.searchsorted(scores[cases], scores[controls], "right")
        self._tied = not np.array_equal(self._from, self._after)
        self._cases = _contiguous(cases if unit is None else unit[cases])
        self._controls = _contiguous(controls if unit is None else unit[controls])
        self._cumulative = np.zeros(len(cases) + 1, dtype=np.int64)

    def auroc(self, weights: IntArray) -> float:
        """AUROC with these counts of the units, int64 (n_units,); NaN when a class is absent."""
        np.cumsum(weights[self._cases], out=self._cumulative[1:])
        controls = weights[self._controls].astype(np.float64)
        total, total_controls = int(self._cumulative[-1]), controls.sum()
        if total == 0 or total_controls == 0:
            return float("nan")
        cumulative = self._cumulative.astype(np.float64)
        below = controls @ cumulative[self._from]
        after = controls @ cumulative[self._after] if self._tied else below
        return float(1 - (below + after) / (2 * total * total_controls))


def _contiguous(index: IntArray) -> IntArray | slice:
    """A run of neighbouring numbers as a slice, which indexes without copying."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def bootstrap_auroc(
    y: ArrayLike,
    score: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    stratified: bool = False,
) -> FloatArray:
    """AUROC of each resample, (n_resamples,); NaN where a resample lacks a class.

    Patients are drawn, with all their images. stratified: the patients with only positives, only negatives and both
    are drawn separately, so that each resample keeps the numbers of either (with one image per patient this is pROC's
    class-stratified bootstrap; Efron & Tibshirani 1993, doi:10.1201/9780429246593).
    """
    positive, scores = check_scores(y, score)
    codes, n_patients = patient_codes(patient, len(scores))
    if n_patients == len(scores):
        # Each row is its own patient: number the rows by class and score, which makes row order irrelevant.
        order = np.lexsort((scores, positive))
        positive, scores, codes = positive[order], scores[order], np.arange(len(scores), dtype=np.int64)
    prepared = SortedScores(positive, scores, codes)
    strata = class_strata(positive, codes, n_patients) if stratified else None
    values = [prepared.auroc(row) for row in resample_counts(n_patients, n_resamples, seed=seed, strata=strata)]
    return np.array(values, dtype=np.float64)


def class_strata(positive: BoolArray, codes: IntArray, n_patients: int) -> IntArray:
    """Stratum of each patient (n_patients,): 1 only negatives, 2 only positives, 3 both."""
    strata = np.zeros(n_patients, dtype=np.int64)
    strata[codes[~positive]] = 1
    strata[np.unique(codes[positive])] += 2
    return strata


# ---------------------------------------------------------------- any metric


def bootstrap_metric(
    metric: Callable[[FloatArray], float | FloatArray], patient: ArrayLike | None, n: int, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> FloatArray:
    """metric(weights) for each resample of patients, (n_resamples,) or (n_resamples, ...) as metric returns.

    metric takes float64 weights (n,), the number of times each row is in the resample. Calls that share seed and
    patients see the same resamples, so that differences between models are paired.
    """
    codes, n_patients = patient_codes(patient, n)
    resamples = resample_counts(n_patients, n_resamples, seed=seed)
    return np.asarray([metric(counts.astype(np.float64)[codes]) for counts in resamples], dtype=np.float64)


def bootstrap_ratio(
    numerator: ArrayLike, denominator: ArrayLike | None, patient: ArrayLike | None, *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> FloatArray:
    """sum(numerator) / sum(denominator) over each resample: means, proportions, net benefits at once for many columns.

    numerator: (n,) or (n, t); denominator: the same shape, or None for the number of rows (a mean). Returns
    (n_resamples,) or (n_resamples, t); NaN where the denominator is 0. Same resamples as `bootstrap_metric`.
    """
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.ones(len(top)) if denominator is None else np.asarray(denominator, dtype=np.float64)
    codes, n_patients = patient_codes(patient, len(top))
    top_sums, bottom_sums = _columns_by_patient(top, codes, n_patients), _columns_by_patient(bottom, codes, n_patients)
    values = []
    for weights in _in_chunks(resample_counts(n_patients, n_resamples, seed=seed), n_patients):
        below = weights @ bottom_sums
        below = below[:, None] if top.ndim == 2 and below.ndim == 1 else below
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(np.where(below == 0, np.nan, (weights @ top_sums) / below))
    return np.concatenate(values)


def _columns_by_patient(values: FloatArray, codes: IntArray, n_patients: int) -> FloatArray:
    if values.ndim == 1:
        return sum_by_patient(values, codes, n_patients)
    return np.column_stack([sum_by_patient(column, codes, n_patients) for column in values.T])


def percentile_interval(values: FloatArray, confidence: float = 0.95) -> tuple[float, float, int]:
    """The percentile limits (type 7 quantiles) of resampled values (n_resamples,), and how many were undefined (NaN).

    Undefined resamples are left out of the percentiles: say how many. (NaN, NaN) when fewer than half are defined.
    """
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if not len(defined) or undefined > len(values) / 2:
        return float("nan"), float("nan"), undefined
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high), undefined
