"""Oracles: the procedure of the paper written down once more, and numpy's mean."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from medcnn.errors import InputError
from medcnn.model.soup import State, greedy_soup

TARGET = torch.tensor([1.0, 2.0])


def models(*points: tuple[float, float]) -> list[dict[str, torch.Tensor]]:
    return [{"w": torch.tensor(point), "bn.num_batches_tracked": torch.tensor(number)} for number, point in enumerate(points)]


def distance(state: State) -> float:
    """Mean squared distance to the target: convex, so an average can be better than its parts."""
    return float(((state["w"] - TARGET) ** 2).mean())


def by_the_book(states: list[dict[str, torch.Tensor]], score: Callable[[State], float]) -> tuple[list[int], np.ndarray]:
    """Recipe 1 of the paper, with losses instead of accuracies."""
    order = sorted(range(len(states)), key=lambda number: score(states[number]))
    ingredients: list[int] = []
    for number in order:
        tried = [*ingredients, number]
        mean = {"w": torch.from_numpy(np.mean([states[i]["w"].numpy() for i in tried], axis=0))}
        now = {"w": torch.from_numpy(np.mean([states[i]["w"].numpy() for i in ingredients], axis=0))} if ingredients else None
        if now is None or score(mean) <= score(now):
            ingredients = tried
    return ingredients, np.mean([states[i]["w"].numpy() for i in ingredients], axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_procedure_of_the_paper(seed: int) -> None:
    points = np.random.default_rng(seed).normal(TARGET.numpy(), 1, (7, 2))
    states = models(*map(tuple, points.tolist()))
    soup = greedy_soup(states, distance)
    members, mean = by_the_book(states, distance)
    assert list(soup.members) == members
    np.testing.assert_allclose(soup.state_dict["w"].numpy(), mean, rtol=1e-6)
    assert soup.losses == tuple(map(distance, states))
    assert soup.loss == distance(soup.state_dict) <= min(soup.losses)


def test_by_hand() -> None:
    """Model 2 is the best; 0 lies on the other side and helps; 1 would take it away again."""
    states = models((2.0, 3.0), (9.0, 9.0), (0.5, 1.5))
    soup = greedy_soup(states, distance)
    assert soup.members == (2, 0)
    assert soup.state_dict["w"].tolist() == [1.25, 2.25] and soup.loss == pytest.approx(0.0625)


def test_a_mixture_that_changes_nothing_is_kept_and_one_that_is_worse_is_not() -> None:
    same = models((1.5, 2.0), (1.5, 2.0))
    assert greedy_soup(same, distance).members == (0, 1)
    worse = greedy_soup(models((1.1, 2.0), (1.6, 2.0)), distance)
    assert worse.members == (0,) and worse.state_dict["w"].tolist() == pytest.approx([1.1, 2.0])


def test_a_mixture_without_a_finite_loss_is_not_kept() -> None:
    states = models((1.0, 1.0), (1.0, 3.0))
    assert greedy_soup(states, lambda state: float("nan") if state["w"][1] == 2 else distance(state)).members == (0,)


def test_statistics_are_averaged_and_counters_are_the_best_models() -> None:
    states = [
        {"bn.running_var": torch.tensor([float(value)]), "bn.num_batches_tracked": torch.tensor(10 * value), "half": torch.ones(1).half()}
        for value in (3, 1)
    ]
    soup = greedy_soup(states, lambda state: 1.0 if state["bn.running_var"].item() == 3 else 0.5)
    assert soup.members == (1, 0)
    assert soup.state_dict["bn.running_var"].item() == 2 and soup.state_dict["bn.num_batches_tracked"].item() == 10
    assert {name: tensor.dtype for name, tensor in soup.state_dict.items()} == {name: tensor.dtype for name, tensor in states[0].items()}


def test_nothing_that_came_in_is_changed() -> None:
    states = models((2.0, 3.0), (0.5, 1.5))
    greedy_soup(states, distance)
    assert [state["w"].tolist() for state in states] == [[2.0, 3.0], [0.5, 1.5]]


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "no model was given"),
        ([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}], r"model 1 is of another shape than model 0: w is \(3,\), expected \(2,\)"),
        ([{"w": torch.zeros(2)}, {"w": torch.zeros(2), "b": torch.zeros(1)}], r"b is \(1,\), expected absent"),
        ([{"w": torch.zeros(2)}, {}], r"w is absent, expected \(2,\)"),
        ([{"w": torch.zeros(2)}, {"w": torch.full((2,), float("nan"))}], "model 1 has a validation loss of nan"),
    ],
)
def test_what_cannot_be_mixed_is_refused(states: list[State], message: str) -> None:
    with pytest.raises(InputError, match=message):
        greedy_soup(states, distance)
