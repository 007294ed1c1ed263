"""Made-up pictures of some structure, and what a copy of one may go through."""

from collections.abc import Callable

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from medcnn.data.resemblance import SIDE, likeness_of


def picture(number: int, side: int = 128) -> np.ndarray:
    """Uint8 (side, side): blobs of several sizes, others for each number."""
    rng = np.random.default_rng(number)
    field = sum(size * gaussian_filter(rng.standard_normal((side, side)), size * side / 128) for size in (2, 4, 8, 16))
    field -= field.mean()
    return np.clip(128 + 45 * field / field.std(), 0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray) -> np.ndarray:
    """The picture after JPEG of quality 30."""
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_UNCHANGED)


def cropped(pixels: np.ndarray) -> np.ndarray:
    """The picture without 5% of each side, of which all of the height is lost below."""
    height, width = pixels.shape[:2]
    return pixels[: height - height // 20, width // 40 : width - width // 40]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left-right": lambda pixels: pixels[:, ::-1],
    "top-bottom": lambda pixels: pixels[::-1],
    "quarter turn": np.rot90,
    "half turn": lambda pixels: pixels[::-1, ::-1],
    "crop": cropped,
    "smaller": lambda pixels: cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "larger": lambda pixels: cv2.resize(pixels, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda pixels: np.clip(pixels * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda pixels: np.clip(pixels.astype(int) - 51, 0, 255).astype(np.uint8),
    "JPEG": compressed,
    "all": lambda pixels: compressed(np.clip(cropped(np.rot90(pixels[:, ::-1])) * 0.8, 0, 255).astype(np.uint8)),
}


def likeness(pixels: np.ndarray) -> bytes | None:
    """What traits.parquet has of these pixels."""
    return likeness_of(np.ascontiguousarray(pixels), 8)["likeness"]


def thumbnails(pictures: list[np.ndarray]) -> np.ndarray:
    """Uint8 (n, 32, 32)."""
    return np.stack([np.frombuffer(likeness(pixels) or bytes(SIDE**2), np.uint8).reshape(SIDE, SIDE) for pixels in pictures])
