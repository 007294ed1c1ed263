"""The gate before any training: every check of a cohort, on one page with pictures.

`python -m pipelines.audit CONFIG [section.key=value ...]` does the same work as `medcnn audit`.
"""

import sys
from pathlib import Path

from medcnn import audit_stages, cohort_stages, model_stages
from medcnn.audit_page import write_audit_page
from medcnn.config import Config
from medcnn.config_file import read_config
from medcnn.readout import audit_text
from medcnn.runs import open_run

QUICK = "Shortcuts, drift and label noise were not looked for (--quick)."


def audit_cohort(config: Config, out: Path | None = None, *, update: bool = False, quick: bool = False) -> tuple[Path, str]:
    """Ingest, audit and, when no error is open, plan, split, cache, shortcut probes, drift and label noise.

    Returns the page and what was seen in words. Errors found in the cohort are shown, not raised; raises InputError for what
    else the user can mend.
    """
    run = open_run(config, out, update=update)
    ingested = cohort_stages.ingest(run)
    audited = cohort_stages.audit(run, ingested)
    folders = {"ingest": ingested, "audit": audited}
    missing = QUICK if quick else audit_stages.what_is_missing(run, audited)
    if not missing:
        planned = model_stages.plan(run, cohort_stages.fingerprint(run, audited))
        dealt = cohort_stages.split(run, audited, planned)
        cached = cohort_stages.cache(run, audited, planned)
        folders |= {"plan": planned, "split": dealt}
        folders["shortcuts"] = cohort_stages.shortcuts(run, audited, dealt, cached, planned)
        folders["drift"] = audit_stages.drift(run, ingested, audited, dealt)
        folders["doubts"] = audit_stages.doubts(run, {"audit": audited, "split": dealt, "cache": cached, "plan": planned})
    folders["pictures"] = audit_stages.pictures(
        run, ingested, {stage: folders[stage] for stage in audit_stages.FOUND_BY if stage in folders}
    )
    return write_audit_page(run, folders, missing=missing), audit_text(folders, config, missing=missing)


if __name__ == "__main__":
    page, text = audit_cohort(read_config(Path(sys.argv[1]), sys.argv[2:]))
    print(f"{text}\nwith pictures: {page}")
