"""A finished run on new images: the same preparation, its models averaged, the same calibration and thresholds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.bag_stages import predict_new_bags
from medcnn.config_data import SlidesConfig, WindowChoice
from medcnn.errors import InputError
from medcnn.evaluation.calibrator import Calibrator
from medcnn.evaluation.ensemble import combine
from medcnn.evaluation.ensemble_weights import EnsembleWeights, weighted_mean
from medcnn.members import Member, read_members
from medcnn.plan import ImagePlan, Plan, read_plan
from medcnn.progress import Progress, silent
from medcnn.readout import stated_points
from medcnn.runs import Run
from medcnn.stain_stages import seen_images
from medcnn.tables import logit_matrix, read_table

BATCH_SIZE = 64
TABLES = {".csv", ".tsv", ".parquet"}


@dataclass(frozen=True)
class NewImage:
    """One image that was asked for. image_id: the name it gets in the result; path as decode_row takes it.

    bag: what it belongs to (a slide, a patient), for a run whose models look at all images of one together. problem: why there
    is nothing to read.
    """

    image_id: str
    path: str
    frame: int = 0
    bag: str = ""
    problem: str = ""


def predict_new(run: Run, inputs: Sequence[Path], *, progress: Progress = silent) -> pd.DataFrame:
    """Predict files, folders (searched through), MedMNIST-like NPZ files, or tables of images with a finished run.

    With the rung mil the images of a bag are predicted together, and each gets what its bag got: a bag is the table's study
    or patient (as in the run), else the file's folder, else the image alone; all images of a bag are held in memory.
    For a run on slides, a slide is cut into tiles as the run's were; it is the bag, and a refused one is a row with its problem.
    Returns one row per image: image_id, bag (with the rung mil), p_LABEL (calibrated; the mean over the fold models), positive_LABEL (1 when
    p_LABEL reaches the run's first threshold), problem (blank, or why the image could not be read: its other cells
    are then blank). Raises InputError when the run is not finished or nothing is found.
    """
    decided = read_plan(run.done("plan") / "plan.yaml")
    models = _load_models(run, decided)
    calibrator = Calibrator.read(run.done("calibrate"))
    weights = EnsembleWeights.read(run.done(f"predict/{decided.ladder.headline}"))
    in_bags = any(member.rung == "mil" for member, _, _ in models)
    tables = []
    wanted = find_images(inputs, bag=decided.ladder.bag)
    if run.config.data.source == "slides":
        wanted = [tile for image in wanted for tile in _tiles_of(image, run.config.data.slides)]
    for chunk in progress(_chunks(wanted, in_bags), "predicting"):
        images, problems = _prepare(chunk, decided.image, run.config.data.window)
        good = np.flatnonzero([not problem for problem in problems])
        table = pd.DataFrame({"image_id": [image.image_id for image in chunk], "problem": problems})
        if in_bags:
            table.insert(1, "bag", [image.bag for image in chunk])
        if len(good):
            bag = pd.factorize(table["bag"].to_numpy()[good])[0] if in_bags else None
            p = _probabilities(models, images, decided, calibrator, weights, bag)
            for column, label in enumerate(decided.labels):
                table.loc[good, f"p_{label}"] = p[:, column]
        tables.append(table)
    level = decided.evaluation.levels[0] if in_bags else "image"
    return _with_decisions(pd.concat(tables, ignore_index=True), calibrator, decided.labels, level)


def _chunks(wanted: Sequence[NewImage], in_bags: bool) -> list[list[NewImage]]:
    """About BATCH_SIZE images at a time; with bags, whole ones: those of a bag stand together."""
    if not in_bags:
        return [list(wanted[start : start + BATCH_SIZE]) for start in range(0, len(wanted), BATCH_SIZE)]
    bags: dict[str, list[NewImage]] = {}
    for image in wanted:
        bags.setdefault(image.bag, []).append(image)
    chunks: list[list[NewImage]] = [[]]
    for bag in bags.values():
        if chunks[-1] and len(chunks[-1]) + len(bag) > BATCH_SIZE:
            chunks.append([])
        chunks[-1] += bag
    return chunks


def _load_models(run: Run, decided: Plan) -> list[tuple[Member, Any, Any]]:
    """The models behind the run's headline, each with its card."""
    from medcnn.model.card import load_model

    members = read_members(run.done(f"predict/{decided.ladder.headline}"))
    if not members:
        raise InputError(f"{run.folder}: its headline is the rung {decided.ladder.headline}, which has no model to predict new images with")
    return [(member, *load_model(run.done(member.place))) for member in members]


def _probabilities(
    models: Sequence[tuple[Member, Any, Any]],
    images: np.ndarray,
    decided: Plan,
    calibrator: Calibrator,
    weights: EnsembleWeights | None,
    bag: np.ndarray | None,
) -> np.ndarray:
    """float64 (n, n_labels): the mean over seeds and folds of each rung, then over the rungs, as the run itself took it (with
    the mean of the folds' weights where they differ); then the recalibration, the mean over the folds' maps; then over each
    bag, int (n,)."""
    from medcnn.data.augment import ViewedImages, build_augmentation
    from medcnn.model.predict import predict

    views = decided.prediction.n_views
    augmentation = build_augmentation(decided.augment, size_px=images.shape[1], channels=images.shape[3]) if views > 1 else None
    rows, of_rungs, kept = np.arange(len(images)), dict[str, list[pd.DataFrame]](), dict[Any, np.ndarray]()
    for member, model, card in models:
        seen = seen_images(images, card)
        if member.rung == "mil" and bag is not None:
            logits, p = predict_new_bags(model, card, ViewedImages(seen, None, decided.seed), bag, decided, kept)
            of_rungs.setdefault(member.rung, []).append(_as_predictions(logits, p, decided.labels))
            continue
        logits, p = predict(
            model, ViewedImages(seen, augmentation, decided.seed), rows, card=card, views=views, device=decided.training.device, precision=decided.training.precision,
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
    return recalibrated if bag is None else pd.DataFrame(recalibrated).groupby(bag).transform("mean").to_numpy()


def _as_predictions(logits: np.ndarray, p: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """A predictions table of images that nobody has labelled; image_id: a number that sorts as the images stand."""
    names = [f"{row:09d}" for row in range(len(p))]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "part": "test", "fold": 0})
    for column, label in enumerate(labels):
        table[f"y_{label}"], table[f"logit_{label}"], table[f"p_{label}"] = np.nan, logits[:, column], p[:, column]
    return table


def find_images(inputs: Sequence[Path], *, bag: str = "study") -> list[NewImage]:
    """Every image below the inputs, in the order given; bag: whether a table's study or its patient is one.

    Raises InputError for an input that is not there or holds none.
    """
    found = [image for path in inputs for image in _images_at(path, bag)]
    if not found:
        raise InputError(f"{', '.join(map(str, inputs))}: holds no files; expected images, DICOM files, folders or an NPZ")
    return found


def _images_at(path: Path, bag: str) -> Iterator[NewImage]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected an image, a DICOM file, a folder, a table or an NPZ")
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.name.startswith(".") and file.suffix.lower() not in TABLES:
                yield NewImage(file.relative_to(path).as_posix(), str(file), bag=str(file.parent.relative_to(path.parent)))
    elif path.suffix.lower() in TABLES:
        yield from _images_of(path, bag)
    elif path.suffix.lower() == ".npz":
        from medcnn.data.arrays import npz_member, npz_names

        for member in (name for name in npz_names(path) if name.endswith("images")):
            ids = [f"{member}/{row:06d}" for row in range(len(npz_member(path, member)))]
            yield from (NewImage(image_id, f"{path}#{member}", row, image_id) for row, image_id in enumerate(ids))
    else:
        yield NewImage(path.name, str(path), bag=path.absolute().parent.name)


def _images_of(path: Path, bag: str) -> Iterator[NewImage]:
    """The rows of a table: path (relative to the table's folder) and, where they are there, image_id, frame, study_id, patient_id."""
    table = read_table(path)
    if "path" not in table:
        raise InputError(f"{path}: column path is missing; a table of images needs it, and may have image_id, frame, study_id, patient_id")
    blank = pd.Series("", index=table.index)
    columns = ["patient_id", "study_id"] if bag == "study" and "study_id" in table else ["patient_id"]
    named = [table[column].astype(str) for column in columns if column in table]
    bags = named[0] + "/" + named[1] if len(named) == 2 else named[0] if named else blank
    for place, name, frame, of_bag in zip(
        table["path"].astype(str), table.get("image_id", blank).astype(str), table.get("frame", blank.map(lambda _: 0)), bags, strict=True
    ):
        yield NewImage(name or place, str(path.parent / place), int(frame), of_bag or str(Path(place).parent))


def _tiles_of(image: NewImage, config: SlidesConfig) -> list[NewImage]:
    """The tiles of a slide, or the image itself when it is none by its ending (a tile's own place, a picture)."""
    from medcnn.data.slide_tiles import SlideJob, cut_slide
    from medcnn.data.slides import SLIDE_ENDINGS
    from medcnn.data.tile_places import TilePlace

    if Path(image.path).suffix.lower() not in SLIDE_ENDINGS:
        return [image]
    cut = cut_slide(SlideJob(Path(image.path), image.image_id, config.model_copy(update={"annotations": None})))
    if cut.problem:
        return [NewImage(image.image_id, image.path, bag=image.image_id, problem=f"{image.image_id}: {cut.problem[1]}")]
    corners = zip(cut.tiles["x"].tolist(), cut.tiles["y"].tolist(), strict=True)
    places = [TilePlace(image.path, x, y, cut.about["level"], cut.about["side"], config.tile_px) for x, y in corners]
    return [NewImage(f"{image.image_id}/{at.x:06d}_{at.y:06d}", str(at), bag=image.image_id) for at in places]


def _prepare(chunk: Sequence[NewImage], plan: ImagePlan, window: WindowChoice) -> tuple[np.ndarray, list[str]]:
    from medcnn.data.formats import UnreadableImage
    from medcnn.data.images import Reading
    from medcnn.data.prepared import prepare_row

    prepared, problems = [], []
    for image in chunk:
        if image.problem:
            problems.append(image.problem)
            continue
        try:
            prepared.append(prepare_row(image.path, image.frame, plan, reading=Reading(window=window)))
            problems.append("")
        except UnreadableImage as error:
            problems.append(str(error))
    empty = np.empty((0, plan.size_px, plan.size_px, plan.channels), np.uint8)
    return (np.stack(prepared) if prepared else empty), problems


def _with_decisions(table: pd.DataFrame, calibrator: Calibrator, labels: Sequence[str], level: str) -> pd.DataFrame:
    first = {point.label: point.threshold for point in reversed(stated_points(calibrator, level))}
    for label in labels:
        if f"p_{label}" not in table:
            table[f"p_{label}"] = np.nan
        if label in first:
            decided = (table[f"p_{label}"] >= first[label]).astype(float)
            table[f"positive_{label}"] = decided.where(table[f"p_{label}"].notna())
    return table[["image_id", *(column for column in table if column not in {"image_id", "problem"}), "problem"]]
