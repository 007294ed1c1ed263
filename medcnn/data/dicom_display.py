"""Stored grey values of a DICOM frame to what a viewer would first show, as uint8, with a record of every step.

Order (DICOM PS3.3 C.7.6.3, C.11.1, C.11.2, C.11.6; PS3.4 N.2): stored value, modality LUT or rescale, VOI LUT or window,
inversion last. Padding takes no part in any of it and is shown black.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pydicom

from medcnn.config_data import WindowChoice
from medcnn.data.dicom_elements import frame_item, numbers_of, text_of
from medcnn.data.images import HIGH_PERCENTILE, LOW_PERCENTILE
from medcnn.data.pixel_record import Cell

Transform = Callable[[np.ndarray], np.ndarray]
UNITS = frozenset(["OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"])  # PS3.3 C.11.1.1.2
FUNCTIONS = frozenset(["LINEAR", "LINEAR_EXACT", "SIGMOID"])


@dataclass(frozen=True)
class Step:
    """One step of the way: a transform of arrays, and its columns of the record."""

    apply: Transform
    record: dict[str, Cell]


@dataclass(frozen=True)
class Window:
    """A linear or sigmoid window, or a lookup table (then width is the number of its entries)."""

    step: Step
    width: float


def grey_levels(dataset: pydicom.Dataset, frame: int, stored: np.ndarray, window: WindowChoice) -> tuple[np.ndarray, dict[str, Cell]]:
    """uint8 (H, W), high is bright, of the frame's stored values (H, W), integers; and its record.

    May raise any of pydicom's errors.
    """
    padding = padding_mask(dataset, stored)
    modality, lut_bits = _modality(dataset, frame)
    voi = _voi(dataset, frame, window)
    if voi is None:
        inner = stored if padding is None else stored[~padding]
        declared = window != "percentiles" and (lut_bits or int(dataset.BitsStored)) <= 8
        voi = _declared_range(dataset, modality, lut_bits) if declared else _percentiles(modality, inner)
    inverted = is_inverted(dataset)

    def show(values: np.ndarray) -> np.ndarray:
        shown = voi.apply(modality.apply(values))
        return np.round((1 - shown if inverted else shown) * 255).astype(np.uint8)

    pixels = _looked_up_or_computed(stored, show)
    if padding is not None:
        pixels[padding] = 0
    fraction = 0.0 if padding is None else float(padding.mean())
    return pixels, {**modality.record, **voi.record, "inverted": inverted, "padding_fraction": fraction}


def is_inverted(dataset: pydicom.Dataset) -> bool:
    """True when high values are to be dark: a presentation LUT shape says so outright, else MONOCHROME1 does. One of both inverts once."""
    shape = text_of(dataset, "PresentationLUTShape").upper()
    return shape == "INVERSE" if shape in {"IDENTITY", "INVERSE"} else text_of(dataset, "PhotometricInterpretation") == "MONOCHROME1"


def _looked_up_or_computed(stored: np.ndarray, show: Transform) -> np.ndarray:
    if stored.dtype.itemsize > 2:
        return show(stored)
    # Every possible value once, then a lookup: exact, and faster than millions of floats.
    limits = np.iinfo(stored.dtype)
    table = show(np.arange(limits.min, limits.max + 1))
    return np.asarray(table[stored.astype(np.int32) - limits.min])


def padding_mask(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray | None:
    """True where a pixel is padding, or None. The value may be written signed or unsigned: compared modulo the sample's size."""
    first = numbers_of(dataset, "PixelPaddingValue")
    if not first:
        return None
    last = numbers_of(dataset, "PixelPaddingRangeLimit") or first
    span = 2 ** (8 * stored.dtype.itemsize)
    limits = np.iinfo(stored.dtype)
    wrapped = sorted(
        int(value) - span if value > limits.max else int(value) + span if value < limits.min else int(value)
        for value in (first[0], last[0])
    )
    mask = (stored >= wrapped[0]) & (stored <= wrapped[1])
    return mask if mask.any() else None


# ---------------------------------------------------------------- stored to modality values


def _modality(dataset: pydicom.Dataset, frame: int) -> tuple[Step, int | None]:
    """Stored value to modality value (Hounsfield units, ...); and the bits of a modality LUT, if it is one."""
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        table, first, bits = _lut(item, _is_signed(dataset))
        record: dict[str, Cell] = {"modality_step": "lut", "unit": _unit(item, "ModalityLUTType")}
        return Step(lambda values: _looked_up(values, table, first), record), bits
    item = frame_item(dataset, frame, "PixelValueTransformationSequence")
    slope, intercept = (numbers_of(item, "RescaleSlope") or [1.0])[0] or 1.0, (numbers_of(item, "RescaleIntercept") or [0.0])[0]
    step = "none" if (slope, intercept) == (1.0, 0.0) else "rescale"
    record = {"modality_step": step, "rescale_slope": slope, "rescale_intercept": intercept, "unit": _unit(item, "RescaleType")}
    return Step(lambda values: values * slope + intercept, record), None


def _unit(item: pydicom.Dataset, keyword: str) -> str | None:
    unit = text_of(item, keyword).upper()
    return unit if unit in UNITS else None


# ---------------------------------------------------------------- modality values to 0..1


def _voi(dataset: pydicom.Dataset, frame: int, choice: WindowChoice) -> Step | None:
    """Modality value to 0..1 by the window or table that was chosen; None when the file has none that the standard allows."""
    if choice == "percentiles":
        return None
    if not isinstance(choice, str):
        centre, width = choice
        return Step(_ramp(centre, width, "LINEAR"), _window_record("config_window", "LINEAR", (centre, width), -1, 0))
    item = frame_item(dataset, frame, "FrameVOILUTSequence")
    tables, windows = _tables(item, _is_signed(dataset)), _windows(item)
    if choice in {"widest", "narrowest"} and windows:
        pick = max if choice == "widest" else min
        return pick(windows, key=lambda window: window.width).step
    offered = tables or windows
    return (offered[-1] if choice == "last" else offered[0]).step if offered else None


def _tables(item: pydicom.Dataset, signed: bool) -> list[Window]:
    luts = [_lut(entry, signed) for entry in item.get("VOILUTSequence") or ()]
    return [_table(lut, index, len(luts)) for index, lut in enumerate(luts)]


def _table(lut: tuple[np.ndarray, int, int], index: int, n_tables: int) -> Window:
    table, first, bits = lut
    record = _window_record("voi_lut", None, (first + len(table) / 2, float(len(table))), index, n_tables)
    return Window(Step(lambda values: _looked_up(values, table, first) / (2.0**bits - 1), record), float(len(table)))


def _windows(item: pydicom.Dataset) -> list[Window]:
    """Those windows that the standard allows: a width of 1 or more, for LINEAR_EXACT and SIGMOID over 0."""
    centres, widths = numbers_of(item, "WindowCenter"), numbers_of(item, "WindowWidth")
    said = text_of(item, "VOILUTFunction").upper()
    function = said if said in FUNCTIONS else "LINEAR"
    smallest = 1 if function == "LINEAR" else 1e-9
    pairs = list(zip(centres, widths, strict=False))
    return [
        Window(Step(_ramp(centre, width, function), _window_record("window", function, (centre, width), index, len(pairs))), width)
        for index, (centre, width) in enumerate(pairs)
        if width >= smallest
    ]


def _ramp(centre: float, width: float, function: str) -> Transform:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), to 0..1."""
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return lambda values: (values > centre - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _declared_range(dataset: pydicom.Dataset, modality: Step, lut_bits: int | None) -> Step:
    """Without window, up to 8 bits: the range that the bits declare becomes 0..1."""
    bits = lut_bits or int(dataset.BitsStored)
    start = -(2 ** (bits - 1)) if dataset.PixelRepresentation and lut_bits is None else 0
    ends = np.array([start, start + 2**bits - 1])
    return _span(ends if lut_bits else modality.apply(ends), "declared_range")


def _percentiles(modality: Step, stored: np.ndarray) -> Step:
    """Deeper images rarely use their range up, and a viewer that has no window takes one from the image."""
    values = modality.apply(stored.astype(np.int64)) if stored.size else np.zeros(1)
    return _span(np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE], method="inverted_cdf"), "percentiles")


def _span(ends: np.ndarray, kind: str) -> Step:
    low, high = float(ends.min()), float(ends.max())
    record = _window_record(kind, None, ((low + high) / 2, high - low), None, 0)
    return Step(lambda values: np.clip((values - low) / max(high - low, 1e-9), 0, 1), record)


def _window_record(kind: str, function: str | None, window: tuple[float, float], index: int | None, n_windows: int) -> dict[str, Cell]:
    return {
        "voi_step": kind,
        "voi_function": function,
        "window_center": float(window[0]),
        "window_width": float(window[1]),
        "window_index": index,
        "n_windows": n_windows,
    }


# ---------------------------------------------------------------- lookup tables


def _is_signed(dataset: pydicom.Dataset) -> bool:
    return bool(int(dataset.PixelRepresentation))


def _lut(item: pydicom.Dataset, signed: bool) -> tuple[np.ndarray, int, int]:
    """Table, first mapped value, bits of an entry. PS3.3 C.11.1.1, C.11.2.1.1. signed: a first value over 32767 is a negative one."""
    n, first, bits = (int(value) for value in item.LUTDescriptor)
    n, bits = n or 65536, bits if 1 <= bits <= 16 else 16
    first -= 65536 if signed and first > 32767 else 0
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) == n else np.uint16)
    table = np.asarray(data).astype(np.int64) & 0xFFFF
    if len(table) < n:
        raise ValueError("a lookup table shorter than it says")
    return np.minimum(table[:n], 2**bits - 1), first, bits


def _looked_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    return table[np.clip(np.round(values).astype(np.int64) - first, 0, len(table) - 1)].astype(np.float64)
