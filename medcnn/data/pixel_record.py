"""What was done to an image's stored values until they were the grey or colour levels that a model sees: `pixels.parquet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medcnn.data.formats import ImageHeader

Cell = str | int | float | bool | None

# Column -> what it says; the steps stand in their order. Blank: not known, or the step does not exist for such an image.
COLUMNS = {
    "format": "File format, or NPZ, or phantom",
    "compression": "Transfer syntax of a DICOM file",
    "decoder": "Library that gave the stored values of a DICOM file",
    "n_frames": "Frames of the file",
    "photometric": "MONOCHROME1 (high is dark), MONOCHROME2, RGB, YBR_..., PALETTE COLOR; as stored",
    "channels_stored": "Samples of a pixel as stored: 1 or 3",
    "bits_allocated": "Bits of a sample's place",
    "bits_stored": "Bits of a sample that are used",
    "signed": "Stored values may be negative",
    "padding_fraction": "Share of pixels that are padding: left out of every statistic, shown black",
    "modality_step": "Stored to modality values: none, rescale, lut",
    "rescale_slope": "rescale: modality value = slope * stored + intercept",
    "rescale_intercept": "rescale: modality value = slope * stored + intercept",
    "unit": "Unit of the modality values, where it is one of the standard's: HU, OD, US, PCT, ...",
    "voi_step": "Modality values to grey levels: window (of the file), config_window, voi_lut, declared_range, percentiles; none for colour",
    "voi_function": "Window: LINEAR, LINEAR_EXACT, SIGMOID",
    "window_center": "Window (percentiles, declared_range: the range taken as one), in modality values",
    "window_width": "Window (percentiles, declared_range: the range taken as one), in modality values",
    "window_index": "Which of the file's windows, or lookup tables, was taken, from 0",
    "n_windows": "How many windows, or lookup tables, the file offers",
    "inverted": "High values were to be dark (MONOCHROME1, or presentation INVERSE) and were turned round, last",
    "colour_step": "How colours became RGB: none, palette, ybr",
    "pixel_aspect": "Height of a pixel over its width, as stored",
    "resampled": "Pixels were not square and were made so",
    "orientation": "Where rows and columns run to, in the standard's letters: L\\F is left and feet",
    "plane": "Slices: axial, coronal, sagittal, oblique",
}


def record_of(header: ImageHeader) -> dict[str, Cell]:
    """The row of `pixels.parquet` without its image_id: every one of COLUMNS, from header.record, else from the header itself.

    Files that are no DICOM: to_uint8 takes up to 15 bits at their word and 16 by percentiles. Raises KeyError for a
    column that is not listed: a defect of the reader.
    """
    unknown = sorted(set(header.record) - set(COLUMNS))
    if unknown:
        raise KeyError(f"{header.format}: the record has columns that COLUMNS does not list: {', '.join(unknown)}")
    plain: dict[str, Cell] = {
        "format": header.format,
        "n_frames": header.n_frames,
        "channels_stored": header.channels,
        "bits_stored": header.bit_depth,
    }
    if not header.record:
        grey_step = "percentiles" if header.bit_depth >= 16 else "declared_range"
        plain |= {"voi_step": grey_step if header.channels == 1 or header.bit_depth > 8 else "none", "inverted": False, "resampled": False}
    return {column: header.record.get(column, plain.get(column)) for column in COLUMNS}
