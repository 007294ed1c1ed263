"""Stain normalisation of H&E: what colours an image has by itself, what many have in common, and the map from one to the other.

An image's own colours depend on that image alone; the target is the median over the images that are given, the training rows.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from medcnn.data.mapped import by_place, from_place
from medcnn.errors import InputError

StainMethod = Literal["macenko", "reinhard"]
COLUMNS: dict[StainMethod, tuple[str, ...]] = {
    "macenko": ("h_red", "h_green", "h_blue", "e_red", "e_green", "e_blue", "h_most", "e_most"),
    "reinhard": ("l_mean", "alpha_mean", "beta_mean", "l_sd", "alpha_sd", "beta_sd"),
}
LIGHT = 240.0  # grey level of light that no tissue has dimmed
MIN_DENSITY = 0.15  # a pixel with less in some channel is background
EXTREME_PERCENT, MOST_PERCENT = 1.0, 99.0
MIN_TISSUE = 0.02  # share of the pixels; with less there is nothing to estimate stains from
MOST_PIXELS = 1 << 14  # more would hardly sharpen an estimate
PARALLEL = 0.995  # cosine between two stains that cannot be told apart
_LEVELS = np.arange(1, 257, dtype=np.float32)
_DENSITY, _BRIGHTNESS = -np.log(_LEVELS / np.float32(LIGHT)), _LEVELS / 256
# Reinhard et al. 2001: RGB to the eye's cones, and the logarithms of these to l, alpha, beta.
_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_OPPONENTS = np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt(np.array([[3.0], [6.0], [2.0]]))


# ---------------------------------------------------------------- one image


def stain_of(pixels: np.ndarray, method: StainMethod) -> np.ndarray:
    """What colours an image has: float64, named by COLUMNS[method]; NaN where hardly any tissue is seen, or one stain only.

    pixels: uint8 (H, W, 3) RGB. macenko (doi:10.1109/ISBI.2009.5193250): the stains' directions in optical density, of
    haematoxylin and of eosin, unit vectors over red, green and blue, and the 99th percentiles of their amounts.
    reinhard (doi:10.1109/38.946629): means and standard deviations of l, alpha and beta over the tissue. Background, a
    density under 0.15 in some channel, estimates neither. Raises InputError for pixels that are not RGB.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"stains are estimated from uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}; set image.channels=3")
    rows = pixels.reshape(-1, 3)
    rows = rows[:: -(-len(rows) // MOST_PIXELS)]
    density = cv2.LUT(rows[None], _DENSITY)[0].astype(np.float64)
    tissue = (density >= MIN_DENSITY).all(axis=1)
    if tissue.mean() < MIN_TISSUE:
        return np.full(len(COLUMNS[method]), np.nan)
    if method == "macenko":
        return _macenko(density, tissue)
    opponent = np.log(_BRIGHTNESS[rows[tissue]].astype(np.float64) @ _CONES.T) @ _OPPONENTS.T
    return np.concatenate([opponent.mean(axis=0), opponent.std(axis=0)])


def _macenko(density: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """The extreme directions within the plane that holds most of the tissue's densities (n, 3), and how much there is of each."""
    inside = density[tissue]
    plane = np.linalg.eigh(np.cov(inside.T))[1][:, :0:-1]  # the two directions of largest variance, the largest first
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # densities are positive: no angle jumps from pi to -pi
    across = inside @ plane
    angles = np.percentile(np.arctan2(across[:, 1], across[:, 0]), [EXTREME_PERCENT, 100 - EXTREME_PERCENT])
    stains = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    stains = stains[np.argsort(-stains[:, 0])]  # haematoxylin takes more of the red
    if stains[0] @ stains[1] > PARALLEL:
        return np.full(8, np.nan)
    most = np.percentile(density @ np.linalg.pinv(stains), MOST_PERCENT, axis=0)
    return np.concatenate([*stains, most]) if (most > 0).all() else np.full(8, np.nan)


# ---------------------------------------------------------------- many images


def fit_target(found: np.ndarray, method: StainMethod) -> tuple[float, ...]:
    """The colours that others are brought to: the median over these images, named by COLUMNS[method].

    found: float (n, k), stain_of of each training image; those that are NaN have no say. Raises InputError when all are.
    """
    usable = found[~np.isnan(found).any(axis=1)]
    if not len(usable):
        raise InputError(
            f"image.stain is {method}, but in none of {len(found)} training images can stains be told: is this H&E? Set image.stain=none"
        )
    target = np.median(usable, axis=0)
    if method == "macenko":
        target[:3], target[3:6] = (stain / np.linalg.norm(stain) for stain in (target[:3], target[3:6]))
    return tuple(float(value) for value in target)


def stain_maps(found: np.ndarray, target: tuple[float, ...], method: StainMethod) -> np.ndarray:
    """For each image the affine map that brings its colours to the target's, float32 (n, 3, 4); NaN for one to be left as it is.

    found: float (n, k), stain_of of each image. The map of macenko is for optical densities, of which it keeps what the two
    stains explain, as published; that of reinhard is for the logarithms of cones.
    """
    goal = np.asarray(target, np.float64)
    if method == "reinhard":
        scale = goal[3:] / np.maximum(found[:, 3:], 1e-6)
        back = np.linalg.inv(_OPPONENTS)
        linear = back @ (scale[:, :, None] * _OPPONENTS)
        shift = (goal[:3] - scale * found[:, :3]) @ back.T
        return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)
    stains, wanted = found[:, :6].reshape(-1, 2, 3).transpose(0, 2, 1), goal[:6].reshape(2, 3).T
    maps = np.full((len(found), 3, 4), np.nan, np.float32)
    told = ~np.isnan(found).any(axis=1)
    maps[told, :, :3] = (wanted * (goal[6:] / found[told, 6:])[:, None, :]) @ np.linalg.pinv(stains[told])
    maps[told, :, 3] = 0
    return maps


def restain(images: np.ndarray, maps: np.ndarray, method: StainMethod) -> np.ndarray:
    """Images uint8 (B, S, S, 3) with the colours that their maps (B, 3, 4) lead to; those with a NaN map as they are."""
    restained = images.copy()
    one = _with_density if method == "macenko" else _with_cones
    for number in np.flatnonzero(~np.isnan(maps).any(axis=(1, 2))):
        restained[number] = one(images[number], maps[number])
    return restained


def _with_density(image: np.ndarray, to: np.ndarray) -> np.ndarray:
    density = cv2.transform(cv2.LUT(image, _DENSITY), to)
    light = cv2.exp(np.negative(density, out=density), dst=density)
    return np.asarray(cv2.convertScaleAbs(light, alpha=LIGHT, beta=-1))


_TO_CONES = _CONES.astype(np.float32)
_FROM_CONES = np.concatenate([256 * np.linalg.inv(_CONES), np.full((3, 1), -1.0)], axis=1).astype(np.float32)


def _with_cones(image: np.ndarray, to: np.ndarray) -> np.ndarray:
    cones = cv2.transform(cv2.LUT(image, _BRIGHTNESS), _TO_CONES)
    cones = cv2.exp(cv2.transform(cv2.log(cones, dst=cones), to))
    levels = cv2.transform(cones, _FROM_CONES)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class RestainedImages:
    """A cohort's images as if all had the target's colours. images: uint8 (N, S, S, 3), in memory or mapped; maps: (N, 3, 4)."""

    images: np.ndarray
    maps: np.ndarray
    method: StainMethod

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Images of these rows, int (B,), as uint8 (B, S, S, 3)."""
        return restain(self.images[rows], self.maps[rows], self.method)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": by_place(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "images": from_place(state["images"])})
