"""Colour frames against values computed by hand from the standard's formulas."""

from pathlib import Path

import numpy as np
import pytest
from made_dicom import make_dicom, shown
from pydicom.uid import RLELossless

from medcnn.data.dicom import read_dicom


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


def test_the_retired_partial_range(tmp_path: Path) -> None:
    """CCIR 601-2: Y from 16 to 235, colours from 16 to 240; pure red is (81, 90, 240). Stored as Y1 Y2 Cb Cr."""
    pixels = np.array([[[81, 90, 240]] * 2 + [[235, 128, 128]] * 2 + [[16, 128, 128]] * 2], np.uint8)
    pairs = np.concatenate(
        [[first[0], second[0], first[1], first[2]] for first, second in zip(pixels[0, ::2], pixels[0, 1::2], strict=True)]
    )
    drawn = shown(tmp_path, pixels, PhotometricInterpretation="YBR_PARTIAL_422", PixelData=pairs.astype(np.uint8).tobytes()).astype(int)
    expected = [[255, 0, 0]] * 2 + [[255, 255, 255]] * 2 + [[0, 0, 0]] * 2
    assert np.abs(drawn[0] - expected).max() <= 2


def test_ybr_full_422_halves_the_colours(tmp_path: Path) -> None:
    pairs = np.array([76, 76, 85, 255, 255, 0, 128, 128], np.uint8)
    drawn = shown(tmp_path, np.zeros((1, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes()).astype(int)
    assert np.abs(drawn[0] - [[255, 0, 0], [255, 0, 0], [255, 255, 255], [0, 0, 0]]).max() <= 2


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint16, 16), (np.uint16, 12), (np.uint32, 32)])
def test_colours_of_any_depth(tmp_path: Path, dtype: type, bits: int) -> None:
    top = 2**bits - 1
    pixels = np.array([[[0, top // 2, top]]], dtype)
    assert np.abs(shown(tmp_path, pixels, BitsStored=bits, HighBit=bits - 1).astype(int) - [[[0, 127.5, 255]]]).max() <= 0.5
