"""Compressed frames: each decoder on data that another library compressed; what cannot be decoded is refused."""

import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_dicom import RAMP, kind_of, make_dicom
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from medcnn.data.dicom import decode_dicom, read_dicom
from medcnn.data.dicom_codecs import DEFLATED_FRAMES, stored_frame
from medcnn.data.images import UnreadableImage

imagecodecs = pytest.importorskip("imagecodecs")
SMOOTH = (np.add.outer(np.arange(64), np.arange(64)) * 20).astype(np.uint16)  # 0..2520, kind to lossy compression


def compressed(path: Path, frames: list[bytes], uid: str, pixels: np.ndarray, **elements: object) -> Path:
    dataset = make_dicom(pixels, **elements)
    dataset.file_meta.TransferSyntaxUID = uid
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    with path.open("wb") as stream:  # pydicom does not know the newest syntaxes, so it is forced
        stream.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(stream, dataset.file_meta)
        meta, dataset.file_meta = dataset.file_meta, pydicom.dataset.FileMetaDataset()
        pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
        dataset.file_meta = meta
    return path


@pytest.mark.parametrize("number", [51, 53, 55])
def test_jpeg_of_12_bits_is_left_to_imagecodecs(tmp_path: Path, number: int) -> None:
    data = imagecodecs.jpeg8_encode(SMOOTH, level=100, bitspersample=12)
    path = compressed(tmp_path / "a.dcm", [data], f"1.2.840.10008.1.2.4.{number}", SMOOTH, BitsStored=12, HighBit=11)
    frame = stored_frame(pydicom.dcmread(path), 0)
    assert frame.decoder == "imagecodecs"
    assert np.abs(frame.values.astype(int) - SMOOTH).max() <= 6
    assert decode_dicom(path.read_bytes(), 0, where=path)[1].record["decoder"] == "imagecodecs"


def test_lossy_values_stay_within_their_bits_and_keep_their_sign(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).choice(np.array([0, 1023], np.uint16), (64, 64))
    data = imagecodecs.jpeg8_encode(rough, level=40, bitspersample=12)
    assert imagecodecs.jpeg8_decode(data).max() > 1023  # it overshoots
    path = compressed(tmp_path / "a.dcm", [data], "1.2.840.10008.1.2.4.51", rough, BitsStored=10, HighBit=9)
    assert stored_frame(pydicom.dcmread(path), 0).values.max() == 1023
    negative = (SMOOTH.astype(np.int16) - 2048) // 4
    data = imagecodecs.jpeg8_encode((negative & 0x0FFF).astype(np.uint16), level=100, bitspersample=12)
    path = compressed(tmp_path / "b.dcm", [data], "1.2.840.10008.1.2.4.51", negative.astype(np.int16), BitsStored=12, HighBit=11)
    values = stored_frame(pydicom.dcmread(path), 0).values
    assert values.dtype == np.int16
    far_from_the_jump = np.abs(negative) > 40  # 0 and -1 are far apart as unsigned numbers
    assert np.abs(values - negative)[8:, 8:][far_from_the_jump[8:, 8:]].mean() < 60
    assert values.min() < -400


@pytest.mark.parametrize("number", [110, 112])
def test_jpeg_xl(tmp_path: Path, number: int) -> None:
    data = imagecodecs.jpegxl_encode(RAMP, lossless=True)
    path = compressed(tmp_path / "a.dcm", [data], f"1.2.840.10008.1.2.4.{number}", RAMP, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(stored_frame(pydicom.dcmread(path), 0).values, RAMP)
    colours = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    data = imagecodecs.jpegxl_encode(colours, lossless=True)
    path = compressed(tmp_path / "b.dcm", [data], f"1.2.840.10008.1.2.4.{number}", colours)
    np.testing.assert_array_equal(read_dicom(path), colours)


def deflated(frame: bytes) -> bytes:
    data = zlib.compress(frame)[2:-4]  # without zlib's own header and sum
    return data + b"\0" * (len(data) % 2)


@pytest.mark.parametrize("planar", [0, 1])
def test_frames_deflated_one_by_one(tmp_path: Path, planar: int) -> None:
    frames = [RAMP, RAMP + np.uint16(7)]
    path = compressed(tmp_path / "a.dcm", [deflated(frame.tobytes()) for frame in frames], DEFLATED_FRAMES, np.stack(frames))
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(stored_frame(pydicom.dcmread(path), number).values, frame)
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    laid_out = np.moveaxis(colours, -1, 0) if planar else colours
    path = compressed(
        tmp_path / "b.dcm", [deflated(np.ascontiguousarray(laid_out).tobytes())], DEFLATED_FRAMES, colours, PlanarConfiguration=planar
    )
    np.testing.assert_array_equal(read_dicom(path), colours)


def test_deflated_bits_and_unused_bits(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (5, 7), dtype=np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    path = compressed(tmp_path / "a.dcm", [deflated(packed)], DEFLATED_FRAMES, bits, **elements)
    np.testing.assert_array_equal(stored_frame(pydicom.dcmread(path), 0).values, bits)
    dirty = RAMP | np.uint16(0x9000)
    path = compressed(tmp_path / "b.dcm", [deflated(dirty.tobytes())], DEFLATED_FRAMES, RAMP, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(stored_frame(pydicom.dcmread(path), 0).values, RAMP)


def test_a_deflated_frame_too_short_and_a_bomb(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", [deflated(RAMP.tobytes()[:100])], DEFLATED_FRAMES, RAMP)
    assert kind_of(path) == "truncated"
    path = compressed(tmp_path / "b.dcm", [deflated(RAMP.tobytes() + bytes(50_000_000))], DEFLATED_FRAMES, RAMP)
    assert read_dicom(path).shape == RAMP.shape  # the rest is never inflated


def test_without_imagecodecs_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path / "a.dcm", [imagecodecs.jpegxl_encode(RAMP, lossless=True)], "1.2.840.10008.1.2.4.110", RAMP)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UnreadableImage, match=r"JPEG XL Lossless needs a decoder: pip install 'medcnn\[dicom\]'"):
        read_dicom(path)


def test_garbage_in_any_syntax_is_refused(tmp_path: Path) -> None:
    garbage = np.random.default_rng(0).bytes(400)
    for number in (50, 51, 57, 70, 80, 81, 90, 91, 110, 201):
        path = compressed(tmp_path / "a.dcm", [b"\xff\xd8" + garbage], f"1.2.840.10008.1.2.4.{number}", RAMP)
        assert kind_of(path) in {"damaged", "no_decoder"}


def test_the_decoder_of_a_plain_and_of_a_packed_frame_is_recorded(tmp_path: Path) -> None:
    dataset = make_dicom(RAMP)
    assert stored_frame(dataset, 0).decoder == "pydicom"
    dataset.compress(RLELossless)
    frame = stored_frame(dataset, 0)
    assert frame.decoder in {"pydicom", "gdcm", "pylibjpeg"}
    np.testing.assert_array_equal(frame.values, RAMP)
