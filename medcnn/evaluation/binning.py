"""Calibration by bins of p: expected and maximum calibration error with their noise floor, grouped points, smooth ECE."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.fft import dct, idct

from medcnn.evaluation.calibration import quantile_groups
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray, check_labels_and_probabilities
from medcnn.evaluation.intervals import proportion_interval, wilson
from medcnn.evaluation.resampling import bootstrap_cell_counts, percentile_estimate

SIMULATED_ROWS = 20_000  # up to here the noise floor is simulated; beyond, bins are large and the normal limit is exact enough
N_SIMULATIONS = 500
GRID_CELLS = 8192  # of the smooth ECE


@dataclass(frozen=True)
class Bins:
    """The non-empty bins, in ascending order: edges (k, 2), rows, mean p and mean y of each (k,)."""

    edges: FloatArray
    n: IntArray
    mean_p: FloatArray
    mean_y: FloatArray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over rows of |mean y - mean p| of their bin."""
        return float(self.n @ np.abs(self.mean_y - self.mean_p) / self.n.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error over the non-empty bins."""
        return float(np.abs(self.mean_y - self.mean_p).max())

    @property
    def ace(self) -> float:
        """Average calibration error: every non-empty bin counts the same."""
        return float(np.abs(self.mean_y - self.mean_p).mean())

    @property
    def rmsce(self) -> float:
        """Root mean squared calibration error, bins weighted by their rows."""
        return float(np.sqrt(self.n @ np.square(self.mean_y - self.mean_p) / self.n.sum()))


def bin_calibration(
    y: FloatArray,
    p: FloatArray,
    *,
    n_bins: int = 15,
    strategy: Literal["width", "mass"] = "width",
    closed: Literal["left", "right"] = "left",
) -> Bins:
    """Bins of p (n,) in [0, 1] against y (n,) in {0, 1}.

    width: n_bins of equal width on [0, 1]; mass: between the quantiles of p, equal edges merged, so that ties share a bin.
    closed="left": [a, b), the last bin closed: a probability on an edge belongs to the bin above, as `p >= threshold`
    does (netcal, torchmetrics). closed="right": (a, b], the first bin closed (Guo et al. 2017, arXiv:1706.04599; scikit-learn).
    The edges are numpy's doubles, as in netcal and scikit-learn: of 10 bins the edge "0.3" is 0.30000000000000004, above 0.3.
    """
    y, p = check_labels_and_probabilities(y, p)
    edges = np.linspace(0, 1, n_bins + 1) if strategy == "width" else np.unique(np.quantile(p, np.linspace(0, 1, n_bins + 1)))
    index = np.searchsorted(edges[1:-1], p, side="right" if closed == "left" else "left")
    n = np.bincount(index, minlength=max(edges.size - 1, 1))
    filled = np.flatnonzero(n)
    sums = [np.bincount(index, weights=values, minlength=n.size)[filled] / n[filled] for values in (p, y)]
    pairs = np.column_stack([edges[:-1], edges[1:]]) if edges.size > 1 else np.array([[edges[0], edges[0]]])
    return Bins(pairs[filled], n[filled].astype(np.int64), sums[0], sums[1])


def calibration_error(
    y: FloatArray, p: FloatArray, patients: IntArray | None = None, *, n_bins: int = 15, n_resamples: int = 0, seed: int = 0
) -> Estimate:
    """ECE of the positive class with equal-width bins [a, b) and a percentile interval over resampled patients.

    Resamples know the rows of each bin and class, and the mean p of those at its observed value. ECE is biased upwards,
    so that it must be read beside `noise_floor`.
    """
    y, p = check_labels_and_probabilities(y, p)
    value = bin_calibration(y, p, n_bins=n_bins).ece
    note = f"{n_bins} equal-width bins [a, b)"
    if n_resamples == 0:
        return Estimate(value=value, method="binned", note=note)
    bin_of = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p, side="right")
    counts = bootstrap_cell_counts(bin_of * 2 + y.astype(np.int64), 2 * n_bins, patients, n_resamples=n_resamples, seed=seed)
    return percentile_estimate(value, _resampled_ece(counts, y, p, bin_of), note=note)


def _resampled_ece(counts: FloatArray, y: FloatArray, p: FloatArray, bin_of: IntArray) -> FloatArray:
    """ECE of each resample from its counts per bin and class, the mean p of a bin and class held at its observed value."""
    cells = bin_of * 2 + y.astype(np.int64)
    n = np.bincount(cells, minlength=counts.shape[1])
    mean_p = np.divide(np.bincount(cells, weights=p, minlength=counts.shape[1]), n, out=np.zeros(counts.shape[1]), where=n > 0)
    excess = (counts * (np.arange(counts.shape[1]) % 2 - mean_p)).reshape(counts.shape[0], -1, 2).sum(axis=2)
    ece: FloatArray = np.abs(excess).sum(axis=1) / counts.sum(axis=1)
    return ece


def noise_floor(p: FloatArray, *, n_bins: int = 15, seed: int = 0) -> float:
    """The ECE that a perfectly calibrated model with these probabilities shows on average at this n, by chance alone.

    p: (n,). Simulated (500 draws of y ~ Bernoulli(p)) up to 20,000 rows; beyond, sum over bins of
    sqrt(2 sum p(1-p) / pi) / n, the mean of a half-normal. Assumes independent rows.
    """
    index = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p, side="right")
    if p.size > SIMULATED_ROWS:
        variance = np.bincount(index, weights=p * (1 - p), minlength=n_bins)
        return float(np.sqrt(2 * variance / np.pi).sum() / p.size)
    # Sorted, so that the order of the rows does not change which draw belongs to which p.
    order = np.argsort(p, kind="stable")
    ordered, starts = p[order], np.flatnonzero(np.diff(index[order], prepend=-1))
    rng = np.random.default_rng(seed)
    errors = [np.abs(np.add.reduceat((rng.random(p.size) < ordered) - ordered, starts)).sum() / p.size for _ in range(N_SIMULATIONS)]
    return float(np.mean(errors))


@dataclass(frozen=True)
class GroupedPoint:
    """One group of the calibration plot: rows, mean p, observed share with its interval."""

    n: int
    mean_p: float
    observed: float
    low: float
    high: float


def grouped_points(y: FloatArray, p: FloatArray, patients: IntArray | None = None, *, n_groups: int = 10) -> list[GroupedPoint]:
    """Deciles of p (fewer where p is tied) with the observed share and its Wilson interval, clustered when patients repeat."""
    y, p = check_labels_and_probabilities(y, p)
    groups = quantile_groups(p, n_groups)
    n, events, total = np.bincount(groups), np.bincount(groups, weights=y), np.bincount(groups, weights=p)
    points = []
    for group in range(n.size):
        if patients is None:
            low, high = wilson(float(events[group]), float(n[group]))
        else:
            share = proportion_interval(y[groups == group], patients[groups == group])
            low, high = (float("nan") if limit is None else limit for limit in (share.low, share.high))
        points.append(GroupedPoint(int(n[group]), float(total[group] / n[group]), float(events[group] / n[group]), low, high))
    return points


def smooth_calibration_error(y: FloatArray, p: FloatArray) -> tuple[float, float]:
    """Smooth ECE of Blasiok & Nakkiran 2023 (arXiv:2309.12236) and its bandwidth: the sigma at which smECE_sigma = sigma.

    y (n,) in {0, 1}; p (n,) in [0, 1]. No bins to choose; always computed, in O(n), within 1e-3 of the authors' relplot.
    """
    y, p = check_labels_and_probabilities(y, p)
    spectrum = _residual_spectrum(y, p)
    low, high = 0.0, 1.0
    # smECE_sigma falls as sigma grows: bisection finds where the two meet.
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _smoothed_error(spectrum, middle) > middle else (low, middle)
    return _smoothed_error(spectrum, high), high


def smooth_error_at(y: FloatArray, p: FloatArray, sigma: float) -> float:
    """smECE_sigma: integral over [0, 1] of |mean residual smoothed by a Gaussian of width sigma reflected at 0 and 1|."""
    return _smoothed_error(_residual_spectrum(*check_labels_and_probabilities(y, p)), sigma)


def _residual_spectrum(y: FloatArray, p: FloatArray) -> FloatArray:
    """Cosine coefficients of the residuals p - y, summed on a fine grid: reflection at the ends is what a cosine does."""
    cell = np.minimum((p * GRID_CELLS).astype(np.int64), GRID_CELLS - 1)
    spectrum: FloatArray = dct(np.bincount(cell, weights=p - y, minlength=GRID_CELLS) / p.size, norm="ortho")
    return spectrum


def _smoothed_error(spectrum: FloatArray, sigma: float) -> float:
    damping = np.exp(-0.5 * (np.pi * np.arange(spectrum.size) * sigma) ** 2)
    return float(np.abs(idct(spectrum * damping, norm="ortho")).sum())
