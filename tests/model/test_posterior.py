"""Oracles: the best share found by minimising the loss in float64 on a fine grid, and probabilities in extended precision."""

import math

import numpy as np
import pytest
import torch

from medcnn.model.losses import Objective
from medcnn.model.posterior import MARGIN, TELLING, class_scores, ordinal_log_probabilities
from medcnn.tables import Task


def best_logit(task: Task, loss: str, gamma: float, p: float) -> float:
    """The log-odds that cost least, on average over a cohort with this share of positives."""
    grid = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    width = 2 if task == "binary" else 1
    outputs = torch.stack([torch.zeros_like(grid), grid], dim=1) if task == "binary" else grid[:, None]
    objective = Objective(task=task, weights=torch.ones(width), loss=loss, gamma=gamma)  # type: ignore[arg-type]
    outputs = outputs.float()
    if loss == "focal" and task == "binary":
        costs = objective._class_costs(outputs)
        cost = (1 - p) * costs[:, 0] + p * costs[:, 1]
    else:
        if_positive, if_negative = objective._focal_costs(outputs) if loss == "focal" else objective._asymmetric_costs(outputs)
        cost = (p * if_positive + (1 - p) * if_negative)[:, 0]
    near = cost <= cost.min() * (1 + 1e-6)  # the cost is flat at its minimum: its middle
    return float(grid[near].mean())


@pytest.mark.parametrize(("task", "loss"), [("binary", "focal"), ("multilabel", "focal"), ("multilabel", "asymmetric")])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("p", [0.02, 0.2, 0.5, 0.8])
def test_the_best_output_is_read_as_the_probability_it_came_from(task: Task, loss: str, gamma: float, p: float) -> None:
    z = best_logit(task, loss, gamma, p)
    outputs = torch.tensor([[0.0, z]] if task == "binary" else [[z]])
    scores = class_scores(outputs, task=task, loss=loss, gamma=gamma)[0]  # type: ignore[arg-type]
    log_odds = float(scores[1] - scores[0]) if task == "binary" else float(scores[0])
    assert log_odds == pytest.approx(math.log(p / (1 - p)), abs=0.05)
    if p != 0.5:
        assert abs(z - log_odds) > 0.1, "the outputs themselves are elsewhere"


def focal_log_odds(z: float, gamma: float) -> float:
    """log of l'(1 - u) / l'(u) as the formula stands, with u = sigmoid(z) and l(u) = -(1 - u)^gamma log u."""
    u, v = 1 / (1 + math.exp(-z)), 1 / (1 + math.exp(z))
    slope = [b**gamma / a - gamma * b ** (gamma - 1) * math.log(a) for a, b in ((u, v), (v, u))]
    return math.log(slope[1] / slope[0])


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_scores_are_the_formula(gamma: float) -> None:
    z = np.array([-15.0, -4.0, -0.3, 0.0, 1.0, 6.0, 7.0, 8.0, 15.0])
    expected = [focal_log_odds(value, gamma) for value in z]
    label = class_scores(torch.tensor(z[:, None], dtype=torch.float32), task="multilabel", loss="focal", gamma=gamma)[:, 0]
    pair = class_scores(torch.tensor(np.column_stack([0 * z, z]), dtype=torch.float32), task="binary", loss="focal", gamma=gamma)
    np.testing.assert_allclose(label.numpy(), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose((pair[:, 1] - pair[:, 0]).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "loss"), [("binary", "focal"), ("multiclass", "focal"), ("multilabel", "focal"), ("multilabel", "asymmetric")]
)
@pytest.mark.parametrize("gamma", [0.3, 2.0, 6.0])
def test_scores_keep_the_order_and_stay_finite(task: Task, loss: str, gamma: float) -> None:
    z = torch.cat([-torch.logspace(4, -3, 200), torch.logspace(-3, 4, 200)])
    outputs = (
        z[:, None] if task == "multilabel" else torch.stack([torch.zeros_like(z), z, -torch.ones_like(z)][: 2 + (task == "multiclass")], 1)
    )
    scores = class_scores(outputs, task=task, loss=loss, gamma=gamma)  # type: ignore[arg-type]
    assert scores.isfinite().all()
    log_odds = scores[:, 0] if task == "multilabel" else scores[:, 1] - scores[:, 0]
    assert (log_odds.diff() > 0).all()
    assert torch.equal(scores.argsort(dim=1), outputs.argsort(dim=1))


def test_an_asymmetric_output_beyond_what_the_loss_tells_goes_on_in_steps_of_one() -> None:
    low, high = (math.log(share / (1 - share)) for share in TELLING)
    assert 1 / (1 + math.exp(-low)) > MARGIN
    outputs = torch.tensor([[low - 2], [low - 1], [low], [high], [high + 1], [high + 2]])
    scores = class_scores(outputs, task="multilabel", loss="asymmetric", gamma=2.0)[:, 0]
    torch.testing.assert_close(scores.diff()[[0, 1, 3, 4]], torch.ones(4))


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_cross_entropy_and_focal_without_focus_are_left_alone(task: Task) -> None:
    outputs = torch.randn(5, 2)
    assert class_scores(outputs, task=task, loss="cross_entropy", gamma=2.0) is outputs
    assert class_scores(outputs, task=task, loss="focal", gamma=0.0) is outputs


def test_ordinal_probabilities_are_the_chain_rule() -> None:
    outputs = torch.tensor([[0.3, -1.0, 2.0], [-4.0, 5.0, 0.0]])
    sigma = 1 / (1 + np.exp(-outputs.numpy().astype(np.float64)))
    expected = [[1 - a, a * (1 - b), a * b * (1 - c), a * b * c] for a, b, c in sigma]
    np.testing.assert_allclose(ordinal_log_probabilities(outputs).exp().numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(ordinal_log_probabilities(50 * outputs).exp().sum(dim=1).numpy(), 1, rtol=1e-5)
    assert ordinal_log_probabilities(1e4 * outputs).isfinite().all()
