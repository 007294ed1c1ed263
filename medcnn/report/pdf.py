"""The page as PDF, by WeasyPrint (extra `pdf`), in a process of its own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from medcnn.errors import MissingExtra, RunError

NOT_INLINE = 3  # exit code: the page asked for something outside itself


def to_pdf(html: str, path: Path) -> None:
    """Write a report page as PDF, as it prints: every label's panel, no scripts, nothing fetched.

    WeasyPrint runs in a fresh process: beside GDCM's libraries, which reading DICOM loads, its own end the process.
    Raises MissingExtra when WeasyPrint is not installed, RunError when the page asks for anything outside itself or cannot be laid out.
    """
    if find_spec("weasyprint") is None:
        raise MissingExtra("weasyprint", "pdf", "a PDF report")
    layout = (Path(__file__).parent / "templates" / "pdf.css").read_text(encoding="utf-8")
    page = html.replace("</head>", f"<style>{layout}</style></head>", 1)
    command = [sys.executable, "-c", "from medcnn.report.pdf import lay_out; lay_out()", str(path)]
    done = subprocess.run(command, input=page.encode(), capture_output=True, check=False)  # noqa: S603 - our own command
    said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason was given"])[-1]
    if done.returncode == NOT_INLINE:
        raise RunError(f"{path}: not written, a report must hold everything itself: {said}")
    if done.returncode:
        raise RunError(f"{path}: not written, WeasyPrint ended with {done.returncode}: {said}")


def lay_out() -> None:
    """What the process does: the page from stdin to the PDF that its argument names."""
    from weasyprint import HTML
    from weasyprint.urls import FatalURLFetchingError, URLFetcher

    only_inline = URLFetcher(allowed_protocols={"data"}, fail_on_errors=True)
    try:
        HTML(string=sys.stdin.buffer.read().decode(), url_fetcher=only_inline).write_pdf(sys.argv[1])
    except FatalURLFetchingError as error:
        sys.stderr.write(f"{error} ({error.__cause__})".replace("\n", " "))
        sys.exit(NOT_INLINE)
