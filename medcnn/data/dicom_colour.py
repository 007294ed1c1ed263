"""Colour frames of a DICOM object to RGB: palettes, RGB of any depth, every YBR form. DICOM PS3.3 C.7.6.3.1.2, C.7.9."""

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_color_lut

from medcnn.data.dicom_codecs import StoredFrame, stored_frame
from medcnn.data.dicom_elements import text_of
from medcnn.data.pixel_record import Cell

# The retired form with 16 to 235 for Y and 16 to 240 for the colours (CCIR 601-2).
PARTIAL = "YBR_PARTIAL_422"
FROM_PARTIAL = np.array([[1.1644, 0.0, 1.5960], [1.1644, -0.3917, -0.8129], [1.1644, 2.0173, 0.0]])


def colour_levels(dataset: pydicom.Dataset, frame: int) -> tuple[np.ndarray, StoredFrame, dict[str, Cell]]:
    """uint8 (H, W, 3) RGB, the frame as decoded, and its record. May raise Undecodable or any of pydicom's errors."""
    photometric = text_of(dataset, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        stored = stored_frame(dataset, frame)
        return _palette(dataset, stored.values), stored, {"colour_step": "palette", "voi_step": "none", "inverted": False}
    if photometric == PARTIAL:
        stored = _partial_frame(dataset, frame)
        colours = stored.values if stored.is_rgb else _from_partial(stored.values, int(dataset.BitsStored))
    else:
        stored = stored_frame(dataset, frame, to_rgb=True)
        colours = stored.values
    record: dict[str, Cell] = {"colour_step": "ybr" if photometric.startswith("YBR") else "none", "voi_step": "none", "inverted": False}
    return _eight_bits(colours, int(dataset.BitsStored)), stored, record


def _palette(dataset: pydicom.Dataset, indices: np.ndarray) -> np.ndarray:
    colours = np.asarray(apply_color_lut(indices, dataset))[..., :3]
    # Palettes that claim 16 bits but fill only the lower 8 are common.
    return _eight_bits(colours, 16 if colours.dtype.itemsize == 2 and colours.max(initial=0) > 255 else 8)


def _eight_bits(colours: np.ndarray, depth: int) -> np.ndarray:
    if depth == 8 or colours.dtype == np.uint8:
        return np.ascontiguousarray(colours.astype(np.uint8))
    return np.asarray(np.round(np.clip(colours / (2**depth - 1), 0, 1) * 255).astype(np.uint8))


def _partial_frame(dataset: pydicom.Dataset, frame: int) -> StoredFrame:
    """Laid out as YBR_FULL_422 is, of which alone pydicom knows the layout; nothing is converted."""
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    try:
        return stored_frame(dataset, frame)
    finally:
        dataset.PhotometricInterpretation = PARTIAL


def _from_partial(ybr: np.ndarray, depth: int) -> np.ndarray:
    scale = 2 ** (depth - 8)
    centred = ybr.astype(np.float64) / scale - np.array([16, 128, 128])
    return np.asarray(np.round(np.clip(centred @ FROM_PARTIAL.T, 0, 255) * ((2**depth - 1) / 255)).astype(ybr.dtype))
