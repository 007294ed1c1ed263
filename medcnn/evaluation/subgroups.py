"""Subgroups by a covariate: how it is cut, and whether the AUROC differs between them by more than chance."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import chi2

from medcnn.errors import InputError
from medcnn.evaluation.clustered import auroc_influence
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, not_estimable

AGE_BANDS = (18, 40, 60, 80)  # years: under 18, 18-39, 40-59, 60-79, 80 and over
MOST_VALUES = 30
QUARTILES_ABOVE = 8  # a numeric covariate with more distinct values than this is cut into quartiles
FEWEST_PATIENTS = 5  # with the finding, and without: below, a subgroup's numbers are not printed


def cut_covariate(values: pd.Series, name: str) -> pd.Series:
    """Each row's subgroup as text, "missing" where blank; a number is cut into quartiles, an age into bands, else each value is one.

    values: any column; name: its title (age is recognised by it). More than 30 different texts: the 29 commonest and "other".
    """
    text = values.astype("string")
    numbers = pd.to_numeric(values, errors="coerce") if not pd.api.types.is_bool_dtype(values) else pd.Series(np.nan, index=values.index)
    is_number = bool(numbers.notna().eq(values.notna()).all() and numbers.notna().any())
    if is_number and re.search(r"(?:^|_)age(?:$|_)", name.lower()):
        groups = _age_bands(numbers)
    elif is_number and numbers.nunique() > QUARTILES_ABOVE:
        groups = _quartiles(numbers)
    elif is_number:
        groups = numbers.map(lambda number: f"{number:g}", na_action="ignore").astype("string")
    else:
        groups = text.where(text.isin(_commonest(text)), "other").where(text.notna())
    return groups.fillna("missing").astype(str)


def _age_bands(numbers: pd.Series) -> pd.Series:
    edges = [-np.inf, *AGE_BANDS, np.inf]
    names = [f"under {AGE_BANDS[0]}", *(f"{low}-{high - 1}" for low, high in pairwise(AGE_BANDS)), f"{AGE_BANDS[-1]} and over"]
    return pd.Series(pd.cut(numbers, edges, right=False, labels=names)).astype("string")


def _quartiles(numbers: pd.Series) -> pd.Series:
    """Groups (a, b] between the distinct quartiles, the lowest closed."""
    edges = np.unique(np.quantile(numbers.dropna(), [0, 0.25, 0.5, 0.75, 1]))
    names = [f"{'[' if first == 0 else '('}{low:.4g}, {high:.4g}]" for first, (low, high) in enumerate(pairwise(edges))]
    group = np.searchsorted(edges[1:-1], numbers.to_numpy(), side="left")
    named = pd.Series(np.array(names, dtype=object)[group], index=numbers.index)
    return named.where(numbers.notna()).astype("string")


def _commonest(text: pd.Series) -> list[str]:
    counts = text.value_counts()
    return list(counts.index if len(counts) <= MOST_VALUES else counts.index[: MOST_VALUES - 1])


def subgroup_order(groups: pd.Series) -> list[str]:
    """Names of the subgroups in reading order: numeric intervals and bands ascending, else alphabetical, "missing" last."""

    def key(name: str) -> tuple[bool, bool, float, str]:
        number = re.search(r"-?\d+\.?\d*(?:e[+-]?\d+)?", name)
        under = name.startswith("under")
        return (name == "missing", number is None and not under, -np.inf if under else float(number.group()) if number else 0.0, name)

    return sorted(set(groups), key=key)


def too_few(y: FloatArray, patients: IntArray | None) -> str:
    """Why a subgroup is too small to print numbers of, or an empty string. y (n,) in {0, 1}; patients: codes (n,) or None."""
    units = [int((y == label).sum()) if patients is None else np.unique(patients[y == label]).size for label in (1, 0)]
    if min(units) >= FEWEST_PATIENTS:
        return ""
    return f"{units[0]} patients with and {units[1]} without the finding, fewer than {FEWEST_PATIENTS}"


@dataclass(frozen=True)
class Heterogeneity:
    """Test that the AUROCs of k subgroups are equal: statistic, df = k - 1, p; `i_squared` = share of variation beyond chance."""

    statistic: float
    df: int
    p: float
    i_squared: float


def auroc_heterogeneity(y: FloatArray, p: FloatArray, group: IntArray, patients: IntArray | None = None) -> Heterogeneity | None:
    """Cochran's Q over the logit AUROCs of the subgroups (Cochran 1954, doi:10.2307/3001666; I^2: Higgins 2003, doi:10.1136/bmj.327.7414.557).

    y (n,) in {0, 1}; p (n,); group (n,) 0..k-1; patients: codes (n,), None for independent rows. A patient may have rows
    in several subgroups: Q is the Wald statistic with DeLong's or Obuchowski's variances and the covariances of the
    patients' influences, which for separate patients is Cochran's Q. Subgroups with one class or an AUROC of 0 or 1 have no logit variance and are
    left out. None with fewer than two left.
    """
    if y.shape != p.shape or y.shape != group.shape:
        raise InputError(f"heterogeneity: labels {y.shape}, probabilities {p.shape} and groups {group.shape} differ in length")
    codes = np.arange(y.size, dtype=np.int64) if patients is None else patients
    n_patients = int(codes.max()) + 1
    thetas, influences = [], []
    for name in np.unique(group):
        rows = group == name
        if y[rows].min() == y[rows].max():
            continue
        estimate = auroc_interval(y[rows], p[rows], codes[rows])
        if estimate.value is not None and estimate.se is not None:
            value, influence = auroc_influence(y[rows], p[rows], codes[rows], n_patients)
            # Scaled so that each variance is DeLong's or Obuchowski's; the influences add the covariances.
            thetas.append(np.log(value / (1 - value)))
            influences.append(influence * estimate.se / np.sqrt(influence @ influence) / (value * (1 - value)))
    if len(thetas) < 2:
        return None
    theta, phi = np.array(thetas), np.column_stack(influences)
    contrast = np.eye(len(theta))[1:] - np.eye(len(theta))[0]
    difference = contrast @ theta
    statistic = float(difference @ np.linalg.solve(contrast @ (phi.T @ phi) @ contrast.T, difference))
    df = len(theta) - 1
    return Heterogeneity(statistic, df, float(chi2.sf(statistic, df)), max(0.0, 1 - df / statistic) if statistic > 0 else 0.0)


def heterogeneity_estimate(test: Heterogeneity | None) -> Estimate:
    """The p value as a record's value, the statistic in its note."""
    if test is None:
        return not_estimable("fewer than two subgroups have an AUROC with a variance", "cochran_q")
    note = f"p value; Q = {test.statistic:.2f} on {test.df} df, I2 = {100 * test.i_squared:.0f}%"
    return Estimate(value=test.p, method="cochran_q", note=note)
