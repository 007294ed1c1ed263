"""Which images of a cohort are turned, mirrored, inverted or cut, as far as the cohort itself teaches how its images lie.

Nobody says which way is up: a linear score of a 16 x 16 thumbnail learns to prefer the images as they came over copies of
them that were turned (mirrored, inverted, cut) on purpose, and judges patients that it did not learn from. Where images
have no common orientation (histology) the score does hardly better than chance, and its answers mean nothing: see Lie.skill.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression

from medcnn.data.quality import THUMBNAIL_PX
from medcnn.errors import InputError

SIDE_PX = 16
N_FOLDS = 5
MAX_TRAINING_IMAGES = 2000
PENALTY = 1e-3  # of the squared weights, beside the mean log-loss
CUT_SHARES = (16, 26)  # of the thumbnail's 32: what is left of each side when an image is cut for the score to learn from
CUT_PENALTY = 100.0
CHUNK = 10_000  # images judged at a time
LEAST_IMAGES = 50  # with fewer the score cannot learn what is usual

Move = Callable[[np.ndarray], np.ndarray]
# question -> the other ways in which an image could lie; (n, side, side), standardised.
QUESTIONS: dict[str, tuple[Move, ...]] = {
    "turned": tuple((lambda x, k=k: np.rot90(x, k, axes=(1, 2))) for k in (1, 2, 3)),  # type: ignore[misc]
    "mirrored": (lambda x: x[:, :, ::-1],),
    "inverted": (np.negative,),
}


@dataclass(frozen=True)
class Lie:
    """Answers to one question. p: float64 (n,), probability that the image lies in another way than the cohort's images do
    (each way, as it is and the others, taken to be equally likely beforehand). skill: share of images whose way as they
    came is preferred to each other way, by a score that did not learn from their patients.
    """

    p: np.ndarray
    skill: float


def judge_orientation(thumbnails: np.ndarray, patients: Sequence[str] | np.ndarray, *, seed: int) -> dict[str, Lie]:
    """Each of QUESTIONS, and "cropped", for each image; nothing when there are fewer than LEAST_IMAGES images or two patients.

    thumbnails: uint8 (n, 32, 32), as quality_of gives them. patients: (n,); five folds of patients. The score is a
    conditional logit (McFadden 1974): the choice among one image's ways of lying; for "cropped" a logistic regression of
    images against windows of them with half to four fifths of each side. A picture of one shade gets p = 0.
    Raises InputError for arrays that do not fit each other.
    """
    if thumbnails.dtype != np.uint8 or thumbnails.shape != (len(patients), THUMBNAIL_PX, THUMBNAIL_PX):
        raise InputError(
            f"thumbnails: expected uint8 ({len(patients)}, {THUMBNAIL_PX}, {THUMBNAIL_PX}), got {thumbnails.dtype} {thumbnails.shape}"
        )
    names, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(codes) < LEAST_IMAGES or len(names) < 2:
        return {}
    n_folds = min(N_FOLDS, len(names))
    fold = (np.random.default_rng(seed).permutation(len(names)) % n_folds)[codes]
    known = np.concatenate([part.std(axis=(1, 2)) >= 1.0 for part in np.array_split(thumbnails, len(thumbnails) // CHUNK + 1)])
    found = {question: _answer(thumbnails, known, fold, moves, seed) for question, moves in QUESTIONS.items()}
    return found | {"cropped": _cropped(thumbnails, known, fold, seed)}


def _rounds(known: np.ndarray, fold: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, list[np.ndarray], np.random.Generator]]:
    """For each fold: rows to learn from, rows to judge in chunks, and where chance comes from."""
    for number in range(fold.max() + 1):
        rng = np.random.default_rng([seed, number])
        training, asked = (np.flatnonzero(chosen & known) for chosen in (fold != number, fold == number))
        if len(training) and len(asked):
            yield rng.permutation(training)[:MAX_TRAINING_IMAGES], np.array_split(asked, len(asked) // CHUNK + 1), rng


def _answer(thumbnails: np.ndarray, known: np.ndarray, fold: np.ndarray, moves: Sequence[Move], seed: int) -> Lie:
    p, preferred = np.zeros(len(known)), np.zeros(len(known), bool)
    for training, chunks, _ in _rounds(known, fold, seed):
        weights = _weights(_ways(thumbnails[training], moves))
        for rows in chunks:
            scores = _ways(thumbnails[rows], moves) @ weights
            p[rows] = -np.expm1(log_softmax(scores, axis=1)[:, 0])
            preferred[rows] = scores[:, 0] > scores[:, 1:].max(axis=1)
    return Lie(p, float(preferred[known].mean()) if known.any() else 0.0)


def _ways(thumbnails: np.ndarray, moves: Sequence[Move]) -> np.ndarray:
    """float64 (n, 1 + n_moves, 256): each image as it came, and moved."""
    x = _standardised(thumbnails)
    return np.stack([x, *(move(x) for move in moves)], axis=1).reshape(len(x), len(moves) + 1, -1)


def _weights(ways: np.ndarray) -> np.ndarray:
    """Weights (k,) under which the first of an image's ways is the likeliest; ways: (n, n_ways, k)."""
    others = ways[:, 1:] - ways[:, :1]  # only differences matter

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        lead = others @ weights  # (n, n_ways - 1)
        top = np.logaddexp.reduce(np.concatenate([np.zeros((len(lead), 1)), lead], axis=1), axis=1)
        gradient = np.einsum("nw,nwk->k", np.exp(lead - top[:, None]), others) / len(lead)
        return float(top.mean() + PENALTY / 2 * weights @ weights), gradient + PENALTY * weights

    found = minimize(loss, np.zeros(ways.shape[2]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x)


def _cropped(thumbnails: np.ndarray, known: np.ndarray, fold: np.ndarray, seed: int) -> Lie:
    p, preferred = np.zeros(len(known)), np.zeros(len(known), bool)
    for training, chunks, rng in _rounds(known, fold, seed):
        whole, cut = _flat(_standardised(thumbnails[training])), _cut(thumbnails[training], rng)
        model = LogisticRegression(C=1 / CUT_PENALTY, solver="lbfgs", max_iter=300)
        model.fit(np.concatenate([whole, cut]), np.repeat([0, 1], len(training)))
        for rows in chunks:
            score = model.decision_function(_flat(_standardised(thumbnails[rows])))
            p[rows] = expit(score)
            preferred[rows] = score < model.decision_function(_cut(thumbnails[rows], rng))
    return Lie(p, float(preferred[known].mean()) if known.any() else 0.0)


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _cut(thumbnails: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of each, drawn at random, as the thumbnail of an image cut to it: float64 (n, 256), standardised."""
    sides = rng.integers(*CUT_SHARES, len(thumbnails))
    corners = rng.integers(0, THUMBNAIL_PX + 1 - sides[:, None], (len(thumbnails), 2))
    windows = [image[y : y + side, x : x + side] for image, side, (y, x) in zip(thumbnails, sides, corners, strict=True)]
    small = [cv2.resize(window.astype(np.float32), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for window in windows]
    return _flat(_scaled(np.stack(small).astype(np.float64)))


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """float64 (n, 16, 16) with mean 0 and standard deviation 1."""
    step = THUMBNAIL_PX // SIDE_PX
    return _scaled(thumbnails.reshape(len(thumbnails), SIDE_PX, step, SIDE_PX, step).mean(axis=(2, 4)))


def _scaled(small: np.ndarray) -> np.ndarray:
    centred = small - small.mean(axis=(1, 2), keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1.0))
