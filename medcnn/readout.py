"""What a run's folders say, gathered for a person or for the report."""

import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from medcnn.artifact import read_stamp, write_file
from medcnn.audit_stages import FOUND_BY, all_findings
from medcnn.cohort import Exclusion, Finding, read_fingerprint, read_flow
from medcnn.config import Config
from medcnn.energy import SOURCE
from medcnn.errors import InputError
from medcnn.evaluation.calibrator import Calibrator
from medcnn.evaluation.ensemble_weights import EnsembleWeights
from medcnn.evaluation.ladder import RungNumbers
from medcnn.evaluation.selection import Selection
from medcnn.finding_pictures import read_pictures
from medcnn.members import Member, read_cost, read_members
from medcnn.plan import Plan, read_plan
from medcnn.report.facts import BagPicture, Energy, ErrorImage, OperatingPoint, RunFacts, RungFacts, SearchFacts
from medcnn.runs import Run, read_ledger
from medcnn.search import TRACE, value_of
from medcnn.tables import Record, read_records, read_table, split_hash

VERSIONED = ("medcnn", "torch", "timm", "monai", "albumentations", "opencv-python-headless", "numpy", "pandas", "scipy", "scikit-learn")
MOST_NAMED = 8
REPORTED = ("ingest", "audit", "shortcuts", "fingerprint", "plan", "split", "calibrate", "evaluate", "ladder", "explain")
SIGNS = {"error": "ERROR  ", "warning": "warning", "info": "note   "}


def run_facts(run: Run, folders: Mapping[str, Path], trained: Mapping[Member, Path]) -> RunFacts:
    """Everything that the report says of a run. folders: stage -> its folder."""
    decided = read_plan(folders["plan"] / "plan.yaml")
    calibrator, predicted = Calibrator.read(folders["calibrate"]), folders[f"predict/{decided.ladder.headline}"]
    split = read_table(folders["split"] / "split.parquet")
    stamps = [stamp for folder in [*folders.values(), *trained.values()] if (stamp := read_stamp(folder))]
    return RunFacts(
        name=run.config.name,
        records=read_records(folders["evaluate"] / "metrics.json"),
        curves=read_table(folders["evaluate"] / "curves.parquet"),
        predictions=read_table(folders["evaluate"] / "predictions.parquet"),
        config=run.config,
        plan=decided,
        flow=read_flow(folders["ingest"] / "flow.json"),
        excluded=[Exclusion(**row) for row in json.loads((folders["audit"] / "excluded.json").read_text(encoding="utf-8"))],
        findings=_all_findings(folders, run.config),
        pictures=read_pictures(folders["pictures"]) if "pictures" in folders else (),
        fingerprint=read_fingerprint(folders["fingerprint"] / "fingerprint.json"),
        split=split,
        counts=read_table(folders["split"] / "counts.csv"),
        thresholds=stated_points(calibrator, decided.evaluation.levels[0]),
        history=pd.concat([read_table(folder / "history.csv") for folder in trained.values()], ignore_index=True),
        errors=read_errors(folders["explain"]),
        bags=read_bags(folders["explain"]),
        ledger=read_ledger(run.ledger),
        stamps=stamps,
        versions=versions(),
        hashes={name: stamp.content for name, folder in folders.items() if (stamp := read_stamp(folder))},
        model=model_facts({member: trained[member] for member in read_members(predicted)}, decided, predicted),
        split_hash=split_hash(split),
        **ladder_facts(folders, trained),
        search=search_facts(folders["search"], decided) if "search" in folders else None,
        energy=energy_used(trained),
        recalibration=calibrator.method,
        recalibration_info=recalibration_info(calibrator),
        seed=decided.seed,
    )


def stated_points(calibrator: Calibrator, level: str) -> list[OperatingPoint]:
    """Each stored threshold of the recalibrated probabilities at one level (the mean over the folds), with its rule in words."""
    folds: dict[tuple[str, str, float | None], list[float]] = {}
    for point in calibrator.points[calibrator.method]:
        if point.level == level and point.threshold is not None:
            folds.setdefault((point.label, point.rule, point.value), []).append(point.threshold)
    return [
        OperatingPoint(
            label=label,
            threshold=sum(values) / len(values),
            rule=rule if value is None or rule == "fixed" else f"{rule} {value:g}",
            chosen_on="" if rule == "fixed" else calibrator.fitted_on + (f", mean of {len(values)} folds" if len({*values}) > 1 else ""),
        )
        for (label, rule, value), values in folds.items()
    ]


def recalibration_info(calibrator: Calibrator) -> dict[str, Any]:
    """What was fitted, on what, with which parameters, in words for the report."""
    maps = calibrator.recalibration.as_dict()["maps"]
    parameters = {
        f"{name}{f', fold {fold}' if len(maps) > 1 else ''}": {
            key: value for key, value in part.items() if key not in {"requested", "scores"} and value not in ("", {}, [])
        }
        for fold, parts in maps.items()
        for name, part in parts.items()
    }
    return {"method": calibrator.method, "requested": calibrator.requested, "fitted_on": calibrator.fitted_on, "parameters": parameters}


def ladder_facts(folders: Mapping[str, Path], trained: Mapping[Member, Path]) -> dict[str, Any]:
    """`ladder` and `selection` of RunFacts: what each rung predicts, and what its models are and cost."""
    found = json.loads((folders["ladder"] / "ladder.json").read_text(encoding="utf-8"))
    return {
        "ladder": [
            _rung_facts(RungNumbers.from_dict(numbers), folders[f"predict/{numbers['rung']}"], trained, folders.get("features"))
            for numbers in found["rungs"]
        ],
        "selection": Selection.from_dict(found["selection"]) if found["selection"] else None,
    }


def searched(run: Run, folders: Mapping[str, Path]) -> dict[str, Path]:
    """The folder of a search that was made in this run's folder, if it was on the same audited images, split and cache."""
    stamp = read_stamp(run.folder / "search")
    if stamp is None or not (run.folder / "search" / TRACE).is_file():
        return {}
    here = {name: found.content for name in stamp.inputs if name in folders and (found := read_stamp(folders[name]))}
    return {"search": run.folder / "search"} if here == dict(stamp.inputs) else {}


def search_facts(folder: Path, decided: Plan) -> SearchFacts:
    """What was searched, and which of the best setting's values the plan has."""
    trace = json.loads((folder / TRACE).read_text(encoding="utf-8"))
    best = trace["best"] or {}
    return SearchFacts(
        statement=trace["statement"],
        keys=trace["keys"],
        adopted=[key for key, value in best.items() if _alike(value_of(decided, key), value)],
    )


def _alike(one: Any, other: Any) -> bool:
    """Equal, numbers to the digits that a person copies."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-3) if numbers else bool(one == other)


def cpu_seconds_of(members: Iterable[Member], trained: Mapping[Member, Path], featured: Path | None) -> float:
    """CPU seconds of the models' training; of those on frozen features also of these, which are computed once for all of them."""
    members = list(members)
    stamp = read_stamp(featured) if featured and any(member.rung in {"frozen", "mil"} for member in members) else None
    return sum(read_cost(trained[member])["cpu_seconds"] for member in members) + (stamp.cpu_seconds if stamp else 0.0)


def _rung_facts(numbers: RungNumbers, predicted: Path, trained: Mapping[Member, Path], featured: Path | None) -> RungFacts:
    members = read_members(predicted)
    if not members:
        return RungFacts(name=numbers.rung, numbers=numbers, images_per_second=read_cost(predicted)["images_per_second"])
    cards = [json.loads((trained[member] / "model.json").read_text(encoding="utf-8")) for member in members]
    made_of = {*members, *(member for member in trained if member.rung == "main" and numbers.rung == "soup")}
    return RungFacts(
        name=numbers.rung,
        numbers=numbers,
        model=" + ".join(dict.fromkeys(card["name"] for card in cards)),
        n_models=len(members),
        n_parameters=sum(card["n_parameters"] for card in cards) / len(cards),
        cpu_seconds=cpu_seconds_of(made_of, trained, featured),
        gpu_seconds=sum(read_cost(trained[member]).get("gpu_seconds", 0.0) for member in made_of) or None,
        images_per_second=read_cost(predicted)["images_per_second"] if numbers.rung != "ensemble" else None,
        weights=EnsembleWeights.read(predicted) if numbers.rung == "ensemble" else None,
    )


def energy_used(trained: Mapping[Member, Path]) -> Energy | None:
    """Watt-hours of all trainings; None unless each was measured, because a part of them would look like little."""
    found = [read_cost(folder).get("watt_hours") for member, folder in trained.items() if member.rung in {"main", "simple_cnn"}]
    known = [hours for hours in found if hours is not None]
    return (
        Energy(watt_hours=sum(known), source=f"training of {len(known)} networks; {SOURCE}") if found and len(known) == len(found) else None
    )


def model_facts(members: Mapping[Member, Path], decided: Plan, predicted: Path) -> dict[str, Any]:
    """Name, size and cost of what predicts: sizes of one fold's models together, times summed over all, images per CPU second.

    members: the models whose mean predicts; none for the rungs without a network.
    """
    cards = {member: json.loads((folder / "model.json").read_text(encoding="utf-8")) for member, folder in members.items()}
    first = [card for member, card in cards.items() if member.fold == min(cards).fold]
    names = sorted({card["name"] for card in first})
    return {
        "name": " + ".join(names) or decided.ladder.headline,
        "n_models": len(cards),
        "n_parameters": sum(card["n_parameters"] for card in first),
        "multiply_adds": sum(card["n_multiply_adds"] for card in first),
        "input_size_px": decided.image.size_px,
        "weights": ", ".join(sorted({card["initial_weights"] for card in first})),
        "training_seconds": sum(read_cost(folder)["training_seconds"] for folder in members.values()),
        "images_per_second": read_cost(predicted)["images_per_second"],
    }


def read_errors(folder: Path) -> list[ErrorImage]:
    """The most confident errors that the stage explain kept."""
    rows = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
    return [
        ErrorImage(
            image_id=row["image_id"], label=row["label"], y=row["y"], p=row["p"], threshold=row["threshold"], method=row["method"],
            picture=(folder / row["picture"]).read_bytes(),
            heatmap=(folder / row["heatmap"]).read_bytes() if row["heatmap"] else None,
        )
        for row in rows
    ]  # fmt: skip


def read_bags(folder: Path) -> list[BagPicture]:
    """The bags that the stage explain kept; none without the rung mil."""
    path = folder / "bags.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    pictures = [{name: (folder / row[name]).read_bytes() for name in ("picture", "second") if row[name]} for row in rows]
    return [BagPicture(**{**row, "second": None, **found}) for row, found in zip(rows, pictures, strict=True)]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on."""
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in VERSIONED}}


def settle(finding: Finding, config: Config) -> Finding:
    """The finding as it stands after the config spoke: what it excludes or accepts is a note, with the reason given."""
    for verb, settled in (("Excluded", config.audit.exclude), ("Accepted", config.audit.accept)):
        if finding.kind in settled:
            return replace(finding, severity="info", todo=f"{verb}: {settled[finding.kind]}.")
    return finding


def _all_findings(folders: Mapping[str, Path], config: Config) -> list[Finding]:
    return [settle(finding, config) for finding in all_findings(folders)]


def audit_text(folders: Mapping[str, Path], config: Config, *, missing: str = "") -> str:
    """What came in, what did not and why, and what is wrong with the rest; for the terminal.

    folders: of ingest and audit, and of the other stages that find something, as far as the audit went; missing: why it went no further.
    """
    flow, findings = read_flow(folders["ingest"] / "flow.json"), all_findings(folders)
    lines = [f"{flow.source}: {flow.n_found} found, {flow.n_files} came in: {flow.n_images} images of {flow.n_patients} patients"]
    lines += [f"  note: {note}" for note in flow.notes]
    for kind, n in flow.counts().items():
        reasons = Counter(exclusion.reason for exclusion in flow.excluded if exclusion.kind == kind)
        lines.append(f"  left out, {kind}: {n}")
        lines += [f"    {count} x {reason}" for reason, count in reasons.most_common(MOST_NAMED)]
    lines.append("")
    for finding in sorted((settle(finding, config) for finding in findings), key=lambda finding: list(SIGNS).index(finding.severity)):
        lines += [f"{SIGNS[finding.severity]} {finding.kind}: {finding.text}", f"         {finding.todo}"]
    lines += ["" if findings else "no findings", *([missing] if missing else [])]
    places = ", ".join(str(folders[stage] / "findings.json") for stage in reversed(FOUND_BY) if stage in folders)
    lines.append(f"all of them: {places}; every file left out: {folders['ingest'] / 'flow.json'}")
    return "\n".join(lines)


def write_extras(run: Run, *, pdf: bool = False) -> list[Path]:
    """Write a finished run's report again from its folders, and as PDF when asked; returns what was written.

    Raises InputError when the run is not finished.
    """
    from medcnn.report.html import build_report
    from medcnn.report.pdf import to_pdf

    noted = json.loads((run.done("report") / "folders.json").read_text(encoding="utf-8"))
    places = {name: run.folder / place for name, place in noted.items()}
    if gone := [name for name in REPORTED if read_stamp(places.get(name, run.folder / name)) is None]:
        raise InputError(
            f"{run.folder}: stage {gone[0]} is not there (the run is older than this medcnn, or was moved); run `medcnn run` on its config again"
        )
    trained = {Member.at(name): folder for name, folder in places.items() if name.startswith("train/")}
    html = build_report(run_facts(run, {name: folder for name, folder in places.items() if not name.startswith("train/")}, trained))
    written = [run.folder / "report.html"]
    write_file(written[0], html.encode())
    if pdf:
        written.append(run.folder / "report.pdf")
        to_pdf(html, written[1])
    return written


def headline(records: Sequence[Record]) -> list[str]:
    """The first AUROC of each label (and average), and sensitivity and specificity at the first threshold; for the terminal."""
    first: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.subset == "all" and record.level == records[0].level:
            first.setdefault((record.metric, record.label), record)
    shown = [record for (metric, _), record in first.items() if metric in {"auroc", "sensitivity", "specificity"}]
    return [_sentence(record) for record in shown]


def _sentence(record: Record) -> str:
    name = record.metric.upper() if record.metric == "auroc" else record.metric
    at = f" at p >= {record.threshold:.3g}" if record.threshold is not None else ""
    if record.value is None:
        return f"{name} {record.label}{at}: not estimable ({record.note})"
    limits = f" ({record.low:.3f} to {record.high:.3f}, {record.method})" if record.low is not None and record.high is not None else ""
    positive = f", {record.n_positive} positive" if record.n_positive is not None else ""
    return f"{name} {record.label}{at}: {record.value:.3f}{limits}, n = {record.n}{positive}, {record.n_patients} patients"
