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
_N_USUAL, _FEWEST = 500, 8  # pairs, and images, from which it is learnt how alike any two pictures of a cohort are
_FAR = 4.0  # standard deviations


@dataclass(frozen=True)
class LookAlikes:
    """pairs: int64 (p, 2), rows, first < second, sorted. scores: float64 (p,), see resemblance.score_pairs.

    turns: int64 (p,), the orientation in which the first shows what the second shows (resemblance.turn). n_compared: pairs looked at.
    least: the score from which pairs counted.
    """

    pairs: np.ndarray
    scores: np.ndarray
    turns: np.ndarray
    n_compared: int
    least: float


def look_alikes(thumbnails: Sequence[bytes | None], *, least: float = SAME_PICTURE, seed: int = 0) -> LookAlikes:
    """Pairs of images that score `least` or more, and more than pictures of this cohort do by chance: four standard deviations above
    the score of any two. (Different X-rays stay below 2.3 by this; drawn pictures of one shape do not.) thumbnails: 1,024 bytes an image (resemblance.likeness_of); None: it has no pairs.

    Pairs whose signatures lie close are found by a forest of trees, in time n log n, and each is then compared pixel by pixel. Which
    pairs are found can depend on `seed`, and on the order of images, where copies are hardly alike; not their scores.
    """
    known = np.array([row for row, thumbnail in enumerate(thumbnails) if thumbnail is not None], np.int64)
    if len(known) < 2:
        return LookAlikes(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, np.int64), 0, least)
    pictures = np.frombuffer(b"".join(thumbnails[row] or b"" for row in known), np.uint8).reshape(-1, SIDE, SIDE)
    candidates, turns = _candidates(pictures, seed)
    with ThreadPoolExecutor(n_cores()) as pool:
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(candidates), _CHUNK)]
        scored = list(pool.map(lambda chunk: _scored(pictures, candidates[chunk], turns[chunk]), chunks))
    scores = np.concatenate([np.empty(0), *scored])
    least = max(least, _usual_score(pictures, seed))
    good = scores >= least
    return LookAlikes(known[candidates[good]], scores[good], turns[good], len(candidates), least)


def _usual_score(pictures: np.ndarray, seed: int) -> float:
    """What two pictures of the cohort do not score by chance; by quantiles, which a few copies do not move. 0 for a handful of pictures."""
    n = len(pictures)
    if n < _FEWEST:
        return 0.0
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n, _N_USUAL)
    middle, high = np.quantile(score_pairs(pictures[first], pictures[(first + rng.integers(1, n, _N_USUAL)) % n]), (0.5, 0.84))
    return float(middle + _FAR * (high - middle))


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
