"""Planted copies are found, each in its orientation, and nothing else is."""

import numpy as np
import pytest

from medcnn.data import lookalikes
from medcnn.data.lookalikes import look_alikes
from medcnn.data.resemblance import SAME_PICTURE, turn
from tests.data.pictures import CHANGES, likeness, picture, thumbnails

PICTURES = [picture(number) for number in range(150)]


@pytest.mark.parametrize("change", list(CHANGES))
def test_planted_copies_are_found_and_nothing_else(change: str) -> None:
    copies = [CHANGES[change](pixels) for pixels in PICTURES[:30]]
    found = look_alikes([likeness(pixels) for pixels in (*PICTURES, *copies)])
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    planted = {(row, len(PICTURES) + row) for row in range(30)}
    assert pairs <= planted
    assert len(pairs) >= 29
    assert (found.scores >= SAME_PICTURE).all()
    assert found.n_compared < 1000


@pytest.mark.parametrize(("first", "second"), [(3, 100), (100, 3)])
@pytest.mark.parametrize("number", range(8))
def test_the_orientation_shows_the_second_as_the_first(first: int, second: int, number: int) -> None:
    pictures = [*PICTURES[:120]]
    pictures[second] = turn(PICTURES[first][None], number)[0]
    found = look_alikes([likeness(pixels) for pixels in pictures])
    assert found.pairs.tolist() == [sorted((first, second))]
    low, high = thumbnails([pictures[row] for row in found.pairs[0]]).astype(int)
    assert np.abs(turn(low[None], found.turns)[0] - high).max() <= 2


def test_the_least_score_can_be_raised() -> None:
    values = [likeness(pixels) for pixels in (*PICTURES[:50], CHANGES["all"](PICTURES[0]), PICTURES[1][:, ::-1])]
    found = look_alikes(values, least=4.0)
    assert found.pairs.tolist() == [[1, 51]]


def test_pictures_without_likeness_are_no_copies_and_few_images_are_no_trouble() -> None:
    assert look_alikes([None, None, None]).pairs.shape == (0, 2)
    assert look_alikes([]).pairs.shape == (0, 2)
    assert look_alikes([likeness(PICTURES[0]), None, likeness(PICTURES[0])]).pairs.tolist() == [[0, 2]]


def test_a_stack_of_alike_slices_costs_a_few_comparisons_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = [likeness(np.clip(PICTURES[0] + rng.normal(0, 2, (128, 128)), 0, 255).astype(np.uint8)) for _ in range(12)] + [
        likeness(pixels) for pixels in PICTURES[1:80]
    ]
    monkeypatch.setattr(lookalikes, "MOST_PER_IMAGE", 3)
    found = look_alikes(values)
    assert found.n_compared <= 91 * 3
    assert np.unique(found.pairs).tolist() == list(range(12))


def test_where_any_two_pictures_are_alike_only_more_counts() -> None:
    """Drawn pictures of one shape: what tells them apart is small, and no copy."""
    shared = PICTURES[0].astype(float)
    alike = [np.clip(shared + 0.1 * (pixels.astype(float) - 128), 0, 255).astype(np.uint8) for pixels in PICTURES[1:60]]
    found = look_alikes([likeness(pixels) for pixels in (*alike, alike[7][:, ::-1])])
    assert found.least > 2.6
    assert [7, 59] in found.pairs.tolist()
    assert len(found.pairs) < 4
