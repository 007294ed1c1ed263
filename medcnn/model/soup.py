"""Greedy soup: several fine-tuned models become one by averaging their weights (Wortsman et al. 2022, arXiv:2203.05482)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from medcnn.errors import InputError

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Soup:
    """The averaged weights and what is in them.

    members: numbers of the models that are in, best first. loss: of the soup, on validation data. losses: of each model
    alone, in the order they were given.
    """

    state_dict: dict[str, torch.Tensor]
    members: tuple[int, ...]
    loss: float
    losses: tuple[float, ...]


def greedy_soup(states: Sequence[State], score: Callable[[State], float]) -> Soup:
    """Start from the best model; add each next best one to the average if the validation loss does not rise by it.

    states: models of one shape that started from the same weights (others hardly ever mix). score: their validation
    loss, lower is better; a function of the state alone. Each is asked once by itself, and once for each mixture, so the
    soup is never worse on the validation data than the best model. Equal losses keep the order given.
    Batch norm's means and variances are averaged too, which is right only as far as the members' activations agree: the
    average of variances leaves out what lies between the members' means. The score sees that, and a mixture that suffers
    from it is not kept. Counters (integers) are those of the best model. Averages are taken in float64.
    Raises InputError for no model, models of different shapes, or one without a finite loss.
    """
    _check_shapes(states)
    losses = tuple(float(score(state)) for state in states)
    for number, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise InputError(f"soup: model {number} has a validation loss of {loss}; leave it out, or train it again")
    order = sorted(range(len(states)), key=lambda number: losses[number])
    members, soup, best = [order[0]], dict(states[order[0]]), losses[order[0]]
    total = _wide(states[order[0]])
    for number in order[1:]:
        tried = {name: tensor + states[number][name].double() for name, tensor in total.items()}
        mixture = soup | {name: (tensor / (len(members) + 1)).to(soup[name].dtype) for name, tensor in tried.items()}
        loss = float(score(mixture))
        if loss <= best:
            members, total, soup, best = [*members, number], tried, mixture, loss
    return Soup(state_dict=soup, members=tuple(members), loss=best, losses=losses)


def _wide(state: State) -> dict[str, torch.Tensor]:
    """What is averaged, in float64."""
    return {name: tensor.double() for name, tensor in state.items() if tensor.is_floating_point()}


def _check_shapes(states: Sequence[State]) -> None:
    if not states:
        raise InputError("soup: no model was given; it needs at least one")
    expected = {name: tuple(tensor.shape) for name, tensor in states[0].items()}
    for number, state in enumerate(states):
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found == expected:
            continue
        name = next(name for name in (*expected, *found) if found.get(name) != expected.get(name))
        raise InputError(
            f"soup: model {number} is of another shape than model 0: {name} is {found.get(name, 'absent')}, expected "
            f"{expected.get(name, 'absent')}; only models of one architecture can be averaged"
        )
