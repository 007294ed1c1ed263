"""Text in pixels: read, counted, warned of, and never kept."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from made_dicom import save_dicom

from medcnn.config_data import DataConfig
from medcnn.data.burned_in_text import text_findings, text_in
from medcnn.data.ingest import ingest
from medcnn.errors import MissingExtra


def written(text: str, size: float = 0.8, shape: tuple[int, int] = (256, 320)) -> np.ndarray:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 160, shape, dtype=np.uint8), (0, 0), 4)
    cv2.putText(picture, text, (10, 40), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 2, cv2.LINE_AA)
    return picture


def test_names_are_told_from_markers_and_from_nothing() -> None:
    pytest.importorskip("rapidocr")
    assert text_in(written("DOE JOHN 1953"))["text_lines"] == 1
    assert text_in(written("DOE JOHN 1953"))["text_characters"] >= 10
    assert text_in(written("")) == {"text_lines": 0, "text_characters": 0, "text_markers": 0}
    assert text_in(written("R"))["text_lines"] == 0
    assert text_in(written("PORTABLE AP")) == {"text_lines": 0, "text_characters": 0, "text_markers": 1}
    assert text_in(np.dstack([written("DOE JOHN 1953")] * 3))["text_lines"] == 1
    assert text_in(written("DOE JOHN 1953").astype(np.uint16) * 16, 12)["text_lines"] == 1
    assert text_in(np.zeros((1, 1), np.uint8))["text_lines"] == 0


def test_ingest_reads_only_when_asked_and_keeps_no_word(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    save_dicom(tmp_path / "in" / "a.dcm", written("DOE JOHN 1953"))
    for ask in (False, True):
        manifest, _ = ingest(DataConfig(source="dicom", path=tmp_path / "in", find_text=ask), folder=tmp_path)
        traits = pd.read_parquet(tmp_path / "traits.parquet")
        assert ("text_lines" in traits) is ask
    assert traits["text_lines"].tolist() == [1]
    assert "DOE" not in repr(traits.drop(columns="thumbnail").to_dict())
    (finding,) = text_findings(manifest, traits)
    assert finding.severity == "warning"
    assert "in 1 OCR read some" in finding.text


def test_the_header_alone_warns_too() -> None:
    manifest = pd.DataFrame({"image_id": ["a", "b", "c"], "burned_in": ["YES", "NO", None]})
    (finding,) = text_findings(manifest, None)
    assert finding.image_ids == ("a",)
    assert "1 say so in their header" in finding.text
    assert text_findings(manifest.assign(burned_in="NO"), None) == []
    assert text_findings(manifest[["image_id"]], None) == []


def test_markers_are_a_note() -> None:
    manifest = pd.DataFrame({"image_id": ["a", "b"]})
    traits = pd.DataFrame({"image_id": ["b", "a"], "text_lines": [0, 0], "text_characters": [0, 0], "text_markers": [2, 0]})
    (finding,) = text_findings(manifest, traits)
    assert (finding.severity, finding.kind, finding.image_ids) == ("info", "burned_in_marker", ("b",))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr("medcnn.data.burned_in_text._local", type("Empty", (), {})())
    with pytest.raises(MissingExtra, match=r"medcnn\[ocr\]"):
        text_in(written("DOE JOHN"))
