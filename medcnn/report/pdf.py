"""The page as PDF, by WeasyPrint (extra `pdf`)."""

from pathlib import Path
from typing import Any

from medcnn.errors import MissingExtra, RunError


def to_pdf(html: str, path: Path) -> None:
    """Write a report page as PDF, as it prints: every label's panel, no scripts, nothing fetched.

    Raises MissingExtra when WeasyPrint is not installed, RunError when the page asks for anything outside itself.
    """
    try:
        from weasyprint import HTML
    except ImportError as error:
        raise MissingExtra("weasyprint", "pdf", "a PDF report") from error
    HTML(string=html, url_fetcher=_only_inline).write_pdf(path)


def _only_inline(url: str, *_: Any, **__: Any) -> Any:
    from weasyprint import default_url_fetcher

    if not url.startswith("data:"):
        raise RunError(f"the report asks for {url[:80]}; a report must hold everything itself")
    return default_url_fetcher(url)
