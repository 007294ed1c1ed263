import numpy as np
import pytest

from medcnn.evaluation import resampling
from medcnn.evaluation.resampling import affordable_resamples, bootstrap_cell_counts, percentile_estimate


def test_counts_of_independent_rows_spread_as_resampled_rows_do() -> None:
    cells = np.array([0] * 30 + [1] * 50 + [2] * 20)
    counts = bootstrap_cell_counts(cells, 4, None, n_resamples=5000, seed=0)
    assert counts.shape == (5000, 4)
    np.testing.assert_array_equal(counts.sum(axis=1), 100)
    np.testing.assert_allclose(counts.mean(axis=0), [30, 50, 20, 0], atol=0.5)
    np.testing.assert_allclose(counts.std(axis=0), np.sqrt([21, 25, 16, 0]), rtol=0.05)


@pytest.mark.parametrize("n_cells", [3, 40])
def test_patients_are_resampled_whole(n_cells: int) -> None:
    """3 cells go by the kinds of patients, 40 by patients one by one: both are the bootstrap of patients."""
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 60, 300)
    patients = np.unique(patients, return_inverse=True)[1]
    cells = (patients + rng.integers(0, 2, 300)) % n_cells
    counts = bootstrap_cell_counts(cells, n_cells, patients, n_resamples=3000, seed=2)
    table = np.zeros((patients.max() + 1, n_cells))
    np.add.at(table, (patients, cells), 1)
    draws = rng.integers(0, len(table), (3000, len(table)))
    own = np.array([table[draw].sum(axis=0) for draw in draws])
    np.testing.assert_allclose(counts.mean(axis=0), own.mean(axis=0), rtol=0.06, atol=0.3)
    np.testing.assert_allclose(np.cov(counts.T).diagonal(), np.cov(own.T).diagonal(), rtol=0.25)
    np.testing.assert_allclose(np.corrcoef(counts[:, 0], counts[:, 1])[0, 1], np.corrcoef(own[:, 0], own[:, 1])[0, 1], atol=0.08)


def test_same_seed_same_counts() -> None:
    cells, patients = np.arange(60) % 20, np.arange(60) // 3
    for who in (None, patients):
        one, two, other = (bootstrap_cell_counts(cells, 20, who, n_resamples=5, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


def test_fewer_resamples_of_very_many_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = np.arange(1000)
    assert affordable_resamples(2000, patients) == 2000
    assert affordable_resamples(2000, None) == 2000
    monkeypatch.setattr(resampling, "BUDGET", 500_000)
    assert affordable_resamples(2000, patients) == 500
    monkeypatch.setattr(resampling, "BUDGET", 10)
    assert affordable_resamples(2000, patients) == 200
    assert affordable_resamples(0, patients) == 0


def test_percentiles_and_what_is_undefined() -> None:
    estimate = percentile_estimate(0.5, np.append(np.linspace(0, 1, 1001), np.nan))
    np.testing.assert_allclose([estimate.low, estimate.high], [0.025, 0.975])
    assert "1 undefined" in estimate.note
    lost = percentile_estimate(0.5, np.array([0.1, np.nan, np.inf]))
    assert lost.low is None
    assert "2 of 3 resamples undefined" in lost.note
    none = percentile_estimate(0.5, np.zeros(0))
    assert (none.low, none.method) == (None, "")
