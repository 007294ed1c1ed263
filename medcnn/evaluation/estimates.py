"""An estimate with its interval, what labels and probabilities must be before one is taken, and the intervals of means."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from medcnn.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Z95 = float(ndtri(0.975))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number, its 95% limits and how they came about. None where not estimable; `note` then says why.

    `method` names the interval as `metrics.json` does; `se` is the standard error the limits rest on, where there is one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    se: float | None = None
    method: str = ""
    note: str = ""


def not_estimable(why: str, method: str = "") -> Estimate:
    """An estimate without a value, and why."""
    return Estimate(value=None, method=method, note=f"not estimable: {why}")


def check_labels_and_probabilities(y: ArrayLike, p: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float64 (n,), or InputError naming the first rows that are not 0/1 or not a probability.

    y: (n,) in {0, 1}; p: (n,) in [0, 1]. NaN is an error: no row is ever dropped here.
    """
    labels, probabilities = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise InputError(f"labels have shape {labels.shape}, probabilities {probabilities.shape}; expected two vectors of the same length")
    if labels.size == 0:
        raise InputError("labels and probabilities are empty; expected at least one row")
    _refuse(~((labels == 0) | (labels == 1)), labels, "label", "0 or 1")
    _refuse(~((probabilities >= 0) & (probabilities <= 1)), probabilities, "probability", "a number from 0 to 1")
    return labels, probabilities


def _refuse(bad: BoolArray, values: FloatArray, noun: str, expected: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)
        named = ", ".join(str(row) for row in rows[:5]) + (" ..." if rows.size > 5 else "")
        raise InputError(f"{noun} {float(values[rows[0]])} in row {rows[0]}; expected {expected} ({rows.size} such rows: {named})")


def repeated_patients(patient: ArrayLike | None, n: int) -> IntArray | None:
    """Patients as codes (n,) in the order of their sorted names when some patient has several rows; None: rows are independent.

    Raises InputError unless there is one patient for each of the n rows.
    """
    if patient is None:
        return None
    names = np.asarray(patient)
    if names.shape != (n,):
        raise InputError(f"patients have shape {names.shape}; expected one for each row, ({n},)")
    codes, unique = pd.factorize(names, sort=True)
    return None if len(unique) == n else codes.astype(np.int64)


def mean_standard_error(values: FloatArray, patients: IntArray | None = None) -> float:
    """Standard error of the mean of `values` (n,); patients: codes (n,), None for independent rows.

    Independent: sd/sqrt(n). Clustered: the ratio estimator sqrt(I/(I-1) sum_i (x_i - m n_i)^2) / n over the I patients
    (Rao & Scott 1992, doi:10.2307/2532311). Both agree when every patient has one row. NaN for a single unit.
    """
    deviation = values - values.mean()
    if patients is not None:
        deviation = np.bincount(patients, weights=deviation)
    units = deviation.size
    if units < 2:
        return float("nan")
    return float(np.sqrt(units / (units - 1) * np.square(deviation).sum()) / values.size)


def wald(value: float, se: float, *, method: str = "wald", note: str = "") -> Estimate:
    """value +/- 1.96 se. A standard error of 0 or NaN gives no interval, and says so."""
    if not se > 0:
        return Estimate(value=value, se=se, method=method, note="; ".join(filter(None, (note, "interval not estimable: standard error 0"))))
    return Estimate(value=value, low=value - Z95 * se, high=value + Z95 * se, se=se, method=method, note=note)


def mean_estimate(values: FloatArray, patients: IntArray | None) -> Estimate:
    """Mean of finite values (n,) with the Wald interval of independent rows ("wald") or clustered ones ("cluster_robust")."""
    return wald(float(values.mean()), mean_standard_error(values, patients), method=mean_method(patients))


def mean_method(patients: IntArray | None) -> str:
    """The name of the interval of a mean."""
    return "wald" if patients is None else "cluster_robust"
