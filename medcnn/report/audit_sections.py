"""What the audit found, as a table and with pictures: for the report, and for the page of `medcnn audit`."""

import base64
from collections.abc import Sequence
from typing import Any

from medcnn.cohort import Finding
from medcnn.report.blocks import Cell, Details, Gallery, Heading, Picture, Row, Table, Text
from medcnn.report.facts import FindingPicture
from medcnn.report.numbers import count, plural

NAMES = {"error": "error", "warning": "warning", "info": "note"}


def finding_table(findings: Sequence[Finding]) -> Table:
    """One row for each finding, in the order given."""
    rows: list[Row] = [
        [
            NAMES[finding.severity],
            Cell(title_of(finding), plural(len(finding.image_ids), "image") if finding.image_ids else ""),
            finding.text,
            finding.todo,
        ]
        for finding in findings
    ]
    return Table(["Severity", "Kind", "What was seen", "What to do"], rows, "Findings of the audit")


def finding_blocks(findings: Sequence[Finding], pictures: Sequence[FindingPicture], *, known: bool) -> list[Any]:
    """The table, and behind a line each the pictures of those findings that have any."""
    if not findings:
        return [Text("The audit found nothing to report." if known else "No audit of the images is known to this report.", "note")]
    shown = [finding for finding in findings if any(picture.kind == finding.kind for picture in pictures)]
    galleries = [Details(f"Pictures: {title_of(finding)}", [_gallery(finding, pictures)]) for finding in _first_of_kind(shown)]
    return [finding_table(findings), *galleries]


def picture_blocks(findings: Sequence[Finding], pictures: Sequence[FindingPicture]) -> list[Any]:
    """Heading, words and pictures of each finding that has pictures, open."""
    blocks: list[Any] = []
    for finding in _first_of_kind(findings):
        if any(picture.kind == finding.kind for picture in pictures):
            blocks += [Heading(title_of(finding).capitalize()), Text(finding.text), Text(finding.todo, "note"), _gallery(finding, pictures)]
    return blocks


def title_of(finding: Finding) -> str:
    """The kind in words."""
    return finding.kind.replace("_", " ")


def _first_of_kind(findings: Sequence[Finding]) -> list[Finding]:
    return list({finding.kind: finding for finding in reversed(findings)}.values())[::-1]


def _gallery(finding: Finding, pictures: Sequence[FindingPicture]) -> Gallery:
    grouped = bool(finding.groups)
    shown = [picture for picture in pictures if picture.kind == finding.kind]
    title = f"Group {{}} of {count(len(finding.groups))}" if grouped else f"{{}} of {count(len(finding.image_ids))}"
    places = {group: number for number, group in enumerate(sorted({picture.group for picture in shown}), start=1)}
    return Gallery(
        [Picture(title.format(places[picture.group]), [picture.image_id, *picture.lines], _uri(picture.jpeg)) for picture in shown]
    )


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
