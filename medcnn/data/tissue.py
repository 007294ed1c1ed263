"""Where on a slide there is tissue, ink and a fold: three masks at a few microns per pixel, by colour alone.

The numbers below were set by looking at the masks of real slides, laid over them (benchmarks/results/slides.md).
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Field = Literal["bright", "dark"]

MASK_MPP = 8.0  # microns per mask pixel, where tiles are 64 um or wider
MASK_PIXELS_PER_TILE = 8  # smaller tiles get a finer mask
MOST_MASK_PIXELS = 25_000_000
SMALLEST_PIECE_UM2 = 10_000.0  # specks of less are dirt; holes of less belong to the tissue
DARK_FIELD_MEDIAN = 64  # a slide whose median brightness is below is taken for fluorescence
SATURATION_RANGE = (10, 26)  # Otsu's threshold is held within: a slide full of tissue would be split into pale and dark tissue
PADDING = 12  # no channel above: beyond the scanned area
GLOW_UM = 24.0  # between neighbouring nuclei
GLOW_APART = 23.0  # tissue glows 1.65 times as much as what is around it, or is not told from it
INK_AT_LEAST_UM2 = 40_000.0  # smaller spots of an ink's colour are pigment or a nucleus
FOLD_TIMES, FOLD_UM, FOLD_AT_LEAST_UM2 = 2.2, 12.0, 10_000.0
GLASS = 245.0  # brightness of glass, about


@dataclass(frozen=True)
class TissueMap:
    """bool (h, w) masks of a slide's scanned area. field: bright (stained, transmitted light) or dark (fluorescence).

    threshold: of saturation (bright) or of the logarithm of brightness (dark), 0 to 255. mpp: microns per mask pixel (y, x).
    """

    tissue: np.ndarray
    ink: np.ndarray
    fold: np.ndarray
    field: Field
    threshold: int
    mpp: tuple[float, float]


def mask_mpp(tile_um: float, area_um2: float) -> float:
    """Microns per mask pixel for tiles of a width: MASK_MPP, finer for small tiles, coarser where the mask would be too large."""
    finest = (area_um2 / MOST_MASK_PIXELS) ** 0.5
    return float(max(finest, min(MASK_MPP, tile_um / MASK_PIXELS_PER_TILE)))


def tissue_map(overview: np.ndarray, mpp: tuple[float, float], *, find_ink: bool = True) -> TissueMap:
    """Masks of an overview, uint8 (h, w, 3) RGB.

    Bright field: tissue is what is more saturated than Otsu's threshold (Otsu 1979, doi:10.1109/TSMC.1979.4310076) held
    within SATURATION_RANGE, is no ink and no padding. Dark field: what glows more than Otsu's threshold, in decades and
    averaged over nuclei. mpp: microns per pixel (y, x). find_ink: False where blue and green are stains (trichrome).
    """
    field: Field = "dark" if float(np.median(overview.max(axis=2))) < DARK_FIELD_MEDIAN else "bright"
    pixel_um2 = mpp[0] * mpp[1]
    nothing = np.zeros(overview.shape[:2], bool)
    if field == "dark":
        glow = _glow(overview, pixel_um2)
        threshold = _otsu(glow)
        above = glow > threshold
        if not above.any() or float(glow[above].mean()) - float(glow[~above].mean()) < GLOW_APART:
            return TissueMap(nothing, nothing, nothing, field, threshold, mpp)  # one shade: nothing stands out from the dark
        return TissueMap(_tidied(above, pixel_um2), nothing, nothing, field, threshold, mpp)
    padding = overview.max(axis=2) <= PADDING
    ink = _ink_spots(overview, pixel_um2) & ~padding if find_ink else nothing
    saturation = cv2.medianBlur(_saturation(overview), 5)
    usable = ~(padding | ink)
    otsu = _otsu(saturation[usable]) if usable.any() else 0
    threshold = int(np.clip(otsu, *SATURATION_RANGE))
    tissue = _tidied((saturation > threshold) & usable, pixel_um2) & usable
    return TissueMap(tissue, ink, _folds(overview, tissue, pixel_um2), field, threshold, mpp)


def shares(mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Share of each box that is True, float64 (n,). boxes: float (n, 4) as x, y, width, height in mask pixels.

    Boxes are rounded to whole mask pixels, one at least; what lies outside of the mask counts as False.
    """
    padded = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(mask, axis=0), axis=1, out=padded[1:, 1:])
    corner = np.round(boxes[:, :2]).astype(int)
    size = np.maximum(1, np.round(boxes[:, :2] + boxes[:, 2:]).astype(int) - corner)
    limit = np.array([mask.shape[1], mask.shape[0]])
    (left, top), (right, bottom) = np.clip(corner, 0, limit).T, np.clip(corner + size, 0, limit).T
    inside = padded[bottom, right] - padded[top, right] - padded[bottom, left] + padded[top, left]
    share: np.ndarray = inside / size.prod(axis=1)
    return share


# ---------------------------------------------------------------- ink


def is_ink(pixels: np.ndarray) -> np.ndarray:
    """bool (h, w): pixels of uint8 (h, w, 3) RGB whose colour is a marker pen's and no stain's of haematoxylin, eosin or DAB.

    Green to cyan of any strength; blue and red stronger than stains are; black without colour.
    """
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hue, saturation, value = (hsv[..., channel].astype(np.int16) for channel in range(3))  # hue: 0 to 179
    chroma = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    green = (hue >= 35) & (hue < 100) & (saturation > 45) & (chroma > 20)
    blue = (hue >= 100) & (hue < 127) & (saturation > 140) & (chroma > 50)
    red = ((hue < 4) | (hue > 176)) & (saturation > 190) & (value > 110)
    black = (value < 70) & (chroma < 30)
    return np.asarray(green | blue | red | black)


def _ink_spots(overview: np.ndarray, pixel_um2: float) -> np.ndarray:
    spots = _without_small(cv2.medianBlur(is_ink(overview).astype(np.uint8), 3) > 0, INK_AT_LEAST_UM2 / pixel_um2)
    # A stroke fades towards its rim, where its colour is no longer told from the tissue's.
    return np.asarray(cv2.dilate(spots.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


# ---------------------------------------------------------------- folds


def _folds(overview: np.ndarray, tissue: np.ndarray, pixel_um2: float) -> np.ndarray:
    """A fold is three layers thick, and absorbance adds up (Beer and Lambert): FOLD_TIMES the median absorbance of the slide's tissue.

    Averaged over FOLD_UM, which nuclei are smaller than and folds are not. Two layers are not told from dense tissue, which
    can absorb as much: where a slide holds some, the mask holds it too. Saturation minus brightness (Kothari et al. 2013,
    doi:10.1117/12.2007858) found no fold painted on real slides.
    """
    if not tissue.any():
        return np.zeros_like(tissue)
    absorbance = -np.log(np.clip(overview.astype(np.float32), 1, GLASS) / GLASS).mean(axis=2)
    soft = cv2.GaussianBlur(absorbance, (0, 0), FOLD_UM / pixel_um2**0.5)
    return _without_small(tissue & (soft > FOLD_TIMES * float(np.median(soft[tissue]))), FOLD_AT_LEAST_UM2 / pixel_um2)


# ---------------------------------------------------------------- parts


def _glow(overview: np.ndarray, pixel_um2: float) -> np.ndarray:
    """uint8: logarithm of the brightest channel, averaged over GLOW_UM: stained nuclei are points, and decades apart."""
    soft = cv2.GaussianBlur(overview.max(axis=2).astype(np.float32), (0, 0), max(1.0, GLOW_UM / pixel_um2**0.5))
    return np.asarray(np.round(np.log1p(soft) * (255 / np.log(256))).astype(np.uint8))


def _saturation(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1])


def _otsu(values: np.ndarray) -> int:
    return int(cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0])


def _tidied(mask: np.ndarray, pixel_um2: float) -> np.ndarray:
    """Small gaps closed, specks removed, small holes filled."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    kept = _without_small(closed, SMALLEST_PIECE_UM2 / pixel_um2)
    return ~_without_small(~kept, SMALLEST_PIECE_UM2 / pixel_um2)


def _without_small(mask: np.ndarray, n_pixels: float) -> np.ndarray:
    """The mask without pieces (4-connected) of fewer than n_pixels."""
    n, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    large = facts[:, cv2.CC_STAT_AREA] >= n_pixels
    large[0] = False
    return np.asarray(large[labels]) if n > 1 else np.zeros_like(mask)
