"""Deal units with several labels and unequal sizes to parts, so that each part gets its share of everything at once."""

from collections.abc import Sequence

import numpy as np

N_SWEEPS = 2  # after the first dealing, each unit may change its part this often
MAX_BLOCK = 100
LACKING = 1e6  # outweighs every imbalance: a part that lacks a class gets the next unit that has it


def deal_units(
    per_class: np.ndarray, sizes: np.ndarray, fractions: Sequence[float], rng: np.random.Generator, *, at_random: bool = False
) -> np.ndarray:
    """Part of each unit, int64 (n_units,).

    per_class: int (n_units, n_classes), images of each class in each unit; a unit may have several classes or none.
    sizes: int (n_units,), images. fractions: share of the units that each part should get; they sum to 1.

    Units that are alike (same classes, same size) are dealt in bulk, exactly in proportion; what is left over is dealt
    one by one, rarest class and largest first, to the part that then deviates least from its share of units, images,
    units per class and images per class (sum of squared deviations, each relative to its total): iterative
    stratification (doi:10.1007/978-3-642-23808-6_10) with all counts weighed together. Sweeps then move single units
    while that lowers the sum. The order of units matters only through `rng`.

    at_random: what is left over is dealt in random order. Where no two units are alike, `rng` changes nothing otherwise;
    parts are a little less balanced for it.
    """
    shuffled = rng.permutation(len(sizes))
    part = np.full(len(sizes), -1, np.int64)
    part[shuffled] = _in_bulk(per_class[shuffled] > 0, sizes[shuffled], np.asarray(fractions))
    rest = shuffled[part[shuffled] < 0]
    n_carriers = (per_class > 0).sum(axis=0)
    rarity = np.where(per_class > 0, n_carriers, len(sizes) + 1).min(axis=1, initial=len(sizes) + 1)
    if not at_random:
        rest = rest[np.lexsort((-sizes[rest], rarity[rest]))]
    part[rest] = _one_by_one(per_class, sizes, np.asarray(fractions), part, rest)
    return part


def _in_bulk(has: np.ndarray, sizes: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Part of each unit, -1 for those left over: alike units in whole blocks that the fractions divide exactly.

    Blocks keep all parts equally full, so that those left over are dealt as if they were alone.
    """
    blocks = np.arange(1, MAX_BLOCK + 1)[:, None] * fractions
    exact = np.flatnonzero(np.abs(blocks - blocks.round()).max(axis=1) < 1e-9)
    if not len(exact):
        return np.full(len(sizes), -1, np.int64)
    upto = np.cumsum(blocks[exact[0]].round())
    kinds = _kinds(has, sizes)
    n_alike = np.bincount(kinds)
    order = np.argsort(kinds, kind="stable")
    rank = np.empty(len(sizes), np.int64)
    rank[order] = np.arange(len(sizes)) - (np.cumsum(n_alike) - n_alike)[kinds[order]]
    size = exact[0] + 1
    part = np.searchsorted(upto, rank % size, side="right")
    return np.where(rank < (n_alike // size * size)[kinds], part, -1)


def _kinds(has: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Number of each unit's kind, by a 64-bit hash of its row (thirty times faster than np.unique over rows)."""
    rows = np.column_stack([has, sizes]).astype(np.uint64)
    multipliers = np.random.default_rng(0).integers(1 << 62, dtype=np.uint64, size=rows.shape[1]) * np.uint64(2) + np.uint64(1)
    kinds: np.ndarray = np.unique(rows @ multipliers, return_inverse=True)[1]
    return kinds


def _one_by_one(per_class: np.ndarray, sizes: np.ndarray, fractions: np.ndarray, part: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Part of each unit of `rest`, given the parts (0, 1, ...) of all others."""
    has = (per_class > 0).astype(np.float64)
    amounts = np.column_stack([np.ones(len(sizes)), sizes, has, per_class]).astype(np.float64)
    totals = amounts.sum(axis=0)
    surplus = -fractions[:, None] * totals
    carriers = np.zeros((len(fractions), has.shape[1]))
    for number in range(len(fractions)):
        surplus[number] += amounts[part == number].sum(axis=0)
        carriers[number] = has[part == number].sum(axis=0)
    amounts, has = amounts[rest], has[rest]
    weighted = amounts / np.maximum(totals, 1)
    half = (amounts * weighted).sum(axis=1) / 2
    chosen = np.full(len(rest), -1, np.int64)
    for sweep in range(1 + N_SWEEPS):
        before = chosen.copy()
        for unit in range(len(rest)):
            if sweep:
                surplus[chosen[unit]] -= amounts[unit]
                carriers[chosen[unit]] -= has[unit]
            scores = (surplus @ weighted[unit] + half[unit]) / fractions - LACKING * ((carriers < 0.5) @ has[unit])
            best = int(scores.argmin())
            chosen[unit] = best
            surplus[best] += amounts[unit]
            carriers[best] += has[unit]
        if np.array_equal(before, chosen):
            break
    return chosen
