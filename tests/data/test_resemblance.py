"""Thumbnails and their score: copies score high, different pictures do not; alignment recovers known frames."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from medcnn.data.resemblance import N_TURNS, SAME_PICTURE, SIDE, align, combine_turns, framed, likeness_of, score_pairs, turn
from tests.data.pictures import CHANGES, likeness, picture, thumbnails

TURNED = {"left-right", "top-bottom", "quarter turn", "half turn", "all"}
PICTURES = [picture(number) for number in range(20)]


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in TURNED])
def test_a_changed_copy_scores_as_the_same_picture(change: str) -> None:
    scores = score_pairs(thumbnails(PICTURES), thumbnails([CHANGES[change](pixels) for pixels in PICTURES]))
    assert (scores > SAME_PICTURE).all(), scores.min()


def test_different_pictures_score_low() -> None:
    squeezed = thumbnails(PICTURES)
    assert score_pairs(squeezed, np.roll(squeezed, 1, axis=0)).max() < 1.2


def test_pictures_that_share_their_background_are_different() -> None:
    """As X-rays of one pose do: a common shape, which alone would make them one picture, and details of their own."""
    shared = blobs(9, 20)
    pair = [np.clip(128 + 45 * (shared + 0.12 * blobs(number, 4)), 0, 255).astype(np.uint8) for number in (1, 2)]
    first, second = thumbnails([pair[0]]), thumbnails([pair[1]])
    assert np.arctanh(np.corrcoef(first.ravel(), second.ravel())[0, 1]) > SAME_PICTURE
    assert score_pairs(first, second)[0] < SAME_PICTURE - 0.1


def blobs(number: int, size: float) -> np.ndarray:
    """Float (128, 128), mean 0, standard deviation 1."""
    field = gaussian_filter(np.random.default_rng(number).standard_normal((128, 128)), size)
    return (field - field.mean()) / field.std()


def test_what_was_clipped_does_not_count() -> None:
    clipped = [np.clip(pixels.astype(int) + 80, 0, 255).astype(np.uint8) for pixels in PICTURES]
    assert score_pairs(thumbnails(PICTURES), thumbnails(clipped)).min() > SAME_PICTURE + 0.2


def test_the_score_does_not_depend_on_brightness_and_contrast() -> None:
    squeezed = thumbnails(PICTURES)
    softer = np.rint(squeezed * 0.5 + 60).astype(np.uint8)
    assert score_pairs(squeezed, softer).min() > 3.5


def test_alignment_finds_the_frame_it_was_made_with() -> None:
    squeezed = thumbnails(PICTURES).astype(np.float32)
    frame = np.tile(np.array([0.03, 0.95, -0.02, 0.92], np.float32), (len(squeezed), 1))
    assert np.abs(align(squeezed, framed(squeezed, frame)) - frame).max() < 0.004  # an eighth of a pixel


def test_a_frame_is_what_scipy_samples_there() -> None:
    squeezed = thumbnails(PICTURES[:1]).astype(np.float32)
    u = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    rows, columns = (np.clip((scale * u + shift + 0.5) * SIDE - 0.5, 0, SIDE - 1) for shift, scale in ((-0.02, 0.92), (0.03, 0.95)))
    oracle = map_coordinates(squeezed[0], np.meshgrid(rows, columns, indexing="ij"), order=1)
    inner = (slice(2, -2), slice(2, -2))
    seen = framed(squeezed, np.array([[0.03, 0.95, -0.02, 0.92]], np.float32))[0]
    assert np.abs(seen - oracle)[inner].max() < 12  # cubic against linear
    still = framed(squeezed, np.array([[0, 1, 0, 1]], np.float32))
    assert np.allclose(still, squeezed, atol=1e-3)


def test_turns_are_the_eight_of_a_square_and_combine() -> None:
    square = np.arange(9.0).reshape(1, 3, 3)
    turned = [turn(square, number)[0] for number in range(N_TURNS)]
    plain = square[0]
    quarter = [np.rot90(plain, times) for times in range(4)]
    assert {array.tobytes() for array in turned} == {array.tobytes() for array in (*quarter, *(array.T for array in quarter))}
    table = combine_turns()
    for first in range(N_TURNS):
        for second in range(N_TURNS):
            other = next(other for other in turned if np.array_equal(turn(other[None], second)[0], turned[first]))
            assert np.array_equal(turn(square, int(table[first, second]))[0], other)


def test_each_picture_is_turned_its_own_way() -> None:
    pictures = np.arange(27).reshape(3, 3, 3)
    turned = turn(pictures, np.array([0, 2, 1]))
    assert np.array_equal(turned, np.stack([pictures[0], pictures[1][:, ::-1], pictures[2].T]))


@pytest.mark.parametrize("pixels", [np.full((40, 50), 7, np.uint8), np.zeros((1, 1), np.uint8), np.full((9, 9, 3), 200, np.uint8)])
def test_a_picture_of_one_shade_has_no_likeness(pixels: np.ndarray) -> None:
    assert likeness_of(pixels, 8) == {"likeness": None}


def test_sixteen_bits_and_colour_give_the_likeness_of_eight_and_grey() -> None:
    grey = PICTURES[0]
    plain = np.frombuffer(likeness(grey), np.uint8).astype(int)
    for pixels, bits in ((grey.astype(np.uint16) * 16, 12), (cv2.merge([grey, grey, grey]), 8)):
        assert np.abs(np.frombuffer(likeness_of(pixels, bits)["likeness"], np.uint8) - plain).max() <= 1
    faint = 2000 + (grey // 64).astype(np.uint16)  # 4 grey levels of 12 bits
    assert likeness_of(faint, 12) == {"likeness": None}


def test_a_large_picture_has_the_likeness_of_its_reduction() -> None:
    large = cv2.resize(PICTURES[3], (1025, 1283), interpolation=cv2.INTER_CUBIC)
    assert score_pairs(thumbnails([large]), thumbnails([PICTURES[3]]))[0] > 3.5
