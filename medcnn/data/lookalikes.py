"""Which images of a cohort show one picture, however it was turned, cropped, resized, brightened or compressed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from medcnn.data.neighbours import close_pairs
from medcnn.data.resemblance import SAME_PICTURE, SIDE, combine_turns, score_pairs, turn
from medcnn.data.signatures import learn_basis, sign_thumbnails
from medcnn.executors import n_cores

MOST_PER_IMAGE = 8  # nearest that are looked at: bounds what a stack of almost equal slices costs
_CHUNK = 1024  # pairs


@dataclass(frozen=True)
class LookAlikes:
    """pairs: int64 (p, 2), rows, first < second, sorted. scores: float64 (p,), see resemblance.score_pairs.

    turns: int64 (p,), the orientation in which the first shows what the second shows (resemblance.turn). n_compared: pairs looked at.
    """

    pairs: np.ndarray
    scores: np.ndarray
    turns: np.ndarray
    n_compared: int


def look_alikes(thumbnails: Sequence[bytes | None], *, least: float = SAME_PICTURE, seed: int = 0) -> LookAlikes:
    """Pairs of images that score `least` or more. thumbnails: 1,024 bytes an image (resemblance.likeness_of); None: it has no pairs.

    Pairs whose signatures lie close are found by a forest of trees, in time n log n, and each is then compared pixel by pixel. Which
    pairs are found can depend on `seed`, and on the order of images, where copies are hardly alike; not their scores.
    """
    known = np.array([row for row, thumbnail in enumerate(thumbnails) if thumbnail is not None], np.int64)
    if len(known) < 2:
        return LookAlikes(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, np.int64), 0)
    pictures = np.frombuffer(b"".join(thumbnails[row] or b"" for row in known), np.uint8).reshape(-1, SIDE, SIDE)
    candidates, turns = _candidates(pictures, seed)
    with ThreadPoolExecutor(n_cores()) as pool:
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(candidates), _CHUNK)]
        scored = list(pool.map(lambda chunk: _scored(pictures, candidates[chunk], turns[chunk]), chunks))
    scores = np.concatenate([np.empty(0), *scored])
    good = scores >= least
    return LookAlikes(known[candidates[good]], scores[good], turns[good], len(candidates))


def _scored(pictures: np.ndarray, pairs: np.ndarray, turns: np.ndarray) -> np.ndarray:
    return score_pairs(turn(pictures[pairs[:, 0]], turns), pictures[pairs[:, 1]])


def _candidates(pictures: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pictures whose signatures lie close, sorted; and the orientation in which the first shows what the second shows."""
    basis = learn_basis(pictures, seed)
    signatures = sign_thumbnails(pictures, basis)
    rows, distances = close_pairs(signatures.vectors, basis.reach, seed=seed)
    pairs, turns = signatures.images[rows], signatures.turns[rows]
    turns = combine_turns()[turns[:, 0], turns[:, 1]]
    swapped = pairs[:, 0] > pairs[:, 1]
    turns[swapped] = _BACK[turns[swapped]]
    pairs = np.sort(pairs, axis=1)
    nearest = np.lexsort((turns, distances))
    nearest = nearest[pairs[nearest, 0] != pairs[nearest, 1]]
    pairs, turns = pairs[nearest], turns[nearest]
    once = np.sort(np.unique(pairs[:, 0] * len(pictures) + pairs[:, 1], return_index=True)[1])  # the nearest orientation of each
    pairs, turns = pairs[once], turns[once]
    kept = _few_for_each(pairs)
    pairs, turns = pairs[kept], turns[kept]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], turns[order]


_BACK = combine_turns()[0]  # turn(x, 0) = turn(y, h) exactly when turn(x, _BACK[h]) = y


def _few_for_each(pairs: np.ndarray) -> np.ndarray:
    """Which pairs, sorted by distance, are among the nearest few of either image."""
    ends = pairs.ravel()
    order = np.argsort(ends, kind="stable")
    starts = np.flatnonzero(np.diff(ends[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(ends)))
    rank = np.empty(len(ends), np.int64)
    rank[order] = np.arange(len(ends)) - np.repeat(starts, lengths)
    kept: np.ndarray = np.flatnonzero((rank.reshape(-1, 2) < MOST_PER_IMAGE).any(axis=1))
    return kept
