"""The models of the ladder: frozen features, networks for each fold and seed, and the soup that is made of them."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import COST_FILE, file_digest, write_file
from medcnn.bag_stages import fit_mil
from medcnn.config import Loss, Rung
from medcnn.energy import metered
from medcnn.executors import gather
from medcnn.members import Member, plan_of, planned_members
from medcnn.plan import Plan, read_plan
from medcnn.progress import Progress, silent
from medcnn.runs import Run, do_stage, reopen_run
from medcnn.stain_stages import found_stains, seen_images, trained_images
from medcnn.tables import label_matrix, read_table

LEARNT_FROM = ("task", "labels", "seed", "image", "augment", "model", "training")  # sections of the plan that decide a model
MUCH_WAITING = 0.3  # share of the time
FEATURED = {"frozen", "mil"}  # rungs that learn from pretrained features
Inputs = Mapping[str, Path]  # audit, split, cache, plan and, where the plan asks for them, stain and features: their folders


def features(run: Run, inputs: Inputs) -> dict[str, Path]:
    """Pretrained features of every image, once: `features.npy` float32 (N, D). Blank where no rung asks for them.

    With image.stain once for each fold (`fold0/features.npy` and so on), because the colours are those of its training rows.
    """
    decided = plan_of(read_plan(inputs["plan"] / "plan.yaml"), "frozen")
    if not FEATURED & {*decided.ladder.rungs}:
        return {}
    if decided.image.stain == "none":
        read, folds = {"cache": inputs["cache"]}, [-1]
    else:
        read = {name: inputs[name] for name in ("audit", "split", "cache", "stain")}
        folds = sorted(int(fold) for fold in read_table(inputs["split"] / "split.parquet")["fold"].unique())

    def work(draft: Path) -> None:
        from medcnn.data.augment import AugmentedImages
        from medcnn.data.cache import open_cache
        from medcnn.model.features import write_features
        from medcnn.model.frozen import check_pretrained

        check_pretrained(decided.model)
        cached = open_cache(inputs["cache"])
        model, signature = _fresh_model(decided, decided.seed, "cross_entropy")
        for fold in folds:
            place = draft if fold < 0 else draft / f"fold{fold}"
            place.mkdir(exist_ok=True)
            images = (
                cached.images
                if fold < 0
                else trained_images(inputs, cached.images, decided, _targets(inputs, cached, decided, fold)[1]["train"])[0]
            )
            write_features(
                model, AugmentedImages(images, None, decided.seed), len(cached), signature=signature, folder=place,
                device=decided.training.device, precision=decided.training.precision, engine=decided.prediction.engine,
                n_threads=decided.training.n_threads, progress=run.progress,
            )  # fmt: skip

    settings = {name: decided.model_dump(mode="json")[name] for name in ("task", "labels", "seed", "image", "model")}
    settings |= {"weights": weights_digest(decided), "precision": decided.training.precision, "engine": decided.prediction.engine}
    return {"features": do_stage(run, "features", work, settings=settings, inputs=read)}


def features_of(inputs: Inputs, fold: int) -> np.ndarray:
    """The features that a fold's models learn from and predict with, float32 (N, D)."""
    from medcnn.model.features import open_features

    own = inputs["features"] / f"fold{fold}"
    return open_features(own if own.is_dir() else inputs["features"])


def train(run: Run, inputs: Inputs) -> dict[Member, Path]:
    """Train each model that the plan asks for: `weights.safetensors`, `model.json`, `history.csv`. Returns model -> folder."""
    decided = read_plan(inputs["plan"] / "plan.yaml")
    members = planned_members(decided, read_table(inputs["split"] / "split.parquet")["fold"].unique())
    if run.config.jobs == 1 and run.config.executor == "local":
        return {member: train_member(run, member, inputs) for member in members}
    training = decided.training
    places = gather(
        _train_elsewhere, [(run.folder, member, dict(inputs)) for member in members], jobs=run.config.jobs, executor=run.config.executor,
        n_cpus=training.n_threads + training.n_workers if training.n_threads else 0, on_gpu=training.device != "cpu",
    )  # fmt: skip
    for member in members:
        run.say(f"{member.place}: done")
    return dict(zip(members, places, strict=True))


def mix(run: Run, inputs: Inputs, trained: Mapping[Member, Path]) -> dict[Member, Path]:
    """The soup of each fold: the average of those main models' weights that lowers the validation loss; with the models given."""
    decided = read_plan(inputs["plan"] / "plan.yaml")
    soups: dict[Member, Path] = {}
    for fold in sorted({member.fold for member in trained}) if "soup" in decided.ladder.rungs else ():
        parts = {member: folder for member, folder in trained.items() if member.rung == "main" and member.fold == fold}
        soup = Member("soup", fold)
        soups[soup] = do_stage(
            run,
            "train",
            lambda draft, soup=soup, parts=parts: _mix_fold(soup, draft, decided, inputs, parts),  # type: ignore[misc]
            settings={"rung": "soup", "fold": fold},
            inputs={member.place: folder for member, folder in parts.items()} | read_by(inputs, "soup"),
            place=soup.place,
        )
    return {**trained, **soups}


def _mix_fold(soup: Member, draft: Path, decided: Plan, inputs: Inputs, parts: Mapping[Member, Path]) -> None:
    from medcnn.data.augment import AugmentedImages
    from medcnn.data.cache import open_cache
    from medcnn.model.card import load_model, save_model
    from medcnn.model.losses import log_loss
    from medcnn.model.predict import predict
    from medcnn.model.soup import State, greedy_soup

    cached = open_cache(inputs["cache"])
    y, rows, _ = _targets(inputs, cached, decided, soup.fold)
    models = [load_model(folder) for folder in parts.values()]
    model, card = models[0]
    images = seen_images(cached.images, card, found_stains(inputs) if card.stain_target else None)
    source, val = AugmentedImages(images, None, decided.seed), rows["val"]

    def score(state: State) -> float:
        model.load_state_dict(state)
        training = decided.training
        logits, _ = predict(
            model, source, val, card=card, device=training.device, precision=training.precision, n_threads=training.n_threads
        )
        return log_loss(logits, y[val], decided.task)

    started = time.monotonic(), time.process_time()
    found = greedy_soup([{name: tensor.clone() for name, tensor in one.state_dict().items()} for one, _ in models], score)
    model.load_state_dict(found.state_dict)
    history = pd.DataFrame(
        {
            "epoch": [1],
            "rung": "soup",
            "fold": soup.fold,
            "val_loss": found.loss,
            "best_alone": min(found.losses),
            "n_mixed": len(found.members),
        }
    )
    write_file(draft / "history.csv", history.to_csv(index=False).encode())
    cost = {"training_seconds": time.monotonic() - started[0], "cpu_seconds": time.process_time() - started[1]}
    write_file(draft / COST_FILE, (json.dumps(cost) + "\n").encode())
    save_model(draft, model.cpu(), card)


def _train_elsewhere(folder: Path, member: Member, inputs: Inputs) -> Path:
    return train_member(reopen_run(folder), member, inputs)


def train_member(run: Run, member: Member, inputs: Inputs) -> Path:
    """Train one model, unless it is there; returns its folder."""
    decided = plan_of(read_plan(inputs["plan"] / "plan.yaml"), member.rung)
    settings = {name: decided.model_dump(mode="json")[name] for name in LEARNT_FROM}
    settings |= {"rung": member.rung, "fold": member.fold, "number": member.number, "weights": weights_digest(decided)}
    fit = _fit_on_features if member.rung in FEATURED else _fit_network
    return do_stage(
        run,
        "train",
        lambda draft: fit(run, member, draft, decided, inputs),
        settings=settings,
        inputs=read_by(inputs, member.rung),
        place=member.place,
    )


def read_by(inputs: Inputs, rung: Rung) -> dict[str, Path]:
    """The folders that a rung's models are made from."""
    names = ("audit", "split", "cache", "stain", *(("features",) if rung in FEATURED else ()))
    return {name: inputs[name] for name in names if name in inputs}


def _fit_network(run: Run, member: Member, draft: Path, decided: Plan, inputs: Inputs) -> None:
    from medcnn.model.card import is_saved
    from medcnn.model.checkpoint import remove_checkpoint
    from medcnn.model.distributed import together

    if is_saved(draft):  # it was stopped between the model and the stamp
        return remove_checkpoint(draft)
    with metered() as meter:
        model, result, target = together(_fit_member, member, draft, decided, dict(inputs), run.progress)
    run.say(f"{member.place}: {speed_words(result, decided.training.n_workers)}")
    _save(draft, model, result, decided, member, watt_hours=meter.watt_hours, stain_target=target)
    return remove_checkpoint(draft)  # only now: a kill before costs no epoch


def _fit_member(member: Member, draft: Path, decided: Plan, inputs: Inputs, progress: Progress) -> tuple[Any, Any, tuple[float, ...]]:
    """What every process of torchrun does, each with its share of the images; checkpoints go into the draft."""
    from medcnn.data.cache import open_cache

    cached = open_cache(inputs["cache"])
    y, rows, _ = _targets(inputs, cached, decided, member.fold)
    images, target = trained_images(inputs, cached.images, decided, rows["train"])
    model, result = fit_network(decided, images, y, rows, seed=member.seed(decided), checkpoint_dir=draft, progress=progress)
    return model, result, target


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


def _fit_on_features(run: Run, member: Member, draft: Path, decided: Plan, inputs: Inputs) -> None:  # noqa: ARG001 - as _fit_network
    from medcnn.data.cache import open_cache
    from medcnn.model.frozen import train_frozen

    cached = open_cache(inputs["cache"])
    y, rows, patients = _targets(inputs, cached, decided, member.fold)
    target = trained_images(inputs, cached.images, decided, rows["train"])[1]
    model, signature = _fresh_model(decided, decided.seed, "cross_entropy")
    found = features_of(inputs, member.fold)
    if member.rung == "mil":
        model, result = fit_mil(member, decided, inputs, (model, signature), found)
    else:
        result = train_frozen(
            model, found, y, rows_train=rows["train"], patients=patients, task=decided.task,
            signature=signature, seed=member.seed(decided), n_threads=decided.training.n_threads,
        )  # fmt: skip
    _save(draft, model, result, decided, member, stain_target=target)


def _fresh_model(decided: Plan, seed: int, loss: Loss) -> tuple[Any, Any]:
    """The planned network before training, with the outputs that the loss needs, and the signature of its inputs and outputs."""
    from medcnn.model.backbones import build_model, normalisation
    from medcnn.model.signature import Signature, count_outputs

    image = decided.image
    n_outputs = count_outputs(decided.task, len(decided.labels), loss)
    model = build_model(decided.model, channels=image.channels, n_outputs=n_outputs, size_px=image.size_px, seed=seed)
    mean, std = normalisation(decided.model, image.channels)
    return model, Signature(task=decided.task, mean=mean, std=std, loss=loss)


def speed_words(result: Any, n_workers: int) -> str:
    """How fast a training was and what bound it: the network, or waiting for images."""
    waited = result.loading_seconds / max(result.seconds, 1e-9)
    speed = f"{result.n_images / max(result.seconds, 1e-9):.0f} images/s"
    if waited < MUCH_WAITING:
        return f"{speed}, bound by the network ({waited:.0%} of the time waiting for images)"
    more = f"more training.n_workers (now {n_workers}) or a lighter augment.policy may help"
    return f"{speed}, bound by loading and augmenting images ({waited:.0%} of the time waiting for them): {more}"


def _save(
    draft: Path, model: Any, result: Any, decided: Plan, member: Member, *, stain_target: tuple[float, ...], watt_hours: float | None = None
) -> None:
    from medcnn.model.card import make_card, save_cost, save_model

    seed = member.seed(decided)
    history = result.history.assign(rung=member.rung, fold=member.fold, seed=seed)
    write_file(draft / "history.csv", history.to_csv(index=False).encode())
    save_cost(draft, result, device=decided.training.device, watt_hours=watt_hours)
    save_model(draft, model, make_card(decided, result, model, fold=member.fold, seed=seed, stain_target=stain_target))


def _targets(inputs: Inputs, cached: Any, decided: Plan, fold: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """In cache order: labels float32 (N, n_labels), the rows of the fold's train and val parts, and patient codes int64 (N,)."""
    manifest, table = read_table(inputs["audit"] / "manifest.parquet"), read_table(inputs["split"] / "split.parquet")
    places = cached.rows(manifest["image_id"])
    y = cached_labels(cached, manifest, decided.labels)
    patients = np.full(len(cached), -1, np.int64)
    patients[places] = pd.factorize(manifest["patient_id"], sort=True)[0]
    of_fold = table[table["fold"] == fold]
    return y, rows_of_parts(cached, of_fold, ("train", "val")), patients


def cached_labels(cached: Any, manifest: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Labels in the order of the cache, float32 (N, n_labels); NaN for images that the manifest lacks."""
    y = np.full((len(cached), len(labels)), np.nan, np.float32)
    y[cached.rows(manifest["image_id"])] = label_matrix(manifest, labels)
    return y


def rows_of_parts(cached: Any, of_fold: pd.DataFrame, parts: Sequence[str]) -> dict[str, np.ndarray]:
    """part -> sorted rows of the cache, of one fold's rows of a split."""
    return {part: np.sort(cached.rows(of_fold.loc[of_fold["part"] == part, "image_id"])) for part in parts}


def weights_digest(decided: Plan) -> str:
    """A local weights file is an input: its bytes count, not its name."""
    return file_digest(decided.model.weights) if decided.model.weights else ""
