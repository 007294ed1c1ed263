"""Grey values of images that were made to have them; the sample is fixed; polarity and colour that is none are seen."""

import numpy as np
import pandas as pd
import pytest

from medcnn.data.intensity import intensity_statistics, sample_images


def looked_at(images, **options):
    """Statistics of these images, each read by its number."""
    manifest = pd.DataFrame({"image_id": [f"i{k}" for k in range(len(images))], "path": [str(k) for k in range(len(images))], "frame": 0})
    return intensity_statistics(manifest, lambda path, _: images[int(path)], **options)


def radiograph(inverted=False):
    """A bright oval on black: what a film looks like, or its negative."""
    y, x = np.mgrid[-1:1:80j, -1:1:60j]
    grey = np.where(y**2 + x**2 < 0.7, 180, 5).astype(np.uint8)
    return 255 - grey if inverted else grey


def test_statistics_are_numpys():
    images = [np.random.default_rng(k).integers(0, 256, (50, 40), dtype=np.uint8) for k in range(5)]
    found = looked_at(images)
    assert found["n_images"] == found["n_grey"] == 5
    assert found["mean"] == pytest.approx(np.mean([image.mean() for image in images]), abs=1e-3)
    assert found["sd"] == pytest.approx(np.mean([image.std() for image in images]), abs=1e-3)
    for q in (1, 50, 99):
        assert found[f"p{q}"] == pytest.approx(np.mean([np.percentile(image, q) for image in images]), abs=1e-3)
    assert found["mean_p5"] == pytest.approx(np.quantile([image.mean() for image in images], 0.05), abs=1e-3)
    assert found["mean_p95"] == pytest.approx(np.quantile([image.mean() for image in images], 0.95), abs=1e-3)


def test_shares_of_black_and_white():
    half = np.zeros((10, 10), np.uint8)
    half[:5] = 255
    found = looked_at([half, np.full((10, 10), 7, np.uint8)])
    assert (found["black"], found["white"]) == (0.25, 0.25)


def test_colour_is_grey_by_its_luma():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    found = looked_at([red])
    assert found["mean"] == pytest.approx(0.299 * 200, abs=1e-3)
    assert (found["n_colour"], found["n_grey"], found["grey_in_colour"]) == (1, 0, 0)
    assert "inverted_looking" not in found


def test_grey_stored_in_colour_is_seen_though_jpeg_left_a_trace():
    grey = np.repeat(radiograph()[..., None], 3, axis=2)
    traced = grey.copy()
    traced[::2, :, 0] += 3
    red = grey.copy()
    red[:10, :10, 0] = 255
    found = looked_at([grey, traced, red, radiograph()])
    assert (found["n_colour"], found["n_grey"]) == (3, 3)
    assert found["grey_in_colour"] == pytest.approx(2 / 3, abs=1e-4)
    assert "grey_in_colour" not in looked_at([radiograph()])


def test_negatives_are_seen():
    assert looked_at([radiograph()] * 3 + [radiograph(inverted=True)])["inverted_looking"] == 0.25


def test_evenly_bright_image_is_no_negative():
    assert looked_at([np.full((20, 20), 250, np.uint8)])["inverted_looking"] == 0


def test_large_image_is_thinned_and_keeps_its_grey_values():
    large = np.tile(radiograph(), (20, 30))
    assert looked_at([large])["mean"] == pytest.approx(large.mean(), abs=3)


def test_sample_is_fixed_by_the_names_and_not_by_their_order():
    names = [f"image{k}" for k in range(1000)]
    chosen = sample_images(names, 50)
    assert len(set(chosen)) == 50
    backwards = sample_images(names[::-1], 50)
    assert [names[k] for k in chosen] == [names[::-1][k] for k in backwards]
    assert set(chosen) != set(range(50))
    assert len(sample_images(names[:3], 50)) == 3


def test_no_more_is_read_than_the_sample():
    seen = []
    manifest = pd.DataFrame({"image_id": [f"i{k}" for k in range(300)], "path": "x", "frame": range(300)})
    found = intensity_statistics(manifest, lambda _, frame: seen.append(frame) or radiograph(), n_sampled=20)
    assert len(seen) == found["n_images"] == 20


def test_an_image_that_cannot_be_read_is_not_passed_over():
    def read(path, frame):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        intensity_statistics(pd.DataFrame({"image_id": ["a"], "path": "x", "frame": 0}), read)
