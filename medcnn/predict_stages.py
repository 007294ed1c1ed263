"""What every rung of the ladder predicts for the val and test rows of the one split."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import COST_FILE, read_stamp
from medcnn.bag_stages import predict_mil, write_attention
from medcnn.config import Rung
from medcnn.evaluation.baseline import predict_prevalence
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.ensemble_weights import equal_weights, fit_weights, weighted_mean
from medcnn.evaluation.recalibration import log_odds_of
from medcnn.members import MEMBER_TABLE, Member, plan_of, trained_rungs, write_members
from medcnn.plan import Plan, read_plan
from medcnn.runs import Run, do_stage
from medcnn.stain_stages import found_stains, seen_images
from medcnn.tables import PREDICTION_COLUMNS, read_table, write_table
from medcnn.train_stages import features_of, read_by

Inputs = Mapping[str, Path]  # audit, split, cache, plan: their folders


def predict(run: Run, inputs: Inputs, trained: Mapping[Member, Path]) -> dict[Rung, Path]:
    """Each rung's probabilities for the val and test rows of the split: rung -> folder with `predictions.parquet`.

    `members.parquet` has the predictions of each single model, with its seed number. The rung ensemble is the mean of
    the rungs that are trained, weighed as `weights.json` says.
    """
    decided = read_plan(inputs["plan"] / "plan.yaml")
    folders: dict[Rung, Path] = {}
    for rung in sorted(decided.ladder.rungs, key=lambda rung: rung == "ensemble"):  # last, wherever it stands: it is made of the others
        if rung == "ensemble":
            of_rungs = {name: folders[name] for name in trained_rungs(decided) if name in folders}
            folders[rung] = _predict_mean(run, decided, of_rungs, trained)
        elif rung in {"prevalence", "shortcuts"}:
            folders[rung] = _predict_without_network(run, rung, decided, inputs)
        else:
            folders[rung] = _predict_rung(run, rung, decided, inputs, {m: folder for m, folder in trained.items() if m.rung == rung})
    return {rung: folders[rung] for rung in decided.ladder.rungs}


def _predict_rung(run: Run, rung: Rung, decided: Plan, inputs: Inputs, trained: Mapping[Member, Path]) -> Path:
    def work(draft: Path) -> None:
        started = time.process_time()
        manifest, split = _read_tables(inputs)
        asked = {fold: _asked(manifest, split, decided, fold) for fold in {member.fold for member in trained}}
        tables = [_predict_member(run, member, folder, decided, inputs, asked[member.fold]) for member, folder in trained.items()]
        if _is_looked(rung, decided):
            started -= _seconds_of_looking(inputs, sum(len(table) for table in tables))
        _write_predictions(draft, tables, list(trained), decided, started)
        if rung == "mil":
            write_attention(draft, tables)

    own = plan_of(decided, rung)
    settings: dict[str, Any] = {"rung": rung, "combine": decided.ladder.combine, "prediction": decided.prediction.model_dump(mode="json")}
    settings |= {"device": own.training.device, "precision": own.training.precision, "n_threads": own.training.n_threads}
    if decided.prediction.n_views > 1:
        settings["augment"] = decided.augment.model_dump(mode="json")
    read = read_by(inputs, rung)
    return do_stage(
        run, "predict", work, settings=settings, inputs=read | {m.place: folder for m, folder in trained.items()}, place=f"predict/{rung}"
    )


def _predict_member(run: Run, member: Member, folder: Path, decided: Plan, inputs: Inputs, wanted: pd.DataFrame) -> pd.DataFrame:
    from medcnn.data.augment import ViewedImages, build_augmentation
    from medcnn.data.cache import open_cache
    from medcnn.model.card import load_model
    from medcnn.model.predict import predict, predict_from_features

    if member.rung == "mil":
        logits, probabilities, weights = predict_mil(folder, decided, inputs, features_of(inputs, member.fold), wanted)
        return _predicted(wanted, logits, probabilities, decided).assign(seed=member.number, attention=weights)
    cached, plan = open_cache(inputs["cache"]), plan_of(decided, member.rung)
    model, card = load_model(folder)
    if _is_looked(member.rung, decided):
        logits, probabilities = predict_from_features(model, features_of(inputs, member.fold), cached.rows(wanted["image_id"]), card=card)
        return _predicted(wanted, logits, probabilities, decided).assign(seed=member.number)
    images = seen_images(cached.images, card, found_stains(inputs) if card.stain_target else None)
    views = decided.prediction.n_views
    augmentation = build_augmentation(plan.augment, size_px=plan.image.size_px, channels=plan.image.channels) if views > 1 else None
    logits, probabilities = predict(
        model, ViewedImages(images, augmentation, decided.seed), cached.rows(wanted["image_id"]), card=card, views=views,
        device=plan.training.device, precision=plan.training.precision, engine=decided.prediction.engine, n_threads=plan.training.n_threads,
        progress=run.progress,
    )  # fmt: skip
    return _predicted(wanted, logits, probabilities, decided).assign(seed=member.number)


def _is_looked(rung: Rung, decided: Plan) -> bool:
    """Whether the backbone has seen all that is asked of it when its features were written: plain images."""
    return rung == "mil" or (rung == "frozen" and decided.prediction.n_views == 1)


def _seconds_of_looking(inputs: Inputs, n_images: int) -> float:
    """CPU seconds of the backbone's pass over so many images, which predicting an image that comes new would need too."""
    stamp = read_stamp(inputs["features"])
    n_looked = sum(np.load(file, mmap_mode="r").shape[0] for file in inputs["features"].rglob("features.npy"))
    return n_images * stamp.cpu_seconds / n_looked if stamp is not None else 0.0


def _predict_without_network(run: Run, rung: Rung, decided: Plan, inputs: Inputs) -> Path:
    """What the share of positives, or the shortcuts, say of each fold's val and test rows."""

    def work(draft: Path) -> None:
        started = time.process_time()
        manifest, table = _read_tables(inputs)
        if rung == "prevalence":
            probabilities = predict_prevalence(manifest, table, decided.labels, task=decided.task)
        else:
            from medcnn.data.cache import open_cache
            from medcnn.data.shortcut_model import predict_shortcuts

            cached = open_cache(inputs["cache"])
            rows = cached.rows(manifest["image_id"])
            probabilities = predict_shortcuts(
                manifest, cached.images, rows, decided.labels, split=table, task=decided.task, seed=decided.seed
            )
        folds = [_asked(manifest, table, decided, int(fold)) for fold in sorted(table["fold"].unique())]
        predicted = [_predicted(wanted, *_of_fold(probabilities, wanted, decided), decided) for wanted in folds]
        _write_predictions(draft, [pd.concat(predicted, ignore_index=True).assign(seed=0)], [], decided, started)

    settings = {"rung": rung, "task": decided.task, "labels": decided.labels, "seed": decided.seed, "combine": decided.ladder.combine}
    read = {name: inputs[name] for name in ("audit", "split", "cache")}
    return do_stage(run, "predict", work, settings=settings, inputs=read, place=f"predict/{rung}")


def _predict_mean(run: Run, decided: Plan, of_rungs: Mapping[Rung, Path], trained: Mapping[Member, Path]) -> Path:
    def work(draft: Path) -> None:
        started = time.process_time()
        tables = {str(rung): read_table(folder / "predictions.parquet") for rung, folder in of_rungs.items()}
        how, task = decided.ladder.combine, decided.task
        weights = fit_weights(tables, how=how, task=task) if decided.ladder.weights == "fitted" else equal_weights(tables)
        weights.write(draft)
        members = [member for member in trained if member.rung in of_rungs]
        if weights.how == "fitted":
            return _write_predictions(draft, [weighted_mean(tables, weights, how=how, task=task)], members, decided, started)
        return _write_predictions(draft, list(tables.values()), members, decided, started)

    settings = {"rung": "ensemble", "combine": decided.ladder.combine, "weights": decided.ladder.weights, "task": decided.task}
    return do_stage(
        run, "predict", work, settings=settings, inputs={str(rung): folder for rung, folder in of_rungs.items()}, place="predict/ensemble"
    )


def _read_tables(inputs: Inputs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest and the split."""
    return read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")


def _asked(manifest: pd.DataFrame, split: pd.DataFrame, decided: Plan, fold: int) -> pd.DataFrame:
    """The val and test rows of a fold with their labels, sorted by image."""
    named = ["study_id"] if "study_id" in manifest else []
    labels = manifest[["image_id", *named, *(f"y_{label}" for label in decided.labels)]]
    wanted = split[(split["fold"] == fold) & (split["part"] != "train")].sort_values("image_id")
    return wanted[list(PREDICTION_COLUMNS)].merge(labels, on="image_id", validate="one_to_one")  # with study_id, where there is one


def _of_fold(found: pd.DataFrame, wanted: pd.DataFrame, decided: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities (n, n_labels) of a fold's rows; found: image_id, fold, p_LABEL."""
    columns = [f"p_{label}" for label in decided.labels]
    of_fold = found[found["fold"] == wanted["fold"].iloc[0]].set_index("image_id")
    p = of_fold.loc[wanted["image_id"], columns].to_numpy(np.float64)
    return np.log(p) if decided.task == "multiclass" else log_odds_of(p), p


def _predicted(wanted: pd.DataFrame, logits: np.ndarray, probabilities: np.ndarray, decided: Plan) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    for column, label in enumerate(decided.labels):
        columns |= {f"logit_{label}": logits[:, column], f"p_{label}": probabilities[:, column]}
    return wanted.assign(**columns)


def _write_predictions(draft: Path, tables: Sequence[pd.DataFrame], members: Sequence[Member], decided: Plan, started: float) -> None:
    """`predictions.parquet`, the mean of the tables; `members.parquet`, the tables themselves; who they are, and what they cost."""
    named = ["study_id"] if all("study_id" in table for table in tables) else []
    columns = [*PREDICTION_COLUMNS, *named, *(f"{kind}_{label}" for label in decided.labels for kind in ("y", "logit", "p"))]
    mean = combine([table[columns] for table in tables], how=decided.ladder.combine, task=decided.task)
    write_table(mean[columns], draft / "predictions.parquet")
    if all("seed" in table for table in tables):
        write_table(pd.concat(tables, ignore_index=True)[[*columns, "seed"]], draft / MEMBER_TABLE)
    write_members(draft, members)
    n_images, seconds = sum(len(table) for table in tables), time.process_time() - started
    cost = {"n_images": n_images, "cpu_seconds": seconds, "images_per_second": n_images / max(seconds, 1e-9)}
    (draft / COST_FILE).write_text(json.dumps(cost) + "\n", encoding="utf-8")
