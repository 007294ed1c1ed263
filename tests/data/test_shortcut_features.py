"""Features of the shortcut probes, held against numpy, scipy and hand-made values."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from medcnn.data import shortcut_features
from medcnn.data.shortcut_features import QUANTILES, file_features, metadata_columns, metadata_features, pixel_features


def images(n: int = 5, size_px: int = 32, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (n, size_px, size_px, channels), dtype=np.uint8)


def files(**columns: object) -> pd.DataFrame:
    base = {
        "path": ["a.png", "b.JPG", "c"],
        "height": [100, 100, 50],
        "width": [100, 200, 50],
        "bit_depth": [8, 8, 16],
        "channels": [1, 1, 3],
    }
    return pd.DataFrame({**base, **columns})


def test_statistics_equal_scipy() -> None:
    pixels = images()
    found = pixel_features(pixels, np.arange(5))["grey_levels"][:, shortcut_features.GREY_BINS :]
    for image, row in zip(pixels.reshape(5, -1).astype(float), found, strict=True):
        expected = [image.mean(), image.std(), stats.skew(image), stats.kurtosis(image)]
        expected += [np.quantile(image, q, method="inverted_cdf") for q in QUANTILES]
        share = np.unique(image, return_counts=True)[1] / image.size
        expected += [stats.entropy(share, base=2), (image == 0).mean(), (image == 255).mean(), len(share) / 256]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_the_histogram_has_32_bins_of_8_levels() -> None:
    pixels = images()
    found = pixel_features(pixels, np.arange(5))["grey_levels"][:, :32]
    expected = [np.histogram(image, bins=32, range=(0, 256))[0] / image.size for image in pixels]
    np.testing.assert_allclose(found**2, expected, atol=1e-6)


def test_a_thumbnail_is_the_mean_of_blocks() -> None:
    pixels = images()
    found = pixel_features(pixels, np.arange(5))["thumbnail"]
    expected = pixels.reshape(5, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(5, -1)
    assert np.abs(found - expected).max() <= 0.5  # whole grey levels


def test_colour_adds_colour() -> None:
    grey, red = images(2, channels=3), images(2, channels=3)
    grey[...], red[...] = 76, (255, 0, 0)  # equally bright
    found = pixel_features(np.concatenate([grey, red]), np.arange(4))
    assert found["thumbnail"].shape == (4, 288)
    np.testing.assert_array_equal(found["thumbnail"][0, :256], found["thumbnail"][2, :256])
    assert np.abs(found["thumbnail"][0] - found["thumbnail"][2]).max() > 50
    assert np.abs(found["grey_levels"][0] - found["grey_levels"][2]).max() > 50


def test_the_border_sees_the_border_and_nothing_else() -> None:
    pixels = np.full((3, 64, 64, 1), 100, np.uint8)
    pixels[1, 2:-2, 2:-2] = 7
    pixels[2, -2:] = 0  # two black rows at the bottom
    border = pixel_features(pixels, np.arange(3))["border"]
    np.testing.assert_array_equal(border[0], border[1])
    sides = border[2].reshape(4, 17)  # top, bottom, left, right: 16 means and the share of black
    np.testing.assert_allclose(sides[1], [0.0] * 16 + [1.0], atol=1e-6)
    np.testing.assert_allclose(sides[0], [100.0] * 16 + [0.0])
    np.testing.assert_allclose(sides[2, -1], 2 / 64)


def test_features_follow_the_rows_in_whatever_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, rows = images(9), np.array([7, 0, 3, 3, 8])
    whole = pixel_features(pixels, np.arange(9))
    monkeypatch.setattr(shortcut_features, "CHUNK_BYTES", 2 * pixels[0].nbytes)
    for name, features in pixel_features(pixels, rows).items():
        np.testing.assert_array_equal(features, whole[name][rows])


def test_files_that_differ_in_any_fact_differ_in_features() -> None:
    twice = pd.concat([files(), files()], ignore_index=True)  # a level that occurs once counts as rare
    for column, other in {"height": 90, "width": 90, "bit_depth": 16, "channels": 3, "path": "a.jpg"}.items():
        changed = twice.assign(**{column: [other, *twice[column][1:]]})
        features = file_features(pd.concat([twice, changed], ignore_index=True))
        assert not np.array_equal(features[0], features[6]), column
        np.testing.assert_array_equal(features[1:6], features[7:])


def test_bytes_count_where_they_are_known() -> None:
    without, with_bytes = file_features(files()), file_features(files(n_bytes=[1000, 9000, None]))
    assert with_bytes.shape[1] > without.shape[1] and np.isfinite(with_bytes).all()


def test_levels_are_one_hot_with_missing_as_a_level() -> None:
    table = pd.DataFrame({"view": ["AP", "AP", "PA", "PA", None, "odd"]})
    found = metadata_features(table, ["view"])
    np.testing.assert_array_equal(found, [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


def test_names_without_repetition_say_nothing() -> None:
    found = metadata_features(pd.DataFrame({"note": [f"text {n}" for n in range(50)]}), ["note"])
    assert (found.max(axis=0) == found.min(axis=0)).all()


def test_a_quantity_is_a_number_its_fifth_and_whether_it_is_missing() -> None:
    found = metadata_features(pd.DataFrame({"dose": [*np.arange(20.0), np.nan]}), ["dose"])
    assert found[:, 0].tolist() == [*range(20), 9.5] and found[:, 1].tolist() == [0] * 20 + [1]
    assert found[:20, 2:].sum(axis=1).tolist() == [1] * 20 and found[20, 2:].sum() == 0
    assert found[:, 2:].sum(axis=0).tolist() == [4] * 5


def test_a_date_becomes_days() -> None:
    dates = [f"2020-01-{day:02d}" for day in range(1, 13)]
    found = metadata_features(pd.DataFrame({"taken": [*dates, None]}), ["taken"])
    np.testing.assert_array_equal(np.diff(found[:12, 0]), 1)
    assert found[12, 1] == 1
    typed = metadata_features(pd.DataFrame({"taken": pd.to_datetime([*dates, None])}), ["taken"])
    np.testing.assert_array_equal(typed, found)


def test_columns_are_sorted_into_acquisition_and_patient() -> None:
    table = files(image_id=list("abc"), patient_id=list("abc"), frame=0, sha256=list("abc"), pixel_sha256=list("abc"), y_sick=[0, 1, 0])
    table = table.assign(given_part=["train", "val", "test"], study_id=list("abc"), copy_group=list("abc"))
    table = table.assign(site=["x", "y", "y"], age=[1, 2, 3], age_years=[1, 2, 3], Sex=["F", "M", None], view="AP", stage=[1, None, None])
    assert metadata_columns(table) == (["site", "stage"], ["age", "age_years", "Sex"])
