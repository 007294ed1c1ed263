"""DICOM files: the data set, and its pixels as a viewer would first show them, with a record of what was done.

Nothing here quotes a value of the data set in a message: a name can stand in any element. pydicom's own warnings do
quote values, so they are silenced.
"""

import io
import logging
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medcnn.config_data import WindowChoice
from medcnn.data.dicom_codecs import DICOM_ERRORS, Undecodable, is_native, require_decoder, stored_frame, syntax_name
from medcnn.data.dicom_colour import PARTIAL, colour_levels
from medcnn.data.dicom_display import grey_levels
from medcnn.data.dicom_elements import known_uid, text_of, whole_of
from medcnn.data.dicom_geometry import NOT_SQUARE, orientation, pixel_aspect, plane, shown_size, with_square_pixels
from medcnn.data.formats import MAX_PIXELS, ImageHeader, UnreadableImage
from medcnn.data.images import MAX_FILE_BYTES, read_bytes
from medcnn.data.pixel_record import Cell

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation")
GREY = frozenset(["MONOCHROME1", "MONOCHROME2"])
COLOUR = frozenset(["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", PARTIAL, "PALETTE COLOR"])
DEFLATED = "1.2.840.10008.1.2.1.99"
PIECE_BYTES = 1 << 24
# Objects with pixels that are no picture of a patient: label masks, doses, computed maps, tiles of a slide.
NO_PICTURES = ("Segmentation", "RT Dose", "Parametric Map", "Whole Slide Microscopy", "Raw Data")


# ---------------------------------------------------------------- doors


def read_dicom(path: Path, frame: int = 0, *, window: WindowChoice = "first") -> np.ndarray:
    """Pixels of one frame as a viewer would first show it: uint8, (H, W) grey or (H, W, 3) RGB, square. Raises UnreadableImage.

    Grey: stored value, modality LUT or rescale, VOI LUT or window (which: see data.window; without any the declared
    range, or with more than 8 bits the 0.5th to 99.5th percentile), padding black, inverted last where the file says so:
    high is bright. Pixels that are not square are made square. Overlays are not drawn.
    """
    return decode_dicom(read_bytes(path), frame, where=path, window=window)[0]


def decode_dicom(data: bytes, frame: int, *, where: object, window: WindowChoice = "first") -> tuple[np.ndarray, ImageHeader]:
    """As read_dicom, for a file already in memory, with what its header says and, in header.record, what was done."""
    dataset = open_dataset(data, where)
    header = image_header(dataset, where)
    if not 0 <= frame < header.n_frames:
        raise UnreadableImage(where, "no_such_frame", f"frame {frame} was asked for, the object has {header.n_frames}")
    require_decoder(transfer_syntax(dataset, where), where)
    try:
        pixels, record = _levels(dataset, frame, header, window)
        stored_size = (int(dataset.Rows), int(dataset.Columns))
        if pixels.shape[:2] != stored_size:
            reason = f"the pixels are {pixels.shape[1]} x {pixels.shape[0]}, the header says {stored_size[1]} x {stored_size[0]}"
            raise UnreadableImage(where, "damaged", reason)
        pixels = with_square_pixels(pixels, dataset, frame)
    except UnreadableImage:
        raise
    except (*DICOM_ERRORS, MemoryError) as error:
        raise _unreadable(dataset, header, where, error) from None
    height, width = pixels.shape[:2]
    record["resampled"] = (height, width) != stored_size
    known = {"height": height, "width": width, "bit_depth": header.bit_depth, "channels": header.channels, "n_frames": header.n_frames}
    return pixels, ImageHeader(format="DICOM", record=record, **known)


def probe_dicom(data: bytes, *, where: object) -> ImageHeader:
    """What the data set says of its pixels, without decoding them. Raises UnreadableImage."""
    return image_header(open_dataset(data, where), where)


def _levels(dataset: pydicom.Dataset, frame: int, header: ImageHeader, window: WindowChoice) -> tuple[np.ndarray, dict[str, Cell]]:
    if header.channels == 1:
        stored = stored_frame(dataset, frame)
        pixels, steps = grey_levels(dataset, frame, stored.values, window)
    else:
        pixels, stored, steps = colour_levels(dataset, frame)
    aspect = pixel_aspect(dataset, frame)
    said: dict[str, Cell] = {
        "compression": syntax_name(UID(str(dataset.file_meta.TransferSyntaxUID))),
        "decoder": stored.decoder,
        "photometric": text_of(dataset, "PhotometricInterpretation"),
        "channels_stored": int(dataset.SamplesPerPixel),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.BitsStored),
        "signed": bool(int(dataset.PixelRepresentation)),
        "pixel_aspect": 1.0 if 1 / NOT_SQUARE <= aspect <= NOT_SQUARE else round(aspect, 4),
        "orientation": orientation(dataset),
        "plane": plane(dataset, frame),
    }
    return pixels, {**said, **steps}


# ---------------------------------------------------------------- the data set


def open_dataset(data: bytes, where: object) -> pydicom.Dataset:
    """Parse; a file without preamble or file meta is taken if what follows makes sense. Raises UnreadableImage."""
    _require_bounded(data, where)
    try:
        try:
            dataset: pydicom.Dataset = pydicom.dcmread(io.BytesIO(data))
        except InvalidDicomError:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            if not ("SOPClassUID" in dataset or ("Rows" in dataset and "PixelData" in dataset)):
                raise UnreadableImage(where, "not_dicom", "no DICOM preamble, and no data set that makes sense without one") from None
    except UnreadableImage:
        raise
    except (*DICOM_ERRORS, RecursionError) as error:
        raise UnreadableImage(where, "not_dicom", f"cannot be parsed as DICOM ({type(error).__name__})") from None
    return dataset


def _require_bounded(data: bytes, where: object) -> None:
    """A deflated data set of a megabyte may hold a terabyte of zeros: it is inflated piece by piece, and refused past MAX_FILE_BYTES."""
    if DEFLATED.encode() not in data[:2048] or data[132:136] != b"\x02\x00\x00\x00":
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # past the preamble and the file meta, whose length its first element tells
    inflater, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), data[start:], 0
    try:
        while rest and not inflater.eof:
            total += len(inflater.decompress(rest, PIECE_BYTES))
            rest = inflater.unconsumed_tail
            if total > MAX_FILE_BYTES:
                raise UnreadableImage(where, "too_large", f"inflates to more than {MAX_FILE_BYTES / 2**30:.0f} GiB")
    except zlib.error:
        raise UnreadableImage(where, "damaged", "its deflated data set is damaged") from None


def image_header(dataset: pydicom.Dataset, where: object) -> ImageHeader:
    """Size, depth and frames; raises UnreadableImage for what holds no picture or lacks a required element."""
    _require_picture(dataset, where)
    whole = {name: whole_of(dataset, name) for name in REQUIRED[:-1]}
    photometric = text_of(dataset, "PhotometricInterpretation")
    missing = [name for name, value in whole.items() if value is None] + ([] if photometric else ["PhotometricInterpretation"])
    if missing:
        raise UnreadableImage(where, "damaged", f"the required element {missing[0]} is missing or no number")
    if photometric not in GREY | COLOUR:
        raise UnreadableImage(where, "unsupported_pixels", f"its photometric interpretation is none of {', '.join(sorted(GREY | COLOUR))}")
    height, width, depth = (int(whole[name] or 0) for name in ("Rows", "Columns", "BitsStored"))
    if not 0 < height * width <= MAX_PIXELS:
        raise UnreadableImage(where, "too_large", f"{width} x {height} pixels; expected 1 to {MAX_PIXELS:,}")
    if not 1 <= depth <= int(whole["BitsAllocated"] or 0) <= 64:
        raise UnreadableImage(where, "damaged", "bits stored and bits allocated make no sense together")
    height, width = shown_size(dataset, height, width)
    channels = 1 if photometric in GREY else 3
    n_frames = max(1, whole_of(dataset, "NumberOfFrames") or 1)
    _require_bytes(dataset, n_frames, int(whole["Rows"] or 0) * int(whole["Columns"] or 0) * int(whole["BitsAllocated"] or 0), where)
    return ImageHeader(format="DICOM", height=height, width=width, bit_depth=max(8, depth), channels=channels, n_frames=n_frames)


def _require_bytes(dataset: pydicom.Dataset, n_frames: int, frame_bits: int, where: object) -> None:
    """A header may promise a billion frames: as many bytes as one sample a pixel needs (compressed: an item's head a frame) must be there."""
    n_bytes = len(dataset.get_item("PixelData").value)
    syntax = UID(text_of(getattr(dataset, "file_meta", None), "TransferSyntaxUID"))
    needed = n_frames * frame_bits // 8 if not syntax or is_native(syntax) else 8 * n_frames
    if n_bytes < needed:
        raise UnreadableImage(where, "truncated", "fewer pixels than the header says")


def _require_picture(dataset: pydicom.Dataset, where: object) -> None:
    meta = getattr(dataset, "file_meta", None)  # a data set that breaks off early may have lost its own SOP class
    name = known_uid(dataset, "SOPClassUID") or known_uid(meta, "MediaStorageSOPClassUID") or "an object of unknown kind"
    if any(word in name for word in NO_PICTURES):
        raise UnreadableImage(where, "not_an_image", f"{name}: pixels that are no picture of a patient")
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnreadableImage(where, "unsupported_pixels", f"{name}: floating point pixels")
    if "PixelData" in dataset:
        if not dataset.get_item("PixelData").value:
            raise UnreadableImage(where, "no_pixels", f"{name}: the pixel data is empty")
        return
    if "Rows" in dataset or "Image" in name:
        raise UnreadableImage(where, "no_pixels", f"{name} without pixel data; the file may be cut short")
    raise UnreadableImage(where, "not_an_image", f"{name}: holds no image")


def transfer_syntax(dataset: pydicom.Dataset, where: object) -> UID:
    """The transfer syntax; one that is not named is taken for uncompressed when the number of bytes is right. Raises UnreadableImage."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return UID(str(meta.TransferSyntaxUID))
    n_bytes = len(dataset.get_item("PixelData").value or b"")
    sizes = [int(whole_of(dataset, name) or 1) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")]
    expected = -(-int(np.prod(sizes, dtype=np.int64)) // 8)
    if n_bytes not in {expected, expected + expected % 2}:
        raise UnreadableImage(where, "no_decoder", "names no transfer syntax, and its pixels are not plain uncompressed ones")
    if meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _unreadable(dataset: pydicom.Dataset, header: ImageHeader, where: object, error: Exception | MemoryError) -> UnreadableImage:
    syntax = transfer_syntax(dataset, where)
    if isinstance(error, MemoryError):
        return UnreadableImage(where, "too_large", "its pixels do not fit into memory")
    if isinstance(error, Undecodable):
        tried = ", ".join(error.tried) or "nothing installed"
        reason = f"{syntax_name(syntax)}, {header.bit_depth} bits: {tried} cannot decode it; it is damaged or of a rare kind"
        return UnreadableImage(where, "damaged", reason)
    if isinstance(error, ValueError) and "than expected" in str(error):
        return UnreadableImage(where, "truncated", "fewer pixels than the header says")
    return UnreadableImage(where, "damaged", f"the pixels cannot be decoded ({type(error).__name__})")
