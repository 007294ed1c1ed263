"""Grey levels against values computed by hand and pydicom's own functions; the record of each step."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_dicom import RAMP, SIGNED, kind_of, levels, lookup_table, make_dicom, recorded, save_dicom, shown
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from medcnn.config_data import WindowChoice
from medcnn.data.dicom import decode_dicom, read_dicom


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


# ---------------------------------------------------------------- which window, and which way round


TWO = {"WindowCenter": [1000, 3000], "WindowWidth": [500, 2000]}


@pytest.mark.parametrize(
    ("choice", "centre", "width", "index"),
    [
        ("first", 1000, 500, 0),
        ("last", 3000, 2000, 1),
        ("widest", 3000, 2000, 1),
        ("narrowest", 1000, 500, 0),
        ((700.0, 300.0), 700, 300, -1),
    ],
)
def test_the_window_that_was_chosen_is_shown_and_recorded(
    tmp_path: Path, choice: WindowChoice, centre: float, width: float, index: int
) -> None:
    path = save_dicom(tmp_path / "a.dcm", RAMP, **TWO)
    pixels, header = decode_dicom(path.read_bytes(), 0, where=path, window=choice)
    np.testing.assert_array_equal(pixels, levels((RAMP.astype(float) - (centre - 0.5)) / (width - 1) + 0.5))
    assert (header.record["window_center"], header.record["window_width"], header.record["window_index"]) == (centre, width, index)
    assert header.record["voi_step"] == ("window" if index >= 0 else "config_window")


def test_among_tables_and_windows(tmp_path: Path) -> None:
    elements = {**TWO, "VOILUTSequence": lookup_table([0, 255, 128], first=10, bits=8)}
    path = save_dicom(tmp_path / "a.dcm", RAMP, **elements)
    steps = {
        choice: decode_dicom(path.read_bytes(), 0, where=path, window=choice)[1].record["voi_step"]
        for choice in ("first", "widest", "percentiles")
    }
    assert steps == {"first": "voi_lut", "widest": "window", "percentiles": "percentiles"}


def test_percentiles_may_be_asked_for_of_8_bits_too(tmp_path: Path) -> None:
    pixels = np.clip(np.arange(100, 164), 110, 150).astype(np.uint8).reshape(8, 8)
    path = save_dicom(tmp_path / "a.dcm", pixels, WindowCenter=128, WindowWidth=256)
    np.testing.assert_array_equal(read_dicom(path, window="percentiles"), levels((pixels.astype(int) - 110) / 40))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME1", "Quirin", True),
    ],
)
def test_an_image_is_inverted_once_or_not_at_all(tmp_path: Path, photometric: str, shape: str | None, inverted: bool) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    elements = {"PhotometricInterpretation": photometric, **({"PresentationLUTShape": shape} if shape else {})}
    np.testing.assert_array_equal(shown(tmp_path, pixels, **elements), 255 - pixels if inverted else pixels)
    assert recorded(tmp_path, pixels, **elements)["inverted"] is inverted


def test_bits_above_the_stored_ones_are_overlays_and_ignored(tmp_path: Path) -> None:
    """PS3.5 8.1.1: what stands in unused bits, as retired overlays do, is no part of the value."""
    elements = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    plain = shown(tmp_path, RAMP, **elements)
    overlay = RAMP | (np.random.default_rng(0).integers(0, 16, RAMP.shape).astype(np.uint16) << 12)
    np.testing.assert_array_equal(shown(tmp_path, overlay, **elements), plain)
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16) & 0x0FFF  # signed 12 bits without the sign extended
    drawn = shown(tmp_path, signed.astype(np.int16), **{**elements, "WindowCenter": 0})
    np.testing.assert_array_equal(drawn, plain)


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 10, 12, 16, 31, 32])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth_between_its_ends(tmp_path: Path, bits: int, signed: bool) -> None:
    if bits == 1 and signed:
        pytest.skip("a signed bit has no meaning")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = np.linspace(low, high, 256).round().astype(np.int64)
    allocated = 8 if bits <= 8 else 16 if bits <= 16 else 32
    stored = values.astype(f"{'i' if signed else 'u'}{allocated // 8}").reshape(16, 16)
    drawn = shown(tmp_path, stored, BitsStored=bits, HighBit=bits - 1, WindowCenter=(low + high + 1) / 2, WindowWidth=high - low + 1)
    if bits > 1:
        np.testing.assert_allclose(drawn, levels((values.reshape(16, 16) - low) / (high - low)), atol=1)
    np.testing.assert_allclose([drawn.min(), drawn.max()], [0, 255], atol=1)


def test_single_bits_packed_eight_to_a_byte(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (6, 12), dtype=np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    path = save_dicom(tmp_path / "a.dcm", bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed + b"\0" * (len(packed) % 2))
    np.testing.assert_array_equal(read_dicom(path), bits * 255)


def test_a_table_written_unsigned_may_begin_below_zero(tmp_path: Path) -> None:
    table = lookup_table([0, 100, 255], first=-2, bits=8)
    table[0].add_new(0x00283002, "US", [3, 65534, 8])
    drawn = shown(tmp_path, np.array([[-3, -2, -1, 0]], np.int16), VOILUTSequence=table)
    assert drawn.tolist() == [[0, 0, 100, 255]]


def test_the_record_tells_every_step(tmp_path: Path) -> None:
    padded = SIGNED.copy()
    padded[:4] = -2048
    found = recorded(
        tmp_path, padded, RescaleSlope=2, RescaleIntercept=-10, RescaleType="HU", WindowCenter=[40, 50], WindowWidth=[400, 500], VOILUTFunction="SIGMOID",
        PixelPaddingValue=-2048, PhotometricInterpretation="MONOCHROME1", PatientOrientation=["L", "F"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )  # fmt: skip
    assert found == {
        "compression": "Explicit VR Little Endian", "decoder": "pydicom", "photometric": "MONOCHROME1", "channels_stored": 1, "bits_allocated": 16,
        "bits_stored": 16, "signed": True, "padding_fraction": 0.25, "modality_step": "rescale", "rescale_slope": 2.0, "rescale_intercept": -10.0,
        "unit": "HU", "voi_step": "window", "voi_function": "SIGMOID", "window_center": 40.0, "window_width": 400.0, "window_index": 0, "n_windows": 2,
        "inverted": True, "pixel_aspect": 1.0, "resampled": False, "orientation": "L\\F", "plane": "coronal",
    }  # fmt: skip
    assert recorded(tmp_path, RAMP, RescaleType="Quirin")["unit"] is None
