"""Compressed or plain pixel data of a DICOM frame to its stored values, and which library did it.

pydicom's decoders come first, in its own order, so that a file is always decoded by the same library. What they refuse, and the
syntaxes that pydicom has no decoder for (JPEG of 12 bits, progressive JPEG, JPEG XL), goes to imagecodecs; frames that are
deflated one by one are inflated here.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medcnn.data.formats import UnreadableImage

# What malformed elements and codecs raise; their texts may quote the data set and are never shown.
DICOM_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    ArithmeticError,
    AssertionError,
    struct.error,
    zlib.error,
    BytesLengthException,  # which pydicom derives from Exception alone
)
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
# JPEG with DCT, all processes of 8 and 12 bits that were ever in the standard; the arithmetic ones too.
JPEG_DCT = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 52, 53, 54, 55, 56))
JPEG_XL = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))
JPEG_LS = frozenset(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"))
BY_IMAGECODECS = JPEG_DCT | JPEG_XL | JPEG_LS
ABORTING = "pyjpegls"  # pydicom's plugin that ends the whole process on some damaged streams; imagecodecs has the same library
NEW_NAMES = {  # of syntaxes that pydicom does not know yet
    DEFLATED_FRAMES: "Deflated Image Frame Compression",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}


class Undecodable(ValueError):
    """No installed library makes pixels of the frame; tried: their names."""

    def __init__(self, tried: tuple[str, ...]) -> None:
        super().__init__("no decoder can read it")
        self.tried = tried


@dataclass(frozen=True)
class StoredFrame:
    """Stored values (H, W) or (H, W, 3) of one frame; decoder: library; is_rgb: colours were made RGB while decoding."""

    values: np.ndarray
    decoder: str
    is_rgb: bool = False


def syntax_name(uid: UID) -> str:
    """The transfer syntax's public name, `private` when it has none."""
    name = NEW_NAMES.get(str(uid), str(uid.name))
    return name if name != str(uid) else "private"


def require_decoder(syntax: UID, where: object) -> None:
    """Raise UnreadableImage when nothing installed decodes the transfer syntax; names the extra that would."""
    if str(syntax) == DEFLATED_FRAMES or is_native(syntax):
        return
    if str(syntax) in BY_IMAGECODECS and _has_imagecodecs():
        return
    known = syntax.is_transfer_syntax or str(syntax) in NEW_NAMES
    if not known:
        raise UnreadableImage(where, "no_decoder", "its transfer syntax is unknown here; save it anew in another")
    decoder = _pydicom_decoder(syntax)
    if decoder is None and str(syntax) not in BY_IMAGECODECS:
        reason = f"{syntax_name(syntax)}: there is no decoder for it here; save it anew in another transfer syntax"
        raise UnreadableImage(where, "no_decoder", reason)
    if not _plugins(decoder):
        raise UnreadableImage(where, "no_decoder", f"{syntax_name(syntax)} needs a decoder: pip install 'medcnn[dicom]'")


def stored_frame(dataset: pydicom.Dataset, frame: int, *, to_rgb: bool = False) -> StoredFrame:
    """Decode one frame. to_rgb: YBR_FULL and YBR_FULL_422 become RGB. Raises Undecodable, or any of pydicom's errors for plain pixels."""
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    if str(syntax) == DEFLATED_FRAMES:
        return StoredFrame(_inflated(dataset, frame), "zlib")
    decoder = _pydicom_decoder(syntax)
    if decoder is not None and is_native(syntax):
        values = decoder.as_array(dataset, index=frame, raw=not to_rgb)[0]
        return StoredFrame(np.asarray(values), "pydicom", is_rgb=to_rgb)
    tried = []
    for plugin in _plugins(decoder):
        try:
            values = decoder.as_array(dataset, index=frame, raw=not to_rgb, decoding_plugin=plugin)[0]  # type: ignore[union-attr]
        except DICOM_ERRORS:  # the next one is asked
            tried.append(plugin)
        else:
            return StoredFrame(np.asarray(values), plugin, is_rgb=to_rgb)
    if str(syntax) in BY_IMAGECODECS and _has_imagecodecs():
        try:
            return _by_imagecodecs(dataset, frame, syntax)
        except (RuntimeError, ValueError, TypeError):
            tried.append("imagecodecs")
    raise Undecodable(tuple(tried))


def frame_bytes(dataset: pydicom.Dataset, frame: int) -> bytes:
    """The compressed frame, its fragments joined."""
    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    return bytes(get_frame(dataset.PixelData, frame, number_of_frames=n_frames, extended_offsets=offsets))


def _pydicom_decoder(syntax: UID) -> Decoder | None:
    try:
        return get_decoder(syntax)
    except NotImplementedError:
        return None


def _plugins(decoder: Decoder | None) -> list[str]:
    """Names of the installed plugins that may be asked, in pydicom's order."""
    return [name for name in decoder.available_plugins if name != ABORTING] if decoder is not None else []


def is_native(syntax: UID) -> bool:
    """True for a transfer syntax whose pixels are not compressed."""
    return syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian) or (
        syntax.is_transfer_syntax and not syntax.is_compressed
    )


def _has_imagecodecs() -> bool:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return True


def _by_imagecodecs(dataset: pydicom.Dataset, frame: int, syntax: UID) -> StoredFrame:
    import imagecodecs

    codec = "jpegxl" if str(syntax) in JPEG_XL else "jpegls" if str(syntax) in JPEG_LS else "jpeg"
    values = np.asarray(getattr(imagecodecs, f"{codec}_decode")(frame_bytes(dataset, frame)))
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 3:  # libjpeg and libjxl give RGB, whatever the stream holds; JPEG-LS knows no colours
        return StoredFrame(values[..., :3], "imagecodecs", is_rgb=codec != "jpegls")
    bits = int(dataset.BitsStored)
    if values.dtype.kind == "u" and not int(dataset.PixelRepresentation):
        # A lossy 10-bit image in a 12-bit stream may overshoot its range by a few grey levels.
        values = np.minimum(values, values.dtype.type(min(2**bits - 1, np.iinfo(values.dtype).max)))
    elif values.dtype.kind == "u":
        sign = 1 << (bits - 1)
        values = ((values.astype(np.int32) & (2 * sign - 1)) ^ sign) - sign
        values = values.astype(np.int16 if bits <= 16 else np.int32)
    return StoredFrame(values, "imagecodecs")


def _inflated(dataset: pydicom.Dataset, frame: int) -> np.ndarray:
    """A frame that was deflated alone (PS3.5 A.4.13): raw deflate, then laid out as plain pixels are."""
    rows, columns, samples, bits = (int(dataset[key].value) for key in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"))
    n_values = rows * columns * samples
    n_bytes = -(-n_values * bits // 8)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(frame_bytes(dataset, frame), n_bytes + 1)  # never more than was promised
    if len(data) < n_bytes:
        raise ValueError("fewer pixels than expected")
    values = _plain_values(dataset, data[:n_bytes], bits)[:n_values]
    if samples == 1:
        return values.reshape(rows, columns)
    if int(dataset.get("PlanarConfiguration") or 0):
        return np.moveaxis(values.reshape(samples, rows, columns), 0, -1)
    return values.reshape(rows, columns, samples)


def _plain_values(dataset: pydicom.Dataset, data: bytes, bits: int) -> np.ndarray:
    if bits == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    kind = "i" if int(dataset.PixelRepresentation) else "u"
    values: np.ndarray = np.frombuffer(data, f"<{kind}{bits // 8}")
    spare = bits - int(dataset.BitsStored)
    return (values << spare) >> spare if spare else values  # unused high bits may hold anything
