"""Patients as numbers, and the intervals of proportions: Wilson, Clopper-Pearson, clustered.

Pure functions of float64 arrays. `confidence` is the two-sided coverage aimed at, 0 to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from medcnn.errors import InputError
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable


def with_note(estimate: Estimate, note: str) -> Estimate:
    """The same estimate with one more remark."""
    return replace(estimate, note="; ".join(part for part in (estimate.note, note) if part))


def normal_quantile(confidence: float) -> float:
    """z such that a standard normal lies within +-z with this probability (1.959964 for 0.95)."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number between 0 and 1, got {confidence}")
    return float(special.ndtri(0.5 + confidence / 2))


def patient_codes(patient: ArrayLike | None, n: int) -> tuple[IntArray, int]:
    """Patients as integers 0..n_patients-1 in sorted order of their ids, so that row order changes nothing.

    patient: (n,) ids of any hashable type, or None when every row is its own patient.
    Returns the codes (n,) and the number of patients. Raises InputError for a blank id or another length.
    """
    if patient is None:
        return np.arange(n, dtype=np.int64), n
    ids: Any = np.asarray(patient)
    if ids.shape != (n,):
        raise InputError(f"patient: expected one id for each of the {n} rows, got shape {ids.shape}")
    codes, names = pd.factorize(ids, sort=True)
    if n and codes.min() < 0:
        raise InputError(f"patient: the id is blank in row {int(np.argmin(codes))}; give every image a patient, or pass none at all")
    return codes.astype(np.int64, copy=False), len(names)


def sum_by_patient(values: FloatArray, codes: IntArray, n_patients: int) -> FloatArray:
    """Sums of values (n,) within each patient, float64 (n_patients,). codes: (n,) from `patient_codes`."""
    return np.bincount(codes, weights=values, minlength=n_patients).astype(np.float64, copy=False)


def named_rows(rows: Sequence[int] | IntArray) -> str:
    """The first five of these row numbers, for a message."""
    return ", ".join(str(int(row)) for row in rows[:5]) + (" ..." if len(rows) > 5 else "")


# ---------------------------------------------------------------- proportions


def wilson(hits: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval without continuity correction (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    hits, n: counts, or effective counts with fractions; 0 <= hits <= n, n > 0. The limit at hits = 0 is exactly 0,
    at hits = n exactly 1.
    """
    _check_counts(hits, n)
    z = normal_quantile(confidence)
    centre = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return (0.0 if hits == 0 else max(0.0, centre - half)), (1.0 if hits == n else min(1.0, centre + half))


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval from beta quantiles (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    _check_counts(hits, n)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(special.betainccinv(hits + 1, n - hits, tail))
    return low, high


def _check_counts(hits: float, n: float) -> None:
    if not (n > 0 and 0 <= hits <= n):
        raise InputError(f"proportion: expected 0 <= hits <= n and n > 0, got {hits} of {n}")


@dataclass(frozen=True, kw_only=True)
class RatioEstimate:
    """A proportion of images whose patients repeat.

    design_effect: variance over the binomial one, NaN at 0 or 1 and for one patient. kish: (sum n_i)^2 / sum n_i^2, the
    number of equal patients that the unequal ones are worth (Kish 1965, ISBN 9780471109495); never above n_patients.
    """

    value: float
    se: float
    design_effect: float
    kish: float
    n: int
    n_patients: int


def ratio_estimator(hit: ArrayLike, patient: ArrayLike | None) -> RatioEstimate:
    """A proportion with the variance that repeated images per patient ask for.

    Variance I/(I-1) sum_i (x_i - p n_i)^2 / (sum n_i)^2 over the I patients who contribute rows
    (Rao & Scott 1992, doi:10.2307/2532311; Obuchowski 1998, Stat Med 17:1495).

    hit: (n,) 0/1 or bool; patient: (n,) ids or None. `se` is NaN for a single patient. Raises InputError without rows.
    """
    hits = _as_hits(hit)
    codes, n_patients = patient_codes(patient, len(hits))
    if not len(hits):
        raise InputError("proportion: there are no rows to take it from")
    value = float(hits.mean())
    excess = sum_by_patient(hits - value, codes, n_patients)
    factor = n_patients / (n_patients - 1) if n_patients > 1 else math.nan
    variance = factor * float(excess @ excess) / len(hits) ** 2
    naive = value * (1 - value) / len(hits)
    return RatioEstimate(
        value=value,
        se=math.sqrt(variance),
        design_effect=variance / naive if naive > 0 else math.nan,
        kish=len(hits) ** 2 / float(np.square(np.bincount(codes)).sum()),
        n=len(hits),
        n_patients=n_patients,
    )


def proportion_interval(hit: ArrayLike, patient: ArrayLike | None = None, *, confidence: float = 0.95) -> Estimate:
    """A proportion with the interval its design asks for: "wilson", or "wilson_clustered" when a patient repeats.

    The clustered interval is Wilson's at the effective size n / design effect * (z/t)^2, with t on one degree of freedom
    less than the patients (Korn & Graubard 1998, Survey Methodology 24:193; the design effect is never taken below 1, the
    size never below Kish's). At 0 of n or n of n, where the ratio estimator has no variance, it is Kish's. By
    benchmarks/coverage.py (5-200 patients of 1-7 images, proportions 0.7-0.97) it covers 90-100%, the Wald interval 20-95%.

    hit: (n,) 0/1 or bool; patient: (n,) ids or None. No rows: not estimable.
    """
    hits = _as_hits(hit)
    if not len(hits):
        return not_estimable("no case to count", method="wilson")
    estimate = ratio_estimator(hits, patient)
    if estimate.n_patients == estimate.n:
        low, high = wilson(float(hits.sum()), estimate.n, confidence)
        se = math.sqrt(estimate.value * (1 - estimate.value) / estimate.n)
        return Estimate(value=estimate.value, low=low, high=high, method="wilson", se=se)
    size, note = _effective_size(estimate, confidence)
    low, high = wilson(min(estimate.value * size, size), size, confidence)
    return Estimate(value=estimate.value, low=low, high=high, method="wilson_clustered", se=estimate.se, note=note)


def ratio_logit_interval(estimate: RatioEstimate, confidence: float = 0.95) -> tuple[float, float]:
    """The ratio estimator's interval formed on the logit scale; (NaN, NaN) at 0 or 1, where it is undefined."""
    p = estimate.value
    if not 0 < p < 1:
        return math.nan, math.nan
    half = normal_quantile(confidence) * estimate.se / (p * (1 - p))
    return float(special.expit(special.logit(p) - half)), float(special.expit(special.logit(p) + half))


def _effective_size(estimate: RatioEstimate, confidence: float) -> tuple[float, str]:
    if not math.isfinite(estimate.design_effect):
        return estimate.kish, f"worth {estimate.kish:.1f} independent cases: the clustered variance cannot be estimated here"
    t = float(special.stdtrit(estimate.n_patients - 1, 0.5 + confidence / 2))
    size = estimate.n / max(1.0, estimate.design_effect) * (normal_quantile(confidence) / t) ** 2
    size = max(size, estimate.kish)
    return size, f"design effect {estimate.design_effect:.2f}, worth {size:.1f} independent cases"


def _as_hits(hit: ArrayLike) -> FloatArray:
    hits = np.asarray(hit, dtype=np.float64)
    if hits.ndim != 1 or not np.isin(hits, (0.0, 1.0)).all():
        raise InputError(f"proportion: expected one 0 or 1 for each row, got shape {hits.shape} with values such as {hits.ravel()[:3]}")
    return hits
