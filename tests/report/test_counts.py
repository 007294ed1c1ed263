"""Counts at each threshold, against counting one by one."""

import numpy as np

from medcnn.report.counts import count_thresholds, probability_bins


def test_counts_agree_with_counting_row_by_row() -> None:
    rng = np.random.default_rng(3)
    p = rng.choice([0.0, 0.1, 0.25, 0.3, 0.5, 0.999, 1.0], 300)
    y = (rng.random(300) < p).astype(float)
    y[:17] = np.nan
    counts = count_thresholds(y, p, label="x", extra=[0.2505], n_steps=20)
    assert 0.2505 in counts.thresholds
    for t, tp, fp, fn, tn in zip(counts.thresholds, counts.tp, counts.fp, counts.fn, counts.tn, strict=True):
        brute = [
            sum(1 for a, b in zip(y, p, strict=True) if a == label and (b >= t) == called)
            for label, called in ((1, True), (0, True), (1, False), (0, False))
        ]
        assert [tp, fp, fn, tn] == brute, t


def test_a_probability_on_the_threshold_is_called_positive() -> None:
    counts = count_thresholds(np.array([1.0, 0.0]), np.array([0.37, 0.37]), label="x", extra=[0.37])
    assert counts.at(0.37) == (1, 1, 0, 0)
    assert counts.at(0.371) == (0, 0, 1, 1)


def test_nobody_is_called_above_one() -> None:
    above = float(np.nextafter(1.0, 2.0))
    counts = count_thresholds(np.array([1.0, 0.0]), np.array([1.0, 1.0]), label="x", extra=[above])
    assert counts.thresholds[-1] == above
    assert counts.tp[-1] == counts.fp[-1] == 0


def test_bins_hold_every_row() -> None:
    y, p = np.array([0, 0, 1, 1, 1.0]), np.array([0, 0.5, 0.5, 0.99, 1.0])
    edges, negatives, positives = probability_bins(y, p, 10)
    assert edges.size == 11
    assert negatives.sum() == 2
    assert positives.sum() == 3
    assert positives[-1] == 2
