"""Text burned into pixels, read by OCR (extra ocr): how many characters there are, never which; and what is said about them.

Patients' names stand in scanned films, ultrasound and screens. No one should rely on this alone: see the recall that
benchmarks/burned_in_text.py measures, and look at the images before they leave the house.
"""

import re
import threading
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medcnn.cohort import Finding
from medcnn.data.copies import first_of
from medcnn.data.images import to_uint8
from medcnn.errors import MissingExtra

KINDS = ("burned_in_text", "burned_in_marker")
LONGEST_PX = 1280  # a larger image is shrunk to it: letters of a hundredth of its height are still read
LEAST_PX = 512  # a smaller one is enlarged by the detector
LEAST_SCORE = 0.8
LEAST_CHARACTERS = 5  # of one line: side and position markers (R, AP, PA, 1) say nothing about who it is
# Words that say how an image was taken and not of whom; a line of these alone is a marker.
MARKERS = frozenset(["PORTABLE", "MOBILE", "ERECT", "UPRIGHT", "SUPINE", "PRONE", "SITTING", "SEMI", "STANDING", "LATERAL", "DECUBITUS", "LEFT", "RIGHT", "LINKS", "RECHTS", "GAUCHE", "DROITE", "BEDSIDE", "INSPIRATION", "EXPIRATION", "CHEST", "THORAX"])  # fmt: skip
_local = threading.local()


def text_in(pixels: np.ndarray, bit_depth: int = 16) -> dict[str, int]:
    """`text_lines`: lines of at least LEAST_CHARACTERS letters and digits; `text_characters`: how many of these in all;
    `text_markers`: lines that are only words of MARKERS and sides, counted apart.

    pixels: uint8 or uint16, (H, W) or (H, W, 3) RGB. Nothing that was read is kept. Raises MissingExtra.
    """
    grey = to_uint8(pixels, bit_depth)
    grey = grey if grey.ndim == 2 else cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY)
    scale = LONGEST_PX / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if min(grey.shape) < 8:
        return {"text_lines": 0, "text_characters": 0, "text_markers": 0}
    found = _reader()(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    lines = [text for text, score in zip(found.txts or (), found.scores or (), strict=True) if score >= LEAST_SCORE]
    is_marker = [_is_marker(text) for text in lines]
    lengths = [sum(letter.isalnum() for letter in text) for text, marker in zip(lines, is_marker, strict=True) if not marker]
    long_ones = [length for length in lengths if length >= LEAST_CHARACTERS]
    return {"text_lines": len(long_ones), "text_characters": sum(long_ones), "text_markers": sum(is_marker)}


def _is_marker(text: str) -> bool:
    words = re.findall(r"\w+", text.upper())
    return any(word in MARKERS for word in words) and all(word in MARKERS or len(word) <= 2 for word in words)


def text_findings(manifest: pd.DataFrame, traits: pd.DataFrame | None) -> list[Finding]:
    """A warning of the images whose header says that text is burned in (column burned_in), or in which OCR read some (text_lines).

    traits: `traits.parquet`; with data.find_text it has the columns of text_in. Markers (PORTABLE, SUPINE) are said as
    a note: they name nobody, but may give a label away.
    """
    said = manifest["burned_in"].eq("YES") if "burned_in" in manifest else pd.Series(False, index=manifest.index)
    read = pd.Series(0, index=manifest.index)
    if traits is not None and "text_lines" in traits:
        read = manifest["image_id"].map(traits.set_index("image_id")["text_lines"]).fillna(0)
    images = tuple(manifest.loc[said | (read > 0), "image_id"])
    found = [_warning(manifest, images, n_said=int(said.sum()), n_read=int((read > 0).sum()))] if images else []
    if traits is not None and "text_markers" in traits:
        marked = manifest["image_id"].map(traits.set_index("image_id")["text_markers"]).fillna(0) > 0
        found += [_note(manifest, tuple(manifest.loc[marked, "image_id"]))] if marked.any() else []
    return found


def _warning(manifest: pd.DataFrame, images: tuple[str, ...], *, n_said: int, n_read: int) -> Finding:
    ways = [f"{n_said} say so in their header"] * bool(n_said) + [f"in {n_read} OCR read some"] * bool(n_read)
    return Finding(
        severity="warning",
        kind="burned_in_text",
        text=f"{len(images)} of {len(manifest)} images hold text in their pixels ({'; '.join(ways)}), first {first_of(images)}.",
        todo="It may name a patient: look at them before an image, a report or a heat map leaves the house, and set report.n_errors: 0 until then. Text can also give the label away.",
        image_ids=images,
    )


def _note(manifest: pd.DataFrame, images: tuple[str, ...]) -> Finding:
    return Finding(
        severity="info",
        kind="burned_in_marker",
        text=f"{len(images)} of {len(manifest)} images have words like PORTABLE or SUPINE in their pixels, first {first_of(images)}.",
        todo="They name nobody, but bedside images are of sicker patients: see whether the label goes with them.",
        image_ids=images,
    )


def _reader() -> Any:
    """One for each thread: it keeps state."""
    if not hasattr(_local, "reader"):
        try:
            from rapidocr import RapidOCR

            settings = {
                "Global.log_level": "critical", "Global.use_cls": False, "Det.limit_side_len": LEAST_PX,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1, "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }  # fmt: skip
            _local.reader = RapidOCR(params=settings)
        except ImportError:
            raise MissingExtra("rapidocr", "ocr", "reading text that is burned into images (data.find_text)") from None
    return _local.reader
