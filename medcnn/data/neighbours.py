"""Which of many vectors lie close together, without comparing all with all: a forest of random trees."""

from collections.abc import Iterator

import numpy as np

LEAF = 64  # vectors that are compared with each other
N_TREES = 32
MOST_PER_VECTOR = 4  # nearest that a vector keeps in each tree: bounds what a heap of alike pictures costs
_AT_ONCE = 256  # leaves


def close_pairs(vectors: np.ndarray, reach: float, *, n_trees: int = N_TREES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows at most `reach` apart: int64 (p, 2), first < second, sorted, each once; and their distances, float32 (p,).

    vectors: float32 (n, d). Exact where all fit in one leaf. Else a tree halves the vectors at the median of a random direction until
    64 are left, and only these are compared (Dasgupta & Freund 2008, doi:10.1145/1374376.1374452); a close pair is missed only where
    every tree parts it. Time grows with n log n, memory with n. A vector keeps the 4 nearest in each leaf.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    n = len(vectors)
    if n < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    rng = np.random.default_rng(seed)
    spread = vectors.std(0)
    found: np.ndarray = np.empty(0, np.int64)
    distances: np.ndarray = np.empty(0, np.float32)
    for leaves in _trees(vectors, spread, n_trees if n > LEAF else 1, rng):
        pairs, lengths = _within(vectors, leaves, reach)
        found, first = np.unique(np.concatenate([found, pairs]), return_index=True)
        distances = np.concatenate([distances, lengths])[first]
    return np.stack([found // n, found % n], axis=1), distances


def _trees(vectors: np.ndarray, spread: np.ndarray, n_trees: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each tree its leaves: int64 (n_leaves, size), rows; -1 where a leaf is not full."""
    n = len(vectors)
    depth = max(0, int(np.ceil(np.log2(n / LEAF))))
    size = -(-n // 2**depth)
    for _ in range(n_trees):
        order = np.full(size * 2**depth, -1, np.int64)
        order[:n] = rng.permutation(n)
        for level in range(depth):
            # The same direction for all nodes of a level, one product for all. Directions along which the vectors spread part fewer copies.
            direction = (rng.standard_normal(vectors.shape[1]) * spread).astype(np.float32)
            place = np.append(vectors @ direction, np.float32(np.inf))  # -1 takes the last: behind all others
            nodes = order.reshape(2**level, -1)
            halves = np.argpartition(place[nodes], nodes.shape[1] // 2, axis=1)
            order = np.take_along_axis(nodes, halves, axis=1).ravel()
        yield order.reshape(-1, size)


def _within(vectors: np.ndarray, leaves: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Close pairs within each leaf, as first * n + second; and their distances."""
    n, size = len(vectors), leaves.shape[1]
    found, lengths = [], []
    squares = np.append((vectors**2).sum(1), np.float32(np.inf))
    for start in range(0, len(leaves), _AT_ONCE):
        rows = leaves[start : start + _AT_ONCE]
        chosen = vectors[rows]
        apart = squares[rows][:, :, None] + squares[rows][:, None] - 2 * (chosen @ chosen.swapaxes(1, 2))
        apart[:, np.arange(size), np.arange(size)] = np.inf
        close = apart <= reach**2
        if close.sum(2).max(initial=0) > MOST_PER_VECTOR:
            close &= apart <= np.partition(apart, MOST_PER_VECTOR - 1, axis=2)[:, :, MOST_PER_VECTOR - 1, None]
        leaf, left, right = np.nonzero(close)
        pair = np.stack([rows[leaf, left], rows[leaf, right]])
        found.append(pair.min(0) * n + pair.max(0))
        lengths.append(np.sqrt(np.maximum(apart[leaf, left, right], 0)))
    return np.concatenate(found), np.concatenate(lengths)
