"""DICOM files: the data set, the few facts of its header that may leave it, and its pixels as a viewer would show them.

Nothing here quotes a value of the data set in a message: a name can stand in any element. pydicom's own warnings do
quote values, so they are silenced.
"""

import io
import logging
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

from medcnn.data.dicom_display import colour_pixels, frame_item, grey_pixels, numbers_of
from medcnn.data.formats import MAX_PIXELS, ImageHeader, UnreadableImage
from medcnn.data.images import read_bytes
from medcnn.data.pseudonyms import pseudonym

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

# What malformed elements and codecs raise; their texts may quote the data set and are never shown.
DICOM_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    OverflowError,
    struct.error,
    ArithmeticError,
    AssertionError,
)
REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation")
GREY, COLOUR = {"MONOCHROME1", "MONOCHROME2"}, {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"}
# Objects with pixels that are no picture of a patient: label masks, doses, computed maps, tiles of a slide.
NO_PICTURES = ("Segmentation", "RT Dose", "Parametric Map", "Whole Slide Microscopy", "Raw Data")

# The words that may leave a data set; anything else in these elements is not repeated.
MODALITIES = frozenset(["AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CR", "CT", "DG", "DX", "ECG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OT", "PLAN", "PR", "PT", "PX", "REG", "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TG", "US", "VA", "XA", "XC"])  # fmt: skip
VIEWS = frozenset(
    [
        "AP",
        "PA",
        "LL",
        "RL",
        "LLD",
        "RLD",
        "LLO",
        "RLO",
        "LAT",
        "LATERAL",
        "CC",
        "MLO",
        "ML",
        "LM",
        "LMO",
        "FB",
        "SIO",
        "XCC",
        "XCCL",
        "XCCM",
        "ISO",
    ]
)
VENDORS = ("agfa", "canon", "carestream", "esaote", "fuji", "ge", "general electric", "heidelberg", "hitachi", "hologic", "kodak", "konica", "mindray", "nidek", "optos", "philips", "samsung", "shimadzu", "siemens", "swissray", "topcon", "toshiba", "zeiss")  # fmt: skip


# ---------------------------------------------------------------- doors


def read_dicom(path: Path, frame: int = 0) -> np.ndarray:
    """Pixels of one frame as a viewer would first show it: uint8, (H, W) grey or (H, W, 3) RGB. Raises UnreadableImage.

    Grey: stored value, modality LUT or rescale, VOI LUT or first window (else the declared range, or with more than 8
    bits the 0.5th to 99.5th percentile), padding black, MONOCHROME1 inverted last: high is bright. Overlays are not drawn.
    """
    return decode_dicom(read_bytes(path), frame, where=path)[0]


def decode_dicom(data: bytes, frame: int, *, where: object) -> tuple[np.ndarray, ImageHeader]:
    """As read_dicom, for a file already in memory, with what its header says."""
    dataset = open_dataset(data, where)
    header = image_header(dataset, where)
    if not 0 <= frame < header.n_frames:
        raise UnreadableImage(where, "no_such_frame", f"frame {frame} was asked for, the object has {header.n_frames}")
    require_decoder(dataset, where)
    try:
        pixels = grey_pixels(dataset, frame) if header.channels == 1 else colour_pixels(dataset, frame)
    except (*DICOM_ERRORS, MemoryError) as error:
        raise _undecodable(dataset, header, where, error) from None
    if pixels.shape[:2] != (header.height, header.width):
        reason = f"the pixels are {pixels.shape[1]} x {pixels.shape[0]}, the header says {header.width} x {header.height}"
        raise UnreadableImage(where, "damaged", reason)
    return pixels, header


def probe_dicom(data: bytes, *, where: object) -> ImageHeader:
    """What the data set says of its pixels, without decoding them. Raises UnreadableImage."""
    return image_header(open_dataset(data, where), where)


def read_header(path: Path) -> dict[str, str | int | float | None]:
    """The facts that may leave a data set (see header_facts). Raises UnreadableImage when the file is no DICOM."""
    return header_facts(open_dataset(read_bytes(path), path))


# ---------------------------------------------------------------- the data set


def open_dataset(data: bytes, where: object) -> pydicom.Dataset:
    """Parse; a file without preamble or file meta is taken if what follows makes sense. Raises UnreadableImage."""
    try:
        try:
            dataset: pydicom.Dataset = pydicom.dcmread(io.BytesIO(data))
        except InvalidDicomError:
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            if not ("SOPClassUID" in dataset or ("Rows" in dataset and "PixelData" in dataset)):
                raise UnreadableImage(where, "not_dicom", "no DICOM preamble, and no data set that makes sense without one") from None
    except UnreadableImage:
        raise
    except DICOM_ERRORS as error:
        raise UnreadableImage(where, "not_dicom", f"cannot be parsed as DICOM ({type(error).__name__})") from None
    return dataset


def image_header(dataset: pydicom.Dataset, where: object) -> ImageHeader:
    """Size, depth and frames; raises UnreadableImage for what holds no picture or lacks a required element."""
    _require_picture(dataset, where)
    whole = {name: _whole(dataset, name) for name in REQUIRED[:-1]}
    photometric = text_of(dataset, "PhotometricInterpretation")
    missing = [name for name, value in whole.items() if value is None] + ([] if photometric else ["PhotometricInterpretation"])
    if missing:
        raise UnreadableImage(where, "damaged", f"the required element {missing[0]} is missing or no number")
    if photometric not in GREY | COLOUR:
        raise UnreadableImage(where, "unsupported_pixels", f"its photometric interpretation is none of {', '.join(sorted(GREY | COLOUR))}")
    height, width, depth = (int(whole[name] or 0) for name in ("Rows", "Columns", "BitsStored"))
    if not 0 < height * width <= MAX_PIXELS:
        raise UnreadableImage(where, "too_large", f"{width} x {height} pixels; expected 1 to {MAX_PIXELS:,}")
    channels = 1 if photometric in GREY else 3
    n_frames = max(1, _whole(dataset, "NumberOfFrames") or 1)
    return ImageHeader(format="DICOM", height=height, width=width, bit_depth=max(8, depth), channels=channels, n_frames=n_frames)


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


def require_decoder(dataset: pydicom.Dataset, where: object) -> None:
    """Raise UnreadableImage when nothing installed decodes the transfer syntax; names the extra that would."""
    syntax = _syntax(dataset, where)
    if not syntax.is_transfer_syntax:
        raise UnreadableImage(where, "no_decoder", "its transfer syntax is unknown here; save it anew in another")
    if not syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        reason = f"{_name(syntax)}: pydicom has no decoder for it; save it anew in another transfer syntax"
        raise UnreadableImage(where, "no_decoder", reason) from None
    if not decoder.is_available:
        raise UnreadableImage(where, "no_decoder", f"{_name(syntax)} needs a decoder: pip install 'medcnn[dicom]'")


def _syntax(dataset: pydicom.Dataset, where: object) -> UID:
    """The transfer syntax; one that is not named is taken for uncompressed when the number of bytes is right."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return UID(str(meta.TransferSyntaxUID))
    n_bytes = len(dataset.get_item("PixelData").value or b"")
    sizes = [int(_whole(dataset, name) or 1) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")]
    expected = -(-int(np.prod(sizes, dtype=np.int64)) // 8)
    if n_bytes not in {expected, expected + expected % 2}:
        raise UnreadableImage(where, "no_decoder", "names no transfer syntax, and its pixels are not plain uncompressed ones")
    if meta is None:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _undecodable(dataset: pydicom.Dataset, header: ImageHeader, where: object, error: Exception) -> UnreadableImage:
    syntax = _syntax(dataset, where)
    if syntax == JPEGExtended12Bit and header.bit_depth > 8:
        return UnreadableImage(where, "no_decoder", f"JPEG Extended with {header.bit_depth} bits: nothing installed here decodes it")
    if syntax.is_compressed:
        plugins = ", ".join(get_decoder(syntax).available_plugins) or "pydicom"
        reason = f"{_name(syntax)}, {header.bit_depth} bits: {plugins} cannot decode it; it is damaged or of a rare kind"
        return UnreadableImage(where, "damaged", reason)
    if isinstance(error, ValueError) and "less than expected" in str(error):
        return UnreadableImage(where, "truncated", "fewer pixels than the header says")
    return UnreadableImage(where, "damaged", f"the pixels cannot be decoded ({type(error).__name__})")


# ---------------------------------------------------------------- what may leave it


def header_facts(dataset: pydicom.Dataset) -> dict[str, str | int | float | None]:
    """modality, view, laterality, manufacturer, sop_class, transfer_syntax, photometric, sex, burned_in: known words only, None
    for blank, `other` for a word not known; scanner, site: pseudonyms; rows, columns, frames; spacing_mm; age_years (90 and
    over is 90).
    """
    maker, model = text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName")
    institution = text_of(dataset, "InstitutionName")
    return {
        "modality": _one_of(text_of(dataset, "Modality"), MODALITIES),
        "view": _one_of(text_of(dataset, "ViewPosition"), VIEWS),
        "laterality": _one_of(text_of(dataset, "ImageLaterality") or text_of(dataset, "Laterality"), {"L", "R", "B", "U"}),
        "manufacturer": next((vendor for vendor in VENDORS if re.search(rf"\b{vendor}", maker.lower())), "other") if maker else None,
        "scanner": pseudonym("scanner", f"{maker} {model}") if maker or model else None,
        "site": pseudonym("site", institution) if institution else None,
        "sop_class": known_uid(dataset, "SOPClassUID"),
        "transfer_syntax": known_uid(getattr(dataset, "file_meta", None), "TransferSyntaxUID"),
        "photometric": _one_of(text_of(dataset, "PhotometricInterpretation"), GREY | COLOUR),
        "sex": _one_of(text_of(dataset, "PatientSex"), {"F", "M", "O"}),
        "burned_in": _one_of(text_of(dataset, "BurnedInAnnotation"), {"YES", "NO"}),
        "rows": _whole(dataset, "Rows"),
        "columns": _whole(dataset, "Columns"),
        "frames": max(1, _whole(dataset, "NumberOfFrames") or 1),
        "spacing_mm": _spacing_mm(dataset),
        "age_years": _age_years(dataset),
    }


def text_of(dataset: pydicom.Dataset | None, keyword: str) -> str:
    """An element as stripped text, blank when it is absent or malformed. May hold an identity: not for any output."""
    try:
        value: Any = dataset.get(keyword) if dataset is not None else None
        return "" if value is None else str(value).replace("\0", "").strip()
    except DICOM_ERRORS:
        return ""


def known_uid(dataset: pydicom.Dataset | None, keyword: str) -> str | None:
    """The public name of a UID; None when blank, `private` when it has none."""
    uid = text_of(dataset, keyword)
    return None if not uid else _name(UID(uid))


def _name(uid: UID) -> str:
    return str(uid.name) if uid.name != str(uid) else "private"


def _one_of(word: str, known: frozenset[str] | set[str]) -> str | None:
    return None if not word else word.upper() if word.upper() in known else "other"


def _whole(dataset: pydicom.Dataset, keyword: str) -> int | None:
    text = text_of(dataset, keyword)
    return int(text) if text.isdecimal() else None


def _spacing_mm(dataset: pydicom.Dataset) -> float | None:
    """Millimetres between pixel centres; None when unknown, or when rows and columns differ by over 1%."""
    places = (frame_item(dataset, 0, "PixelMeasuresSequence"), dataset)
    for item, keyword in [(places[0], "PixelSpacing"), *((dataset, name) for name in ("PixelSpacing", "ImagerPixelSpacing"))]:
        spacing = numbers_of(item, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            return spacing[0] if max(spacing) <= 1.01 * min(spacing) else None
    return None


def _age_years(dataset: pydicom.Dataset) -> float | None:
    """From PatientAge (`045Y`, `006M`, ...), else from the dates of birth and study, in whole years."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text_of(dataset, "PatientAge"))
    if match:
        years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
        return min(90.0, round(years, 2))
    born, seen = text_of(dataset, "PatientBirthDate"), text_of(dataset, "StudyDate")
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", seen) and born < seen):
        return None
    return min(90.0, float(int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])))
