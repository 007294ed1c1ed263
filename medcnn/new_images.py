"""New images beside those that a run was trained on: are they of the same kind, as far as pixels tell without any label."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medcnn.audit_stages import REFERENCE
from medcnn.inference import NewImage, find_images
from medcnn.plan import read_plan
from medcnn.progress import Progress, silent
from medcnn.runs import Run
from medcnn.tables import read_table

MOST_LOOKED_AT = 500  # new images; they are decoded once more for it, in full
TODO = (
    "What the run's report says of its test part need not hold for them: label some of them, look at calibration and AUROC there, "
    "and see `medcnn recalibrate`."
)


@dataclass(frozen=True)
class NewCohort:
    """What was seen of new images. sentences: warnings first, at least one sentence; numbers: for `drift.json`. n: looked at."""

    sentences: tuple[str, ...]
    numbers: dict[str, Any]
    n: int


def compare_with_training(run: Run, inputs: Sequence[Path], *, progress: Progress = silent) -> NewCohort:
    """Traits of at most MOST_LOOKED_AT of the new images against those that the run keeps of its training images.

    Two tests from twenty images on (drift.py: each trait, and a classifier); fewer are only held against the range of the training
    images, one by one. Images that cannot be read are left out. An older run kept no traits: then it says so.
    """
    from scipy.stats import binom

    from medcnn.data.drift import LEAST_COMPARED, compare, drift_finding, outside_range
    from medcnn.evaluation.discrimination import auroc_interval

    kept = _reference(run)
    if kept is None:
        return NewCohort(
            ("The run keeps no traits of its training images (it is older than this check): new images were not compared with them.",),
            {},
            0,
        )
    reference = read_table(kept)
    decided = read_plan(run.done("plan") / "plan.yaml")
    new = _traits(_drawn(find_images(inputs, bag=decided.ladder.bag)), run, progress)
    if new.empty or reference.empty:
        return NewCohort(("No new image could be compared with the training images.",), {}, 0)
    counts, limit = outside_range(reference, new)
    n_outside = int((counts > limit).sum())
    numbers: dict[str, Any] = {"n": len(new), "n_outside": n_outside, "limit": limit, "n_reference": len(reference)}
    text = (
        f"{n_outside} of {len(new)} new images lie outside of the central 99% of the training images in more than {limit} of {len(reference.columns)} "
        f"traits (brightness, sharpness, noise, frame, size), as 1% of the training images do."
    )
    by_chance = binom.ppf(0.99, len(new), max(0.01, 2 / len(reference)))  # the range of a small cohort is not known well
    sentences = [f"{'warning: ' if n_outside > by_chance else ''}{text}"]
    if len(new) >= LEAST_COMPARED <= len(reference):
        seen = compare(reference, new, names=("the training images", "the new images"), seed=decided.seed)
        auroc = auroc_interval(seen.y, seen.p)
        limits = tuple(0.5 if value is None else value for value in (auroc.value, auroc.low, auroc.high))
        numbers |= {"auroc": auroc.value, "low": auroc.low, "high": auroc.high, "traits": seen.traits.to_dict("records")}
        found = drift_finding(seen, (limits[0], limits[1], limits[2]), kind="cohort_drift", todo=TODO)
        said = "Nothing tells the new images from the training images." if found is None else f"{found.text} {found.todo}"
        warned = found is not None and found.severity == "warning"
        sentences.insert(0, f"warning: {said}" if warned else said)
    return NewCohort(tuple(sorted(sentences, key=lambda sentence: not sentence.startswith("warning"))), numbers, len(new))


def write_comparison(compared: NewCohort, path: Path) -> None:
    """The sentences and numbers as JSON."""
    tree = {"sentences": list(compared.sentences), **compared.numbers}
    path.write_text(json.dumps(tree, indent=1, default=float) + "\n", encoding="utf-8")


def _reference(run: Run) -> Path | None:
    """The traits kept by the run's own drift stage, wherever its cohort stands."""
    places: dict[str, str] = json.loads((run.done("report") / "folders.json").read_text(encoding="utf-8"))
    kept = run.folder / places["drift"] / REFERENCE if "drift" in places else None
    return kept if kept is not None and kept.is_file() else None


def _drawn(images: Sequence[NewImage]) -> list[NewImage]:
    """At most MOST_LOOKED_AT images, by digests of their names."""
    ranked = sorted(images, key=lambda image: hashlib.sha256(f"{image.path}#{image.frame}".encode()).hexdigest())
    return ranked[:MOST_LOOKED_AT]


def _traits(images: Sequence[NewImage], run: Run, progress: Progress) -> pd.DataFrame:
    """TRAITS of each image that can be read."""
    from medcnn.data.drift import TRAITS, trait_table
    from medcnn.data.formats import UnreadableImage
    from medcnn.data.images import Reading, read_row
    from medcnn.data.quality import quality_of

    rows: list[dict[str, Any]] = []
    for image in progress(images, "Comparing with the training images", len(images)):
        try:
            pixels = read_row(image.path, image.frame, reading=Reading(window=run.config.data.window))
        except UnreadableImage:
            continue  # predict_new names it, with its reason
        name = str(len(rows))
        rows.append({"image_id": name, "patient_id": name, "height": pixels.shape[0], "width": pixels.shape[1], **quality_of(pixels)})
    if not rows:
        return pd.DataFrame(columns=list(TRAITS))
    table = pd.DataFrame(rows)
    return trait_table(table[["image_id", "patient_id", "height", "width"]], table)[list(TRAITS)]
