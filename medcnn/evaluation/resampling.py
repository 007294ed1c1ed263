"""The bootstrap of anything that depends on the data only through counts in cells: 2x2 tables, thresholds, bins of p.

A resample of patients is then a count per cell, so that a million rows cost no more than a thousand.
"""

import numpy as np
from scipy import sparse

from medcnn.evaluation.bootstrap import resample_counts
from medcnn.evaluation.estimates import Estimate, FloatArray, IntArray

BUDGET = 100_000_000  # patients times resamples that a clustered bootstrap may draw
FEWEST = 200
FEW_CELLS = 16
FEW_RESAMPLES = 1000  # below, the note says how many there were


def affordable_resamples(n_resamples: int, patients: IntArray | None) -> int:
    """The number of resamples that is drawn: fewer, but at least 200, where patients x resamples would exceed the budget."""
    if patients is None or n_resamples == 0:
        return n_resamples
    return min(n_resamples, max(FEWEST, BUDGET // (int(patients.max()) + 1)))


def bootstrap_cell_counts(cells: IntArray, n_cells: int, patients: IntArray | None, *, n_resamples: int, seed: int) -> FloatArray:
    """Counts (n_resamples, n_cells) of rows per cell in resamples of patients, each with all the rows it has.

    cells: (n,) in 0..n_cells-1; patients: codes (n,), or None when every row is its own patient: then a resample is a
    multinomial draw over the cells, which is the same distribution; with few cells, over the kinds of patients there are.
    """
    n_resamples = affordable_resamples(n_resamples, patients)
    if patients is None:
        observed = np.bincount(cells, minlength=n_cells)
        draws = np.random.default_rng(seed).multinomial(cells.size, observed / cells.size, size=n_resamples)
        return draws.astype(np.float64)
    n_patients = int(patients.max()) + 1
    table = sparse.csr_matrix((np.ones(cells.size), (patients, cells)), shape=(n_patients, n_cells))
    if n_cells <= FEW_CELLS:
        kinds, frequency = np.unique(table.toarray(), axis=0, return_counts=True)
        drawn = np.random.default_rng(seed).multinomial(n_patients, frequency / n_patients, size=n_resamples)
        return np.asarray(drawn @ kinds, dtype=np.float64)
    cells_of_patients, resampled = table.T.tocsr(), np.empty((n_resamples, n_cells))
    for row, counts in zip(resampled, resample_counts(n_patients, n_resamples, seed=seed), strict=True):
        row[:] = cells_of_patients @ counts.astype(np.float64)
    return resampled


def percentile_estimate(value: float, replicates: FloatArray, *, note: str = "") -> Estimate:
    """`value` with the percentile limits of its bootstrap replicates (n_resamples,); replicates that are not finite are counted.

    Efron & Tibshirani 1993, doi:10.1201/9780429246593. No limits when fewer than half of the replicates are defined, or there is none.
    """
    if replicates.size == 0:
        return Estimate(value=value, note=note)
    finite = replicates[np.isfinite(replicates)]
    method = "bootstrap"
    if finite.size < replicates.size / 2:
        return Estimate(
            value=value,
            method=method,
            note=_join(note, f"interval not estimable: {replicates.size - finite.size} of {replicates.size} resamples undefined"),
        )
    low, high = np.quantile(finite, [0.025, 0.975])
    lost = replicates.size - finite.size
    if replicates.size < FEW_RESAMPLES:
        note = _join(note, f"{replicates.size} resamples")
    return Estimate(
        value=value,
        low=float(low),
        high=float(high),
        se=float(finite.std(ddof=1)),
        method=method,
        note=_join(note, f"{lost} undefined resamples left out" if lost else ""),
    )


def _join(*texts: str) -> str:
    return "; ".join(text for text in texts if text)
