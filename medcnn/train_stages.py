"""The rungs of the ladder: models trained for each fold and seed, and what every rung predicts on the one split."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import COST_FILE, file_digest, write_file
from medcnn.config import Loss, Rung
from medcnn.evaluation.baseline import predict_prevalence
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.recalibration import log_odds_of
from medcnn.executors import gather
from medcnn.members import MEMBER_TABLE, Member, plan_of, planned_members, trained_rungs, write_members
from medcnn.plan import Plan, read_plan
from medcnn.progress import Progress, silent
from medcnn.runs import Run, do_stage, reopen_run
from medcnn.tables import PREDICTION_COLUMNS, label_matrix, read_table, write_table

LEARNT_FROM = ("task", "labels", "seed", "image", "augment", "model", "training")  # sections of the plan that decide a model
Inputs = Mapping[str, Path]  # audit, split, cache, plan, shortcuts and, for the rung frozen, features: their folders


def features(run: Run, inputs: Inputs) -> dict[str, Path]:
    """Pretrained features of every image, once: `features.npy` float32 (N, D). Blank where no rung asks for them."""
    decided = read_plan(inputs["plan"] / "plan.yaml")
    if "frozen" not in decided.ladder.rungs:
        return {}

    def work(draft: Path) -> None:
        from medcnn.data.augment import AugmentedImages
        from medcnn.data.cache import open_cache
        from medcnn.model.features import write_features

        cached = open_cache(inputs["cache"])
        model, signature = _fresh_model(decided, decided.seed, "cross_entropy")
        write_features(
            model, AugmentedImages(cached.images, None, decided.seed), len(cached), signature=signature, folder=draft,
            device=decided.training.device, precision=decided.training.precision, progress=run.progress,
        )  # fmt: skip

    settings = {name: decided.model_dump(mode="json")[name] for name in ("task", "labels", "seed", "image", "model")}
    settings |= {"weights": _weights_digest(decided), "precision": decided.training.precision}
    return {"features": do_stage(run, "features", work, settings=settings, inputs={"cache": inputs["cache"]})}


def train(run: Run, inputs: Inputs) -> dict[Member, Path]:
    """Train each model that the plan asks for: `weights.safetensors`, `model.json`, `history.csv`. Returns model -> folder."""
    decided = read_plan(inputs["plan"] / "plan.yaml")
    members = planned_members(decided, read_table(inputs["split"] / "split.parquet")["fold"].unique())
    if run.config.jobs == 1 and run.config.executor == "local":
        return {member: train_member(run, member, inputs) for member in members}
    places = gather(
        _train_elsewhere, [(run.folder, member, dict(inputs)) for member in members], jobs=run.config.jobs, executor=run.config.executor
    )
    for member in members:
        run.say(f"{member.place}: done")
    return dict(zip(members, places, strict=True))


def _train_elsewhere(folder: Path, member: Member, inputs: Inputs) -> Path:
    return train_member(reopen_run(folder), member, inputs)


def train_member(run: Run, member: Member, inputs: Inputs) -> Path:
    """Train one model, unless it is there; returns its folder."""
    decided = plan_of(read_plan(inputs["plan"] / "plan.yaml"), member.rung)
    read = ("audit", "split", "cache", *(("features",) if member.rung == "frozen" else ()))
    settings = {name: decided.model_dump(mode="json")[name] for name in LEARNT_FROM}
    settings |= {"rung": member.rung, "fold": member.fold, "number": member.number, "weights": _weights_digest(decided)}
    fit = _fit_frozen if member.rung == "frozen" else _fit_network
    return do_stage(
        run,
        "train",
        lambda draft: fit(run, member, draft, decided, inputs),
        settings=settings,
        inputs={name: inputs[name] for name in read},
        place=member.place,
    )


def _fit_network(run: Run, member: Member, draft: Path, decided: Plan, inputs: Inputs) -> None:
    from medcnn.model.card import is_saved
    from medcnn.model.checkpoint import remove_checkpoint
    from medcnn.model.distributed import together

    if is_saved(draft):  # it was stopped between the model and the stamp
        return remove_checkpoint(draft)
    model, result = together(_fit_member, member, draft, decided, dict(inputs), run.progress)
    _save(draft, model, result, decided, member)
    return remove_checkpoint(draft)  # only now: a kill before costs no epoch


def _fit_member(member: Member, draft: Path, decided: Plan, inputs: Inputs, progress: Progress) -> tuple[Any, Any]:
    """What every process of torchrun does, each with its share of the images; checkpoints go into the draft."""
    from medcnn.data.cache import open_cache

    cached = open_cache(inputs["cache"])
    y, rows, _ = _targets(inputs, cached, decided, member.fold)
    return fit_network(decided, cached.images, y, rows, seed=member.seed(decided), checkpoint_dir=draft, progress=progress)


def fit_network(
    decided: Plan,
    pixels: np.ndarray,
    y: np.ndarray,
    rows: Mapping[str, np.ndarray],
    *,
    seed: int,
    checkpoint_dir: Path | None = None,
    progress: Progress = silent,
) -> tuple[Any, Any]:
    """Train the planned network on some rows of a cache: the model with its chosen weights, and the TrainingResult.

    pixels: uint8 (N, H, W, C). y: float (N, n_labels), 0/1/NaN. rows: int, train and val; no other row is read.
    """
    from medcnn.data.augment import AugmentedImages, build_augmentation
    from medcnn.model.training import train

    augmentation = build_augmentation(decided.augment, size_px=decided.image.size_px, channels=decided.image.channels)
    model, signature = _fresh_model(decided, seed, decided.training.loss)
    result = train(
        model, AugmentedImages(pixels, augmentation, seed), y, rows_train=rows["train"], rows_val=rows["val"], task=decided.task,
        plan=decided.training, mean=signature.mean, std=signature.std, seed=seed, checkpoint_dir=checkpoint_dir, progress=progress,
    )  # fmt: skip
    return model, result


def _fit_frozen(run: Run, member: Member, draft: Path, decided: Plan, inputs: Inputs) -> None:  # noqa: ARG001 - as _fit_network
    from medcnn.data.cache import open_cache
    from medcnn.model.features import open_features
    from medcnn.model.frozen import train_frozen

    y, rows, patients = _targets(inputs, open_cache(inputs["cache"]), decided, member.fold)
    model, signature = _fresh_model(decided, decided.seed, "cross_entropy")
    result = train_frozen(
        model, open_features(inputs["features"]), y, rows_train=rows["train"], patients=patients, task=decided.task,
        signature=signature, seed=member.seed(decided), n_threads=decided.training.n_threads,
    )  # fmt: skip
    _save(draft, model, result, decided, member)


def _fresh_model(decided: Plan, seed: int, loss: Loss) -> tuple[Any, Any]:
    """The planned network before training, with the outputs that the loss needs, and the signature of its inputs and outputs."""
    from medcnn.model.backbones import build_model, normalisation
    from medcnn.model.signature import Signature, count_outputs

    image = decided.image
    n_outputs = count_outputs(decided.task, len(decided.labels), loss)
    model = build_model(decided.model, channels=image.channels, n_outputs=n_outputs, size_px=image.size_px, seed=seed)
    mean, std = normalisation(decided.model, image.channels)
    return model, Signature(task=decided.task, mean=mean, std=std, loss=loss)


def _save(draft: Path, model: Any, result: Any, decided: Plan, member: Member) -> None:
    from medcnn.model.card import make_card, save_cost, save_model

    seed = member.seed(decided)
    history = result.history.assign(rung=member.rung, fold=member.fold, seed=seed)
    write_file(draft / "history.csv", history.to_csv(index=False).encode())
    save_cost(draft, result)
    save_model(draft, model, make_card(decided, result, model, fold=member.fold, seed=seed))


def _targets(inputs: Inputs, cached: Any, decided: Plan, fold: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """In cache order: labels float32 (N, n_labels), the rows of the fold's train and val parts, and patient codes int64 (N,)."""
    manifest, table = read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")
    places = cached.rows(manifest["image_id"])
    y = np.full((len(cached), len(decided.labels)), np.nan, np.float32)
    y[places] = label_matrix(manifest, decided.labels)
    patients = np.full(len(cached), -1, np.int64)
    patients[places] = pd.factorize(manifest["patient_id"], sort=True)[0]
    of_fold = table[table["fold"] == fold]
    rows = {part: np.sort(cached.rows(of_fold.loc[of_fold["part"] == part, "image_id"])) for part in ("train", "val")}
    return y, rows, patients


def _weights_digest(decided: Plan) -> str:
    """A local weights file is an input: its bytes count, not its name."""
    return file_digest(decided.model.weights) if decided.model.weights else ""


# ---------------------------------------------------------------- what each rung predicts


def predict(run: Run, inputs: Inputs, trained: Mapping[Member, Path]) -> dict[Rung, Path]:
    """Each rung's probabilities for the val and test rows of the split: rung -> folder with `predictions.parquet`.

    `members.parquet` has the predictions of each single model, with its seed number. The rung ensemble is the mean of
    the rungs that are trained.
    """
    decided = read_plan(inputs["plan"] / "plan.yaml")
    folders: dict[Rung, Path] = {}
    for rung in decided.ladder.rungs:
        if rung == "ensemble":
            of_rungs = {name: folders[name] for name in trained_rungs(decided) if name in folders}
            folders[rung] = _predict_mean(run, decided, of_rungs, trained)
        elif rung in {"prevalence", "shortcuts"}:
            folders[rung] = _predict_without_network(run, rung, decided, inputs)
        else:
            folders[rung] = _predict_rung(run, rung, decided, inputs, {m: folder for m, folder in trained.items() if m.rung == rung})
    return folders


def _predict_rung(run: Run, rung: Rung, decided: Plan, inputs: Inputs, trained: Mapping[Member, Path]) -> Path:
    def work(draft: Path) -> None:
        started = time.process_time()
        tables = [_predict_member(run, member, folder, decided, inputs) for member, folder in trained.items()]
        _write_predictions(draft, tables, list(trained), decided, started)

    own = plan_of(decided, rung)
    settings: dict[str, Any] = {"rung": rung, "combine": decided.ladder.combine, "prediction": decided.prediction.model_dump(mode="json")}
    settings |= {"device": own.training.device, "precision": own.training.precision, "n_threads": own.training.n_threads}
    if decided.prediction.n_views > 1:
        settings["augment"] = decided.augment.model_dump(mode="json")
    read = {name: inputs[name] for name in ("audit", "split", "cache")}
    return do_stage(
        run, "predict", work, settings=settings, inputs=read | {m.place: folder for m, folder in trained.items()}, place=f"predict/{rung}"
    )


def _predict_member(run: Run, member: Member, folder: Path, decided: Plan, inputs: Inputs) -> pd.DataFrame:
    from medcnn.data.augment import AugmentedImages, build_augmentation
    from medcnn.data.cache import open_cache
    from medcnn.model.card import load_model
    from medcnn.model.predict import predict

    cached, plan = open_cache(inputs["cache"]), plan_of(decided, member.rung)
    model, card = load_model(folder)
    wanted = _asked(inputs, decided, member.fold)
    views = decided.prediction.n_views
    augmentation = build_augmentation(plan.augment, size_px=plan.image.size_px, channels=plan.image.channels) if views > 1 else None
    logits, probabilities = predict(
        model, AugmentedImages(cached.images, augmentation, decided.seed), cached.rows(wanted["image_id"]), card=card, views=views,
        device=plan.training.device, precision=plan.training.precision, engine=decided.prediction.engine, n_threads=plan.training.n_threads,
        progress=run.progress,
    )  # fmt: skip
    return _predicted(wanted, logits, probabilities, decided).assign(seed=member.number)


def _predict_without_network(run: Run, rung: Rung, decided: Plan, inputs: Inputs) -> Path:
    """What the share of positives, or the shortcuts, say of each fold's val and test rows."""

    def work(draft: Path) -> None:
        started = time.process_time()
        manifest, table = read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")
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
        folds = [_asked(inputs, decided, int(fold)) for fold in sorted(table["fold"].unique())]
        predicted = [_predicted(wanted, *_of_fold(probabilities, wanted, decided), decided) for wanted in folds]
        _write_predictions(draft, [pd.concat(predicted, ignore_index=True).assign(seed=0)], [], decided, started)

    settings = {"rung": rung, "task": decided.task, "labels": decided.labels, "seed": decided.seed, "combine": decided.ladder.combine}
    read = {name: inputs[name] for name in ("audit", "split", "cache")}
    return do_stage(run, "predict", work, settings=settings, inputs=read, place=f"predict/{rung}")


def _predict_mean(run: Run, decided: Plan, of_rungs: Mapping[Rung, Path], trained: Mapping[Member, Path]) -> Path:
    def work(draft: Path) -> None:
        started = time.process_time()
        tables = [read_table(folder / "predictions.parquet") for folder in of_rungs.values()]
        _write_predictions(draft, tables, [member for member in trained if member.rung in of_rungs], decided, started)

    settings = {"rung": "ensemble", "combine": decided.ladder.combine, "task": decided.task}
    return do_stage(
        run, "predict", work, settings=settings, inputs={str(rung): folder for rung, folder in of_rungs.items()}, place="predict/ensemble"
    )


def _asked(inputs: Inputs, decided: Plan, fold: int) -> pd.DataFrame:
    """The val and test rows of a fold with their labels, sorted by image."""
    table = read_table(inputs["split"] / "split.parquet")
    labels = read_table(inputs["audit"] / "manifest.parquet")[["image_id", *(f"y_{label}" for label in decided.labels)]]
    wanted = table[(table["fold"] == fold) & (table["part"] != "train")].sort_values("image_id")
    return wanted[list(PREDICTION_COLUMNS)].merge(labels, on="image_id", validate="one_to_one")


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
    columns = [*PREDICTION_COLUMNS, *(f"{kind}_{label}" for label in decided.labels for kind in ("y", "logit", "p"))]
    mean = combine([table[columns] for table in tables], how=decided.ladder.combine, task=decided.task)
    write_table(mean[columns], draft / "predictions.parquet")
    if all("seed" in table for table in tables):
        write_table(pd.concat(tables, ignore_index=True)[[*columns, "seed"]], draft / MEMBER_TABLE)
    write_members(draft, members)
    n_images, seconds = sum(len(table) for table in tables), time.process_time() - started
    cost = {"n_images": n_images, "cpu_seconds": seconds, "images_per_second": n_images / max(seconds, 1e-9)}
    (draft / COST_FILE).write_text(json.dumps(cost) + "\n", encoding="utf-8")
