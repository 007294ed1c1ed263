"""The page as PDF, by WeasyPrint (extra `pdf`)."""

from pathlib import Path

from medcnn.errors import MissingExtra, RunError


def to_pdf(html: str, path: Path) -> None:
    """Write a report page as PDF, as it prints: every label's panel, no scripts, nothing fetched.

    Raises MissingExtra when WeasyPrint is not installed, RunError when the page asks for anything outside itself.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import FatalURLFetchingError, URLFetcher
    except ImportError as error:
        raise MissingExtra("weasyprint", "pdf", "a PDF report") from error
    layout = (Path(__file__).parent / "templates" / "pdf.css").read_text(encoding="utf-8")
    page = html.replace("</head>", f"<style>{layout}</style></head>", 1)
    only_inline = URLFetcher(allowed_protocols={"data"}, fail_on_errors=True)
    try:
        HTML(string=page, url_fetcher=only_inline).write_pdf(path)
    except FatalURLFetchingError as error:
        raise RunError(f"{path}: not written, a report must hold everything itself: {error}") from error
