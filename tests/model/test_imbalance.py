"""Oracles: the fact that the best constant score is the prevalence, a simulation with a known posterior, and definitions
in words of the papers."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from medcnn.config import Imbalance, Loss
from medcnn.errors import InputError
from medcnn.model.batches import deal_epoch
from medcnn.model.imbalance import balance, effective_number
from medcnn.model.losses import Objective
from medcnn.model.signature import Signature, count_outputs
from medcnn.tables import Task

RNG = np.random.default_rng(0)
NAN = np.nan


def one_hot(classes: np.ndarray, n: int) -> np.ndarray:
    return np.eye(n)[classes]


CASES = {
    "binary": (RNG.random((400, 1)) < 0.1).astype(float),
    "multiclass": one_hot(RNG.choice(3, 400, p=[0.8, 0.15, 0.05]), 3),
    "multilabel": np.where(RNG.random((400, 2)) < 0.2, NAN, (RNG.random((400, 2)) < [0.1, 0.6]).astype(float)),
}


def recipes() -> list[tuple[str, str, str]]:
    """Every task, loss and treatment of imbalance that go together."""
    together = []
    for task in get_args(Task):
        for loss in get_args(Loss):
            for imbalance in get_args(Imbalance):
                fits = (loss != "asymmetric" or task == "multilabel") and (loss != "ordinal" or task == "multiclass")
                fits &= (loss == "cross_entropy" or imbalance != "logit_adjusted") and (task != "multilabel" or imbalance != "oversample")
                together += [(task, loss, imbalance)] * fits
    return together


def best_scores(features: np.ndarray, y: np.ndarray, objective: Objective, n_outputs: int) -> np.ndarray:
    """Outputs of the linear model (n_features, n_outputs) of one-hot or real features that the loss likes best, float64."""
    x, targets = torch.from_numpy(features), torch.from_numpy(y)
    scores = torch.zeros(features.shape[1], n_outputs, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=400, tolerance_change=1e-14, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        loss = objective(x @ scores, targets)
        loss.backward()
        return loss

    optimiser.step(step)
    return scores.detach().numpy()


@pytest.mark.parametrize(("task", "loss", "imbalance"), recipes())
def test_the_best_constant_score_gives_the_prevalence_back(task: Task, loss: Loss, imbalance: Imbalance) -> None:
    """Whatever loss, weighting or repeating do to the best scores, the signature undoes exactly."""
    y = CASES[task]
    balanced = balance(y, task, imbalance)
    shown = np.concatenate([deal.rows for deal in deal_epoch(np.arange(400), balanced.classes, batch_size=50, seed=0, epoch=0)])
    offsets = None if balanced.offsets is None else torch.from_numpy(balanced.offsets)
    objective = Objective(task=task, weights=torch.from_numpy(balanced.weights), loss=loss, offsets=offsets)
    n_outputs = count_outputs(task, y.shape[1], loss)
    scores = torch.from_numpy(best_scores(np.ones((len(shown), 1)), y[shown], objective, n_outputs))
    signature = Signature(task=task, mean=(0,), std=(1,), prior_correction=balanced.prior_correction, loss=loss)
    probabilities = signature.probabilities(signature.logits(scores).numpy())[0]
    np.testing.assert_allclose(probabilities, np.nanmean(y, axis=0), atol=2e-3 if imbalance == "oversample" else 2e-4)
    if imbalance != "none":
        raw = signature.model_copy(update={"prior_correction": ()})
        assert abs(raw.probabilities(raw.logits(scores).numpy())[0, 0] - np.nanmean(y[:, 0])) > 0.15
    if loss in {"focal", "asymmetric"} and imbalance in {"none", "class_balanced"}:  # even classes are even in any loss
        plain = signature.model_copy(update={"loss": "cross_entropy"})
        assert np.abs(plain.probabilities(plain.logits(scores).numpy())[0] - np.nanmean(y, axis=0)).max() > 0.02


@pytest.mark.parametrize(("task", "loss", "imbalance"), [recipe for recipe in recipes() if recipe[2] != "oversample"])
def test_the_share_within_each_stratum_comes_back(task: Task, loss: Loss, imbalance: Imbalance) -> None:
    """A model that may give each of four strata its own scores ends at the share of each class among the stratum's images."""
    strata = np.arange(400) % 4
    rng = np.random.default_rng(1)
    if task == "multiclass":
        y = one_hot(np.array([rng.choice(3, p=[[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7]][k]) for k in strata]), 3)
    else:
        y = (rng.random((400, 1 if task == "binary" else 2)) < np.array([0.1, 0.2, 0.4, 0.8])[strata][:, None]).astype(float)
    expected = np.array([y[strata == k].mean(axis=0) for k in range(4)])
    balanced = balance(y, task, imbalance)
    offsets = None if balanced.offsets is None else torch.from_numpy(balanced.offsets)
    objective = Objective(task=task, weights=torch.from_numpy(balanced.weights), loss=loss, offsets=offsets, gamma=1.5)
    scores = torch.from_numpy(best_scores(one_hot(strata, 4), y, objective, count_outputs(task, y.shape[1], loss)))
    signature = Signature(task=task, mean=(0,), std=(1,), prior_correction=balanced.prior_correction, loss=loss, focal_gamma=1.5)
    np.testing.assert_allclose(signature.probabilities(signature.logits(scores).numpy()), expected, atol=1e-3)


@pytest.mark.parametrize("imbalance", ["none", "loss_weights", "class_balanced", "logit_adjusted", "oversample"])
def test_the_known_posterior_of_a_simulation_comes_back(imbalance: Imbalance) -> None:
    """Three normal classes of shares 0.85, 0.1, 0.05 and equal spread: their posterior is a softmax of linear scores."""
    rng = np.random.default_rng(2)
    shares, means = np.array([0.85, 0.1, 0.05]), np.array([[0.0, 0.0], [1.5, 0.0], [0.5, 1.5]])
    classes = rng.choice(3, 20_000, p=shares)
    x = rng.normal(size=(len(classes), 2)) + means[classes]
    posterior = softmax(np.log(shares) + x @ means.T - (means**2).sum(axis=1) / 2, axis=1)
    y = one_hot(classes, 3)
    balanced = balance(y, "multiclass", imbalance)
    deals = deal_epoch(np.arange(len(y)), balanced.classes, batch_size=500, seed=0, epoch=0)
    shown = np.concatenate([deal.rows for deal in deals])
    offsets = None if balanced.offsets is None else torch.from_numpy(balanced.offsets)
    objective = Objective(task="multiclass", weights=torch.from_numpy(balanced.weights), offsets=offsets)
    features = np.column_stack([np.ones(len(x)), x])
    outputs = torch.from_numpy(features @ best_scores(features[shown], y[shown], objective, 3))
    signature = Signature(task="multiclass", mean=(0,), std=(1,), prior_correction=balanced.prior_correction)
    probabilities = signature.probabilities(signature.logits(outputs).numpy())
    np.testing.assert_allclose(probabilities.mean(axis=0), shares, atol=0.01)
    assert np.abs(probabilities - posterior).mean() < 0.01
    if imbalance == "logit_adjusted":  # the outputs themselves are for classes of equal shares
        balanced_posterior = softmax(x @ means.T - (means**2).sum(axis=1) / 2, axis=1)
        assert np.abs(softmax(outputs.numpy(), axis=1) - balanced_posterior).mean() < 0.02


def test_effective_number_is_the_expected_number_of_different_images() -> None:
    """Its definition in the paper: draws of one of N prototypes, how many different ones come up in n draws."""
    rng = np.random.default_rng(3)
    for n in (1, 5, 40, 60):
        drawn = np.array([len(np.unique(rng.integers(0, 60, n))) for _ in range(4000)])
        assert effective_number(np.array([n]), np.float64(60))[0] == pytest.approx(drawn.mean(), abs=0.25)
    assert effective_number(np.array([1.0]), np.float64(60))[0] == pytest.approx(1)


def test_weights_by_effective_number_are_milder_than_by_number() -> None:
    y = CASES["multiclass"]
    counts = y.sum(axis=0)
    beta = 1 - 1 / 400
    by_hand = (1 - beta) / (1 - beta**counts)
    ours = balance(y, "multiclass", "class_balanced").weights
    np.testing.assert_allclose(ours / ours[0], by_hand / by_hand[0], rtol=1e-6)
    assert ours[y.argmax(axis=1)].mean() == pytest.approx(1)
    assert ours[2] / ours[0] < balance(y, "multiclass", "loss_weights").weights[2] / balance(y, "multiclass", "loss_weights").weights[0]


def test_logit_adjustment_adds_the_log_prior_in_the_loss() -> None:
    y = CASES["multilabel"]
    known = ~np.isnan(y)
    prior = np.array([y[known[:, k], k].mean() for k in range(2)])
    balanced = balance(y, "multilabel", "logit_adjusted")
    assert balanced.offsets is not None
    np.testing.assert_allclose(expit(balanced.offsets), prior, rtol=1e-5)
    three = balance(CASES["multiclass"], "multiclass", "logit_adjusted")
    assert three.offsets is not None and (three.weights == 1).all()
    outputs = RNG.normal(size=(400, 3)).astype(np.float32)
    expected = -(CASES["multiclass"] * log_softmax(outputs + np.log(CASES["multiclass"].mean(axis=0)), axis=1)).sum(axis=1).mean()
    objective = Objective(task="multiclass", weights=torch.ones(3), offsets=torch.from_numpy(three.offsets))
    assert objective(torch.from_numpy(outputs), torch.from_numpy(CASES["multiclass"]).float()).item() == pytest.approx(expected, rel=1e-5)


def test_oversampling_several_findings_is_refused() -> None:
    with pytest.raises(InputError, match="use loss_weights"):
        balance(CASES["multilabel"], "multilabel", "oversample")


def test_loss_weights_average_one_over_the_images() -> None:
    y = CASES["multiclass"]
    assert balance(y, "multiclass", "loss_weights").weights[y.argmax(axis=1)].mean() == pytest.approx(1)
