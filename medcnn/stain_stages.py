"""Stain normalisation, joined: what each image's colours are is found once; what they are brought to is the training rows' affair.

The target that a model learnt with stands in its card, and goes with it to validation, test and new images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medcnn.plan import Plan, read_plan
from medcnn.runs import Run, do_stage
from medcnn.tables import read_table, write_table

Inputs = Mapping[str, Path]
TABLE = "stain.parquet"


def stain(run: Run, inputs: Inputs) -> dict[str, Path]:
    """Each image's own colours: `stain.parquet`, a row for each image of the cache. Blank where the plan wants none."""
    decided = read_plan(inputs["plan"] / "plan.yaml")
    if decided.image.stain == "none":
        return {}

    def work(draft: Path) -> None:
        import pandas as pd

        from medcnn.data.cache import open_cache
        from medcnn.data.stain import COLUMNS

        cached = open_cache(inputs["cache"])
        found = stains_of(cached.images, decided.image.stain)
        n_left = int(np.isnan(found).any(axis=1).sum())
        if n_left:
            run.say(f"stain: {n_left} of {len(found)} images show hardly any tissue, or one stain only; their colours stay as they are")
        table = pd.DataFrame(found, columns=list(COLUMNS[decided.image.stain]))  # type: ignore[index]  # not none
        table.insert(0, "image_id", cached.index.sort_values("row")["image_id"].to_numpy())
        write_table(table, draft / TABLE)

    return {"stain": do_stage(run, "stain", work, settings={"stain": decided.image.stain}, inputs={"cache": inputs["cache"]})}


def stains_of(images: Any, method: Any) -> np.ndarray:
    """stain_of each of some images, uint8 (N, S, S, 3): float64 (N, k)."""
    from medcnn.data.stain import stain_of

    return np.stack([stain_of(images[row], method) for row in range(len(images))])


def trained_images(inputs: Inputs, images: Any, decided: Plan, rows_train: np.ndarray) -> tuple[Any, tuple[float, ...]]:
    """A cache's images as a model sees them that learns from these rows, and the colours they were brought to; blank: as they are."""
    if decided.image.stain == "none":
        return images, ()
    from medcnn.data.stain import RestainedImages, fit_target, stain_maps

    method = decided.image.stain
    found = found_stains(inputs) if "stain" in inputs else stains_of(images, method)
    target = fit_target(found[rows_train], method)
    return RestainedImages(images, stain_maps(found, target, method), method), target


def found_stains(inputs: Inputs) -> np.ndarray:
    """What the stage stain found, float64 (N, k), in the cache's order."""
    return read_table(inputs["stain"] / TABLE).drop(columns="image_id").to_numpy(np.float64)


def seen_images(images: Any, card: Any, found: np.ndarray | None = None) -> Any:
    """Images as a trained model wants them: with the colours that its card names.

    images: uint8 (N, S, S, C), of the cohort or new. found: what the stage stain found of them; None: it is found now.
    """
    if not card.stain_target:
        return images
    from medcnn.data.stain import RestainedImages, stain_maps

    method = card.image.stain
    found = stains_of(images, method) if found is None else found
    return RestainedImages(images, stain_maps(found, card.stain_target, method), method)
