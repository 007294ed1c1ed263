"""Labels that the other images speak against: confident learning on out-of-fold probabilities. Suggestions, never a verdict.

Northcutt, Jiang and Chuang 2021 (doi:10.1613/jair.1.12125), as the package cleanlab has it, against which the tests hold it. How
much the suggestions are worth in this cohort is tried out: labels are exchanged on purpose and looked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.cohort import Finding
from medcnn.data.copies import first_of
from medcnn.data.shortcuts import out_of_fold, patient_folds
from medcnn.errors import InputError
from medcnn.tables import Task, label_matrix

TRIED_SHARE = 0.05  # of the labels that are exchanged on purpose
LEAST_IMAGES = 20  # of each class
LEAST_PRECISION = 0.3  # below this the suggestions are not worth looking at
EDGE = 1e-6


@dataclass(frozen=True)
class Doubts:
    """table: image_id, label (as given), suggested, confidence in the given label, the most doubtful first. recall, precision: of
    labels exchanged on purpose (n_tried of them), the share that is named, and their share of all that is named then."""

    table: pd.DataFrame
    n: int
    recall: float
    precision: float
    n_tried: int


def doubt_labels(manifest: pd.DataFrame, features: np.ndarray, labels: Sequence[str], *, task: Task, seed: int) -> Doubts:
    """Labels that a logistic regression on the other patients' images contradicts with confidence.

    manifest: image_id, patient_id, y_LABEL; features: real (n, k), a row for each of its rows. Multi-label: each finding on
    its own, among the images that have it. Classes with fewer than LEAST_IMAGES images are not judged: then n is smaller, or 0.
    Raises InputError for features that do not fit.
    """
    if features.ndim != 2 or len(features) != len(manifest):
        raise InputError(f"label noise: expected a row of features for each of {len(manifest)} images, got shape {features.shape}")
    order = np.argsort(manifest["image_id"].astype(str).to_numpy(), kind="stable")
    table, features = manifest.iloc[order].reset_index(drop=True), features[order]
    y = label_matrix(table, labels)
    fold = patient_folds(table, y, task, seed)
    questions = _questions(y, labels, task)
    if not questions:
        return Doubts(pd.DataFrame(columns=["image_id", "label", "suggested", "confidence"]), 0, 0.0, 0.0, 0)
    found = [_of_question(table, features, fold, question, seed) for question in questions]
    rows = pd.concat([rows for rows, _ in found], ignore_index=True)
    counts = np.sum([tried for _, tried in found], axis=0)
    n_tried, n_found, n_named = (int(count) for count in counts)
    ranked = rows.sort_values(["confidence", "image_id"], kind="stable").reset_index(drop=True)
    return Doubts(
        ranked, int(sum(len(question.rows) for question in questions)), n_found / max(n_tried, 1), n_found / max(n_named, 1), n_tried
    )


def confident_issues(given: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Bool (n,): given labels (int (n,), 0..K-1) that lie off the diagonal of the confident joint; p: float (n, K), out-of-fold.

    An image counts for the likeliest class among those whose probability reaches the mean over the images given that class;
    it is an issue when this is not its own class, and neither is the likeliest of all. Every class must occur.
    """
    n_classes = p.shape[1]
    threshold = np.array([p[given == k, k].mean() for k in range(n_classes)])
    reaches = p >= threshold - EDGE
    confident = np.where(reaches, p, -1.0).argmax(axis=1)
    own = confident == given
    return np.asarray(reaches.any(axis=1) & ~own & (p.argmax(axis=1) != given))


@dataclass(frozen=True)
class _Question:
    """Classes that exclude each other; rows: int (n,) that have the label, given: int (n,)."""

    names: list[str]
    rows: np.ndarray
    given: np.ndarray


def _questions(y: np.ndarray, labels: Sequence[str], task: Task) -> list[_Question]:
    if task == "multiclass":
        found = [_Question(list(labels), np.arange(len(y)), y.argmax(axis=1))]
    else:
        rows = [np.flatnonzero(~np.isnan(y[:, column])) for column in range(len(labels))]
        given = [y[known, column].astype(np.int64) for column, known in enumerate(rows)]
        found = [_Question([f"no {label}", label], *asked) for label, *asked in zip(labels, rows, given, strict=True)]
    return [one for one in found if np.bincount(one.given, minlength=len(one.names)).min() >= LEAST_IMAGES]


def _of_question(
    table: pd.DataFrame, features: np.ndarray, fold: np.ndarray, question: _Question, seed: int
) -> tuple[pd.DataFrame, tuple[int, int, int]]:
    """Its doubtful images; and how many labels were exchanged, named among them, and named in all."""
    X, part, given = features[question.rows], fold[question.rows], question.given
    p = _probabilities(X, given, part, len(question.names), seed)
    issues = np.flatnonzero(confident_issues(given, p))
    rows = pd.DataFrame(
        {
            "image_id": table["image_id"].iloc[question.rows[issues]].astype(str).to_numpy(),
            "label": np.array(question.names)[given[issues]],
            "suggested": np.array(question.names)[p[issues].argmax(axis=1)],
            "confidence": p[issues, given[issues]],
        }
    )
    exchanged, flipped = exchange(given, len(question.names), TRIED_SHARE, np.random.default_rng(seed))
    if len(np.unique(flipped)) < len(question.names):
        return rows, (0, 0, 0)
    named = confident_issues(flipped, _probabilities(X, flipped, part, len(question.names), seed))
    return rows, (int(exchanged.sum()), int((named & exchanged).sum()), int(named.sum()))


def _probabilities(X: np.ndarray, given: np.ndarray, fold: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    if n_classes == 2:
        p = out_of_fold(X, (given == 1).astype(np.float64), fold, seed=seed)
        return np.column_stack([1 - p, p])
    p = np.column_stack([out_of_fold(X, (given == k).astype(np.float64), fold, seed=seed) for k in range(n_classes)])
    return np.asarray(p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12))


def exchange(given: np.ndarray, n_classes: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which labels were exchanged (bool (n,), a share of them), and the labels then: each by one of the other classes at random."""
    exchanged = np.zeros(len(given), bool)
    exchanged[rng.permutation(len(given))[: round(share * len(given))]] = True
    moved = (given + rng.integers(1, n_classes, len(given))) % n_classes
    return exchanged, np.where(exchanged, moved, given)


# ---------------------------------------------------------------- words


def doubt_finding(doubts: Doubts, *, seen: str) -> Finding:
    """What the suggestions are and what they are worth; seen: what the regression was given, in words."""
    if not doubts.n:
        text = f"Label noise was not looked for: no label has {LEAST_IMAGES} images of each class outside of the test part."
        return Finding(severity="info", kind="label_noise", text=text, todo="Have a second reader label a sample of the images blindly.")
    worth = (
        f"Of {doubts.n_tried} labels exchanged on purpose ({100 * TRIED_SHARE:.0f}%) the same method names {100 * doubts.recall:.0f}%, and "
        f"{100 * doubts.precision:.0f}% of what it names then were exchanged (at least that many are wrong, since others may be too)"
    )
    images = tuple(dict.fromkeys(doubts.table["image_id"]))
    if doubts.precision < LEAST_PRECISION or not images:
        reason = "too little to name any" if images else "it names none"
        text = f"Label noise cannot be told from {seen}: {reason}. {worth}."
        todo = "Have a second reader label a sample of the images blindly: agreement says more than any model."
        return Finding(severity="info", kind="label_noise", text=text, todo=todo)
    text = (
        f"{len(doubts.table)} of {doubts.n} label{'' if doubts.n == 1 else 's'} disagree{'s' if len(doubts.table) == 1 else ''} with what the other patients' images suggest by {seen}, the most doubtful first: "
        f"{first_of(images)}. {worth}."
    )
    todo = "Have a reader look at the first ones without showing the label. Never change or drop a label on a model's word alone: hard cases look like this too."
    return Finding(severity="info", kind="label_noise", text=text, todo=todo, image_ids=images)
