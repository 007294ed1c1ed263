"""A finished run on new images: the same preparation, its models averaged, the same calibration and thresholds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.config_data import WindowChoice
from medcnn.errors import InputError
from medcnn.evaluation.calibrator import Calibrator
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.ensemble_weights import EnsembleWeights, weighted_mean
from medcnn.members import Member, read_members
from medcnn.plan import ImagePlan, Plan, read_plan
from medcnn.progress import Progress, silent
from medcnn.readout import stated_points
from medcnn.runs import Run
from medcnn.tables import logit_matrix

BATCH_SIZE = 64
TABLES = {".csv", ".tsv", ".parquet"}


@dataclass(frozen=True)
class NewImage:
    """One image that was asked for. image_id: the name it gets in the result; path as decode_row takes it."""

    image_id: str
    path: str
    frame: int = 0


def predict_new(run: Run, inputs: Sequence[Path], *, progress: Progress = silent) -> pd.DataFrame:
    """Predict files, folders (searched through), or MedMNIST-like NPZ files with a finished run.

    Returns one row per image: image_id, p_LABEL (calibrated; the mean over the fold models), positive_LABEL (1 when
    p_LABEL reaches the run's first threshold), problem (blank, or why the image could not be read: its other cells
    are then blank). Raises InputError when the run is not finished or nothing is found.
    """
    decided = read_plan(run.done("plan") / "plan.yaml")
    models = _load_models(run, decided)
    calibrator = Calibrator.read(run.done("calibrate"))
    weights = EnsembleWeights.read(run.done(f"predict/{decided.ladder.headline}"))
    wanted = find_images(inputs)
    tables = []
    chunks = [wanted[start : start + BATCH_SIZE] for start in range(0, len(wanted), BATCH_SIZE)]
    for chunk in progress(chunks, "predicting"):
        images, problems = _prepare(chunk, decided.image, run.config.data.window)
        good = np.flatnonzero([not problem for problem in problems])
        table = pd.DataFrame({"image_id": [image.image_id for image in chunk], "problem": problems})
        if len(good):
            p = _probabilities(models, images, decided, calibrator, weights)
            for column, label in enumerate(decided.labels):
                table.loc[good, f"p_{label}"] = p[:, column]
        tables.append(table)
    return _with_decisions(pd.concat(tables, ignore_index=True), calibrator, decided.labels)


def _load_models(run: Run, decided: Plan) -> list[tuple[Member, Any, Any]]:
    """The models behind the run's headline, each with its card."""
    from medcnn.model.card import load_model

    members = read_members(run.done(f"predict/{decided.ladder.headline}"))
    if not members:
        raise InputError(f"{run.folder}: its headline is the rung {decided.ladder.headline}, which has no model to predict new images with")
    return [(member, *load_model(run.done(member.place))) for member in members]


def _probabilities(
    models: Sequence[tuple[Member, Any, Any]], images: np.ndarray, decided: Plan, calibrator: Calibrator, weights: EnsembleWeights | None
) -> np.ndarray:
    """float64 (n, n_labels): the mean over seeds and folds of each rung, then over the rungs, as the run itself took it (with
    the mean of the folds' weights where they differ); then the recalibration, the mean over the folds' maps."""
    from medcnn.data.augment import ViewedImages, build_augmentation
    from medcnn.model.predict import predict

    views = decided.prediction.n_views
    augmentation = build_augmentation(decided.augment, size_px=images.shape[1], channels=images.shape[3]) if views > 1 else None
    source, rows = ViewedImages(images, augmentation, decided.seed), np.arange(len(images))
    of_rungs: dict[str, list[pd.DataFrame]] = {}
    for member, model, card in models:
        logits, p = predict(
            model, source, rows, card=card, views=views, device=decided.training.device, precision=decided.training.precision,
            engine=decided.prediction.engine, n_threads=decided.training.n_threads,
        )  # fmt: skip
        of_rungs.setdefault(member.rung, []).append(_as_predictions(logits, p, decided.labels))
    how, task = decided.ladder.combine, decided.task
    rungs = {rung: combine(tables, how=how, task=task) for rung, tables in of_rungs.items()}
    if weights is not None and weights.how == "fitted":
        mean = weighted_mean(rungs, weights.for_new(), how=how, task=task)
    else:
        mean = combine(list(rungs.values()), how=how, task=task)
    logits = logit_matrix(mean, decided.labels)
    folds = sorted(calibrator.recalibration.maps)
    recalibrated: np.ndarray = np.mean([calibrator.probabilities(logits, fold) for fold in folds], axis=0)
    return recalibrated


def _as_predictions(logits: np.ndarray, p: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """A predictions table of images that nobody has labelled; image_id: a number that sorts as the images stand."""
    names = [f"{row:09d}" for row in range(len(p))]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "part": "test", "fold": 0})
    for column, label in enumerate(labels):
        table[f"y_{label}"], table[f"logit_{label}"], table[f"p_{label}"] = np.nan, logits[:, column], p[:, column]
    return table


def find_images(inputs: Sequence[Path]) -> list[NewImage]:
    """Every image below the inputs, in the order given. Raises InputError for an input that is not there or holds none."""
    found = [image for path in inputs for image in _images_at(path)]
    if not found:
        raise InputError(f"{', '.join(map(str, inputs))}: holds no files; expected images, DICOM files, folders or an NPZ")
    return found


def _images_at(path: Path) -> Iterator[NewImage]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected an image, a DICOM file, a folder or an NPZ")
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.name.startswith(".") and file.suffix.lower() not in TABLES:
                yield NewImage(file.relative_to(path).as_posix(), str(file))
    elif path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for member in (name for name in archive.files if name.endswith("images")):
                yield from (NewImage(f"{member}/{row:06d}", f"{path}#{member}", row) for row in range(len(archive[member])))
    else:
        yield NewImage(path.name, str(path))


def _prepare(chunk: Sequence[NewImage], plan: ImagePlan, window: WindowChoice) -> tuple[np.ndarray, list[str]]:
    from medcnn.data.formats import UnreadableImage
    from medcnn.data.images import Reading
    from medcnn.data.prepared import prepare_row

    prepared, problems = [], []
    for image in chunk:
        try:
            prepared.append(prepare_row(image.path, image.frame, plan, reading=Reading(window=window)))
            problems.append("")
        except UnreadableImage as error:
            problems.append(str(error))
    empty = np.empty((0, plan.size_px, plan.size_px, plan.channels), np.uint8)
    return (np.stack(prepared) if prepared else empty), problems


def _with_decisions(table: pd.DataFrame, calibrator: Calibrator, labels: Sequence[str]) -> pd.DataFrame:
    first = {point.label: point.threshold for point in reversed(stated_points(calibrator, "image"))}
    for label in labels:
        if f"p_{label}" not in table:
            table[f"p_{label}"] = np.nan
        if label in first:
            decided = (table[f"p_{label}"] >= first[label]).astype(float)
            table[f"positive_{label}"] = decided.where(table[f"p_{label}"].notna())
    return table[["image_id", *(column for column in table if column not in {"image_id", "problem"}), "problem"]]
