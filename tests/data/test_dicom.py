"""The doors to DICOM files, and what does not come in through them."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_dicom import RAMP, kind_of, make_dicom, save_dicom
from pydicom.uid import RLELossless

from medcnn.data.dicom import read_dicom
from medcnn.data.images import UnreadableImage, decode_image, probe_image


def test_the_one_decoder_reads_dicom_by_content(tmp_path: Path) -> None:
    save_dicom(tmp_path / "a.png", RAMP, WindowCenter=2000, WindowWidth=4000)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), read_dicom(tmp_path / "a.png"))
    header = probe_image(tmp_path / "a.png")
    assert (header.format, header.height, header.width, header.bit_depth, header.channels) == ("DICOM", 16, 16, 16, 1)


def test_without_preamble_and_file_meta(tmp_path: Path) -> None:
    dataset = make_dicom(np.arange(64, dtype=np.uint8).reshape(8, 8))
    expected = dataset.pixel_array
    del dataset.file_meta
    for implicit in (True, False):
        stream = io.BytesIO()
        dataset.save_as(stream, implicit_vr=implicit, little_endian=True)
        (tmp_path / "a.dcm").write_bytes(stream.getvalue())
        np.testing.assert_array_equal(decode_image(tmp_path / "a.dcm"), expected)


@pytest.mark.parametrize(
    ("elements", "kind"),
    [
        ({"Rows": None}, "damaged"),
        ({"PhotometricInterpretation": None}, "damaged"),
        ({"BitsAllocated": None}, "damaged"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported_pixels"),
        ({"PixelData": None}, "no_pixels"),
        ({"PixelData": b""}, "no_pixels"),
        ({"PixelData": bytes(100)}, "truncated"),
        ({"Rows": 60_000, "Columns": 60_000}, "too_large"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "PixelData": None, "Rows": None}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "PixelData": None, "Rows": None}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None, "Rows": None}, "not_an_image"),
    ],
)
def test_data_sets_without_a_usable_picture(tmp_path: Path, elements: dict[str, object], kind: str) -> None:
    assert kind_of(save_dicom(tmp_path / "a.dcm", RAMP, **elements)) == kind


def test_files_that_are_no_dicom_or_broken(tmp_path: Path) -> None:
    data = save_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: len(data) - 200])
    (tmp_path / "head.dcm").write_bytes(data[:300])
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("not a DICOM file, just text that goes on and on")
    assert kind_of(tmp_path / "cut.dcm") == "truncated"
    assert kind_of(tmp_path / "head.dcm") in {"no_pixels", "not_an_image", "not_dicom"}
    assert kind_of(tmp_path / "empty.dcm") == "empty_file"
    assert kind_of(tmp_path / "text.dcm") == "not_dicom"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.58", "1.2.840.10008.1.2.4.99", "1.2.3.4.5.6"])
def test_a_transfer_syntax_without_decoder_is_named(tmp_path: Path, syntax: str) -> None:
    dataset = make_dicom(RAMP)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.55"
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(50)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    data = (tmp_path / "a.dcm").read_bytes()
    assert data.count(b"1.2.840.10008.1.2.4.55") == 1
    (tmp_path / "a.dcm").write_bytes(data.replace(b"1.2.840.10008.1.2.4.55", syntax.encode().ljust(22, b"\0")))
    assert kind_of(tmp_path / "a.dcm") == "no_decoder"


def test_a_missing_plugin_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dicom(RAMP)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    decoder = type("Decoder", (), {"available_plugins": ()})
    monkeypatch.setattr("medcnn.data.dicom_codecs.get_decoder", lambda syntax: decoder)
    with pytest.raises(UnreadableImage, match=r"RLE Lossless needs a decoder: pip install 'medcnn\[dicom\]'"):
        read_dicom(tmp_path / "a.dcm")


# ---------------------------------------------------------------- files that promise too much


def test_a_billion_frames_that_are_not_there(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", RAMP, NumberOfFrames=2_000_000_000)
    for door in (read_dicom, probe_image):
        with pytest.raises(UnreadableImage, match="fewer pixels"):
            door(path)
    dataset = make_dicom(RAMP)
    dataset.compress(RLELossless)
    dataset.NumberOfFrames = 2_000_000_000
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="fewer pixels"):
        probe_image(tmp_path / "b.dcm")


def deflated(path: Path, dataset: pydicom.Dataset) -> Path:
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_deflated_data_set_and_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_dicom(deflated(tmp_path / "a.dcm", make_dicom(picture))), picture)
    bomb = make_dicom(picture)
    bomb.add_new(0x00091001, "OB", bytes(50_000_000))
    path = deflated(tmp_path / "b.dcm", bomb)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr("medcnn.data.dicom.MAX_FILE_BYTES", 40_000_000)
    assert kind_of(path) == "too_large"
    monkeypatch.setattr("medcnn.data.dicom.MAX_FILE_BYTES", 60_000_000)
    np.testing.assert_array_equal(read_dicom(path), picture)
    data = bytearray((tmp_path / "a.dcm").read_bytes())
    start = 144 + int.from_bytes(data[140:144], "little")
    data[start : start + 20] = b"\xff" * 20
    (tmp_path / "c.dcm").write_bytes(bytes(data))
    assert kind_of(tmp_path / "c.dcm") == "damaged"
