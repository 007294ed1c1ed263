"""Counts behind a threshold: true and false positives at each threshold of a grid, and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ThresholdCounts:
    """Counts of one label under the rule p >= threshold.

    thresholds: float (k,), ascending, from 0 to 1. tp, fp: int (k,). n_positive, n_negative: labelled rows.
    """

    label: str
    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    n_positive: int
    n_negative: int

    @property
    def fn(self) -> np.ndarray:
        """Missed positives (k,)."""
        return np.asarray(self.n_positive - self.tp)

    @property
    def tn(self) -> np.ndarray:
        """Negatives called negative (k,)."""
        return np.asarray(self.n_negative - self.fp)

    def at(self, threshold: float) -> tuple[int, int, int, int]:
        """tp, fp, fn, tn at a threshold of the grid (the nearest one)."""
        k = int(np.argmin(np.abs(self.thresholds - threshold)))
        return int(self.tp[k]), int(self.fp[k]), int(self.fn[k]), int(self.tn[k])


def count_thresholds(y: np.ndarray, p: np.ndarray, *, label: str, extra: Sequence[float] = (), n_steps: int = 1000) -> ThresholdCounts:
    """Counts on the grid 0, 1/n_steps ... 1 and at the extra thresholds, in O(n log k).

    y: float (n,) of 0, 1 or NaN (left out). p: float (n,) in [0, 1].
    """
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    grid = np.unique(np.concatenate([np.arange(n_steps + 1) / n_steps, np.asarray(extra, dtype=float)]))
    at_or_below = np.searchsorted(grid, p, side="right")
    positives = np.bincount(at_or_below[y == 1], minlength=grid.size + 1)
    negatives = np.bincount(at_or_below[y == 0], minlength=grid.size + 1)
    tp = positives.sum() - np.cumsum(positives)[:-1]
    fp = negatives.sum() - np.cumsum(negatives)[:-1]
    return ThresholdCounts(label, grid, tp, fp, int(positives.sum()), int(negatives.sum()))


def probability_bins(y: np.ndarray, p: np.ndarray, n_bins: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges (n_bins + 1,) on [0, 1] and the number of negatives and of positives in each bin."""
    edges = np.linspace(0, 1, n_bins + 1)
    negatives, _ = np.histogram(p[y == 0], bins=edges)
    positives, _ = np.histogram(p[y == 1], bins=edges)
    return edges, negatives, positives
