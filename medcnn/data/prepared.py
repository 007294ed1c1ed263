"""The one preprocessing: a decoded image to the square, 8-bit pixels that models see, for training, prediction and export alike."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from medcnn.data.images import WHOLE, Reading, decode_place, to_uint8
from medcnn.errors import InputError
from medcnn.plan import ImagePlan

KEPT = 2  # a reduced decode leaves at least this many times the pixels that are wanted: averaging them still hides its own filter

cv2.setNumThreads(1)  # work is spread over images; threads inside one small image cost more than they bring


def prepare_row(path: str | Path, frame: int, plan: ImagePlan, *, reading: Reading = WHOLE) -> np.ndarray:
    """Decode one row of a manifest and prepare it: uint8 (size_px, size_px, channels). Reads files as `reading` says, JPEGs reduced
    where the plan allows. Raises UnreadableImage.
    """
    pixels, header = decode_place(str(path), frame, dataclasses.replace(reading, keep_px=kept_px(plan)))
    return prepare_image(pixels, plan, bit_depth=header.bit_depth, whole_px=(header.height, header.width))


def prepare_image(pixels: np.ndarray, plan: ImagePlan, *, bit_depth: int = 16, whole_px: tuple[int, int] | None = None) -> np.ndarray:
    """Bring one decoded image to the model's size and channels.

    pixels: uint8 or uint16 (H, W), (H, W, 1) or (H, W, 3) RGB, any size; uint16 becomes uint8 by images.to_uint8 with
    `bit_depth`. Returns uint8 (size_px, size_px, channels), C-contiguous. Shrinks by area averaging and enlarges by cubic interpolation, each axis as it needs. pad: the long side fits,
    the rest is 0 (black, the background once polarity is mended); crop: the centred square; stretch: aspect ignored.
    whole_px: height and width of the image that a reduced decode was made from, whose proportions count; default: those of `pixels`.
    Raises InputError for any other dtype or shape.
    """
    if pixels.size == 0 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in {1, 3})):
        raise InputError(f"pixels: expected shape (H, W) or (H, W, 3), got {pixels.shape}")
    pixels = _as_few_channels(to_uint8(pixels, bit_depth), plan.channels)
    height, width = pixels.shape[:2]
    size = plan.size_px
    if plan.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    if plan.fit != "pad":
        return _with_channels(_resized(pixels, size, size), plan.channels)
    height, width = whole_px or (height, width)
    scale = size / max(height, width)
    inner = _resized(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    canvas = np.zeros((size, size, plan.channels), np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = _with_channels(inner, plan.channels)
    return canvas


def kept_px(plan: ImagePlan) -> tuple[int, int] | None:
    """What a reduced decode must leave of an image, as images.Reading.keep_px takes it; None where the plan wants every pixel decoded."""
    if plan.decode == "full":
        return None
    # crop and stretch shrink the shorter side to size_px, pad the longer one
    return (1, KEPT * plan.size_px) if plan.fit == "pad" else (KEPT * plan.size_px, KEPT * plan.size_px)


def _as_few_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) where that is all there is or all that is wanted: luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); else (H, W, 3)."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels[:, :, 0])
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 and channels == 1 else pixels


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, channels): grey becomes colour after the resize, which then costs a third."""
    if pixels.ndim == 2 and channels == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(pixels).reshape(*pixels.shape[:2], channels)


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average on the axes that shrink, then cubic on those that grow."""
    small = (min(height, pixels.shape[0]), min(width, pixels.shape[1]))
    if small != pixels.shape[:2]:
        pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)
    return pixels
