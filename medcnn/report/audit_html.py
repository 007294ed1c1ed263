"""The page of `medcnn audit`: who came in, what is wrong with the rest, and the pictures to look at. No model, no result."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import medcnn
from medcnn.cohort import Finding, Flow
from medcnn.report.audit_sections import finding_table, picture_blocks, title_of
from medcnn.report.blocks import Bullets, Section, Text
from medcnn.report.cohort_sections import author, flow_blocks
from medcnn.report.facts import RunFacts
from medcnn.report.html import render_page
from medcnn.report.numbers import count, date, plural
from medcnn.report.summary import Summary, Tile
from medcnn.report.words import Caution

ORDER = ("error", "warning", "info")
MOST_CAUTIONS = 6


def build_audit(facts: RunFacts, *, missing: str = "") -> str:
    """One self-contained HTML page about one cohort. facts: name, flow, findings, excluded, pictures, config and what else is known.

    missing: what could not be looked at yet, and why, in words. Raises ValueError without a flow.
    """
    if facts.flow is None:
        raise ValueError("the page of an audit needs the flow")
    findings = sorted(facts.findings, key=lambda finding: ORDER.index(finding.severity))
    title = (facts.config.report.title if facts.config is not None else "") or facts.name
    sections = [
        Section(
            "flow",
            "Who came in",
            [author(facts, "population", "Target population, dates, centres, devices and eligibility"), *flow_blocks(facts)],
        ),
        Section(
            "data",
            "Findings",
            _finding_blocks(findings, missing),
            "Errors stop a run until the config accepts or excludes them with a reason.",
        ),
        Section("pictures", "Pictures", _picture_blocks(facts, findings)),
    ]
    authors = facts.config.report.authors if facts.config is not None else ""
    when = date(max((stamp.finished for stamp in facts.stamps), default=""))
    made = f"medcnn {medcnn.__version__}" + (f", {when}" if when else "")
    return render_page(
        title=title, authors=authors, kicker="Cohort audit", summary=_summary(facts.flow, findings, missing), sections=sections, made=made
    )


def _summary(flow: Flow, findings: Sequence[Finding], missing: str) -> Summary:
    counts = Counter(finding.severity for finding in findings)
    lead = (
        f"{count(flow.n_images)} images of {plural(flow.n_patients, 'patient')} came in from {flow.source}; "
        f"{plural(flow.n_found - flow.n_files, 'file or row', 'files or rows')} did not."
    )
    stops = counts["error"] > 0
    tiles = [
        Tile("Errors", count(counts["error"]), "", "a run stops here until each is settled" if stops else "nothing stops a run", "#data"),
        Tile("Warnings", count(counts["warning"]), "", "to be looked at before a number is believed", "#data"),
        Tile("Notes", count(counts["info"]), "", "settled, or suggestions", "#data"),
    ]
    worst = [finding for finding in findings if finding.severity != "info"]
    cautions = [Caution(finding.severity, title_of(finding).capitalize(), finding.text) for finding in worst[:MOST_CAUTIONS]]
    return Summary(lead, tiles, [], [], cautions, max(len(worst) - MOST_CAUTIONS, 0), alert=missing)


def _finding_blocks(findings: Sequence[Finding], missing: str) -> list[Any]:
    blocks: list[Any] = [finding_table(findings)] if findings else [Text("Nothing was found.")]
    if missing:
        blocks.append(Text(missing, "caution"))
    looked = [
        "copies, near copies, conflicting labels, patients in two parts, classes too small or lacking in a part",
        "ages, sexes and dates that cannot be true; images that are blank, saturated, blurred, written on, turned, mirrored, inverted or cut",
        "whether file, border, grey levels, thumbnail or metadata alone tell the label; whether parts or sites differ; labels that the images speak against",
    ]
    return [*blocks, Text("Looked for:", "note"), Bullets(looked)]


def _picture_blocks(facts: RunFacts, findings: Sequence[Finding]) -> list[Any]:
    if facts.config is not None and facts.config.report.n_errors == 0:
        return [Text("No image leaves the cohort (report.n_errors is 0).", "note")]
    blocks = picture_blocks(findings, facts.pictures)
    return blocks or [Text("No finding has images to show.", "note")]
