"""Single elements of a DICOM data set, read so that a malformed one is blank and no value of it reaches a message."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from medcnn.data.dicom_codecs import DICOM_ERRORS, syntax_name


def text_of(dataset: pydicom.Dataset | None, keyword: str) -> str:
    """An element as stripped text, blank when it is absent or malformed. May hold an identity: not for any output."""
    try:
        value: Any = dataset.get(keyword) if dataset is not None else None
        return "" if value is None else str(value).replace("\0", "").strip()
    except DICOM_ERRORS:
        return ""


def words_of(dataset: pydicom.Dataset, keyword: str) -> list[str]:
    """The values of a multi-valued text element, stripped, in capitals; none when it is absent or malformed."""
    try:
        value: Any = dataset.get(keyword)
        values = [] if value is None else [value] if isinstance(value, str) else list(value)
        return [str(item).replace("\0", "").strip().upper() for item in values]
    except DICOM_ERRORS:
        return []


def numbers_of(dataset: pydicom.Dataset, keyword: str) -> list[float]:
    """The numbers of an element; none when it is absent or not all of them are finite numbers."""
    try:
        value = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [] if value in (None, "") else [value]
        numbers = [float(item) for item in values]
    except DICOM_ERRORS:
        return []
    return numbers if np.isfinite(numbers).all() else []


def whole_of(dataset: pydicom.Dataset, keyword: str) -> int | None:
    """An element as a whole number, None when it is absent or none."""
    text = text_of(dataset, keyword)
    return int(text) if text.isdecimal() else None


def one_of(word: str, known: frozenset[str] | set[str]) -> str | None:
    """The word in capitals when it is known; None for blank, `other` for any other word: only known words leave a data set."""
    return None if not word else word.upper() if word.upper() in known else "other"


def known_uid(dataset: pydicom.Dataset | None, keyword: str) -> str | None:
    """The public name of a UID; None when blank, `private` when it has none."""
    uid = text_of(dataset, keyword)
    return None if not uid else syntax_name(UID(uid))


def frame_item(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Where attributes of a frame stand: in the frame's or the shared functional group of an enhanced object, else in the data set."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups) or ()
        if index < len(items) and items[index].get(sequence):
            found: pydicom.Dataset = items[index][sequence][0]
            return found
    return dataset
