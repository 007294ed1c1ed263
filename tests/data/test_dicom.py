"""DICOM pixels against hand-computed values and pydicom's own functions; what may leave a header; a whole tree."""

import io
import json
import multiprocessing
import re
import secrets
import stat
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from made_dicom import lookup_table, make_dicom, save_dicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import RLELossless, generate_uid

from medcnn.cohort import Flow, write_json
from medcnn.config_data import AuditConfig, DataConfig
from medcnn.config_file import read_config
from medcnn.data import pseudonyms
from medcnn.data.audit import audit
from medcnn.data.dicom import read_dicom, read_header
from medcnn.data.images import UnreadableImage, decode_image, decode_row, probe_image
from medcnn.data.ingest import image_root, ingest
from medcnn.data.pseudonyms import find_file, masked_path, pseudonym, tokens_of
from medcnn.errors import InputError
from medcnn.tables import write_table

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16  # 0..4080
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)


@pytest.fixture(autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("key") / "folder" / "pseudonym.key"
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(path))
    return path


def shown(folder: Path, pixels: np.ndarray, frame: int = 0, **elements: object) -> np.ndarray:
    return read_dicom(save_dicom(folder / "a.dcm", pixels, **elements), frame)


def kind_of(path: Path, frame: int = 0) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_dicom(path, frame)
    return caught.value.kind


def levels(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


# ---------------------------------------------------------------- grey


def test_8_bits_without_a_window_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    np.testing.assert_array_equal(shown(tmp_path, pixels), pixels)
    np.testing.assert_array_equal(shown(tmp_path, pixels, PhotometricInterpretation="MONOCHROME1"), 255 - pixels)


def test_deep_pixels_without_a_window_are_shown_between_percentiles(tmp_path: Path) -> None:
    low, high = np.percentile(RAMP.astype(int), [0.5, 99.5], method="inverted_cdf")
    np.testing.assert_array_equal(shown(tmp_path, RAMP, BitsStored=12, HighBit=11), levels((RAMP - low) / (high - low)))


@pytest.mark.parametrize("pixels", [RAMP, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1000), (-0.5, 300), (0.25, -1024)])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_rescale_and_window_agree_with_pydicom(tmp_path: Path, pixels: np.ndarray, slope: float, intercept: float, function: str) -> None:
    elements = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": 40, "WindowWidth": 700, "VOILUTFunction": function}
    dataset = make_dicom(pixels, **elements)
    windowed = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    # pydicom stretches the window over the whole range of modality values (and upside down where the slope is negative).
    low, high = np.array([-32768, 32767] if pixels.dtype == np.int16 else [0, 65535]) * slope + intercept
    np.testing.assert_allclose(shown(tmp_path, pixels, **elements), levels((windowed - low) / (high - low)), atol=1)


def test_the_window_of_the_standard_by_hand(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1, note 3: centre 2048 and width 4096 map 0..4095 to the whole range; centre 2048, width 1 is a threshold."""
    pixels = np.array([[0, 2047, 2048, 4095]], np.uint16)
    assert shown(tmp_path, pixels, WindowCenter=2048, WindowWidth=4096).tolist() == [[0, 127, 128, 255]]
    assert shown(tmp_path, pixels, WindowCenter=2048, WindowWidth=1).tolist() == [[0, 0, 255, 255]]


def test_the_first_of_several_windows_counts_and_an_impossible_one_does_not(tmp_path: Path) -> None:
    first = shown(tmp_path, RAMP, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(shown(tmp_path, RAMP, WindowCenter=[1000, 5], WindowWidth=[500, 5]), first)
    np.testing.assert_array_equal(shown(tmp_path, RAMP, WindowCenter=1000, WindowWidth=0), shown(tmp_path, RAMP))


def test_a_voi_lut_goes_before_the_window(tmp_path: Path) -> None:
    pixels = np.array([[0, 9, 10, 11, 12, 13]], np.uint16)
    voi = lookup_table([0, 1023, 512], first=10, bits=10)
    drawn = shown(tmp_path, pixels, VOILUTSequence=voi, WindowCenter=5, WindowWidth=2)
    assert drawn.tolist() == [[0, 0, 0, 255, 128, 128]]


def test_a_modality_lut_and_a_negative_first_value(tmp_path: Path) -> None:
    drawn = shown(tmp_path, np.array([[0, 1, 2, 3]], np.uint16), ModalityLUTSequence=lookup_table([255, 128, 64, 0], first=0, bits=8))
    assert drawn.tolist() == [[255, 128, 64, 0]]
    pixels = np.array([[-3, -2, -1, 0]], np.int16)
    drawn = shown(tmp_path, pixels, VOILUTSequence=lookup_table([0, 100, 255], first=-2, bits=8))
    assert drawn.tolist() == [[0, 0, 100, 255]]


def test_monochrome1_is_inverted_after_the_window(tmp_path: Path) -> None:
    drawn = shown(tmp_path, RAMP, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(
        shown(tmp_path, RAMP, WindowCenter=1000, WindowWidth=500, PhotometricInterpretation="MONOCHROME1").astype(int),
        255 - drawn.astype(int),
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_move_the_window(tmp_path: Path, photometric: str) -> None:
    padded = SIGNED.copy()
    padded[:, :3] = -32768
    drawn = shown(tmp_path, padded, PixelPaddingValue=-32768, PhotometricInterpretation=photometric)
    assert (drawn[:, :3] == 0).all()
    inner = padded[:, 3:].astype(int)
    low, high = np.percentile(inner, [0.5, 99.5], method="inverted_cdf")
    shares = (inner - low) / (high - low)
    np.testing.assert_array_equal(drawn[:, 3:], levels(1 - np.clip(shares, 0, 1) if photometric == "MONOCHROME1" else shares))


def test_padding_of_signed_pixels_written_as_an_unsigned_number(tmp_path: Path) -> None:
    dataset = make_dicom(SIGNED, WindowCenter=0, WindowWidth=5000)
    dataset.add_new(0x00280120, "US", 65536 - 2048)  # -2048, the first pixel
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    drawn = read_dicom(tmp_path / "a.dcm")
    assert drawn[0, 0] == 0
    assert (drawn.ravel()[1:] > 0).all()


def test_a_padding_range(tmp_path: Path) -> None:
    drawn = shown(tmp_path, RAMP, PixelPaddingValue=3000, PixelPaddingRangeLimit=4095, WindowCenter=2000, WindowWidth=4000)
    assert (drawn[RAMP >= 3000] == 0).all()
    assert (drawn[(RAMP > 100) & (RAMP < 3000)] > 0).all()


def test_frames_have_their_own_windows_in_enhanced_objects(tmp_path: Path) -> None:
    def groups(centre: int) -> pydicom.Dataset:
        item, voi, rescale = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        voi.WindowCenter, voi.WindowWidth = centre, 101
        rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence = [voi], [rescale]
        return item

    frames = np.stack([RAMP, RAMP])
    elements = {"PerFrameFunctionalGroupsSequence": [groups(0), groups(500)]}
    for frame, centre in enumerate((0, 500)):
        drawn = shown(tmp_path, frames, frame, **elements)
        np.testing.assert_array_equal(drawn, levels((RAMP.astype(int) - 1000 - (centre - 0.5)) / 100 + 0.5))


def test_every_frame_can_be_had_and_no_other(tmp_path: Path) -> None:
    frames = np.stack([np.full((4, 4), value, np.uint8) for value in (10, 20, 30)])
    assert [int(shown(tmp_path, frames, frame)[0, 0]) for frame in range(3)] == [10, 20, 30]
    assert kind_of(tmp_path / "a.dcm", 3) == "no_such_frame"


def test_32_bit_pixels(tmp_path: Path) -> None:
    drawn = shown(tmp_path, RAMP.astype(np.uint32) * 1000, WindowCenter=2_000_000, WindowWidth=4_000_000)
    np.testing.assert_allclose(drawn, levels(RAMP / 4000), atol=1)


# ---------------------------------------------------------------- colour


def test_rgb_planar_and_compressed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(shown(tmp_path, pixels), pixels)
    planar = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).tobytes()
    np.testing.assert_array_equal(shown(tmp_path, pixels, PlanarConfiguration=1, PixelData=planar), pixels)
    dataset = make_dicom(pixels)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "rle.dcm"), pixels)


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    """PS3.3 C.7.6.3.1.2: Y = .299 R + .587 G + .114 B; pure red is (76, 85, 255)."""
    pixels = np.array([[[76, 85, 255], [255, 128, 128], [0, 128, 128]]], np.uint8)
    drawn = shown(tmp_path, pixels, PhotometricInterpretation="YBR_FULL").astype(int)
    assert np.abs(drawn - [[[255, 0, 0], [255, 255, 255], [0, 0, 0]]]).max() <= 2


@pytest.mark.parametrize("scale", [257, 1], ids=["16 bits", "8 bits in 16"])
def test_a_palette_is_resolved(tmp_path: Path, scale: int) -> None:
    palette = {}
    for colour, entries in {"Red": [0, 255, 10], "Green": [0, 128, 20], "Blue": [0, 64, 30]}.items():
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = (np.array(entries, np.uint16) * scale).tobytes()
    drawn = shown(tmp_path, np.array([[0, 1, 2, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **palette)
    assert drawn.tolist() == [[[0, 0, 0], [255, 128, 64], [10, 20, 30], [255, 128, 64]]]


# ---------------------------------------------------------------- doors, and what does not come in


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


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.99", "1.2.3.4.5.6"])
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
    decoder = type("Decoder", (), {"is_available": False})
    monkeypatch.setattr("medcnn.data.dicom.get_decoder", lambda syntax: decoder)
    with pytest.raises(UnreadableImage, match=r"RLE Lossless needs a decoder: pip install 'medcnn\[dicom\]'"):
        read_dicom(tmp_path / "a.dcm")


# ---------------------------------------------------------------- headers and identities


def test_the_header_gives_known_words_only(tmp_path: Path) -> None:
    path = save_dicom(
        tmp_path / "a.dcm", RAMP, ViewPosition="PA", ImageLaterality="L", Manufacturer="SIEMENS Healthineers", ManufacturerModelName="X",
        PatientSex="F", PatientAge="045Y", ImagerPixelSpacing=[0.14, 0.14], BurnedInAnnotation="NO", InstitutionName="Hospital",
    )  # fmt: skip
    facts = read_header(path)
    assert re.fullmatch(r"scanner-[0-9a-f]{16}", str(facts.pop("scanner")))
    assert facts.pop("site") == pseudonym("site", "Hospital")
    assert facts == {
        "modality": "CR", "view": "PA", "laterality": "L", "manufacturer": "siemens", "sop_class": "Computed Radiography Image Storage",
        "transfer_syntax": "Explicit VR Little Endian", "photometric": "MONOCHROME2", "sex": "F", "burned_in": "NO", "rows": 16,
        "columns": 16, "frames": 1, "spacing_mm": 0.14, "age_years": 45.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("elements", "years"),
    [
        ({"PatientAge": "006M"}, 0.5),
        ({"PatientAge": "099Y"}, 90.0),
        ({"PatientBirthDate": "19700615", "StudyDate": "20200614"}, 49.0),
        ({"PatientBirthDate": "19700615", "StudyDate": "20200615"}, 50.0),
        ({"PatientBirthDate": "19000101", "StudyDate": "20200615"}, 90.0),
        ({"PatientAge": "old"}, None),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200615"}, None),
    ],
)
def test_age(tmp_path: Path, elements: dict[str, str], years: float | None) -> None:
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, **elements))["age_years"] == years


def test_spacing_is_blank_when_it_is_not_square(tmp_path: Path) -> None:
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.2, 0.3]))["spacing_mm"] is None
    assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[1, 1]))["spacing_mm"] == 0.2


def test_the_key_is_made_once_for_the_owner_alone(key: Path) -> None:
    assert not key.exists()
    first = pseudonym("patient", " 4711 ")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert pseudonym("patient", "4711") == first
    assert pseudonym("study", "4711").split("-")[1] != first.split("-")[1]
    assert "quirin" not in pseudonym("patient", "Quirin").casefold()  # letters that no hexadecimal number holds by chance


def test_processes_that_start_together_share_one_whole_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, drawn = tmp_path / "new" / "pseudonym.key", secrets.token_hex

    def slow(n_bytes: int) -> str:
        time.sleep(0.05)  # whoever looks at the path now must not find an empty key
        return drawn(n_bytes)

    monkeypatch.setattr(secrets, "token_hex", slow)
    with multiprocessing.get_context("fork").Pool(8) as pool:
        keys = pool.map(_key_bytes, [path] * 8, chunksize=1)
    assert set(keys) == {path.read_bytes().strip()}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o077 == 0


def _key_bytes(path: Path) -> bytes:
    return pseudonyms._key(path)


def test_another_key_gives_other_pseudonyms_and_a_bad_key_is_refused(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pseudonym("patient", "4711")
    monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(tmp_path / "other.key"))
    assert pseudonym("patient", "4711") != first
    (tmp_path / "short.key").write_text("abc")
    (tmp_path / "file").touch()
    for path, message in [(tmp_path / "short.key", "at least 32"), (tmp_path / "file" / "x.key", "cannot be read or made")]:
        monkeypatch.setenv("MEDCNN_PSEUDONYM_KEY", str(path))
        with pytest.raises(InputError, match=message):
            pseudonym("patient", "4711")


def test_names_in_paths_are_masked_and_found_again(tmp_path: Path) -> None:
    real = tmp_path / "export" / "DOE_JOHN_4711" / "1.2.840.113619.2.5.dcm"
    real.parent.mkdir(parents=True)
    real.touch()
    shown_as = masked_path("export/DOE_JOHN_4711/1.2.840.113619.2.5.dcm", ["Doe"])
    assert re.fullmatch(r"export/~[0-9a-f]{16}/~[0-9a-f]{16}\.dcm", shown_as)
    assert find_file(tmp_path, shown_as) == real
    assert masked_path("export/v1.2.3/a.dcm", ["Doe", "ex"]) == "export/v1.2.3/a.dcm"
    assert masked_path("a/doe-1.dcm", [], frozenset(tokens_of("Doe^John"))).startswith("a/~")
    assert masked_path("a/doe1.dcm", [], frozenset(tokens_of("Doe^John"))) == "a/doe1.dcm"
    assert not find_file(tmp_path, "export/~0000000000000000/x").exists()


# ---------------------------------------------------------------- a tree


def tree(root: Path, n: int = 6) -> Path:
    for number in range(n):
        save_dicom(root / f"{number // 2}" / f"{number}.dcm", RAMP + np.uint16(number), PatientID=f"id{number // 2}x", PatientSex="F")
    return root


def config(root: Path, **values: object) -> DataConfig:
    return DataConfig.model_validate({"source": "dicom", "path": root, **values})


def test_a_tree_without_labels_comes_in_with_a_blank_label(tmp_path: Path) -> None:
    manifest, flow = ingest(config(tree(tmp_path)))
    assert manifest["y_finding"].isna().all()
    assert manifest["patient_id"].nunique() == 3
    assert manifest["patient_id"].str.fullmatch(r"patient-[0-9a-f]{16}").all()
    assert manifest["study_id"].nunique() == 6
    assert manifest["sex"].unique().tolist() == ["F"]
    assert (manifest["image_id"] == manifest["sha256"].str[:16]).all()
    assert flow.n_found == 6
    for row in manifest.itertuples():
        assert decode_row(row.path, row.frame, root=image_root(config(tmp_path))).shape == (16, 16)


@pytest.mark.parametrize(("frames", "numbers"), [("first", [0]), ("middle", [2]), ("all", [0, 1, 2, 3])])
def test_frames_of_an_object(tmp_path: Path, frames: str, numbers: list[int]) -> None:
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    save_dicom(tmp_path / "a.dcm", pixels)
    manifest, flow = ingest(config(tmp_path, frames=frames))
    assert manifest["frame"].tolist() == numbers
    assert manifest["image_id"].str[-5:].tolist() == [f"-{number:04d}" for number in numbers]
    assert manifest["pixel_sha256"].nunique() == len(numbers)
    assert (flow.n_files, flow.n_images, flow.n_patients) == (1, len(numbers), 1)


@pytest.mark.parametrize("join", ["file", "study", "patient"])
def test_labels_are_joined(tmp_path: Path, join: str) -> None:
    tree(tmp_path / "tree")
    rows = []
    for path in sorted((tmp_path / "tree").rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        keys = {
            "file": path.relative_to(tmp_path / "tree").as_posix(),
            "study": str(dataset.StudyInstanceUID),
            "patient": dataset.PatientID,
        }
        rows.append({"key": keys[join], "dx": "ill" if dataset.PatientID == "id1x" else "well", "age": 50})
    table = pd.DataFrame(rows).drop_duplicates()
    pd.concat([table[table["key"] != keys[join]], table.head(1).assign(key="nobody")]).to_csv(tmp_path / "labels.csv", index=False)
    source = config(
        tmp_path / "tree",
        label_table=tmp_path / "labels.csv",
        join=join,
        image_column="key",
        label_column="dx",
        covariates=["age"],
        positive="ill",
    )
    manifest, flow = ingest(source)
    assert manifest.groupby("patient_id")["y_ill"].max().sum() == 1
    assert manifest["age"].eq(50).all()
    assert {item.kind for item in flow.excluded} == {"not_in_label_table"}
    assert len(manifest) + len(flow.excluded) == 6
    assert "1 rows of the label table fit no image" in flow.notes


def test_label_tables_that_do_not_fit_say_so_without_naming_anybody(tmp_path: Path) -> None:
    tree(tmp_path / "tree")
    table = tmp_path / "labels.csv"
    source = config(tmp_path / "tree", label_table=table, join="patient", image_column="key", label_column="dx")
    for content, message in [
        ("key,dx\nid0x,a\nid1x,b\nid0x,b\n", "rows 2 and 4 name the same patient"),
        ("kee,dx\nid0x,a\nid1x,b\n", "did you mean kee"),
    ]:
        table.write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            ingest(source)
        assert "id0x" not in str(caught.value)
    with pytest.raises(InputError, match="label_table is not"):
        ingest(config(tmp_path / "tree", label_column="dx"))


def test_without_patient_id_the_study_is_the_patient_and_then_the_file(tmp_path: Path) -> None:
    study = generate_uid()
    for number in range(2):
        save_dicom(tmp_path / f"{number}.dcm", RAMP + np.uint16(number), PatientID="", StudyInstanceUID=study)
        save_dicom(tmp_path / f"x{number}.dcm", RAMP + np.uint16(9 + number), PatientID=None, StudyInstanceUID=None)
    manifest, flow = ingest(config(tmp_path))
    assert sorted(manifest["patient_id"].value_counts()) == [1, 1, 2]
    assert any(note.startswith("4 files have no PatientID") for note in flow.notes)


def test_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "readme.txt").write_text("hello, this is a text file and no image of anything")
    (tmp_path / "empty.dcm").touch()
    save_dicom(tmp_path / "short.dcm", RAMP, PixelData=bytes(10))
    manifest, flow = ingest(config(tmp_path))
    assert len(manifest) == 6
    assert {item.where: item.kind for item in flow.excluded} == {
        "readme.txt": "not_dicom",
        "empty.dcm": "empty_file",
        "short.dcm": "truncated",
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no files in this folder"):
        ingest(config(tmp_path / "none"))
    (tmp_path / "none" / "x.dcm").write_text("x")
    with pytest.raises(InputError, match="none of 1 files is a DICOM image"):
        ingest(config(tmp_path / "none"))


def test_equal_files_have_different_ids_and_one_patient(tmp_path: Path) -> None:
    data = save_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    (tmp_path / "b.dcm").write_bytes(data)
    manifest, _ = ingest(config(tmp_path))
    assert manifest["image_id"].str[16:].tolist() == ["", ".2"]
    assert manifest["patient_id"].nunique() == 1


PLANTED = "Quxworth"  # a name that occurs nowhere by chance
TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
KEPT_AS_THEY_ARE = {"PhotometricInterpretation", "SOPClassUID", "NumberOfFrames"}  # without these there is no image to read


def plant(dataset: pydicom.Dataset) -> None:
    """Write the name into every element that takes text, whatever the rules of its kind."""
    for tag, (vr, _, _, _, keyword) in pydicom.datadict.DicomDictionary.items():
        if vr in TEXT_VRS and keyword and keyword not in KEPT_AS_THEY_ARE and 0x0008 <= tag >> 16 <= 0x0040:
            element = pydicom.DataElement(tag, "LO", f"{PLANTED}^{keyword}"[:60])
            dataset.add(element)
    block = dataset.private_block(0x0009, "Planted", create=True)
    block.add_new(0x01, "LO", PLANTED)
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = f"{PLANTED}-17", f"{PLANTED}^Zebulon", "19531129"


def outputs(flow: Flow, manifest: pd.DataFrame, folder: Path) -> str:
    """Everything a stage would write, as text."""
    write_table(manifest, folder / "manifest.parquet")
    write_json(flow, folder / "flow.json")
    findings = audit(manifest, AuditConfig(), flow=flow)
    parquet = (folder / "manifest.parquet").read_bytes().decode("latin-1")
    return "\n".join(
        [parquet, manifest.to_csv(), (folder / "flow.json").read_text(), json.dumps([asdict(finding) for finding in findings])]
    )


def test_no_identity_reaches_any_output(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for number in range(3):
        dataset = make_dicom(RAMP + np.uint16(number))
        plant(dataset)
        dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 100}"
        for place in (root / f"{PLANTED}_Zebulon" / f"{number}.dcm", root / "uids" / f"{dataset.SOPInstanceUID}.dcm"):
            place.parent.mkdir(parents=True, exist_ok=True)
            pydicom.dcmwrite(place, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    whole = (root / f"{PLANTED}_Zebulon" / "0.dcm").read_bytes()
    assert whole.count(PLANTED.encode()) > 500
    (root / f"{PLANTED}_Zebulon" / "cut.dcm").write_bytes(whole[:-300])
    (root / f"notes of {PLANTED}.txt").write_text("x")
    manifest, flow = ingest(config(root))
    assert len(manifest) == 6
    assert {item.kind for item in flow.excluded} == {"truncated", "not_dicom"}
    # pydicom quotes values in warnings and logs; a test run changes the filters of both, so a process of its own is asked.
    program = f"from pathlib import Path; from medcnn.config_data import DataConfig; from medcnn.data.ingest import ingest; ingest(DataConfig(source='dicom', path=Path({str(root)!r})))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    everything = outputs(flow, manifest, tmp_path) + said.stdout + said.stderr
    for secret in (PLANTED, "Zebulon", "19531129", "3680043", *(str(uid) for uid in (dataset.StudyInstanceUID, dataset.SeriesInstanceUID))):
        assert secret.lower() not in everything.lower()
    for row in manifest.itertuples():
        assert decode_row(row.path, row.frame, root=root).shape == (16, 16)


def test_no_error_and_no_log_names_anybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    for number, elements in enumerate([{"PixelData": bytes(10)}, {"Rows": None}, {"PixelData": None}]):
        dataset = make_dicom(RAMP)
        plant(dataset)
        for keyword, value in elements.items():
            delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
        path = tmp_path / f"{number}.dcm"
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
        with pytest.raises(UnreadableImage) as caught:
            read_dicom(path)
        assert PLANTED not in str(caught.value)
        with pytest.raises(InputError) as not_ingested:
            ingest(config(tmp_path))
        assert PLANTED not in str(not_ingested.value)
    assert PLANTED not in caplog.text


# ---------------------------------------------------------------- the real files


def test_each_of_the_difficult_files_is_in_or_out_with_a_reason(shared_data: Path, tmp_path: Path) -> None:
    source = read_config(CONFIGS / "dicom.yaml").data
    manifest, flow = ingest(source)
    index = pd.read_csv(shared_data / "dicom" / "index.csv")
    names = set(index["file"]) | {"index.csv", "README.md"}
    root = image_root(source)
    came_in = {find_file(root, path).relative_to(root).as_posix() for path in manifest["path"]}
    left_out = {find_file(root, item.where.split(" frame ")[0]).relative_to(root).as_posix() for item in flow.excluded}
    assert came_in | left_out == names
    assert not came_in & left_out
    assert all(item.reason and item.kind for item in flow.excluded)
    # Everything that the index says pydicom decodes with free plugins, and that is a picture, came in.
    picture = ~index["sop_class"].fillna("").str.contains("Segmentation|RT Dose|Parametric|Microscopy")
    free = index["decodes_all_plugins"].eq("yes") & ~index["needs"].eq("one of: pylibjpeg") & picture
    assert set(index.loc[free, "file"]) <= came_in
    fields = ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "AccessionNumber")
    text = outputs(flow, manifest, tmp_path)
    for name in sorted(came_in):
        dataset = pydicom.dcmread(root / name, force=True, stop_before_pixels=True, specific_tags=list(fields))
        for field in fields:
            value = str(dataset.get(field) or "")
            assert len(value) < 8 or value not in text, f"{field} of {name}"


def test_real_files_agree_with_pydicom(shared_data: Path) -> None:
    """Two windows, rescale, VOI LUT, MONOCHROME1 of 10 bits, signed CT: rendered by pydicom's own functions."""
    root = shared_data / "dicom"
    names = ["pydicom_wheel/CT_small.dcm", "wg04/RG3_RLE.dcm", "wg04/CT2_RLE.dcm", "cxr_torchxrayvision/Fake_MONOHR1.dcm"]
    names += [
        path.relative_to(root).as_posix()
        for path in sorted((root / "derived").glob("*"))
        if re.search("window|voi|rescale|mono", path.name)
    ]
    assert len(names) >= 7
    for name in names:
        dataset = pydicom.dcmread(root / name)
        stored = pixel_array(dataset, raw=True)
        values = np.asarray(apply_voi_lut(apply_modality_lut(stored, dataset), dataset), float)
        drawn = read_dicom(root / name).astype(float)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        # The order of grey levels is what the two must share, whatever range each spreads them over.
        correlation = np.corrcoef(values.ravel()[::17], drawn.ravel()[::17])[0, 1]
        assert (-correlation if inverted else correlation) > 0.97, name
