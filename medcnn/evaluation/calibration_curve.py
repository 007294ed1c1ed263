"""The flexible calibration curve by loess, its confidence band, and what it says in one number: ICI, E50, E90, Emax, ECI.

The surface is R's default, `loess(y ~ p)` with span 0.75, degree 2, interpolated (`medcnn.evaluation.loess`), not clipped
to [0, 1]: the numbers equal the published R code's. Austin & Steyerberg 2019, doi:10.1002/sim.8281.
"""

from dataclasses import dataclass

import numpy as np

from medcnn.evaluation.estimates import Z95, Estimate, FloatArray, IntArray, check_labels_and_probabilities, not_estimable
from medcnn.evaluation.loess import LoessSurface, fit_loess
from medcnn.evaluation.resampling import bootstrap_cell_counts, percentile_estimate

FEWEST_DISTINCT = 4
MOST_CELLS = 1000  # distinct probabilities that a bootstrap resample knows; more are merged into cells of equal count
GRID_POINTS = 200
METRICS = ("ici", "e50", "e90", "emax", "eci")


@dataclass(frozen=True)
class CalibrationCurve:
    """Points (m,) of the curve: p, the smoothed observed share, and its pointwise 95% limits."""

    p: FloatArray
    observed: FloatArray
    low: FloatArray
    high: FloatArray


def why_no_curve(y: FloatArray, p: FloatArray) -> str:
    """The reason why no curve can be fitted, or an empty string."""
    if y.min() == y.max():
        return "one class only"
    distinct = np.unique(p[: 10 * FEWEST_DISTINCT]).size
    if distinct < FEWEST_DISTINCT:
        distinct = np.unique(p).size
    return f"{distinct} distinct probabilities, fewer than {FEWEST_DISTINCT}" if distinct < FEWEST_DISTINCT else ""


def calibration_curve(
    y: FloatArray, p: FloatArray, patients: IntArray | None = None, *, n_points: int = GRID_POINTS, surface: LoessSurface | None = None
) -> CalibrationCurve:
    """The loess curve on a grid over the range of p with its robust (clustered when patients repeat) pointwise band.

    y (n,) in {0, 1}; p (n,) in [0, 1]. Curve and band are cut to [0, 1] for drawing. Empty when `why_no_curve` has a reason.
    surface: the fit with covariance, where it is already at hand.
    """
    y, p = check_labels_and_probabilities(y, p)
    if why_no_curve(y, p):
        return CalibrationCurve(*(np.empty(0) for _ in range(4)))
    surface = surface or fit_loess(p, y, patients=patients, robust_se=True)
    grid = np.linspace(p.min(), p.max(), n_points)
    observed, se = surface.predict(grid), surface.standard_error(grid)
    return CalibrationCurve(grid, *(np.clip(values, 0, 1) for values in (observed, observed - Z95 * se, observed + Z95 * se)))


def curve_distances(y: FloatArray, p: FloatArray, fitted: FloatArray) -> dict[str, float]:
    """ICI, E50, E90, Emax: mean, median, 90th percentile (type 7), maximum of |fitted - p|; and ECI.

    ECI is mean (fitted - p)^2 relative to mean (mean y - p)^2 (Van Calster et al. 2025, doi:10.1016/j.landig.2025.100916);
    `eci_100` is 100 mean (fitted - p)^2 (Van Hoorde 2015, doi:10.1016/j.jbi.2014.12.016; CalibrationCurves).
    """
    distance = np.abs(fitted - p)
    square = float(np.square(distance).mean())
    worst = float(np.square(y.mean() - p).mean())
    e50, e90 = np.quantile(distance, [0.5, 0.9])
    return {
        "ici": float(distance.mean()),
        "e50": float(e50),
        "e90": float(e90),
        "emax": float(distance.max()),
        "eci": square / worst if worst > 0 else float("nan"),
        "eci_100": 100 * square,
    }


def integrated_calibration(
    y: FloatArray,
    p: FloatArray,
    patients: IntArray | None = None,
    *,
    n_resamples: int = 0,
    seed: int = 0,
    surface: LoessSurface | None = None,
) -> dict[str, Estimate]:
    """`ici`, `e50`, `e90`, `emax`, `eci` with percentile intervals over resampled patients (none when n_resamples is 0).

    A resample refits the local polynomials at the vertices and bandwidths of the sample, on at most 1,000 cells of p;
    the values themselves use every row. Distances cannot be negative: under good calibration they and their intervals
    lie above 0 by chance alone.
    """
    y, p = check_labels_and_probabilities(y, p)
    why = why_no_curve(y, p)
    if why:
        return {metric: not_estimable(why, "loess") for metric in METRICS}
    surface = surface or fit_loess(p, y)
    values = curve_distances(y, p, surface.predict(p))
    note = "loess, span 0.75, degree 2, R's interpolated surface"
    notes = dict.fromkeys(METRICS, note) | {"eci": f"{note}; mean squared distance relative to that of the prevalence"}
    if n_resamples == 0:
        return {metric: Estimate(value=values[metric], method="loess", note=notes[metric]) for metric in METRICS}
    replicates = _resampled_distances(surface, y, p, patients, n_resamples, seed)
    return {metric: percentile_estimate(values[metric], replicates[:, column], note=notes[metric]) for column, metric in enumerate(METRICS)}


def _resampled_distances(
    surface: LoessSurface, y: FloatArray, p: FloatArray, patients: IntArray | None, n_resamples: int, seed: int
) -> FloatArray:
    """METRICS (n_resamples, 5) of resamples in which each cell of p has a count of negatives and of positives."""
    cell, centre = merge_probabilities(p, MOST_CELLS)
    k = centre.size
    counts = bootstrap_cell_counts(cell + k * y.astype(np.int64), 2 * k, patients, n_resamples=n_resamples, seed=seed)
    negatives, positives = counts[:, :k], counts[:, k:]
    total = negatives + positives
    fitted = _refit(surface, centre, total, positives)
    distance = np.abs(fitted - centre)
    n, prevalence = total.sum(axis=1), positives.sum(axis=1) / total.sum(axis=1)
    mean_square = (total * distance**2).sum(axis=1) / n
    worst = (total * (prevalence[:, None] - centre) ** 2).sum(axis=1) / n
    order = np.argsort(distance, axis=1)
    sorted_distance = np.take_along_axis(distance, order, axis=1)
    cumulative = np.cumsum(np.take_along_axis(total, order, axis=1), axis=1) / n[:, None]
    quantiles = [sorted_distance[np.arange(n.size), (cumulative < level).sum(axis=1).clip(max=k - 1)] for level in (0.5, 0.9)]
    present = np.where(total > 0, distance, 0).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.column_stack([(total * distance).sum(axis=1) / n, *quantiles, present, mean_square / worst])


def merge_probabilities(p: FloatArray, most: int) -> tuple[IntArray, FloatArray]:
    """Cell of each row (n,) and mean p of each cell (k,), ascending, k <= most: distinct values, or runs of equal count."""
    order = np.argsort(p, kind="stable")
    ordered = p[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    cell_of_ordered = np.cumsum(starts) - 1
    if cell_of_ordered[-1] >= most:
        # Equal values keep one cell: the one of the first of them.
        run = np.flatnonzero(starts)[cell_of_ordered] * most // p.size
        cell_of_ordered = np.cumsum(np.concatenate([[True], run[1:] != run[:-1]])) - 1
    cell = np.empty(p.size, dtype=np.int64)
    cell[order] = cell_of_ordered
    return cell, np.bincount(cell_of_ordered, weights=ordered) / np.bincount(cell_of_ordered)


def _refit(surface: LoessSurface, centre: FloatArray, total: FloatArray, positives: FloatArray) -> FloatArray:
    """Fitted values (n_resamples, k) at the cells' centres, local fits at the sample's vertices with its bandwidths."""
    v = surface.vertices.size
    coefficients = np.empty((total.shape[0], 2 * v))
    for index, (vertex, bandwidth) in enumerate(zip(surface.vertices, surface.bandwidths, strict=True)):
        u = (centre - vertex) / bandwidth
        weight = np.clip(1 - np.abs(u) ** 3, 0, 1) ** 3
        powers = weight[:, None] * u[:, None] ** np.arange(5)
        moments, products = total @ powers, positives @ powers[:, :3]
        gram = moments[:, np.arange(3)[:, None] + np.arange(3)[None, :]]
        solved = (np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ products[:, :, None])[:, :, 0]
        coefficients[:, index], coefficients[:, v + index] = solved[:, 0], solved[:, 1] / bandwidth
    fitted: FloatArray = coefficients @ surface.operator(centre).T
    return fitted
