"""The findings as a table and with the pictures of their pairs and groups."""

import pytest

from medcnn.cohort import Finding, Flow
from medcnn.report.audit_html import build_audit
from medcnn.report.audit_sections import finding_blocks, picture_blocks
from medcnn.report.blocks import Details, Gallery, Table
from medcnn.report.facts import FindingPicture, RunFacts

PAIR = Finding(
    severity="error", kind="label_conflict", text="One <b>picture</b>.", todo="Mend it.", image_ids=("a", "b"), groups=(("a", "b"),)
)
NOTE = Finding(severity="info", kind="cropped_image", text="Two are cut.", todo="Look.", image_ids=("c", "d"))
PICTURES = [FindingPicture(kind="label_conflict", group=0, image_id=name, lines=["ill"], jpeg=name.encode()) for name in ("a", "b")] + [
    FindingPicture(kind="cropped_image", group=1, image_id="d", lines=[], jpeg=b"d")
]


def test_the_table_has_a_row_for_each_and_pictures_wait_behind_a_line() -> None:
    table, *rest = finding_blocks([PAIR, NOTE], PICTURES, known=True)
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["error", "note"]
    assert [(row[1].text, row[1].small) for row in table.rows] == [("label conflict", "2 images"), ("cropped image", "2 images")]
    assert all(isinstance(block, Details) for block in rest)
    galleries = [block.blocks[0] for block in rest]
    assert [[(picture.title, picture.lines[0]) for picture in gallery.pictures] for gallery in galleries] == [
        [("Group 1 of 1", "a"), ("Group 1 of 1", "b")],
        [("1 of 2", "d")],
    ]


def test_a_finding_without_pictures_has_no_gallery() -> None:
    assert len(finding_blocks([PAIR, NOTE], PICTURES[:2], known=True)) == 2
    assert [block for block in picture_blocks([NOTE], PICTURES[:2]) if isinstance(block, Gallery)] == []
    assert finding_blocks([], [], known=True)[0].text == "The audit found nothing to report."
    assert "No audit" in finding_blocks([], [], known=False)[0].text


def test_the_page_is_escaped_and_says_what_stops_a_run() -> None:
    flow = Flow(source="folder x", n_found=5, n_files=4, n_images=4, n_patients=3)
    html = build_audit(RunFacts(name="x", records=[], flow=flow, findings=[NOTE, PAIR], pictures=PICTURES), missing="Not looked <at>.")
    assert "One &lt;b&gt;picture&lt;/b&gt;." in html
    assert html.index("label conflict") < html.index("cropped image")
    assert "a run stops here until each is settled" in html
    assert html.count("Not looked &lt;at&gt;.") == 2
    assert "data:image/jpeg;base64,YQ==" in html


def test_a_page_without_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the flow"):
        build_audit(RunFacts(name="x", records=[]))
