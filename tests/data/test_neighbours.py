"""Close pairs: all of them among few vectors, as an exact search finds them; nearly all among many; time that grows as promised."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from medcnn.data.neighbours import LEAF, MOST_PER_VECTOR, close_pairs


def vectors_with_copies(n: int, n_copies: int, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of falling spread, the last ones noisy copies of the first ones; and those pairs."""
    rng = np.random.default_rng(0)
    spread = 20 / np.arange(1, width + 1)
    vectors = rng.standard_normal((n, width)) * spread
    vectors[n - n_copies :] = vectors[:n_copies] + 0.3 * rng.standard_normal((n_copies, width))
    return vectors.astype(np.float32), np.stack([np.arange(n_copies), np.arange(n - n_copies, n)], axis=1)


def test_few_vectors_are_all_compared() -> None:
    vectors = np.random.default_rng(1).standard_normal((LEAF, 3)).astype(np.float32)
    pairs, distances = close_pairs(vectors, 0.3)
    oracle = cKDTree(vectors).query_pairs(0.3, output_type="ndarray")
    assert {tuple(pair) for pair in pairs} == {tuple(sorted(pair)) for pair in oracle}
    assert np.allclose(distances, np.linalg.norm(vectors[pairs[:, 0]] - vectors[pairs[:, 1]], axis=1), atol=1e-3)


@pytest.mark.parametrize("n", [65, 1000, 5000])
def test_copies_among_many_are_found_and_nothing_far(n: int) -> None:
    vectors, planted = vectors_with_copies(n, 30)
    pairs, distances = close_pairs(vectors, 3.0)
    found = {tuple(pair) for pair in pairs}
    assert sum(tuple(pair) in found for pair in planted) >= 29
    assert found <= {tuple(sorted(pair)) for pair in cKDTree(vectors).query_pairs(3.0 + 1e-3, output_type="ndarray")}
    assert len(found) == len(pairs)
    assert (distances <= 3.0).all()


def test_a_heap_of_equal_vectors_costs_a_few_pairs_each() -> None:
    vectors = np.zeros((2000, 4), np.float32)
    pairs, _ = close_pairs(vectors, 1.0, n_trees=4)
    assert len(pairs) <= 2000 * (LEAF - 1) * 4 / 2
    assert len(np.unique(pairs)) == 2000


def test_the_nearest_are_kept_where_there_are_too_many() -> None:
    vectors = np.arange(LEAF, dtype=np.float32)[:, None] ** 1.01
    pairs, _ = close_pairs(vectors, 1e3)
    assert len(pairs) < LEAF * MOST_PER_VECTOR
    assert {(row, row + 1) for row in range(LEAF - 1)} <= {tuple(pair) for pair in pairs}


@pytest.mark.parametrize("n", [0, 1])
def test_one_vector_has_no_pair(n: int) -> None:
    pairs, distances = close_pairs(np.zeros((n, 5), np.float32), 1.0)
    assert pairs.shape == (0, 2)
    assert distances.shape == (0,)
