"""Tests of a difference between two models: AUROCs of the same or of other patients, decisions, and many p values at once.

A difference is always a - b. Where no variance exists the interval is built from the two separate ones and no p is made
up; two models that rank every case alike differ by 0 with statistic 0 and p 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from medcnn.errors import InputError
from medcnn.evaluation.clustered import cluster_design, obuchowski_covariance
from medcnn.evaluation.discrimination import NO_VARIANCE, auroc_interval, lacking_class, newcombe_limits
from medcnn.evaluation.estimates import BoolArray, FloatArray
from medcnn.evaluation.intervals import normal_quantile, patient_codes, sum_by_patient, wilson
from medcnn.evaluation.placements import Placements, check_scores, delong_covariance, placements

Alternative = Literal["two-sided", "greater", "less"]
CORRECTIONS = ("holm", "hochberg", "bonferroni", "fdr_bh", "fdr_by", "none")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference a - b, its limits, and the test that it is 0. None where not estimable; `note` then says why.

    df: degrees of freedom of a t statistic, None for a normal one.
    """

    difference: float | None
    low: float | None = None
    high: float | None = None
    statistic: float | None = None
    p: float | None = None
    se: float | None = None
    df: float | None = None
    method: str = ""
    note: str = ""


def normal_p(statistic: float, alternative: Alternative = "two-sided") -> float:
    """p of a standard normal statistic; "greater" tests a > b."""
    if alternative == "two-sided":
        return float(2 * special.ndtr(-abs(statistic)))
    return float(special.ndtr(-statistic if alternative == "greater" else statistic))


# ---------------------------------------------------------------- AUROC


def paired_auroc_test(
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    patient: ArrayLike | None = None,
    *,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
) -> Difference:
    """Difference of the AUROCs of two scores of the same cases: "delong", or "obuchowski" when a patient has several rows.

    Z = (A1 - A2)/sqrt(v1 + v2 - 2c), normal (DeLong 1988, doi:10.2307/2531595; Obuchowski 1997, doi:10.2307/2533958).
    The variance is taken of the differences of placements themselves, so equal rankings give exactly 0.

    y: (n,) 0/1; a, b: (n,) scores; patient: (n,) ids or None. Raises InputError for NaN and strange labels.
    """
    positive, first = check_scores(y, a)
    second = check_scores(y, b)[1]
    codes, n_patients = patient_codes(patient, len(first))
    method = "obuchowski" if n_patients < len(first) else "delong"
    lacking = lacking_class(int(positive.sum()), len(first))
    if lacking:
        return Difference(difference=None, method=method, note=f"not estimable: {lacking}")
    one, two = placements(positive, first), placements(positive, second)
    contrast = Placements(one.v10 - two.v10, one.v01 - two.v01, one.auroc - two.auroc)
    if method == "obuchowski":
        variance = float(obuchowski_covariance(positive, codes, n_patients, [contrast])[0, 0])
    else:
        variance = float(delong_covariance([contrast])[0, 0])
    if not variance > NO_VARIANCE:
        return _without_variance(positive, first, second, contrast, patient, method)
    se = math.sqrt(variance)
    half, statistic = normal_quantile(confidence) * se, contrast.auroc / se
    return Difference(
        difference=contrast.auroc,
        low=max(-1.0, contrast.auroc - half),
        high=min(1.0, contrast.auroc + half),
        statistic=statistic,
        p=normal_p(statistic, alternative),
        se=se,
        method=method,
    )


def linearised_difference(difference: float, variance: float) -> Difference:
    """A difference with the normal interval and p of a variance from influences; without a variance none is made up."""
    if not variance > 1e-26:
        equal = abs(difference) < 1e-13
        return Difference(
            difference=difference,
            statistic=0.0 if equal else None,
            p=1.0 if equal else None,
            method="linearised",
            note="no variance can be estimated",
        )
    se = math.sqrt(variance)
    half = normal_quantile(0.95) * se
    return Difference(
        difference=difference, low=max(-1.0, difference - half), high=min(1.0, difference + half),
        statistic=difference / se, p=normal_p(difference / se), se=se, method="linearised",
    )  # fmt: skip


def unpaired_auroc_test(
    y_a: ArrayLike, a: ArrayLike, y_b: ArrayLike, b: ArrayLike, *, patient_a: ArrayLike | None = None, patient_b: ArrayLike | None = None
) -> tuple[Difference, Difference]:
    """Difference of the AUROCs of two independent groups of patients: with the normal reference, and with Welch's t.

    D = (A1 - A2)/sqrt(v1 + v2); t has the Welch-Satterthwaite df of pROC, (v1 + v2)^2/(v1^2/(n1 - 1) + v2^2/(n2 - 1))
    with n the patients of a group (Robin et al. 2011, doi:10.1186/1471-2105-12-77). Variances are Obuchowski's where patients
    repeat. Without a variance in either group: limits from the two separate intervals, no statistic.
    """
    one, two = auroc_interval(y_a, a, patient_a), auroc_interval(y_b, b, patient_b)
    if one.value is None or two.value is None:
        nothing = Difference(difference=None, method="unpaired", note="; ".join(note for note in (one.note, two.note) if note))
        return nothing, nothing
    difference = one.value - two.value
    if one.se is None or two.se is None:
        low, high = _square_and_add(one.value, (one.low, one.high), two.value, (two.low, two.high))
        note = f"limits from the two separate intervals ({one.method}, {two.method}); a variance is missing"
        unknown = Difference(difference=difference, low=low, high=high, method="unpaired", note=note)
        return unknown, unknown
    n_a, n_b = (patient_codes(patient, len(np.asarray(y)))[1] for patient, y in ((patient_a, y_a), (patient_b, y_b)))
    v_a, v_b = one.se**2, two.se**2
    se, df = math.sqrt(v_a + v_b), (v_a + v_b) ** 2 / (v_a**2 / (n_a - 1) + v_b**2 / (n_b - 1))
    statistic = difference / se
    results = []
    for method, p, quantile, own_df in (
        ("unpaired_normal", normal_p(statistic), normal_quantile(0.95), None),
        ("unpaired_t", float(2 * special.stdtr(df, -abs(statistic))), float(special.stdtrit(df, 0.975)), df),
    ):
        low, high = max(-1.0, difference - quantile * se), min(1.0, difference + quantile * se)
        results.append(Difference(difference=difference, low=low, high=high, statistic=statistic, p=p, se=se, df=own_df, method=method))
    return results[0], results[1]


def _without_variance(
    positive: BoolArray, first: FloatArray, second: FloatArray, contrast: Placements, patient: ArrayLike | None, method: str
) -> Difference:
    if np.array_equal(np.unique(first, return_inverse=True)[1], np.unique(second, return_inverse=True)[1]):
        note = "both models rank every case alike"
        return Difference(difference=0.0, low=0.0, high=0.0, statistic=0.0, p=1.0, se=0.0, method=method, note=note)
    codes, n_patients = patient_codes(patient, len(first))
    design = cluster_design(positive, codes, n_patients)
    separate = []
    for score in (first, second):
        value = placements(positive, score).auroc
        separate.append((value, newcombe_limits(value, design.n_patients_positive, design.n_patients_negative)))
    low, high = _square_and_add(*separate[0], *separate[1])
    equal = contrast.auroc == 0
    note = "no variance can be estimated; limits from the two Newcombe intervals" + ("" if equal else ", no p")
    return Difference(
        difference=contrast.auroc, low=low, high=high, statistic=0.0 if equal else None, p=1.0 if equal else None, method=method, note=note
    )


def _square_and_add(
    one: float, one_limits: tuple[float | None, float | None], two: float, two_limits: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Limits of one - two from the limits of either, as if independent (Zou & Donner 2008, doi:10.1002/sim.3095)."""
    (low_one, high_one), (low_two, high_two) = one_limits, two_limits
    if low_one is None or high_one is None or low_two is None or high_two is None:
        return None, None
    difference = one - two
    low = difference - math.hypot(one - low_one, high_two - two)
    return max(-1.0, low), min(1.0, difference + math.hypot(high_one - one, two - low_two))


# ---------------------------------------------------------------- decisions


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Tests that two models are right equally often. b: only a is right; c: only b is right. All p are 1 at b = c = 0."""

    b: int
    c: int
    statistic: float
    p: float
    statistic_corrected: float
    p_corrected: float
    p_exact: float
    p_mid: float


def mcnemar(b: int, c: int) -> McNemar:
    """(b-c)^2/(b+c) without and with continuity correction, exact binomial and mid-p (McNemar 1947, doi:10.1007/BF02295996).

    The correction vanishes at b = c, as in R. mid-p: Fagerland, Lydersen & Laake 2013, doi:10.1186/1471-2288-13-91.
    Raises InputError for negative counts.
    """
    if b < 0 or c < 0:
        raise InputError(f"McNemar: expected two counts of discordant cases, got {b} and {c}")
    n, gap = b + c, abs(b - c)
    if n == 0:
        return McNemar(b=b, c=c, statistic=0.0, p=1.0, statistic_corrected=0.0, p_corrected=1.0, p_exact=1.0, p_mid=1.0)
    statistic, corrected = gap**2 / n, max(0, gap - 1) ** 2 / n
    twice_below = 2 * float(special.bdtr(min(b, c), n, 0.5))
    at_least = math.exp(special.gammaln(n + 1) - special.gammaln(b + 1) - special.gammaln(c + 1) - n * math.log(2))
    return McNemar(
        b=b,
        c=c,
        statistic=statistic,
        p=float(special.chdtrc(1, statistic)),
        statistic_corrected=corrected,
        p_corrected=float(special.chdtrc(1, corrected)),
        p_exact=min(1.0, twice_below),
        p_mid=min(1.0, twice_below - at_least),
    )


def paired_proportion_test(hit_a: ArrayLike, hit_b: ArrayLike, patient: ArrayLike | None = None) -> tuple[Difference, McNemar | None]:
    """Difference of two proportions of the same cases (both models' sensitivity, specificity or accuracy).

    One row per patient: McNemar's test ("mcnemar") with Newcombe's interval for paired proportions (method 10; 1998,
    Stat Med 17:2635). Patients repeat: ("mcnemar_clustered") the statistic
    (sum_i d_i)^2 / sum_i d_i^2 over patients, d_i = hits of a - hits of b (Obuchowski 1998, Stat Med 17:1495;
    Yang, Sun & Hardin 2010, doi:10.1002/bimj.201000035), with the ratio estimator's interval. hit_a, hit_b: (n,) 0/1 or bool.
    """
    first, second = np.asarray(hit_a, dtype=np.float64), np.asarray(hit_b, dtype=np.float64)
    codes, n_patients = patient_codes(patient, len(first))
    clustered = n_patients < len(first)
    method = "mcnemar_clustered" if clustered else "mcnemar"
    if not len(first):
        return Difference(difference=None, method=method, note="not estimable: no case to count"), None
    gap = first - second
    difference, total = float(gap.mean()), len(first)
    if not clustered:
        counts = mcnemar(int((gap > 0).sum()), int((gap < 0).sum()))
        low, high = paired_proportion_limits(first, second, total)
        return Difference(difference=difference, low=low, high=high, statistic=counts.statistic, p=counts.p, method=method), counts
    by_patient = sum_by_patient(gap, codes, n_patients)
    squares = float(by_patient @ by_patient)
    statistic = float(by_patient.sum()) ** 2 / squares if squares > 0 else 0.0
    excess = by_patient - difference * np.bincount(codes, minlength=n_patients)
    variance = float(excess @ excess) * n_patients / (n_patients - 1) / total**2 if n_patients > 1 else 0.0
    if variance > 0:
        half = normal_quantile(0.95) * math.sqrt(variance)
        low, high = max(-1.0, difference - half), min(1.0, difference + half)
    else:
        low, high = paired_proportion_limits(first, second, n_patients)
    p = float(special.chdtrc(1, statistic))
    return Difference(difference=difference, low=low, high=high, statistic=statistic, p=p, se=math.sqrt(variance), method=method), None


def paired_proportion_limits(hit_a: FloatArray, hit_b: FloatArray, size: int, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's method 10 for the difference of paired proportions, as if `size` cases had been seen. Never of zero width."""
    p_a, p_b, both = float(hit_a.mean()), float(hit_b.mean()), float((hit_a * hit_b).mean())
    (low_a, high_a), (low_b, high_b) = wilson(p_a * size, size, confidence), wilson(p_b * size, size, confidence)
    spread = math.sqrt(p_a * (1 - p_a) * p_b * (1 - p_b))
    cross = both - p_a * p_b  # (ad - bc)/n^2
    phi = (max(0.0, cross - 0.5 / size) if cross > 0 else cross) / spread if spread > 0 else 0.0
    below = (p_a - low_a) ** 2 - 2 * phi * (p_a - low_a) * (high_b - p_b) + (high_b - p_b) ** 2
    above = (high_a - p_a) ** 2 - 2 * phi * (high_a - p_a) * (p_b - low_b) + (p_b - low_b) ** 2
    return max(-1.0, p_a - p_b - math.sqrt(max(0.0, below))), min(1.0, p_a - p_b + math.sqrt(max(0.0, above)))


# ---------------------------------------------------------------- several tests, and margins


def adjust_p(p: Sequence[float | None], method: str = "holm") -> list[float | None]:
    """p values corrected for their number, in the order given; a missing one (None or NaN) stays missing and is not counted.

    holm (Holm 1979, jstor 4615733), hochberg (1988, doi:10.1093/biomet/75.4.800), bonferroni, fdr_bh (Benjamini &
    Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x), fdr_by (2001, doi:10.1214/aos/1013699998), none. As R's p.adjust.
    """
    if method not in CORRECTIONS:
        raise InputError(f"p values: unknown correction {method!r}; expected one of {', '.join(CORRECTIONS)}")
    present = [index for index, value in enumerate(p) if value is not None and not math.isnan(value)]
    values = np.array([p[index] for index in present], dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise InputError(f"p values: expected numbers from 0 to 1, got {values.tolist()}")
    adjusted: list[float | None] = [None] * len(p)
    for index, value in zip(present, _adjusted(values, method), strict=True):
        adjusted[index] = float(value)
    return adjusted


def _adjusted(p: FloatArray, method: str) -> FloatArray:
    n = len(p)
    if method == "none" or n == 0:
        return p
    if method == "bonferroni":
        return np.minimum(1.0, p * n)
    order = np.argsort(p, kind="stable")
    rank = np.arange(1, n + 1)
    ranked = p[order]
    if method == "holm":
        steps = np.maximum.accumulate(ranked * (n - rank + 1))
    else:
        harmonic = float((1 / rank).sum()) if method == "fdr_by" else 1.0
        factor = n - rank + 1 if method == "hochberg" else harmonic * n / rank
        steps = np.minimum.accumulate((ranked * factor)[::-1])[::-1]
    result = np.empty(n)
    result[order] = np.minimum(1.0, steps)
    return result


def non_inferiority(difference: Difference, margin: float) -> tuple[float | None, bool]:
    """One-sided p of "a is worse than b by the margin or more", and whether the 95% interval excludes that.

    margin: in the units of the difference, > 0. The decision uses the lower limit of the two-sided 95% interval (a one-sided
    level of 0.025; CPMP 2001, doi:10.1046/j.0306-5251.2001.01397-3.x). p is None without a
    standard error. Raises InputError for a margin that is not positive.
    """
    if not margin > 0:
        raise InputError(f"non-inferiority: expected a positive margin, got {margin}")
    if difference.difference is None or difference.low is None:
        return None, False
    if not difference.se:
        return None, difference.low > -margin
    return normal_p((difference.difference + margin) / difference.se, "greater"), difference.low > -margin
