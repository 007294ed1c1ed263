"""Stored DICOM values to what a viewer would first show, as uint8. DICOM PS3.3 C.7.6.3, C.11.1, C.11.2; PS3.4 N.2."""

from collections.abc import Callable, Sequence

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from medcnn.data.images import HIGH_PERCENTILE, LOW_PERCENTILE


def grey_pixels(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """One grey frame as uint8 (H, W), high is bright. May raise any of pydicom's errors."""
    stored = np.asarray(pixel_array(dataset, index=frame, raw=True))
    padding = _padding(dataset, stored)
    show = _display(dataset, frame, stored, padding)
    if stored.dtype.itemsize <= 2:  # every possible value once, then a lookup: exact, and faster than millions of floats
        limits = np.iinfo(stored.dtype)
        table = show(np.arange(limits.min, limits.max + 1))
        pixels = np.asarray(table[stored.astype(np.int32) - limits.min])
    else:
        pixels = show(stored)
    if padding is not None:
        pixels[padding] = 0
    return pixels


def colour_pixels(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """One colour or palette frame as uint8 (H, W, 3) RGB. May raise any of pydicom's errors."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        indices = np.asarray(pixel_array(dataset, index=frame, raw=True))
        colours = np.asarray(apply_color_lut(indices, dataset))[..., :3]
        # Palettes that claim 16 bits but fill only the lower 8 are common.
        depth = 16 if colours.dtype.itemsize == 2 and colours.max(initial=0) > 255 else 8
    else:
        colours = np.asarray(pixel_array(dataset, index=frame, raw=False))
        depth = int(dataset.BitsStored)
    if depth == 8:
        return np.ascontiguousarray(colours.astype(np.uint8))
    return np.asarray(np.round(np.clip(colours / (2**depth - 1), 0, 1) * 255).astype(np.uint8))


def frame_item(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Where attributes of a frame stand: in the frame's or the shared functional group of an enhanced object, else in the data set."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups) or ()
        if index < len(items) and items[index].get(sequence):
            found: pydicom.Dataset = items[index][sequence][0]
            return found
    return dataset


def numbers_of(dataset: pydicom.Dataset, keyword: str) -> list[float]:
    """The numbers of an element; none when it is absent or not all of them are finite numbers."""
    try:
        value = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [] if value in (None, "") else [value]
        numbers = [float(item) for item in values]
    except (ValueError, TypeError, OverflowError):
        return []
    return numbers if np.isfinite(numbers).all() else []


# ---------------------------------------------------------------- grey


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """True where a pixel is padding, or None. The value may be written signed or unsigned: compared modulo the sample's size."""
    first = numbers_of(dataset, "PixelPaddingValue")
    if not first:
        return None
    last = numbers_of(dataset, "PixelPaddingRangeLimit") or first
    span = 2 ** (8 * stored.dtype.itemsize)
    wrapped = sorted(int(value) - span if value > np.iinfo(stored.dtype).max else int(value) for value in (first[0], last[0]))
    mask = (stored >= wrapped[0]) & (stored <= wrapped[1])
    return mask if mask.any() else None


def _display(dataset: pydicom.Dataset, frame: int, stored: np.ndarray, padding: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """Stored values to uint8."""
    modality, lut_bits = _modality(dataset, frame)
    voi = _voi(dataset, frame) or _full_range(dataset, modality, lut_bits, stored if padding is None else stored[~padding])
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"

    def show(values: np.ndarray) -> np.ndarray:
        shown = voi(modality(values))
        return np.round((1 - shown if inverted else shown) * 255).astype(np.uint8)

    return show


def _modality(dataset: pydicom.Dataset, frame: int) -> tuple[Callable[[np.ndarray], np.ndarray], int | None]:
    """Stored value to modality value (Hounsfield units, ...); and the bits of a modality LUT, if it is one."""
    if dataset.get("ModalityLUTSequence"):
        table, first, bits = _lut(dataset.ModalityLUTSequence[0])
        return lambda values: _looked_up(values, table, first), bits
    item = frame_item(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = numbers_of(item, "RescaleSlope") or [1.0], numbers_of(item, "RescaleIntercept") or [0.0]
    return lambda values: values * (slope[0] or 1.0) + intercept[0], None


def _voi(dataset: pydicom.Dataset, frame: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Modality value to 0..1, by the VOI LUT or the first window; None when there is neither."""
    item = frame_item(dataset, frame, "FrameVOILUTSequence")
    if item.get("VOILUTSequence"):
        table, first, bits = _lut(item.VOILUTSequence[0])
        return lambda values: _looked_up(values, table, first) / (2.0**bits - 1)
    centres, widths = numbers_of(item, "WindowCenter"), numbers_of(item, "WindowWidth")
    function = str(item.get("VOILUTFunction") or "LINEAR").strip().upper()
    if not centres or not widths or widths[0] < (1 if function == "LINEAR" else 1e-9):
        return None  # the standard forbids such a width
    centre, width = centres[0], widths[0]
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return lambda values: (values > centre - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _full_range(
    dataset: pydicom.Dataset, modality: Callable[[np.ndarray], np.ndarray], lut_bits: int | None, stored: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Without VOI: the declared range to 0..1 up to 8 bits; deeper ones are rarely used up, so there the percentile window."""
    bits = lut_bits or int(dataset.BitsStored)
    if bits <= 8:
        start = -(2 ** (bits - 1)) if dataset.PixelRepresentation and lut_bits is None else 0
        ends = np.array([start, start + 2**bits - 1])
        ends = ends if lut_bits else modality(ends)
    else:
        values = modality(stored.astype(np.int64)) if stored.size else np.zeros(1)
        ends = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE], method="inverted_cdf")
    low, high = float(ends.min()), float(ends.max())
    return lambda values: np.clip((values - low) / max(high - low, 1e-9), 0, 1)


def _lut(item: pydicom.Dataset) -> tuple[np.ndarray, int, int]:
    """Table, first mapped value, bits of an entry."""
    n, first, bits = (int(value) for value in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) == (n or 65536) else np.uint16)
    table = np.asarray(data).astype(np.int64) & 0xFFFF
    if len(table) < (n or 65536):
        raise ValueError("a lookup table shorter than it says")
    return table[: n or 65536], first, bits


def _looked_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    return table[np.clip(np.round(values).astype(np.int64) - first, 0, len(table) - 1)].astype(np.float64)
