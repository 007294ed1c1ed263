"""Logistic regression on frozen features, ending as an ordinary network: its last layer is set, nothing else learns.

How strongly the weights are held back is chosen by cross-validation among the training patients. The features are
standardised for the fit; mean and scale then go into weight and bias, so that the network needs neither.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from medcnn.errors import InputError
from medcnn.model.backbones import OWN_MODELS
from medcnn.model.features import last_linear
from medcnn.model.imbalance import class_of
from medcnn.model.losses import check_classes, is_labelled, log_loss
from medcnn.model.predict import predict_from_features
from medcnn.model.signature import Signature
from medcnn.model.training import TrainingResult
from medcnn.plan import ModelPlan
from medcnn.tables import Task

STRENGTHS = tuple(10 ** (step / 2) for step in range(-14, 5))  # prior variance of each weight, 1e-7 to 100; scikit-learn's C
N_FOLDS = 5
N_WORSE = 3  # the grid is left when so many weaker strengths in a row were no better
N_SEARCHED = 10_000  # images, at most, by which the strength is chosen; it hardly depends on their number
MAX_ITERATIONS = 5_000
CONSTANT = 1e-5  # a feature that varies by less than this share of its size is rounding, not information


def check_pretrained(plan: ModelPlan) -> None:
    """Raise InputError when the planned network has nothing to freeze."""
    if plan.name in OWN_MODELS or not plan.pretrained:
        raise InputError(
            f"the rung frozen needs a pretrained backbone, but the model is {plan.name} with model.pretrained={str(plan.pretrained).lower()}: "
            "random features tell little; choose a backbone of `medcnn models`, or leave frozen out of ladder.rungs"
        )


def train_frozen(  # noqa: PLR0913 - the room's front door
    model: nn.Module,
    features: np.ndarray,
    y: np.ndarray,
    *,
    rows_train: np.ndarray,
    patients: np.ndarray,
    task: Task,
    signature: Signature,
    seed: int,
    rows_val: np.ndarray | None = None,
    n_threads: int = 0,
) -> TrainingResult:
    """Set the last linear layer of `model`, in place, to a logistic regression on the features of the train rows.

    features: float32 (N, D), as write_features makes them with this model. y: float (N, n_labels), 0/1/NaN. patients:
    (N,), what an inner fold never tears apart. Multinomial for classes; one regression per label for a multilabel task,
    over the images where it is known. No class is weighted. A function of the set of rows, the seed and, in the last
    bits, of the number of threads. The history has one row: train_loss, with rows_val val_loss, and for each
    regression its strength (scikit-learn's C) and the cross-validated log-loss (cv_loss). Raises InputError for rows
    that cannot be learnt from.
    """
    wall, cpu = time.monotonic(), time.process_time()
    ordered = np.sort(rows_train)
    rows = ordered[is_labelled(y[ordered], task)]
    if not len(rows):
        raise InputError("the train part has no labelled image")
    check_classes(y[rows], task)
    signature = Signature(task=task, mean=signature.mean, std=signature.std)  # nothing was done to classes or loss that outputs must undo
    with threadpool_limits(limits=n_threads or None):
        fits = [_fit(problem, seed) for problem in _problems(features, y, rows, patients, task)]
    _write_head(last_linear(model), fits)
    model.eval()
    return TrainingResult(
        state_dict={name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()},
        signature=signature,
        history=_history(fits, model, features, y, {"train": rows, "val": rows_val}, signature),
        chosen_epoch=1,
        seconds=time.monotonic() - wall,
        cpu_seconds=time.process_time() - cpu,
        loading_seconds=0.0,
        n_images=len(rows),
        n_unlabelled=len(rows_train) - len(rows),
    )


@dataclass(frozen=True)
class _Problem:
    """One regression. X: float64 (n, D); classes: int (n,), 0 to k - 1; patients: (n,); label: whether it is one label of several."""

    X: np.ndarray
    classes: np.ndarray
    patients: np.ndarray
    label: bool

    def part(self, rows: np.ndarray) -> "_Problem":
        return _Problem(self.X[rows], self.classes[rows], self.patients[rows], self.label)


@dataclass(frozen=True)
class _Fit:
    """weight: float64 (k, D), bias (k,), for features as they are; k: 1 for a label of several, else one per output."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    cv_loss: float


def _problems(features: np.ndarray, y: np.ndarray, rows: np.ndarray, patients: np.ndarray, task: Task) -> Iterator[_Problem]:
    if task != "multilabel":
        yield _Problem(features[rows].astype(np.float64), class_of(y[rows], task), patients[rows], False)
        return
    for column in y[rows].T:
        known = ~np.isnan(column)
        of_label = rows[known]
        yield _Problem(features[of_label].astype(np.float64), column[known].astype(np.int64), patients[of_label], True)


def _fit(problem: _Problem, seed: int) -> _Fit:
    """Choose the strength, fit all rows with it, and take the standardisation into weight and bias."""
    strength, loss = _choose_strength(problem, seed)
    mean, scale = _mean_and_scale(problem.X)
    fitted = _regression(strength, tolerance=1e-6).fit((problem.X - mean) / scale, problem.classes)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if not problem.label and len(coefficients) == 1:  # two classes: half the log-odds each way
        coefficients, intercepts = np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    weight = (coefficients / scale).astype(np.float32).astype(np.float64)  # as the layer holds it, so that the bias fits it
    return _Fit(weight, intercepts - weight @ mean, strength, loss)


def _mean_and_scale(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, (D,); infinite where the feature is constant, so that it gets no weight."""
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    return mean, np.where(deviation > CONSTANT * np.abs(mean), deviation, np.inf)


def _regression(strength: float, *, tolerance: float, warm_start: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, tol=tolerance, max_iter=MAX_ITERATIONS, warm_start=warm_start)


# ---------------------------------------------------------------- the strength


def _choose_strength(problem: _Problem, seed: int) -> tuple[float, float]:
    """The strength with the lowest log-loss on patients that the fit did not see, and that loss."""
    searched = problem.part(_some_patients(problem.patients, seed))
    folds = [_Fold.of(searched, train, test) for train, test in _inner_folds(searched, seed)]
    best, best_loss, n_worse = STRENGTHS[0], np.inf, 0
    for strength in STRENGTHS:  # from strong to weak, each fit starting from the last
        loss = float(np.average([fold.loss(strength) for fold in folds], weights=[len(fold.test) for fold in folds]))
        if loss < best_loss:
            best, best_loss, n_worse = strength, loss, 0
        else:
            n_worse += 1
        if n_worse == N_WORSE:
            break
    return best, best_loss


@dataclass(frozen=True)
class _Fold:
    """One inner fold, standardised by its own training side, with a regression that goes on from its last fit."""

    train: np.ndarray
    test: np.ndarray
    classes_train: np.ndarray
    classes_test: np.ndarray
    regression: Any

    @classmethod
    def of(cls, problem: _Problem, train: np.ndarray, test: np.ndarray) -> "_Fold":
        mean, scale = _mean_and_scale(problem.X[train])
        known, unseen = (problem.X[train] - mean) / scale, (problem.X[test] - mean) / scale
        return cls(known, unseen, problem.classes[train], problem.classes[test], _regression(1.0, tolerance=1e-4, warm_start=True))

    def loss(self, strength: float) -> float:
        """Mean log-loss of the test side."""
        self.regression.set_params(C=strength).fit(self.train, self.classes_train)
        scores = self.regression.decision_function(self.test)
        if scores.ndim == 1:
            return log_loss(scores[:, None], self.classes_test[:, None].astype(float), "binary")
        return log_loss(scores, np.eye(scores.shape[1])[self.classes_test], "multiclass")


def _some_patients(patients: np.ndarray, seed: int) -> np.ndarray:
    """The rows of as many patients, drawn at random, as have N_SEARCHED images together."""
    if len(patients) <= N_SEARCHED:
        return np.arange(len(patients))
    names, codes, counts = np.unique(patients, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(seed).permutation(len(names))
    within = drawn[np.cumsum(counts[drawn]) <= N_SEARCHED]
    return np.flatnonzero(np.isin(codes, within))


def _inner_folds(problem: _Problem, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of the training and the test side of each fold. A fold whose training side lacks a class is left out."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_classes = problem.classes.max() + 1
    n_patients = [len(np.unique(problem.patients[problem.classes == number])) for number in range(n_classes)]
    n_folds = min(N_FOLDS, *n_patients)
    folds: list[tuple[np.ndarray, np.ndarray]] = []
    if n_folds > 1:
        dealt = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed % 2**32).split(problem.X, problem.classes, problem.patients)
        folds = [(train, test) for train, test in dealt if len(np.unique(problem.classes[train])) == n_classes and len(test)]
    if not folds:
        raise InputError(
            f"the rung frozen chooses its strength among the training patients, but a class has images of {min(n_patients)} of them only; "
            "it needs at least 2 for each class: add patients, or leave frozen out of ladder.rungs"
        )
    return folds


# ---------------------------------------------------------------- the network


def _write_head(head: nn.Linear, fits: Sequence[_Fit]) -> None:
    weight, bias = np.concatenate([fit.weight for fit in fits]), np.concatenate([fit.bias for fit in fits])
    if weight.shape != tuple(head.weight.shape):
        raise InputError(
            f"the model's last layer has shape {tuple(head.weight.shape)}, but features and classes make it {weight.shape}; "
            "were the features made with another backbone?"
        )
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


def _history(
    fits: Sequence[_Fit],
    model: nn.Module,
    features: np.ndarray,
    y: np.ndarray,
    parts: Mapping[str, np.ndarray | None],
    signature: Signature,
) -> pd.DataFrame:
    row: dict[str, float] = {"epoch": 1, "learning_rate": np.nan}
    for part, rows in parts.items():
        if rows is not None and len(rows):
            logits, _ = predict_from_features(model, features, rows, card=signature)
            row[f"{part}_loss"] = log_loss(logits, y[rows], signature.task)
    for number, fit in enumerate(fits):
        suffix = f"_{number}" if len(fits) > 1 else ""
        row |= {f"cv_loss{suffix}": fit.cv_loss, f"strength{suffix}": fit.strength}
    return pd.DataFrame([row]).astype({"epoch": int})
