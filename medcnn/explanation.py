"""The most confident errors, as pictures, and where the network looked."""

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medcnn.errors import InputError
from medcnn.plan import Plan
from medcnn.stain_stages import seen_images
from medcnn.tables import label_matrix, probability_matrix

THUMBNAIL_PX = 160
HEAT_SHARE = 0.45


def write_errors(folder: Path, cached: Path, trained: Mapping[int, Path], predictions: pd.DataFrame, plan: Plan, n_errors: int) -> None:
    """Write `errors.json` and its PNG pictures: the n_errors test images whose probability was furthest from the truth."""
    from medcnn.data.cache import open_cache

    worst = confident_errors(predictions[predictions["part"] == "test"], plan, n_errors)
    images = open_cache(cached)
    rows = []
    for number, error in enumerate(worst.itertuples(index=False)):
        pixels = images.images[images.rows([str(error.image_id)])[0]]
        picture, heatmap = f"error{number:02d}.png", ""
        write_png(folder / picture, _enlarged(pixels))
        heat, method = _heat(trained[int(str(error.fold))], pixels, plan.labels.index(str(error.label)))
        if heat is not None:
            heatmap = f"error{number:02d}_heat.png"
            write_png(folder / heatmap, _overlaid(pixels, heat))
        rows.append(
            {"image_id": error.image_id, "label": error.label, "y": error.y, "p": error.p, "threshold": None, "picture": picture, "heatmap": heatmap, "method": method}
        )  # fmt: skip
    (folder / "errors.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def confident_errors(predictions: pd.DataFrame, plan: Plan, n_errors: int) -> pd.DataFrame:
    """The rows with the largest distance between label and probability, among those on the wrong side of 0.5 (binary,
    multi-label) or given to another class (multi-class: the label named is the true class).

    Returns image_id, fold, label, y, p; at most n_errors rows, the worst first.
    """
    y, p = label_matrix(predictions, plan.labels), probability_matrix(predictions, plan.labels)
    if plan.task == "multiclass":
        wrong = (y == 1) & (p.argmax(axis=1) != y.argmax(axis=1))[:, None]
    else:
        wrong = ~np.isnan(y) & ((p >= 0.5) != (y == 1))
    row, column = np.nonzero(wrong)
    table = pd.DataFrame(
        {
            "image_id": predictions["image_id"].to_numpy()[row],
            "fold": predictions["fold"].to_numpy()[row],
            "label": np.array(plan.labels)[column],
            "y": y[row, column],
            "p": p[row, column],
        }
    )
    distance = (table["y"] - table["p"]).abs()
    order = pd.DataFrame({"distance": -distance, "image_id": table["image_id"]}).sort_values(["distance", "image_id"]).index
    return table.loc[order[:n_errors]]


def _heat(folder: Path, pixels: np.ndarray, label: int) -> tuple[np.ndarray | None, str]:
    """Grad-CAM of one image, float32 (H, W) in 0..1, or None with the reason when the network has no feature map."""
    from medcnn.model.card import load_model
    from medcnn.model.explain import grad_cam

    model, card = load_model(folder)
    seen = seen_images(pixels[None], card)[np.arange(1)]
    try:
        return grad_cam(model, seen, card=card, label=label)[0], "Grad-CAM"
    except InputError as error:
        return None, str(error)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    size = max(THUMBNAIL_PX, pixels.shape[0])
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_CUBIC))


def _overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    picture = _enlarged(pixels)
    colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 or picture.shape[2] == 1 else picture
    warm = cv2.cvtColor(
        cv2.applyColorMap((cv2.resize(heat, colour.shape[1::-1]) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    return np.asarray(cv2.addWeighted(colour, 1 - HEAT_SHARE, warm, HEAT_SHARE, 0))


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W), (H, W, 1) or RGB (H, W, 3)."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels
    path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
