"""How a DICOM image lies in the world: the shape of its pixels, their spacing, and where its rows and columns run to."""

import re

import cv2
import numpy as np
import pydicom

from medcnn.data.dicom_elements import frame_item, numbers_of, words_of
from medcnn.data.formats import MAX_PIXELS

NOT_SQUARE = 1.01  # spacings that differ by less are taken for equal: they are rounded
IMPLAUSIBLE = 10.0  # pixels more than ten times as high as wide (or the reverse) are taken for an error of the header
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
PLANES = {0: "sagittal", 1: "coronal", 2: "axial"}  # by the axis of the patient that the slice is normal to


def pixel_aspect(dataset: pydicom.Dataset, frame: int = 0) -> float:
    """Height of a pixel over its width: by its spacing, else by the pixel aspect ratio, else 1. PS3.3 C.7.6.3.1.7, 10.7."""
    spacing = _spacing(dataset, frame) or numbers_of(dataset, "PixelAspectRatio")
    return spacing[0] / spacing[1] if len(spacing) == 2 and min(spacing) > 0 else 1.0


def spacing_mm(dataset: pydicom.Dataset, frame: int = 0) -> float | None:
    """Millimetres between the centres of the pixels as they come out, square ones; None when unknown or implausible."""
    spacing = _spacing(dataset, frame)
    if not spacing:
        return None
    square = max(spacing) <= NOT_SQUARE * min(spacing)
    return spacing[0] if square else min(spacing) if max(spacing) <= IMPLAUSIBLE * min(spacing) else None


def shown_size(dataset: pydicom.Dataset, height: int, width: int, frame: int = 0) -> tuple[int, int]:
    """Height and width once the pixels are square: the longer side of a pixel is divided, so that nothing is lost."""
    aspect = pixel_aspect(dataset, frame)
    if 1 / NOT_SQUARE <= aspect <= NOT_SQUARE or not 1 / IMPLAUSIBLE <= aspect <= IMPLAUSIBLE:
        return height, width
    size = (round(height * aspect), width) if aspect > 1 else (height, round(width / aspect))
    return size if size[0] * size[1] <= MAX_PIXELS else (height, width)


def with_square_pixels(pixels: np.ndarray, dataset: pydicom.Dataset, frame: int = 0) -> np.ndarray:
    """The picture at shown_size, linearly interpolated; the very same array when its pixels are square."""
    height, width = shown_size(dataset, pixels.shape[0], pixels.shape[1], frame)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def orientation(dataset: pydicom.Dataset) -> str | None:
    """Where the rows and the columns run to (PS3.3 C.7.6.1.1.1): `L\\F` is to the left and to the feet; None when not known."""
    words = words_of(dataset, "PatientOrientation")
    return "\\".join(words) if len(words) == 2 and all(re.fullmatch(r"[APRLHF]{1,3}", word) for word in words) else None


def plane(dataset: pydicom.Dataset, frame: int = 0) -> str | None:
    """axial, coronal, sagittal, or oblique (over 25 degrees from each), of a slice; None without orientation."""
    item = frame_item(dataset, frame, "PlaneOrientationSequence")
    cosines = numbers_of(item, "ImageOrientationPatient")
    if len(cosines) != 6:
        return None
    normal = np.abs(np.cross(cosines[:3], cosines[3:]))
    length = float(np.linalg.norm(normal))
    if not 0.9 < length < 1.1:  # no two unit vectors at a right angle
        return None
    axis = int(normal.argmax())
    return PLANES[axis] if normal[axis] / length >= np.cos(np.deg2rad(25)) else "oblique"


def _spacing(dataset: pydicom.Dataset, frame: int) -> list[float]:
    """Millimetres between rows and between columns; empty when unknown."""
    places = [(frame_item(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing"), *((dataset, keyword) for keyword in SPACINGS)]
    for item, keyword in places:
        spacing = numbers_of(item, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            return spacing
    return []
