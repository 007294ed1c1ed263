"""What the audit can say once parts and cache are there, still before any training: drift, doubtful labels, and pictures of findings."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.cohort import Finding, read_findings, write_json
from medcnn.plan import read_plan
from medcnn.runs import Run, do_stage
from medcnn.tables import read_table, write_table
from medcnn.train_stages import features_of

FOUND_BY = ("shortcuts", "drift", "doubts", "audit")  # stages with findings
REFERENCE = "reference.parquet"
UNSOUND = "Shortcuts, drift and label noise come once the errors are settled: mend the data, or accept or exclude each in the config with a reason."
UNLABELLED = "Shortcuts, drift and label noise were not looked for: they need parts, and parts need labels of each class."
DRIFT_TODO = {
    "part_drift": "Find out why (other dates, scanners, hospitals, or copies taken out of one part). A number from such a part says how the model travels, not how it does at home.",
    "site_drift": "A model may recognise the site. Look whether site and label go together, and evaluate each site (evaluation.by: [site], split.scheme: leave_site_out).",
}


def what_is_missing(run: Run, audited: Path) -> str:
    """Why the audit can go no further than files, tables and single images, in words; blank: it can."""
    from medcnn.data.audit import open_errors

    findings = read_findings(audited / "findings.json")
    if open_errors(findings, run.config.audit):
        return UNSOUND
    return UNLABELLED if any(finding.kind in {"unlabelled", "one_class"} for finding in findings) else ""


def drift(run: Run, ingested: Path, audited: Path, dealt: Path) -> Path:
    """Parts and sites against each other by their images' traits: `drift.csv`, `findings.json`; and `reference.parquet`, the traits
    of what trains, without a name, that new images are compared with. No label is read."""
    from medcnn.data.drift import compare, drift_finding, pairs_of, sample, trait_table
    from medcnn.evaluation.discrimination import auroc_interval

    def work(draft: Path) -> None:
        manifest, split = read_table(audited / "manifest.parquet"), read_table(dealt / "split.parquet")
        table = trait_table(manifest, read_table(ingested / "traits.parquet"))
        findings, rows = [], []
        for pair in pairs_of(manifest, split):
            sides = [sample(table[table["image_id"].isin(images)]) for images in (pair.reference, pair.new)]
            seen = compare(sides[0], sides[1], names=pair.names, seed=run.config.seed)
            auroc = auroc_interval(seen.y, seen.p)
            limits = tuple(0.5 if value is None else value for value in (auroc.value, auroc.low, auroc.high))
            rows.append(
                seen.traits.assign(reference_set=seen.reference, new_set=seen.new, auroc=auroc.value, low=auroc.low, high=auroc.high)
            )
            found = drift_finding(seen, (limits[0], limits[1], limits[2]), kind=pair.kind, todo=DRIFT_TODO[pair.kind])
            findings += [found] if found else []
        write_table(pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"trait": []}), draft / "drift.csv")
        write_json(findings, draft / "findings.json")
        trains = split.loc[split["part"] != "test", "image_id"]
        write_table(sample(table[table["image_id"].isin(set(trains))]), draft / REFERENCE)

    inputs = {"ingest": ingested, "audit": audited, "split": dealt}
    return do_stage(run, "drift", work, settings={"seed": run.config.seed}, inputs=inputs)


def doubts(run: Run, inputs: Mapping[str, Path]) -> Path:
    """Labels that the other patients' images speak against: `doubts.csv` and `findings.json`; test rows of a hold-out are not read.

    inputs: audit, split, cache, plan, and features where a rung has them: without, a thumbnail and the grey levels are all that is seen.
    """
    from medcnn.data.cache import open_cache
    from medcnn.data.label_noise import doubt_finding, doubt_labels
    from medcnn.data.shortcut_features import pixel_features
    from medcnn.data.shortcuts import rows_to_probe

    decided = read_plan(inputs["plan"] / "plan.yaml")

    def work(draft: Path) -> None:
        if run.config.data.source == "slides" and run.config.data.slides.annotations is None:
            text = "Label noise was not looked for: the labels belong to slides, not to tiles."
            write_json(
                [Finding(severity="info", kind="label_noise", text=text, todo="Have a second reader label some slides blindly.")],
                draft / "findings.json",
            )
            return
        manifest, _ = rows_to_probe(read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet"))
        cached = open_cache(inputs["cache"])
        rows = cached.rows(manifest["image_id"])
        if "features" in inputs:
            seen, features = (
                "the frozen features of a pretrained network",
                features_of(inputs, fold=0)[rows],
            )
        else:
            found = pixel_features(cached.images, rows, progress=run.progress)
            seen, features = "a thumbnail and the grey levels", np.concatenate([found["thumbnail"], found["grey_levels"]], axis=1)
        doubted = doubt_labels(manifest, features, decided.labels, task=decided.task, seed=decided.seed)
        write_table(doubted.table, draft / "doubts.csv")
        write_json([doubt_finding(doubted, seen=seen)], draft / "findings.json")

    read = {name: inputs[name] for name in ("audit", "split", "cache", "features") if name in inputs}
    return do_stage(run, "doubts", work, settings={"seed": decided.seed, "task": decided.task, "labels": decided.labels}, inputs=read)


def pictures(run: Run, ingested: Path, folders: Mapping[str, Path]) -> Path:
    """Thumbnails of the images that findings name: `pictures.json` and JPEG files; none when report.n_errors is 0.

    folders: those of FOUND_BY that are there.
    """
    from medcnn.finding_pictures import write_pictures

    def work(draft: Path) -> None:
        manifest = read_table(ingested / "manifest.parquet")
        write_pictures(draft, all_findings(folders), manifest, run.config, ingested, show=run.config.report.n_errors > 0)

    settings = {"show": run.config.report.n_errors > 0}
    return do_stage(run, "pictures", work, settings=settings, inputs={"ingest": ingested, **folders})


def all_findings(folders: Mapping[str, Path]) -> list[Finding]:
    """The findings of each stage of FOUND_BY that is among the folders."""
    return [finding for stage in FOUND_BY if stage in folders for finding in read_findings(folders[stage] / "findings.json")]
