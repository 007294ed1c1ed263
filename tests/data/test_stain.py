"""Stains of made-up H&E are recovered as they were planted; images come to the target's colours; what has no tissue is left alone."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2hed

from medcnn.data.stain import COLUMNS, LIGHT, RestainedImages, StainMethod, fit_target, restain, stain_maps, stain_of
from medcnn.errors import InputError

METHODS: tuple[StainMethod, ...] = ("macenko", "reinhard")
H, E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])  # Ruifrok & Johnston
WARM_H, WARM_E = np.array([0.55, 0.76, 0.35]), np.array([0.25, 0.90, 0.36])


def stained(h: np.ndarray = H, e: np.ndarray = E, *, amounts: float = 1.0, size: int = 96, seed: int = 0) -> np.ndarray:
    """Two stains in amounts of their own for each pixel, some pixels nearly pure; no third colour."""
    rng = np.random.default_rng(seed)
    most = rng.gamma(2.0, 0.35, (size, size, 2)) * amounts + 0.1
    most *= np.where(rng.random((size, size, 2)) < 0.15, 0.02, 1)  # pixels with hardly any of one
    density = most @ np.stack([h / np.linalg.norm(h), e / np.linalg.norm(e)])
    return np.clip(np.rint(LIGHT * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def told(image: np.ndarray, method: StainMethod) -> np.ndarray:
    return stain_of(image, method)[None]


def angle(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))))


@pytest.mark.parametrize(("h", "e"), [(H, E), (WARM_H, WARM_E)])
def test_planted_stains_are_recovered(h: np.ndarray, e: np.ndarray) -> None:
    found = stain_of(stained(h, e), "macenko")
    assert angle(found[:3], h) < 4
    assert angle(found[3:6], e) < 4
    assert np.allclose(np.linalg.norm(found[:6].reshape(2, 3), axis=1), 1)


def test_macenko_is_the_published_computation() -> None:
    """As torchstain 1.4.1 states it (NumpyMacenkoNormalizer): rounded there by cutting, here to the nearest."""
    target, image = stained(size=64), stained(WARM_H, WARM_E, amounts=0.7, size=64, seed=1)
    fitted, own = (_reference(pixels) for pixels in (target, image))
    assert np.allclose(stain_of(target, "macenko"), fitted, rtol=1e-5, atol=1e-6)
    density = -np.log((image.reshape(-1, 3).astype(float) + 1) / 240)
    amounts = np.linalg.lstsq(own[:6].reshape(2, 3).T, density.T, rcond=None)[0]
    expected = 240 * np.exp(-fitted[:6].reshape(2, 3).T @ (amounts / own[6:, None] * fitted[6:, None])) - 1
    came = restain(image[None], stain_maps(told(image, "macenko"), tuple(fitted), "macenko"), "macenko")[0]
    assert np.abs(came.reshape(-1, 3) - np.clip(expected.T, 0, 255)).max() <= 0.51


def _reference(image: np.ndarray) -> np.ndarray:
    """Stains and their 99th percentiles by the steps of the paper, written down anew."""
    density = -np.log((image.reshape(-1, 3).astype(float) + 1) / 240)
    inside = density[~np.any(density < 0.15, axis=1)]
    vectors = np.linalg.eigh(np.cov(inside.T))[1][:, 1:3]
    vectors *= np.sign(vectors.sum(axis=0))
    phi = np.arctan2(*(inside @ vectors).T[::-1])
    low, high = (vectors @ [np.cos(a), np.sin(a)] for a in np.percentile(phi, [1, 99]))
    stains = np.array((low, high) if low[0] > high[0] else (high, low))
    amounts = np.linalg.lstsq(stains.T, density.T, rcond=None)[0]
    return np.concatenate([stains.ravel(), np.percentile(amounts, 99, axis=1)])


def test_torchstain_agrees() -> None:
    torchstain = pytest.importorskip("torchstain.numpy.normalizers", reason="torchstain is not installed (it was compared by hand)")
    target, image = stained(size=64), stained(WARM_H, WARM_E, amounts=0.7, size=64, seed=1)
    theirs = torchstain.NumpyMacenkoNormalizer()
    theirs.fit(target)
    expected = theirs.normalize(image, stains=False)[0].astype(int)
    ours = restain(image[None], stain_maps(told(image, "macenko"), fit_target(told(target, "macenko"), "macenko"), "macenko"), "macenko")[0]
    assert np.abs(ours.astype(int) - expected).max() <= 2  # they cut, we round; they leave out the grey level that was added


@pytest.mark.parametrize("method", METHODS)
def test_the_target_stays_as_it_is(method: StainMethod) -> None:
    image = stained()
    own = told(image, method)
    same = restain(image[None], stain_maps(own, fit_target(own, method), method), method)[0]
    assert np.abs(same.astype(int) - image).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_an_image_gets_the_targets_colours(method: StainMethod) -> None:
    target, image = stained(), stained(WARM_H, WARM_E, amounts=0.6, seed=2)
    goal = fit_target(told(target, method), method)
    came = restain(image[None], stain_maps(told(image, method), goal, method), method)[0]
    before, after = (np.abs(stain_of(pixels, method) - goal) for pixels in (image, came))
    assert (after[:6] < 0.25 * before[:6] + 0.02).all()
    assert not np.array_equal(came, image)


def test_reinhard_moves_means_and_spreads_of_the_tissue() -> None:
    """Against the definition, in double precision: l, alpha and beta are shifted and scaled, nothing else happens."""
    image, goal = stained(amounts=0.5), told(stained(WARM_H, WARM_E, amounts=0.6, seed=3), "reinhard")[0]
    came = restain(image[None], stain_maps(told(image, "reinhard"), tuple(goal), "reinhard"), "reinhard")[0]
    cones = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    axes = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]
    opponent = np.log((image.reshape(-1, 3) + 1) / 256 @ cones.T) @ axes.T
    own = stain_of(image, "reinhard")
    moved = (opponent - own[:3]) * goal[3:] / own[3:] + goal[:3]
    expected = 256 * np.exp(moved @ np.linalg.inv(axes).T) @ np.linalg.inv(cones).T - 1
    assert np.abs(came.reshape(-1, 3) - np.clip(expected, 0, 255)).max() <= 0.6


def test_stains_separate_as_another_library_separates_them() -> None:
    found = stain_of(stained(), "macenko")
    density = -np.log((stained().reshape(-1, 3).astype(float) + 1) / LIGHT)
    ours = density @ np.linalg.pinv(found[:6].reshape(2, 3))
    theirs = rgb2hed(stained()).reshape(-1, 3)
    assert np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1] > 0.98
    assert np.corrcoef(ours[:, 1], theirs[:, 1])[0, 1] > 0.98


@pytest.mark.parametrize("method", METHODS)
def test_an_image_without_tissue_is_left_alone(method: StainMethod) -> None:
    empty = np.full((64, 64, 3), 236, np.uint8)
    empty[:5, :12] = stained(size=64)[:5, :12]  # 1.5% of the pixels
    found = np.stack([stain_of(image, method) for image in (empty, stained(size=64))])
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    images = np.stack([empty, stained(WARM_H, WARM_E, size=64)])
    came = restain(images, stain_maps(found, fit_target(found, method), method), method)
    assert np.array_equal(came[0], empty)


def test_one_stain_alone_is_not_taken_for_two() -> None:
    assert np.isnan(stain_of(stained(H, H), "macenko")).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_target_is_the_median_of_those_that_are_given(method: StainMethod) -> None:
    found = np.stack([stain_of(stained(amounts=amounts, seed=number), method) for number, amounts in enumerate((0.5, 0.8, 1.4))])
    goal = fit_target(np.concatenate([found, np.full((1, found.shape[1]), np.nan)]), method)
    middle = np.median(found, axis=0)
    assert len(goal) == len(COLUMNS[method])
    assert np.allclose(goal[6:] if method == "macenko" else goal, middle[6:] if method == "macenko" else middle)
    with pytest.raises(InputError, match="none of 1 training images"):
        fit_target(np.full((1, found.shape[1]), np.nan), method)


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_only_colours_have_stains(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8 pixels"):
        stain_of(pixels, "macenko")


def test_a_cohorts_images_are_changed_row_by_row_and_travel_by_their_place(tmp_path: Path) -> None:
    images = np.stack([stained(size=32, seed=number, amounts=0.5 + number / 4) for number in range(4)])
    np.save(tmp_path / "images.npy", images)
    found = np.stack([stain_of(image, "macenko") for image in images])
    seen = RestainedImages(
        np.load(tmp_path / "images.npy", mmap_mode="r"), stain_maps(found, fit_target(found, "macenko"), "macenko"), "macenko"
    )
    rows = np.array([2, 0])
    assert np.array_equal(seen[rows], restain(images[rows], seen.maps[rows], "macenko"))
    sent = pickle.dumps(seen)
    assert len(sent) < images.nbytes / 2
    assert np.array_equal(pickle.loads(sent)[rows], seen[rows])  # noqa: S301 - our own
