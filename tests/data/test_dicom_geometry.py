"""Pixels made square, and how an image lies in the patient."""

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from made_dicom import RAMP, make_dicom, recorded, save_dicom, shown

from medcnn.data.dicom_facts import read_header
from medcnn.data.dicom_geometry import orientation, pixel_aspect, plane, shown_size
from medcnn.data.images import probe_image

GREY = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)


@pytest.mark.parametrize(
    ("elements", "size"),
    [
        ({"PixelSpacing": [0.4, 0.2]}, (24, 20)),
        ({"PixelSpacing": [0.2, 0.4]}, (12, 40)),
        ({"PixelAspectRatio": [4, 3]}, (16, 20)),
        ({"ImagerPixelSpacing": [0.3, 0.2]}, (18, 20)),
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [4, 3]}, (12, 20)),  # millimetres before a ratio
        ({"PixelSpacing": [0.2, 0.2015]}, (12, 20)),
        ({"PixelSpacing": [0.2, 200]}, (12, 20)),
        ({"PixelSpacing": [0, 0.2]}, (12, 20)),
    ],
)
def test_pixels_become_square(tmp_path: Path, elements: dict[str, list[float]], size: tuple[int, int]) -> None:
    drawn = shown(tmp_path, GREY, **elements)
    assert drawn.shape == size
    np.testing.assert_array_equal(drawn, cv2.resize(GREY, size[::-1], interpolation=cv2.INTER_LINEAR))
    header = probe_image(tmp_path / "a.dcm")
    assert (header.height, header.width) == size
    assert recorded(tmp_path, GREY, **elements)["resampled"] is (size != (12, 20))


def test_a_circle_stays_round(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:40, :80]
    circle = (((rows * 2 - 40) ** 2 + (columns - 40) ** 2) < 30**2).astype(np.uint8) * 255  # pixels twice as high as wide
    drawn = shown(tmp_path, circle, PixelSpacing=[2, 1]) > 127
    height, width = np.ptp(np.argwhere(drawn), axis=0) + 1
    assert abs(int(height) - int(width)) <= 2


def test_colours_are_resampled_too(tmp_path: Path) -> None:
    assert shown(tmp_path, np.zeros((6, 8, 3), np.uint8), PixelAspectRatio=[4, 3]).shape == (8, 8, 3)


def test_spacing_is_that_of_the_pixels_that_come_out(tmp_path: Path) -> None:
    for elements, spacing in [
        ({"PixelSpacing": [0.2, 0.3]}, 0.2),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [1, 1]}, 0.2),
        ({"PixelSpacing": [0.2, 20]}, None),
        ({"PixelAspectRatio": [1, 1]}, None),
    ]:
        assert read_header(save_dicom(tmp_path / "a.dcm", RAMP, **elements))["spacing_mm"] == spacing


def test_a_frame_may_have_its_own_spacing() -> None:
    def group(spacing: list[float]) -> pydicom.Dataset:
        item, measures = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing = spacing
        item.PixelMeasuresSequence = [measures]
        return item

    dataset = make_dicom(np.stack([GREY, GREY]), PerFrameFunctionalGroupsSequence=[group([1, 1]), group([2, 1])])
    assert (pixel_aspect(dataset, 0), pixel_aspect(dataset, 1)) == (1, 2)
    assert shown_size(dataset, 12, 20, frame=1) == (24, 20)


@pytest.mark.parametrize(
    ("cosines", "name"),
    [
        ([1, 0, 0, 0, 1, 0], "axial"), ([1, 0, 0, 0, 0, -1], "coronal"), ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([1, 0, 0, 0, 0.9, 0.436], "oblique"), ([1, 0, 0, 0, 0.966, 0.259], "axial"), ([1, 0, 0, 1, 0, 0], None), ([1, 0, 0], None),
    ],
)  # fmt: skip
def test_planes(cosines: list[float], name: str | None) -> None:
    assert plane(make_dicom(RAMP, ImageOrientationPatient=cosines)) == name


@pytest.mark.parametrize(
    ("value", "expected"), [(["L", "F"], "L\\F"), (["PL ", "HF"], "PL\\HF"), (["Quirin", "F"], None), (["L"], None), (None, None)]
)
def test_orientation(value: list[str] | None, expected: str | None) -> None:
    assert orientation(make_dicom(RAMP, **({"PatientOrientation": value} if value else {}))) == expected
