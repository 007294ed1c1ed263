"""The first half of the flow, what depends on the data alone: sources to manifest, findings, fingerprint, split, cache.

Each stage reads folders, calls one function of a room, writes one folder. Heavy packages are imported by the stage
that needs them.
"""

import dataclasses
import functools
import json
import time
from pathlib import Path

import pandas as pd

from medcnn.artifact import read_stamp
from medcnn.cohort import read_findings, read_flow, write_json
from medcnn.plan import read_plan
from medcnn.runs import Run, do_stage
from medcnn.tables import (
    check_manifest,
    check_split,
    read_table,
    write_table,
)

SECONDS_PER_DAY = 86_400


def ingest(run: Run) -> Path:
    """Sources to `manifest.parquet`, `flow.json`, `traits.parquet` (what was measured on the pixels) and `pixels.parquet` (what was done to them)."""
    from medcnn.data.ingest import ingest
    from medcnn.data.provenance import source_digest
    from medcnn.data.pseudonyms import require_key_outside

    config = run.config
    if config.data.source == "dicom":
        require_key_outside(run.folder)

    def work(draft: Path) -> None:
        manifest, flow = ingest(
            config.data,
            task=config.task,
            modality=config.modality,
            seed=config.seed,
            folder=draft,
            executor=config.executor,
            progress=run.progress,
        )
        write_json(flow, draft / "flow.json")
        write_table(check_manifest(manifest, source=str(config.data.path or config.data.source)), draft / "manifest.parquet")

    settings = {
        "data": config.data.model_dump(mode="json"),
        "task": config.task,
        "modality": config.modality,
        "seed": config.seed,
        "sources": source_digest(config.data),
    }
    return do_stage(run, "ingest", work, settings=settings, inputs={})


def audit(run: Run, ingested: Path) -> Path:
    """Manifest to `findings.json`, and to the manifest without the images that the config excludes."""
    from medcnn.data.audit import audit, exclude
    from medcnn.data.copies import join_copies

    def work(draft: Path) -> None:
        manifest = read_table(ingested / "manifest.parquet")
        traits, today = read_table(ingested / "traits.parquet"), float(time.time() // SECONDS_PER_DAY)
        flow, pixels = read_flow(ingested / "flow.json"), read_table(ingested / "pixels.parquet")
        findings = audit(manifest, run.config.audit, flow=flow, traits=traits, pixels=pixels, today=today)
        kept, exclusions = exclude(manifest, findings, run.config.audit)
        kept = join_copies(kept, findings, merge_patients=run.config.audit.merge_patients is not None)
        write_json(findings, draft / "findings.json")
        (draft / "excluded.json").write_text(json.dumps([dataclasses.asdict(item) for item in exclusions], indent=1) + "\n")
        write_table(kept, draft / "manifest.parquet")

    return do_stage(run, "audit", work, settings=run.config.audit.model_dump(mode="json"), inputs={"ingest": ingested})


def _ingest_behind(run: Run, audited: Path) -> Path | None:
    """The folder of the ingest that an audit read: it may keep the pixels of tiles. None: it was removed since."""
    stamp = read_stamp(audited)
    wanted = stamp.inputs.get("ingest") if stamp else None
    stamps = ((folder, read_stamp(folder)) for folder in sorted(run.cohort.glob("ingest*")))
    return next((folder for folder, found in stamps if found is not None and found.content == wanted), None)


def require_sound(run: Run, audited: Path) -> None:
    """Raise InputError when the audit found an error that the config neither accepts nor excludes."""
    from medcnn.data.audit import require_sound

    require_sound(read_findings(audited / "findings.json"), run.config.audit)


def fingerprint(run: Run, audited: Path) -> Path:
    """Manifest, and a sample of its images, to `fingerprint.json`."""
    from medcnn.data.fingerprint import fingerprint
    from medcnn.data.ingest import row_reader

    def work(draft: Path) -> None:
        manifest = read_table(audited / "manifest.parquet")
        read = row_reader(run.config.data, _ingest_behind(run, audited))
        found = fingerprint(manifest, task=run.config.task, read=read, progress=run.progress)
        write_json(found, draft / "fingerprint.json")

    return do_stage(run, "fingerprint", work, settings={"task": run.config.task}, inputs={"audit": audited})


def split(run: Run, audited: Path, planned: Path) -> Path:
    """Deal patients to folds and parts: `split.parquet`, `counts.csv`."""
    from medcnn.data.split import count_parts, deal

    decided = read_plan(planned / "plan.yaml")

    def work(draft: Path) -> None:
        manifest = read_table(audited / "manifest.parquet")
        dealt = deal(manifest, decided.split, labels=decided.labels, seed=decided.seed)
        for note in dealt.attrs["notes"]:
            run.say(f"split: {note}")
        write_table(check_split(dealt, source="split"), draft / "split.parquet")
        count_parts(manifest, dealt, decided.labels).to_csv(draft / "counts.csv", index=False)

    settings = {"split": decided.split.model_dump(mode="json"), "labels": decided.labels, "seed": decided.seed}
    return do_stage(run, "split", work, settings=settings, inputs={"audit": audited})


def cache(run: Run, audited: Path, planned: Path) -> Path:
    """Decode every image once: `images.npy` uint8 (N, H, W, C), or shards of it; `index.parquet`."""
    from medcnn.data.cache import build_cache
    from medcnn.data.ingest import reading_of
    from medcnn.data.prepared import prepare_row

    decided = read_plan(planned / "plan.yaml")

    def work(draft: Path) -> None:
        manifest = read_table(audited / "manifest.parquet")
        prepare = functools.partial(prepare_row, reading=reading_of(run.config.data, _ingest_behind(run, audited)))
        build_cache(manifest, decided.image, draft, prepare=prepare, executor=run.config.executor, progress=run.progress)

    settings = {"image": decided.image.model_dump(mode="json", exclude={"stain"})}  # colours are changed when images are shown
    return do_stage(run, "cache", work, settings=settings, inputs={"audit": audited})


def shortcuts(run: Run, audited: Path, dealt: Path, cached: Path, planned: Path) -> Path:
    """Could something that is not the disease predict the label? `shortcuts.csv` and `findings.json`; test rows of a hold-out are not read."""
    from medcnn.data.cache import open_cache
    from medcnn.data.shortcut_findings import shortcut_findings
    from medcnn.data.shortcuts import probe_shortcuts, rows_to_probe
    from medcnn.evaluation.discrimination import auroc_interval

    decided = read_plan(planned / "plan.yaml")

    def work(draft: Path) -> None:
        rows, scope = rows_to_probe(read_table(audited / "manifest.parquet"), read_table(dealt / "split.parquet"))
        images = open_cache(cached)
        probed = probe_shortcuts(
            rows, images.images, images.rows(rows["image_id"]), decided.labels, task=decided.task, seed=decided.seed, progress=run.progress
        )
        groups = probed.groupby(["probe", "label"], observed=True)
        found = {names: auroc_interval(group["y"], group["p"], group["patient_id"].cat.codes) for names, group in groups}
        summary = pd.DataFrame(
            [{"probe": probe, "label": label, "auroc": e.value, "low": e.low, "high": e.high} for (probe, label), e in found.items()],
            columns=["probe", "label", "auroc", "low", "high"],
        )
        write_table(summary.assign(scope=scope), draft / "shortcuts.csv")
        write_json(shortcut_findings(summary), draft / "findings.json")

    inputs = {"audit": audited, "split": dealt, "cache": cached}
    return do_stage(run, "shortcuts", work, settings={"seed": decided.seed, "task": decided.task}, inputs=inputs)
