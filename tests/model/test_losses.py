"""Oracles: torch's own losses, sklearn's log_loss, and the fact that the best constant score is the prevalence."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional

from medcnn.errors import InputError
from medcnn.model.losses import Objective, check_classes, is_labelled, log_loss
from medcnn.tables import Task

RNG = np.random.default_rng(0)
NAN = np.nan


def training_loss(
    outputs: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, *, task: Task, label_smoothing: float = 0.0
) -> torch.Tensor:
    return Objective(task=task, weights=weights, smoothing=label_smoothing)(outputs, y)


def one_hot(classes: np.ndarray, n: int) -> np.ndarray:
    return np.eye(n)[classes]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_loss_is_torchs_cross_entropy(smoothing: float) -> None:
    outputs, classes = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    y = torch.from_numpy(one_hot(classes.numpy(), 3)).float()
    ours = training_loss(outputs, y, torch.ones(3), task="multiclass", label_smoothing=smoothing)
    torch.testing.assert_close(ours, functional.cross_entropy(outputs, classes, label_smoothing=smoothing))


def test_binary_loss_takes_one_column() -> None:
    outputs, classes = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    ours = training_loss(outputs, classes[:, None].float(), torch.ones(2), task="binary")
    torch.testing.assert_close(ours, functional.cross_entropy(outputs, classes))


def test_weights_multiply_each_image() -> None:
    outputs, classes, weights = torch.randn(20, 3), torch.arange(20) % 3, torch.tensor([0.5, 1.0, 4.0])
    y = torch.from_numpy(one_hot(classes.numpy(), 3)).float()
    each = functional.cross_entropy(outputs, classes, reduction="none")
    torch.testing.assert_close(training_loss(outputs, y, weights, task="multiclass"), (each * weights[classes]).mean())


def test_missing_labels_neither_count_nor_teach() -> None:
    outputs = torch.randn(4, 2, requires_grad=True)
    y = torch.tensor([[1.0, NAN], [0.0, NAN], [NAN, 1.0], [1.0, NAN]])
    loss = training_loss(outputs, y, torch.ones(2), task="multilabel")
    known = ~torch.isnan(y)
    torch.testing.assert_close(loss, functional.binary_cross_entropy_with_logits(outputs[known], y[known]))
    loss.backward()
    assert outputs.grad is not None and outputs.grad[~known].eq(0).all() and outputs.grad[known].ne(0).all()


def test_smoothing_several_labels_is_smoothing_two_classes_each() -> None:
    outputs, y = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0.0]] * 6)
    ours = training_loss(outputs, y, torch.ones(2), task="multilabel", label_smoothing=0.2)
    pairs = torch.stack([torch.zeros(12), outputs.flatten()], dim=1)
    torch.testing.assert_close(ours, functional.cross_entropy(pairs, y.flatten().long(), label_smoothing=0.2))


def test_a_batch_without_any_known_label_costs_nothing() -> None:
    assert training_loss(torch.randn(2, 2), torch.full((2, 2), NAN), torch.ones(2), task="multilabel") == 0


def test_log_loss_is_sklearns() -> None:
    y, logits = RNG.integers(0, 2, (50, 1)).astype(float), RNG.normal(size=(50, 1)) * 3
    assert log_loss(logits, y, "binary") == pytest.approx(metrics.log_loss(y[:, 0], 1 / (1 + np.exp(-logits[:, 0]))))
    classes, scores = RNG.integers(0, 4, 50), RNG.normal(size=(50, 4)) * 3
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert log_loss(scores, one_hot(classes, 4), "multiclass") == pytest.approx(metrics.log_loss(classes, p))


def test_log_loss_leaves_out_what_is_not_known() -> None:
    y, logits = np.array([[1.0, NAN], [0.0, 1.0]]), np.array([[2.0, 99.0], [-1.0, 0.5]])
    expected = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(-1)), np.log1p(np.exp(-0.5))])
    assert log_loss(logits, y, "multilabel") == pytest.approx(expected)
    rows = np.array([[1.0, 0.0], [NAN, NAN]])
    assert log_loss(np.array([[1.0, 0.0], [50.0, 0.0]]), rows, "multiclass") == pytest.approx(np.log1p(np.exp(-1)))
    assert np.isnan(log_loss(logits, np.full((2, 2), NAN), "multilabel"))


def test_what_counts_as_labelled() -> None:
    y = np.array([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])
    assert is_labelled(y, "multilabel").tolist() == [True, False, True]
    assert is_labelled(y, "multiclass").tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([[1.0], [1.0]], "binary", "no negative image for label 0"),
        ([[0.0], [0.0]], "binary", "no positive image"),
        ([[1.0, 0, 0], [0, 1, 0]], "multiclass", "no positive image for label 2"),
        ([[1.0, NAN], [0, 1]], "multilabel", "no negative image for label 1"),
        ([[1.0, 1, 0], [0, 0, 1], [0, 1, 0]], "multiclass", "has 2 classes"),
    ],
)
def test_classes_that_cannot_be_learnt_are_named(y: list[list[float]], task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_classes(np.array(y), task)
