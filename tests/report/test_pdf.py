"""The page as PDF."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcnn.errors import MissingExtra, RunError
from medcnn.report.facts import RunFacts
from medcnn.report.html import build_report
from medcnn.report.pdf import to_pdf


def test_without_weasyprint_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtra, match=r"medcnn\[pdf\]"):
        to_pdf("<html></html>", tmp_path / "a.pdf")


def test_the_report_becomes_a_pdf(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="the extra pdf is not installed: no PDF was written")
    path = tmp_path / "report.pdf"
    to_pdf(build_report(facts_of(rich=False)), path)
    data = path.read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page") + data.count(b"/Type/Page") > 4 or len(data) > 40_000


def test_gdcm_and_weasyprint_do_not_meet(tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="the extra pdf is not installed: no PDF was written")
    pytest.importorskip("gdcm", reason="the extra dicom is not installed")  # in one process they end it
    to_pdf("<html><head></head><body>text</body></html>", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_nothing_is_fetched(tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="the extra pdf is not installed: no PDF was written")
    with pytest.raises(RunError, match="hold everything itself") as raised:
        to_pdf("<html><head></head><body><img src='http://example.org/x.png'></body></html>", tmp_path / "a.pdf")
    assert "disallowed protocol" in str(raised.value)
    assert not (tmp_path / "a.pdf").exists()
