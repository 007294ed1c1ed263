"""Measures of one image against their definitions, and against flaws made on purpose."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from medcnn.data.quality import COLUMNS, MEASURES, count_letters, quality_of
from medcnn.errors import InputError


def picture(seed: int = 0, size: tuple[int, int] = (300, 240), blur: float = 6) -> np.ndarray:
    """A smooth made-up picture that uses the whole scale."""
    noise = np.random.default_rng(seed).normal(size=size)
    smooth = ndimage.gaussian_filter(noise, blur)
    return np.asarray(np.round(255 * (smooth - smooth.min()) / np.ptp(smooth)), dtype=np.uint8)


def test_grey_levels_agree_with_their_definitions() -> None:
    image = picture(size=(200, 160))
    found = quality_of(image)
    assert found["grey_mean"] == pytest.approx(image.mean(), abs=1e-4)
    assert found["grey_sd"] == pytest.approx(image.std(), abs=1e-4)
    assert [found["grey_p1"], found["grey_p50"], found["grey_p99"]] == [
        np.quantile(image, q, method="inverted_cdf") for q in (0.01, 0.5, 0.99)
    ]
    counts = np.bincount(image.ravel())
    shares = counts[counts > 0] / image.size
    assert found["entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-4)
    assert found["black_share"] == pytest.approx((image == 0).mean(), abs=1e-5)


def test_sharpness_is_the_laplacian_over_the_picture() -> None:
    image = picture(size=(120, 90)).astype(np.int16)
    laplacian = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:] - 4 * image[1:-1, 1:-1]
    expected = np.log10(laplacian.var() / image.var())
    assert quality_of(image.astype(np.uint8))["sharpness"] == pytest.approx(expected, abs=1e-4)


def test_noise_is_found_as_it_was_added() -> None:
    flat = np.full((400, 400), 120.0)
    noisy = np.round(flat + np.random.default_rng(0).normal(0, 7, flat.shape)).astype(np.uint8)
    assert quality_of(noisy)["noise"] == pytest.approx(7, rel=0.05)
    assert quality_of(flat.astype(np.uint8))["noise"] == 0


def test_blur_lowers_sharpness_at_every_size() -> None:
    for size in ((64, 64), (256, 300), (1400, 1100)):
        image = picture(size=size, blur=max(size) / 8) // 2 + picture(size=size, blur=max(size) / 100) // 2
        blurred = quality_of(cv2.GaussianBlur(image, (0, 0), max(size) / 25))
        assert blurred["sharpness"] < quality_of(image)["sharpness"] - 0.3


def test_a_frame_is_measured_by_its_area() -> None:
    image = np.zeros((256, 256), np.uint8)
    image[32:-32, 64:-64] = picture(size=(192, 128))
    assert quality_of(image)["frame_share"] == pytest.approx(1 - 192 * 128 / 256**2, abs=0.02)
    assert quality_of(picture(size=(256, 256)))["frame_share"] == 0


def test_colour_is_the_spread_of_the_channels() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    image[...] = (200, 100, 100)
    found = quality_of(image)
    assert (found["colour"], found["red_share"], found["blue_share"]) == (100, 0.5, 0.25)
    assert quality_of(np.repeat(picture()[..., None], 3, axis=2))["colour"] == 0


def test_sixteen_bits_are_seen_through_the_window_that_the_cache_takes() -> None:
    from medcnn.data.images import to_uint8

    image = picture(size=(200, 200)).astype(np.uint16) * 13 + 900
    seen, asked = quality_of(image, 16), quality_of(to_uint8(image, 16))
    assert seen["grey_mean"] == pytest.approx(asked["grey_mean"], abs=1)
    assert seen["stored_sd"] == pytest.approx(image.std(), rel=1e-3)
    shallow = (picture(size=(200, 200)) // 2).astype(np.uint16)
    assert quality_of(shallow, 12)["grey_mean"] == pytest.approx(to_uint8(shallow, 12).mean(), abs=0.6)


def test_a_line_of_letters_is_counted_and_a_side_marker_is_not() -> None:
    image = cv2.GaussianBlur(picture(size=(400, 500), blur=20), (0, 0), 3) // 2 + 30
    assert count_letters(image) == 0
    marked = cv2.putText(image.copy(), "L", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 3, cv2.LINE_AA)
    assert count_letters(marked) == 0
    for colour, place in ((255, 60), (0, 380)):
        written = cv2.putText(image.copy(), "PORTABLE 1951", (20, place), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, 2, cv2.LINE_AA)
        assert count_letters(written) >= 8
    assert count_letters(cv2.resize(written, (100, 80))) == 0  # too small to tell


def test_the_thumbnail_is_the_picture_averaged() -> None:
    image = picture(size=(320, 640))
    thumbnail = np.frombuffer(quality_of(image)["thumbnail"], np.uint8).reshape(32, 32)
    expected = image.reshape(32, 10, 32, 20).mean(axis=(1, 3))
    assert np.abs(thumbnail - expected).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (2, 2), (3, 3, 3), (5, 5, 1), (700, 1, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_odd_pictures_have_all_measures(shape: tuple[int, ...], dtype: type) -> None:
    for value in (0, np.iinfo(dtype).max):
        image = np.full(shape, value, dtype)
        found = quality_of(image)
        assert tuple(found) == COLUMNS
        assert np.isfinite([found[name] for name in MEASURES]).all()
        assert (image == value).all()


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(9, np.uint8)]
)
def test_what_is_no_image_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="pixels: expected"):
        quality_of(pixels)
