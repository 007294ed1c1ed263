"""The second half of the flow, what depends on a model too: plan, train, predict, calibrate, evaluate, explain, report.

This file and cohort_stages.py are the only ones that know data, model, evaluation and report. Each stage reads folders,
calls one function of a room, writes one folder. Heavy packages are imported by the stage that needs them, so that
asking for a finished run's report does not wait for torch.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import COST_FILE, digest, expose, file_digest, read_stamp
from medcnn.cohort import read_fingerprint
from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.calibrator import Calibrator
from medcnn.plan import Plan, read_plan, write_plan
from medcnn.runs import Run, append_ledger, do_stage, ledger_entry, read_ledger
from medcnn.tables import (
    MANIFEST_COLUMNS,
    PREDICTION_COLUMNS,
    Task,
    check_predictions,
    label_matrix,
    label_names,
    read_table,
    write_records,
    write_table,
)


def plan(run: Run, fingerprinted: Path) -> Path:
    """Fingerprint, machine and config to `plan.yaml`; an edited plan is honoured.

    Raises InputError when the plan was edited and the config changed too: one of the two must give way.
    """
    from medcnn.model.rules import inspect_machine, make_plan

    def work(draft: Path) -> None:
        _refuse_to_lose_an_edit(run.folder / "plan")
        write_plan(make_plan(read_fingerprint(fingerprinted / "fingerprint.json"), run.config, inspect_machine()), draft / "plan.yaml")

    names = ("task", "modality", "seed", "split", "image", "augment", "model", "training")
    settings = {name: run.config.model_dump(mode="json")[name] for name in names}
    folder = do_stage(run, "plan", work, settings=settings, inputs={"fingerprint": fingerprinted})
    if _was_edited(folder):
        run.say("plan: plan.yaml was edited by hand, and is honoured")
    return folder


def train(run: Run, audited: Path, dealt: Path, cached: Path, planned: Path) -> dict[int, Path]:
    """Train one model for each fold: `weights.safetensors`, `model.json`, `history.csv`. Returns fold -> folder."""
    decided = read_plan(planned / "plan.yaml")
    sections = ("task", "labels", "seed", "image", "augment", "model", "training")
    settings = {name: decided.model_dump(mode="json")[name] for name in sections}
    inputs = {"audit": audited, "split": dealt, "cache": cached}
    folders = {}
    for fold in sorted(read_table(dealt / "split.parquet")["fold"].unique()):
        folders[int(fold)] = do_stage(
            run,
            "train",
            lambda draft, fold=int(fold): _train_fold(run, fold, draft, decided, inputs),  # type: ignore[misc]
            settings={**settings, "fold": int(fold), "weights": _weights_digest(decided)},
            inputs=inputs,
            place=f"train/fold{fold}",
        )
    return folders


def _train_fold(run: Run, fold: int, draft: Path, decided: Plan, inputs: Mapping[str, Path]) -> None:
    from medcnn.data.augment import AugmentedImages, build_augmentation
    from medcnn.data.cache import open_cache
    from medcnn.model.backbones import build_model, normalisation
    from medcnn.model.card import make_card, save_model
    from medcnn.model.training import train

    cached = open_cache(inputs["cache"])
    y, rows = _targets(
        read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet"), cached, decided, fold
    )
    augmentation = build_augmentation(decided.augment, size_px=decided.image.size_px, channels=decided.image.channels)
    images = AugmentedImages(cached.images, augmentation, decided.seed)
    mean, std = normalisation(decided.model, decided.image.channels)
    seed = decided.seed + fold
    n_outputs = 2 if decided.task == "binary" else len(decided.labels)
    model = build_model(decided.model, channels=decided.image.channels, n_outputs=n_outputs, size_px=decided.image.size_px, seed=seed)
    result = train(
        model, images, y, rows_train=rows["train"], rows_val=rows["val"], task=decided.task, plan=decided.training,
        mean=mean, std=std, seed=seed, checkpoint_dir=draft, progress=run.progress,
    )  # fmt: skip
    result.history.assign(fold=fold, seed=seed).to_csv(draft / "history.csv", index=False)
    save_model(draft, model, make_card(decided, result, model, fold=fold, seed=seed))


def predict(run: Run, audited: Path, dealt: Path, cached: Path, trained: Mapping[int, Path], planned: Path) -> Path:
    """Each fold's model on its own val and test rows: `predictions.parquet` with the model's own (raw) probabilities."""
    decided = read_plan(planned / "plan.yaml")

    def work(draft: Path) -> None:
        from medcnn.data.augment import AugmentedImages
        from medcnn.data.cache import open_cache

        manifest, table, images = read_table(audited / "manifest.parquet"), read_table(dealt / "split.parquet"), open_cache(cached)
        source = AugmentedImages(images.images, None, decided.seed)
        folds, cpu_seconds = [], 0.0
        for fold, folder in trained.items():
            wanted = table[(table["fold"] == fold) & (table["part"] != "train")].sort_values("image_id")
            started = time.process_time()
            folds.append(_predict_fold(run, wanted, folder, source, images.rows(wanted["image_id"]), decided))
            cpu_seconds += time.process_time() - started
        labels = manifest[["image_id", *(f"y_{label}" for label in decided.labels)]]
        predictions = pd.concat(folds, ignore_index=True).merge(labels, on="image_id", validate="many_to_one")
        columns = [f"{kind}_{label}" for label in decided.labels for kind in ("y", "logit", "p")]
        write_table(predictions[[*PREDICTION_COLUMNS, *columns]], draft / "predictions.parquet")
        cost = {"n_images": len(predictions), "cpu_seconds": cpu_seconds, "images_per_second": len(predictions) / max(cpu_seconds, 1e-9)}
        (draft / COST_FILE).write_text(json.dumps(cost) + "\n", encoding="utf-8")

    inputs = {"audit": audited, "split": dealt, "cache": cached, **{f"fold{fold}": folder for fold, folder in trained.items()}}
    return do_stage(
        run, "predict", work, settings={"device": decided.training.device, "precision": decided.training.precision}, inputs=inputs
    )


def _predict_fold(run: Run, wanted: pd.DataFrame, folder: Path, source: Any, rows: np.ndarray, decided: Plan) -> pd.DataFrame:
    from medcnn.model.card import load_model
    from medcnn.model.predict import predict

    model, card = load_model(folder)
    logits, probabilities = predict(
        model, source, rows, card=card, device=decided.training.device, precision=decided.training.precision, progress=run.progress
    )
    table = wanted[list(PREDICTION_COLUMNS)].reset_index(drop=True)
    for column, label in enumerate(decided.labels):
        table[f"logit_{label}"], table[f"p_{label}"] = logits[:, column], probabilities[:, column]
    return table


# ---------------------------------------------------------------- the numbers


def calibrate(run: Run, predicted: Path, planned: Path) -> Path:
    """Val rows to `calibrator.json` and `thresholds.json`. The test rows are not read."""
    from medcnn.evaluation.calibrator import fit_calibrator

    task = read_plan(planned / "plan.yaml").task

    def work(draft: Path) -> None:
        predictions = check_predictions(read_table(predicted / "predictions.parquet"), source="predictions")
        val = predictions[predictions["part"] == "val"]
        fit_calibrator(val, run.config.calibration, run.config.evaluation, task=task, seed=run.config.seed).write(draft)

    chosen = {"calibration": run.config.calibration, "thresholds": run.config.evaluation}
    settings = {name: section.model_dump(mode="json") for name, section in chosen.items()}
    return do_stage(run, "calibrate", work, settings={**settings, "seed": run.config.seed}, inputs={"predict": predicted})


def evaluate(run: Run, audited: Path, predicted: Path, calibrated: Path, planned: Path) -> Path:
    """Open the test part: `metrics.json`, `curves.parquet`, `predictions.parquet` (calibrated), one line in the test ledger."""
    task = read_plan(planned / "plan.yaml").task

    def work(draft: Path) -> None:
        manifest = read_table(audited / "manifest.parquet")
        raw = check_predictions(read_table(predicted / "predictions.parquet"), source="predictions")
        raw = raw.merge(_covariates(manifest), on="image_id", validate="many_to_one")
        final = assess_both(raw, Calibrator.read(calibrated), run.config.evaluation, task=task, draft=draft)
        write_table(final, draft / "predictions.parquet")
        append_ledger(
            run.ledger,
            ledger_entry(run.config.name, digest(run.config.model_dump(mode="json")), file_digest(draft / "predictions.parquet")),
        )

    settings = {"evaluation": run.config.evaluation.model_dump(mode="json"), "task": task}
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


def explain(run: Run, cached: Path, trained: Mapping[int, Path], evaluated: Path, planned: Path) -> Path:
    """The most confident errors of the test part as pictures, with Grad-CAM where the network allows it."""
    from medcnn.explanation import write_errors

    def work(draft: Path) -> None:
        write_errors(
            draft,
            cached,
            trained,
            read_table(evaluated / "predictions.parquet"),
            read_plan(planned / "plan.yaml"),
            run.config.report.n_errors,
        )

    inputs = {"cache": cached, "evaluate": evaluated, **{f"fold{fold}": folder for fold, folder in trained.items()}}
    return do_stage(run, "explain", work, settings={"n_errors": run.config.report.n_errors}, inputs=inputs)


def report(run: Run, folders: Mapping[str, Path], trained: Mapping[int, Path]) -> Path:
    """All of the above to one self-contained `report.html`, with its figures as SVG and their numbers as CSV.

    folders: stage -> folder; they are noted in `folders.json`, so that the report can be written again.
    """
    from medcnn.readout import run_facts
    from medcnn.report.figures import write_figures
    from medcnn.report.html import build_report

    places = {**folders, **{f"train/fold{fold}": folder for fold, folder in trained.items()}}

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


def _targets(
    manifest: pd.DataFrame, table: pd.DataFrame, cached: Any, decided: Plan, fold: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels in cache order, float32 (N, n_labels), and the cache rows of the fold's train and val parts."""
    y = np.full((len(cached), len(decided.labels)), np.nan, np.float32)
    y[cached.rows(manifest["image_id"])] = label_matrix(manifest, decided.labels)
    of_fold = table[table["fold"] == fold]
    return y, {part: np.sort(cached.rows(of_fold.loc[of_fold["part"] == part, "image_id"])) for part in ("train", "val")}


def _covariates(manifest: pd.DataFrame) -> pd.DataFrame:
    """image_id, study, site and the covariates: what subgroups are made of."""
    internal = {*MANIFEST_COLUMNS, "pixel_sha256", "given_part", "given_fold", *(f"y_{label}" for label in label_names(manifest))}
    return manifest[["image_id", *(column for column in manifest.columns if column not in internal)]]


def _weights_digest(decided: Plan) -> str:
    """A local weights file is an input: its bytes count, not its name."""
    return file_digest(decided.model.weights) if decided.model.weights else ""


def _was_edited(planned: Path) -> bool:
    stamp = read_stamp(planned)
    return stamp is not None and file_digest(planned / "plan.yaml") != stamp.outputs["plan.yaml"]


def _refuse_to_lose_an_edit(planned: Path) -> None:
    if _was_edited(planned):
        raise InputError(
            f"{planned / 'plan.yaml'}: was edited by hand, and the config or the cohort has changed since; "
            "carry your edits over into the config and delete this file's folder, or undo the change"
        )
