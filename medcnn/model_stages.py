"""The plan, and what becomes of a model's predictions: calibrate, evaluate, explain, report.

This file, cohort_stages.py, train_stages.py and predict_stages.py are the only ones that know data, model, evaluation and report. Each stage reads folders,
calls one function of a room, writes one folder. Heavy packages are imported by the stage that needs them, so that
asking for a finished run's report does not wait for torch.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from medcnn.artifact import digest, expose, file_digest, read_stamp
from medcnn.bag_stages import ATTENTION_TABLE, one_row_a_bag
from medcnn.cohort import read_fingerprint
from medcnn.config import EvaluationConfig, Rung
from medcnn.errors import InputError
from medcnn.evaluation.calibrator import Calibrator
from medcnn.members import MEMBER_TABLE, Member, read_members, representatives
from medcnn.plan import Plan, evaluated_as, read_plan, write_plan
from medcnn.runs import Run, do_stage, ledger_entry, note_opening, read_ledger
from medcnn.tables import (
    MANIFEST_COLUMNS,
    Task,
    check_predictions,
    label_names,
    read_table,
    write_records,
    write_table,
)


def plan(run: Run, fingerprinted: Path) -> Path:
    """Fingerprint, machine and config to `plan.yaml`; an edited plan is honoured.

    Raises InputError when the plan was edited and the config changed too (one of the two must give way), and for an edit
    that the rules would have refused.
    """
    from medcnn.data.augment import AugmentedImages, build_augmentation
    from medcnn.model.machine import inspect_machine
    from medcnn.model.measure import plan_by_measuring, random_pixels

    def to_measure_with(decided: Plan) -> AugmentedImages:
        size_px, channels = decided.image.size_px, decided.image.channels
        augmentation = build_augmentation(decided.augment, size_px=size_px, channels=channels)
        return AugmentedImages(random_pixels(size_px, channels), augmentation, decided.seed)

    def work(draft: Path) -> None:
        _refuse_to_lose_an_edit(run.folder / "plan")
        found = read_fingerprint(fingerprinted / "fingerprint.json")
        write_plan(plan_by_measuring(found, run.config, inspect_machine(), to_measure_with), draft / "plan.yaml")

    names = ("task", "modality", "seed", "split", "image", "augment", "model", "training", "ladder", "prediction")
    settings = {name: run.config.model_dump(mode="json")[name] for name in names}
    settings |= {name: getattr(run.config.evaluation, name) for name in ("levels", "aggregation")}
    folder = do_stage(run, "plan", work, settings=settings, inputs={"fingerprint": fingerprinted})
    if _was_edited(folder):
        _check_edited(folder / "plan.yaml", fingerprinted, run)
        run.say("plan: plan.yaml was edited by hand, and is honoured")
    return folder


def _check_edited(path: Path, fingerprinted: Path, run: Run) -> None:
    """Raise InputError for an edit that the rules would have refused."""
    from medcnn.model.rules_checks import check_plan

    try:
        check_plan(read_plan(path), read_fingerprint(fingerprinted / "fingerprint.json"), run.config)
    except InputError as problem:
        raise InputError(f"{path}, as it was edited: {problem}") from None


# ---------------------------------------------------------------- the numbers


def headline(planned: Path, predicted: Mapping[Rung, Path]) -> Path:
    """Predictions of the rung that the report is about; the plan named it before anything was trained."""
    return predicted[read_plan(planned / "plan.yaml").ladder.headline]


def calibrate(run: Run, predicted: Path, planned: Path) -> Path:
    """Rows that no fold tests itself to `calibrator.json` and `thresholds.json`: val rows, or the other folds' (see calibration_rows)."""
    from medcnn.evaluation.calibrator import fit_calibrator

    decided = read_plan(planned / "plan.yaml")
    evaluation = evaluated_as(run.config.evaluation, decided)

    def work(draft: Path) -> None:
        predictions = check_predictions(read_table(predicted / "predictions.parquet"), source="predictions")
        rows = one_row_a_bag(predictions, decided.ladder.headline, decided)
        fit_calibrator(rows, run.config.calibration, evaluation, task=decided.task, seed=run.config.seed).write(draft)

    chosen = {"calibration": run.config.calibration, "thresholds": evaluation}
    settings = {name: section.model_dump(mode="json") for name, section in chosen.items()}
    return do_stage(run, "calibrate", work, settings={**settings, "seed": run.config.seed}, inputs={"predict": predicted})


def evaluate(run: Run, audited: Path, predicted: Path, calibrated: Path, planned: Path) -> Path:
    """Open the test part: `metrics.json`, `curves.parquet`, `predictions.parquet` (calibrated), one line in the test ledger."""
    decided = read_plan(planned / "plan.yaml")
    evaluation = evaluated_as(run.config.evaluation, decided)

    def work(draft: Path) -> None:
        manifest = read_table(audited / "manifest.parquet")
        raw = check_predictions(read_table(predicted / "predictions.parquet"), source="predictions")
        covariates = _covariates(manifest)
        covariates = covariates[["image_id", *covariates.columns.difference(raw.columns, sort=False)]]
        raw = raw.merge(covariates, on="image_id", validate="many_to_one")
        final = assess_both(raw, Calibrator.read(calibrated), evaluation, task=decided.task, draft=draft)
        write_table(final, draft / "predictions.parquet")
        config, predictions = digest(run.config.model_dump(mode="json")), file_digest(draft / "predictions.parquet")
        note_opening(run, ledger_entry(run.config.name, config, predictions, run=run.folder.name))

    settings = {"evaluation": evaluation.model_dump(mode="json"), "task": decided.task}
    inputs = {"audit": audited, "predict": predicted, "calibrate": calibrated}
    folder = do_stage(run, "evaluate", work, settings=settings, inputs=inputs)
    for name in ("metrics.json", "predictions.parquet"):
        expose(folder / name, run.folder / name)
    return folder


def assess_both(raw: pd.DataFrame, calibrator: Calibrator, config: EvaluationConfig, *, task: Task, draft: Path) -> pd.DataFrame:
    """Assess the calibrated probabilities, then the model's own; write both to the draft; return the calibrated predictions."""
    from medcnn.evaluation.assessment import assess

    final = calibrator.apply(raw)
    tables = {calibrator.method: final, "none": raw}  # one entry when nothing was recalibrated
    done = [
        assess(table, config=config, thresholds=calibrator.points[name], recalibration=name, task=task) for name, table in tables.items()
    ]
    write_records([record for assessment in done for record in assessment.records], draft / "metrics.json")
    write_table(pd.concat([assessment.curves for assessment in done], ignore_index=True), draft / "curves.parquet")
    return final


def ladder(run: Run, predicted: Mapping[Rung, Path], evaluated: Path, planned: Path) -> Path:
    """What each rung predicts on the test rows, recalibrated like the headline: `ladder.json`; with several rungs on
    out-of-fold rows, also what choosing the best of them is worth.

    The folder of `evaluate` is an input because that stage has opened the test part and says so in the ledger.
    """
    from medcnn.evaluation.ladder import ladder_numbers
    from medcnn.evaluation.selection import corrected_best

    decided = read_plan(planned / "plan.yaml")
    evaluation = evaluated_as(run.config.evaluation, decided)

    def work(draft: Path) -> None:
        tables = {str(rung): _recalibrated(run, folder, decided) for rung, folder in predicted.items()}
        members = {str(rung): _of_single_models(folder) for rung, folder in predicted.items()}
        numbers = ladder_numbers(tables, evaluation, task=decided.task, headline=decided.ladder.headline, members=members)
        chosen = out_of_fold(tables, decided)
        best = corrected_best(chosen, evaluation, task=decided.task) if chosen and evaluation.n_bootstrap else None
        found = {"rungs": [rung.as_dict() for rung in numbers], "selection": best.as_dict() if best else None}
        (draft / "ladder.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    settings = {"evaluation": evaluation.model_dump(mode="json"), "calibration": run.config.calibration.model_dump(mode="json")}
    inputs = {"evaluate": evaluated, **{str(rung): folder for rung, folder in predicted.items()}}
    return do_stage(run, "ladder", work, settings={**settings, "headline": decided.ladder.headline}, inputs=inputs)


def _recalibrated(run: Run, predicted: Path, decided: Plan) -> pd.DataFrame:
    """A rung's predictions, recalibrated by the config's method; those of prevalence alone have nothing to fit."""
    from medcnn.evaluation.calibrator import fit_calibrator

    table = check_predictions(read_table(predicted / "predictions.parquet"), source=f"predictions of {predicted.name}")
    if predicted.name == "prevalence":
        return table
    rows, evaluation = one_row_a_bag(table, predicted.name, decided), evaluated_as(run.config.evaluation, decided)
    return fit_calibrator(rows, run.config.calibration, evaluation, task=decided.task, seed=run.config.seed).apply(table)


def _of_single_models(predicted: Path) -> list[pd.DataFrame]:
    """One table for each model behind a rung, none where there is only one or no network."""
    path = predicted / MEMBER_TABLE
    if len(read_members(predicted)) < 2 or not path.is_file():
        return []
    return [table for _, table in read_table(path).groupby(["seed", "fold"], sort=True)]


def out_of_fold(tables: Mapping[str, pd.DataFrame], decided: Plan) -> dict[str, pd.DataFrame]:
    """Rows that several rungs predicted out of fold: test rows of a cross-validation, val rows beside a common test part.

    Of val rows without the soup, which was mixed by them. Nothing for a single split.
    """
    part = "val" if decided.split.scheme == "kfold_holdout" else "test"
    left_out = {"prevalence", "shortcuts"} | ({"soup"} if part == "val" else set())
    found = {rung: table[table["part"] == part] for rung, table in tables.items() if rung not in left_out}
    several = part == "val" or any(table["fold"].nunique() > 1 for table in found.values())
    return found if several and len(found) > 1 else {}


def explain(run: Run, inputs: Mapping[str, Path], trained: Mapping[Member, Path], evaluated: Path) -> Path:
    """The most confident errors of the test part as pictures, with Grad-CAM where the network allows it; of the rung mil bags
    with the attention in them.

    inputs: folders of cache and plan and, with the rung mil, of audit and mil (its predictions).
    """
    from medcnn.explanation import write_errors

    shown = representatives(trained)
    cached, planned = inputs["cache"], inputs["plan"]

    def work(draft: Path) -> None:
        if "mil" in inputs:
            _write_bags(draft, inputs, run.config.report.n_errors)
        if read_plan(planned / "plan.yaml").ladder.headline == "mil":  # its errors are bags
            (draft / "errors.json").write_text("[]\n", encoding="utf-8")
            return
        write_errors(
            draft,
            cached,
            shown,
            read_table(evaluated / "predictions.parquet"),
            read_plan(planned / "plan.yaml"),
            run.config.report.n_errors,
        )

    read = {name: folder for name, folder in inputs.items() if name != "plan"}
    read |= {"evaluate": evaluated, **{f"fold{fold}": folder for fold, folder in shown.items()}}
    return do_stage(run, "explain", work, settings={"n_errors": run.config.report.n_errors}, inputs=read)


def _write_bags(draft: Path, inputs: Mapping[str, Path], n_bags: int) -> None:
    from medcnn.bag_pictures import write_bag_pictures
    from medcnn.data.cache import open_cache

    attention, predictions = (read_table(inputs["mil"] / name) for name in (ATTENTION_TABLE, "predictions.parquet"))
    manifest, decided = read_table(inputs["audit"] / "manifest.parquet"), read_plan(inputs["plan"] / "plan.yaml")
    write_bag_pictures(draft, open_cache(inputs["cache"]), manifest, predictions, attention, decided, n_bags)


def report(run: Run, folders: Mapping[str, Path], trained: Mapping[Member, Path]) -> Path:
    """All of the above to one self-contained `report.html`, with its figures as SVG and their numbers as CSV.

    folders: stage -> folder; they are noted in `folders.json`, so that the report can be written again.
    """
    from medcnn.readout import run_facts, searched
    from medcnn.report.figures import write_figures
    from medcnn.report.html import build_report

    folders = {**folders, **searched(run, folders)}
    places = {**folders, **{member.place: folder for member, folder in trained.items()}}

    def work(draft: Path) -> None:
        facts = run_facts(run, folders, trained)
        (draft / "report.html").write_text(build_report(facts), encoding="utf-8")
        write_figures(facts, draft / "figures")
        relative = {name: os.path.relpath(folder, run.folder) for name, folder in places.items()}
        (draft / "folders.json").write_text(json.dumps(relative, indent=1) + "\n", encoding="utf-8")

    settings = {"config": digest(run.config.model_dump(mode="json")), "n_openings": len(read_ledger(run.ledger))}
    folder = do_stage(run, "report", work, settings=settings, inputs=places)
    expose(folder / "report.html", run.folder / "report.html")
    return folder


# ---------------------------------------------------------------- parts of the stages


def _covariates(manifest: pd.DataFrame) -> pd.DataFrame:
    """image_id, study, site and the covariates: what subgroups are made of."""
    internal = {
        *MANIFEST_COLUMNS,
        "pixel_sha256",
        "copy_group",
        "given_part",
        "given_fold",
        *(f"y_{label}" for label in label_names(manifest)),
    }
    return manifest[["image_id", *(column for column in manifest.columns if column not in internal)]]


def _was_edited(planned: Path) -> bool:
    stamp = read_stamp(planned)
    return stamp is not None and file_digest(planned / "plan.yaml") != stamp.outputs["plan.yaml"]


def _refuse_to_lose_an_edit(planned: Path) -> None:
    if _was_edited(planned):
        raise InputError(
            f"{planned / 'plan.yaml'}: was edited by hand, and the config or the cohort has changed since; "
            "carry your edits over into the config and delete this file's folder, or undo the change"
        )
