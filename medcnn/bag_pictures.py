"""Where the attention of the rung mil lies: over the mosaic of a slide's tiles, or the images of a bag that got most and least of it."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medcnn.explanation import HEAT_SHARE, write_png
from medcnn.plan import Plan
from medcnn.tables import label_matrix, probability_matrix

MOSAIC_PX, LARGEST_CELL_PX, SMALLEST_CELL_PX = 480, 64, 3
N_EXTREME, EXTREME_PX = 4, 112
WHITE = 255


def write_bag_pictures(
    folder: Path, cached: Any, manifest: pd.DataFrame, predictions: pd.DataFrame, attention: pd.DataFrame, plan: Plan, n_bags: int
) -> None:
    """Write `bags.json` and its PNG pictures: up to n_bags test bags, the surest errors and then the surest of the others.

    predictions: of the rung mil, one row for each image; attention: image_id, part, fold, attention. Of tiles with a place
    (columns x and y of the manifest) a mosaic and the attention over it; else the images with most and with least attention.
    """
    names = ["image_id", *(column for column in ("study_id", "x", "y") if column in manifest)]
    rows = predictions[predictions["part"] == "test"].drop(columns="study_id", errors="ignore")
    rows = rows.merge(manifest[names], on="image_id").merge(attention, on=["image_id", "part", "fold"])
    unit = ["patient_id", "study_id"] if plan.ladder.bag == "study" else ["patient_id"]
    chosen = _surest(rows.groupby(unit, sort=True), plan, n_bags)
    written = []
    for number, (bag, told) in enumerate(chosen):
        images = cached.images[cached.rows(bag["image_id"])]
        placed = {"x", "y"} <= {*bag.columns} and bool(bag[["x", "y"]].notna().all(axis=None))
        pictures = _mosaic(images, bag) if placed else _extremes(images, bag["attention"].to_numpy())
        files = [f"bag{number:02d}.png", f"bag{number:02d}_second.png" if pictures[1].size else ""]
        for file, picture in zip(files, pictures, strict=True):
            if file:
                write_png(folder / file, picture)
        written.append({**told, "placed": placed, "picture": files[0], "second": files[1]})
    (folder / "bags.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _surest(bags: Any, plan: Plan, n_bags: int) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """The bags to show, each with what is told of it: half of them errors, if there are so many, the surest first."""
    told: list[tuple[float, bool, pd.DataFrame, dict[str, Any]]] = []
    for _, bag in bags:
        y, p = label_matrix(bag, plan.labels), probability_matrix(bag, plan.labels)[0]
        if np.isnan(y).all():
            continue
        truth = np.nanmax(y, axis=0)
        column = int(truth.argmax()) if plan.task == "multiclass" else 0
        wrong = bool(p.argmax() != column) if plan.task == "multiclass" else bool((p[0] >= 0.5) != (truth[0] == 1))
        first = bag.sort_values(["attention", "image_id"], ascending=[False, True])
        words = {
            "image_id": str(first["image_id"].iloc[0]), "label": plan.labels[column], "y": float(truth[column]), "p": float(p[column]),
            "wrong": wrong, "n_images": len(bag), "n_half": int(np.searchsorted(first["attention"].cumsum(), 0.5) + 1),
        }  # fmt: skip
        told.append((abs(float(truth[column] - p[column])), wrong, first, words))
    errors = sorted((one for one in told if one[1]), key=lambda one: (-one[0], one[3]["image_id"]))
    others = sorted((one for one in told if not one[1]), key=lambda one: (one[0], one[3]["image_id"]))
    n_errors = min(len(errors), max(n_bags - len(others), -(-n_bags // 2)))
    return [(bag, words) for _, _, bag, words in [*errors[:n_errors], *others[: n_bags - n_errors]]]


def _mosaic(images: np.ndarray, bag: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The tiles where they lay, and the attention over them, as a share of the largest: uint8 (H, W, 3) each."""
    columns, rows = _cells(bag["x"].to_numpy(np.float64)), _cells(bag["y"].to_numpy(np.float64))
    cell = int(np.clip(MOSAIC_PX // (max(columns.max(), rows.max()) + 1), SMALLEST_CELL_PX, LARGEST_CELL_PX))
    shape = ((rows.max() + 1) * cell, (columns.max() + 1) * cell)
    canvas, heat = np.full((*shape, 3), WHITE, np.uint8), np.full(shape, np.nan)
    share = bag["attention"].to_numpy() / bag["attention"].max()
    for image, row, column, weight in zip(images, rows, columns, share, strict=True):
        place = (slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell))
        canvas[place] = cv2.resize(_in_colour(image), (cell, cell), interpolation=cv2.INTER_AREA)
        heat[place] = weight
    warm = cv2.cvtColor(cv2.applyColorMap((np.nan_to_num(heat) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    blended = cv2.addWeighted(canvas, 1 - HEAT_SHARE, warm, HEAT_SHARE, 0)
    return canvas, np.where(np.isnan(heat)[..., None], canvas, blended).astype(np.uint8)


def _cells(places: np.ndarray) -> np.ndarray:
    """Positions in slide pixels to numbers of cells, int (n,): the smallest step between two of them is a cell."""
    steps = np.diff(np.unique(places))
    return np.zeros(len(places), np.int64) if not len(steps) else np.rint((places - places.min()) / steps.min()).astype(np.int64)


def _extremes(images: np.ndarray, attention: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images with most attention and those with least, up to N_EXTREME each, none in both: uint8 (H, W, 3); empty for none."""
    order = np.argsort(-attention, kind="stable")
    n_most = min(N_EXTREME, max(1, len(order) // 2))
    return _side_by_side(images[order[:n_most]]), _side_by_side(images[order[n_most:][::-1][:N_EXTREME]])


def _side_by_side(images: np.ndarray) -> np.ndarray:
    rows, columns = -(-len(images) // 2), min(len(images), 2)
    canvas = np.full((rows * EXTREME_PX, columns * EXTREME_PX, 3), WHITE, np.uint8)
    for number, image in enumerate(images):
        top, left = EXTREME_PX * (number // 2), EXTREME_PX * (number % 2)
        resized = cv2.resize(_in_colour(image), (EXTREME_PX, EXTREME_PX), interpolation=cv2.INTER_AREA)
        canvas[top : top + EXTREME_PX, left : left + EXTREME_PX] = resized
    return canvas


def _in_colour(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)) if image.shape[2] == 1 else image
