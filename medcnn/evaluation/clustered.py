"""AUROC when a patient has several images: Obuchowski's covariance, and each patient's influence on the AUROC.

Not pROC's method "obuchowski", which is the binormal variance of Obuchowski & McClish (1997).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.evaluation.intervals import patient_codes, sum_by_patient
from medcnn.evaluation.placements import Placements, check_scores, placements


@dataclass(frozen=True)
class ClusterSums:
    """Placements of one score summed within each patient, centred on the AUROC: sum_i (V10_i - theta), sum_j (V01_j - theta)."""

    excess10: FloatArray
    excess01: FloatArray


@dataclass(frozen=True)
class Design:
    """Who contributed what: rows of each class, patients in all and with a case of either class."""

    n_positive: int
    n_negative: int
    n_patients: int
    n_patients_positive: int
    n_patients_negative: int


def cluster_design(y: ArrayLike, codes: IntArray, n_patients: int) -> Design:
    """Count rows and patients of each class. y: (n,) 0/1; codes: (n,) from `patient_codes`."""
    positive = np.asarray(y) == 1
    with_positive = np.zeros(n_patients, dtype=np.bool_)
    with_negative = np.zeros(n_patients, dtype=np.bool_)
    with_positive[codes[positive]] = True
    with_negative[codes[~positive]] = True
    n_positive = int(positive.sum())
    return Design(n_positive, len(positive) - n_positive, n_patients, int(with_positive.sum()), int(with_negative.sum()))


def cluster_sums(y: ArrayLike, codes: IntArray, n_patients: int, model: Placements) -> ClusterSums:
    """Sum the centred placements within each patient; two arrays of shape (n_patients,)."""
    positive = np.asarray(y) == 1
    excess10 = sum_by_patient(model.v10 - model.auroc, codes[positive], n_patients)
    excess01 = sum_by_patient(model.v01 - model.auroc, codes[~positive], n_patients)
    return ClusterSums(excess10, excess01)


def obuchowski_covariance(y: ArrayLike, codes: IntArray, n_patients: int, models: list[Placements]) -> FloatArray:
    """Covariance (k, k) of the AUROCs of k scores when rows cluster in patients (Obuchowski 1997, doi:10.2307/2533958).

    S10/m + S01/n + 2 S11/(mn) from the patients' sums of placements, with I10/(I10-1), I01/(I01-1) and I/(I-1).
    Equals DeLong's when every patient has one image; NaN when fewer than two patients carry one of the classes.
    """
    design = cluster_design(y, codes, n_patients)
    if min(design.n_patients_positive, design.n_patients_negative) < 2:
        return np.full((len(models), len(models)), np.nan)
    sums = [cluster_sums(y, codes, n_patients, model) for model in models]
    cases = np.column_stack([each.excess10 for each in sums]) / design.n_positive
    controls = np.column_stack([each.excess01 for each in sums]) / design.n_negative
    cross = cases.T @ controls * n_patients / (n_patients - 1)
    i10, i01 = design.n_patients_positive, design.n_patients_negative
    covariance: FloatArray = cases.T @ cases * (i10 / (i10 - 1)) + controls.T @ controls * (i01 / (i01 - 1)) + cross + cross.T
    return covariance


def obuchowski_variance(y: ArrayLike, score: ArrayLike, patient: ArrayLike | None) -> tuple[float, float]:
    """AUROC and Obuchowski's variance of it. patient: (n,) ids. Raises InputError for NaN or when a class is empty."""
    positive, scores = check_scores(y, score)
    codes, n_patients = patient_codes(patient, len(scores))
    model = placements(positive, scores)
    return model.auroc, float(obuchowski_covariance(positive, codes, n_patients, [model])[0, 0])


# ---------------------------------------------------------------- influence


def auroc_influence(y: ArrayLike, score: ArrayLike, codes: IntArray, n_patients: int) -> tuple[float, FloatArray]:
    """AUROC and what each patient adds to it: the derivative by the patient's weight, shape (n_patients,), sum 0.

    The sum of squares is the infinitesimal jackknife variance (Efron 1982, doi:10.1137/1.9781611970319); with it any
    smooth function of several AUROCs, on whatever rows each is estimable, gets a variance that respects patients.
    Rows may be a subset of all rows: patients without a row have influence 0.
    """
    if np.asarray(y).shape != codes.shape:
        raise InputError(f"patient codes: expected one for each of the {len(np.asarray(y))} rows, got {codes.shape}")
    model = placements(y, score)
    sums = cluster_sums(y, codes, n_patients, model)
    influence: FloatArray = sums.excess10 / len(model.v10) + sums.excess01 / len(model.v01)
    return model.auroc, influence


def influence_variance(influence: FloatArray) -> float:
    """Variance of an estimate from its patients' influences (n_patients,), with the small-sample factor I/(I-1).

    I is the number of patients, len(influence). NaN for a single one.
    """
    n_patients = len(influence)
    if n_patients < 2:
        return float("nan")
    return float(influence @ influence) * n_patients / (n_patients - 1)
