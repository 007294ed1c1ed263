"""How alike two pictures are when one may be the other cropped, resized, turned, mirrored, brightened or compressed: thumbnails and their score."""

from collections.abc import Mapping

import cv2
import numpy as np

SIDE = 32  # pixels of a thumbnail's side; 1,024 bytes an image
N_TURNS = 8
# Mean of two Fisher-transformed correlations (see `score_pairs`). Measured by benchmarks/copies.py: different patients' X-rays reach
# 2.1, different fields of histology 1.8, copies lie above 2.35 in 95% of each kind of change.
SAME_PICTURE = 2.3
_BLUR, _BACKGROUND = 0.7, 4.0  # pixels of the thumbnail, standard deviations of Gaussians
_MOST_CUT = 0.13  # share of a side by which the frames of two copies may differ
_LEAST_COVER = 0.25
_STEPS = ((SIDE // 2, 3), (SIDE, 3))  # (side in pixels, steps of alignment)
_FLAT = 2.0  # grey levels of 256 (of 10 bits where there are more): a picture that varies less (standard deviation) has nothing to compare


def likeness_of(pixels: np.ndarray, bit_depth: int = 8) -> Mapping[str, bytes | None]:
    """`likeness`: the picture squeezed to 32 x 32 grey values, row by row, stretched to 0-255; None for a picture of almost one shade.

    pixels: uint8 or uint16, (H, W) or (H, W, 3) RGB. bit_depth: of the stored values.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    fine = 3 * SIDE
    while min(grey.shape) >= 4 * fine:  # halving costs a tenth of any other reduction
        height, width = (length - length % 2 for length in grey.shape)
        grey = cv2.resize(grey[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    # Means over thrice as many pixels, then a blur: means alone leave an alias of fine texture that moves when the picture is cropped.
    is_small = min(grey.shape) < fine
    small: np.ndarray = cv2.resize(grey, (fine, fine), interpolation=cv2.INTER_LINEAR if is_small else cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT * 2.0 ** (min(max(bit_depth, 8), 10) - 8):
        return {"likeness": None}
    small = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.0), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low, high = float(small.min()), float(small.max())
    return {"likeness": np.rint((small - low) * (255 / (high - low))).astype(np.uint8).tobytes()}


def turn(pictures: np.ndarray, turns: np.ndarray | int) -> np.ndarray:
    """Each picture (n, S, S) in one of the 8 orientations of a square: bit 1 transposes, then bit 2 mirrors left-right, bit 4 top-bottom."""
    turns = np.broadcast_to(np.asarray(turns), len(pictures))
    turned = pictures.copy()
    for number in np.unique(turns):
        chosen = pictures[turns == number]
        chosen = chosen.swapaxes(1, 2) if number & 1 else chosen
        chosen = chosen[:, :, ::-1] if number & 2 else chosen
        turned[turns == number] = chosen[:, ::-1] if number & 4 else chosen
    return turned


def combine_turns() -> np.ndarray:
    """int64 (8, 8): [g, h] is the orientation r with turn(x, g) = turn(y, h) exactly when turn(x, r) = y."""
    square = np.arange(4.0).reshape(1, 2, 2)
    seen = {turn(square, number).tobytes(): number for number in range(N_TURNS)}
    undo = [next(back for back in range(N_TURNS) if np.array_equal(turn(turn(square, number), back), square)) for number in range(N_TURNS)]
    return np.array([[seen[turn(turn(square, g), undo[h]).tobytes()] for h in range(N_TURNS)] for g in range(N_TURNS)])


def score_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How surely each pair shows one picture: float64 (n,), SAME_PICTURE or more for a copy.

    first, second: thumbnails (n, 32, 32) in the same orientation. The first is moved and scaled along both axes until it correlates
    best with the second; where they overlap, and neither is at its darkest or brightest (there values may have been clipped), they are
    correlated once smoothed and once without their background too. The score is the mean of both in Fisher's z (doi:10.2307/2331838):
    the background is what X-rays of one pose share, and details alone are what strong compression takes away.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    fitted = align(first, second)
    moved, mask = _moved(first, second, fitted)
    smooth = [_smoothed(picture, mask, _BLUR) for picture in (moved, second)]
    detail = [picture - _smoothed(whole, mask, _BACKGROUND) for picture, whole in zip(smooth, (moved, second), strict=True)]
    z = [np.arctanh(np.clip(_correlation(one, other, mask), -0.999, 0.9995)) for one, other in (smooth, detail)]
    return np.asarray((z[0].astype(np.float64) + z[1]) / 2)


# ---------------------------------------------------------------- alignment


def align(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where each pixel of `second` lies in `first`: float32 (n, 4), shift and scale along x, then along y; coordinates from -0.5 to 0.5.

    first, second: float32 (n, 32, 32). Enhanced correlation coefficient (Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113), so
    brightness and contrast do not count, from half the size to full.
    """
    fitted = np.tile(np.array([0, 1, 0, 1], np.float32), (len(first), 1))
    for side, steps in _STEPS:
        a, b = (_shrunk(picture, side) for picture in (first, second))
        gradients = np.stack([a, *(slope * np.float32(side) for slope in np.gradient(a, axis=(2, 1)))], axis=1)
        for _ in range(steps):
            fitted = _improved(fitted, gradients, b)
    return fitted


def framed(pictures: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Each picture (n, S, S) as seen in its frame: float32 (n, S, S). frames: (n, 4), as `align` gives them."""
    across, _ = _resampling(frames[:, 0], frames[:, 1], pictures.shape[1])
    down, _ = _resampling(frames[:, 2], frames[:, 3], pictures.shape[1])
    seen: np.ndarray = down @ pictures.astype(np.float32) @ across.swapaxes(1, 2)
    return seen


def _shrunk(pictures: np.ndarray, side: int) -> np.ndarray:
    n, width, _ = pictures.shape
    step = width // side
    shrunk: np.ndarray = pictures.reshape(n, side, step, side, step).mean((2, 4))
    return shrunk


def _improved(fitted: np.ndarray, gradients: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One step of the ECC algorithm. gradients: (n, 3, S, S), the picture to move with its slopes along x and y."""
    n, side = target.shape[:2]
    across, in_x = _resampling(fitted[:, 0], fitted[:, 1], side)
    down, in_y = _resampling(fitted[:, 2], fitted[:, 3], side)
    picture, along_x, along_y = (down[:, None] @ gradients @ across.swapaxes(1, 2)[:, None]).swapaxes(0, 1)
    mask = (in_y[:, :, None] & in_x[:, None, :]).astype(np.float32)
    count = mask.sum((1, 2))
    u = _places(side)
    slopes = np.stack([along_x, along_x * u, along_y, along_y * u[:, None]], axis=1)
    every = np.concatenate([slopes, picture[:, None], target[:, None]], axis=1) * mask[:, None]
    every -= mask[:, None] * (every.sum((2, 3)) / count[:, None])[:, :, None, None]
    every = every.reshape(n, 6, -1)
    products = every @ every.swapaxes(1, 2)  # all inner products that the step needs
    normal, toward = products[:, :4, :4], products[:, :4, 4:]
    ridge = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-6
    solved = np.linalg.solve(normal + np.eye(4, dtype=np.float32) * ridge[:, None, None], toward)
    own = products[:, 4, 4] - (toward[:, :, 0] * solved[:, :, 0]).sum(1)
    shared = products[:, 4, 5] - (toward[:, :, 1] * solved[:, :, 0]).sum(1)
    fallback = np.sqrt(products[:, 4, 4] / np.maximum(products[:, 5, 5], 1e-6))
    gain = np.where(shared > 1e-6, own / np.where(shared > 1e-6, shared, 1), fallback)
    moved = fitted + gain[:, None] * solved[:, :, 1] - solved[:, :, 0]
    low, high = np.array([-_MOST_CUT, 1 - _MOST_CUT] * 2), np.array([_MOST_CUT, 1 + _MOST_CUT] * 2)
    return np.asarray(np.clip(moved, low, high), dtype=np.float32)


def _places(side: int) -> np.ndarray:
    return ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)


def _resampling(shift: np.ndarray, scale: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cubic interpolation along one axis as matrices, float32 (n, S, S), and which of the places lie inside, bool (n, S). doi:10.1109/TASSP.1981.1163711."""
    place = (scale[:, None] * _places(side) + shift[:, None] + 0.5) * side - 0.5
    distance = np.abs(np.clip(place, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    matrix = np.where(distance < 1, near, np.where(distance < 2, far, 0)).astype(np.float32)
    return matrix / matrix.sum(2, keepdims=True), (place >= -0.5) & (place <= side - 0.5)


# ---------------------------------------------------------------- comparison


def _moved(first: np.ndarray, second: np.ndarray, fitted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures as the second frame them; and where to compare, 0 or 1, float32 (n, S, S)."""
    side = first.shape[1]
    across, in_x = _resampling(fitted[:, 0], fitted[:, 1], side)
    down, in_y = _resampling(fitted[:, 2], fitted[:, 3], side)
    across = across.swapaxes(1, 2)
    inside = (in_y[:, :, None] & in_x[:, None, :]).astype(np.float32)
    mask = inside * _unclipped(second) * (down @ _unclipped(first) @ across > 0.95)
    covers = mask.mean((1, 2)) >= _LEAST_COVER
    return down @ first @ across, np.where(covers[:, None, None], mask, inside)


def _unclipped(pictures: np.ndarray) -> np.ndarray:
    low, high = pictures.min((1, 2), keepdims=True), pictures.max((1, 2), keepdims=True)
    return np.asarray((pictures > low + 1.5) & (pictures < high - 1.5), dtype=np.float32)


def _smoothed(pictures: np.ndarray, mask: np.ndarray, width: float) -> np.ndarray:
    """Gaussian means over what the mask leaves, so that the border of the overlap is treated alike in both pictures."""
    steps = np.arange(pictures.shape[1], dtype=np.float32)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
    smoothed: np.ndarray = (kernel @ (pictures * mask) @ kernel) / np.maximum(kernel @ mask @ kernel, 1e-6)
    return smoothed


def _correlation(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    count = np.maximum(mask.sum((1, 2)), 1)
    first, second = ((picture - ((picture * mask).sum((1, 2)) / count)[:, None, None]) * mask for picture in (first, second))
    norms = np.sqrt((first**2).sum((1, 2)) * (second**2).sum((1, 2)))
    correlation: np.ndarray = np.where(norms > 1e-6, (first * second).sum((1, 2)) / np.maximum(norms, 1e-6), 0)
    return correlation
