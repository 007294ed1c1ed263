"""Signatures: turning a picture turns signs and swaps numbers; copies lie within reach in some orientation, others do not."""

import numpy as np
import pytest

from medcnn.data.resemblance import N_TURNS, turn
from medcnn.data.signatures import N_NUMBERS, _numbers, _parts, learn_basis, sign_thumbnails
from tests.data.pictures import CHANGES, picture, thumbnails

PICTURES = [picture(number) for number in range(120)]
SQUEEZED = thumbnails(PICTURES)
BASIS = learn_basis(SQUEEZED)


@pytest.mark.parametrize("number", range(N_TURNS))
def test_numbers_of_a_turned_picture_follow_from_its_own(number: int) -> None:
    turned = _numbers(_parts(turn(SQUEEZED, number)), BASIS.weights)
    assert np.allclose(turned, _numbers(_parts(SQUEEZED), BASIS.weights, number), atol=2e-3)


def test_every_orientation_signs_alike() -> None:
    plain = sign_thumbnails(SQUEEZED, BASIS)
    for number in range(1, N_TURNS):
        turned = sign_thumbnails(turn(SQUEEZED, number), BASIS)
        for image in range(len(SQUEEZED)):
            own, other = plain.vectors[plain.images == image], turned.vectors[turned.images == image]
            assert len(own) == len(other)
            assert np.linalg.norm(own[:, None] - other, axis=2).min(axis=1).max() < 0.01


def test_copies_lie_within_reach_and_others_beyond() -> None:
    own = sign_thumbnails(SQUEEZED, BASIS)
    assert own.vectors.shape[1] in range(N_NUMBERS, N_NUMBERS + 3)
    assert set(own.images) == set(range(len(PICTURES)))
    for change, apply in CHANGES.items():
        copies = sign_thumbnails(thumbnails([apply(pixels) for pixels in PICTURES]), BASIS)
        apart = np.linalg.norm(copies.vectors[:, None] - own.vectors, axis=2)
        is_copy = copies.images[:, None] == own.images
        nearest = np.full(len(PICTURES), np.inf)
        np.minimum.at(nearest, copies.images, np.where(is_copy, apart, np.inf).min(axis=1))
        assert (nearest <= BASIS.reach).mean() > 0.95, change
        assert (apart[~is_copy] <= BASIS.reach).mean() < 1e-3, change


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_few_pictures_are_enough_to_learn_from(n: int) -> None:
    basis = learn_basis(SQUEEZED[:n])
    assert np.isfinite(basis.reach)
    assert np.isfinite(sign_thumbnails(SQUEEZED[:n], basis).vectors).all()


def test_learning_is_reproducible() -> None:
    again = learn_basis(SQUEEZED)
    assert again.reach == BASIS.reach
    assert all(np.array_equal(again.weights[kind], BASIS.weights[kind]) for kind in BASIS.weights)
