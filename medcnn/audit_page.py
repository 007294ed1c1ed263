"""The page of `medcnn audit`, from the folders of its stages."""

import json
from collections.abc import Mapping
from pathlib import Path

from medcnn.artifact import read_stamp, write_file
from medcnn.audit_stages import all_findings
from medcnn.cohort import Exclusion, read_flow
from medcnn.finding_pictures import read_pictures
from medcnn.plan import read_plan
from medcnn.readout import settle
from medcnn.report.audit_html import build_audit
from medcnn.report.facts import RunFacts
from medcnn.runs import Run
from medcnn.tables import read_table

PAGE = "audit.html"


def write_audit_page(run: Run, folders: Mapping[str, Path], *, missing: str = "") -> Path:
    """Write `audit.html` into the run's folder; returns its path.

    folders: of ingest, audit, pictures, and of plan, split, shortcuts, drift and doubts as far as the audit went. missing: why it
    went no further, in words.
    """
    excluded = json.loads((folders["audit"] / "excluded.json").read_text(encoding="utf-8"))
    facts = RunFacts(
        name=run.config.name,
        records=[],
        config=run.config,
        flow=read_flow(folders["ingest"] / "flow.json"),
        findings=[settle(finding, run.config) for finding in all_findings(folders)],
        excluded=[Exclusion(**row) for row in excluded],
        plan=read_plan(folders["plan"] / "plan.yaml") if "plan" in folders else None,
        counts=read_table(folders["split"] / "counts.csv") if "split" in folders else None,
        pictures=read_pictures(folders["pictures"]),
        stamps=[stamp for folder in folders.values() if (stamp := read_stamp(folder))],
    )
    path = run.folder / PAGE
    write_file(path, build_audit(facts, missing=missing).encode())
    return path
