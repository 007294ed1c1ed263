"""What a cohort is, from its manifest and a sample of its images: the facts from which the plan is made."""

import numpy as np
import pandas as pd

from medcnn.cohort import Fingerprint
from medcnn.data.intensity import Reader, intensity_statistics
from medcnn.errors import InputError
from medcnn.progress import Progress, silent
from medcnn.section import Auto
from medcnn.tables import Task, infer_task, label_matrix, label_names

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def fingerprint(
    manifest: pd.DataFrame, *, task: Task | Auto = "auto", read: Reader | None = None, progress: Progress = silent
) -> Fingerprint:
    """Counts, prevalence and sizes of a checked manifest, and the grey values of a few hundred of its images.

    read(path, frame): uint8 pixels of a row; None: no image is read, and intensity stays blank. scanners are counted by
    the covariate scanner, else manufacturer. Raises InputError when the task that was asked for does not fit the labels.
    """
    labels = tuple(label_names(manifest))
    y = label_matrix(manifest, labels)
    known = ~np.isnan(y)
    return Fingerprint(
        task=_resolve(task, y),
        labels=labels,
        n_images=len(manifest),
        n_patients=int(manifest["patient_id"].nunique()),
        n_labelled={label: int(known[:, k].sum()) for k, label in enumerate(labels)},
        n_positive={label: int(np.nansum(y[:, k])) for k, label in enumerate(labels)},
        n_positive_patients={label: int(manifest.loc[y[:, k] == 1, "patient_id"].nunique()) for k, label in enumerate(labels)},
        prevalence={label: float(np.nanmean(y[:, k])) if known[:, k].any() else 0.0 for k, label in enumerate(labels)},
        images_per_patient=_quantiles(manifest.groupby("patient_id").size()),
        height_px=_quantiles(manifest["height"]),
        width_px=_quantiles(manifest["width"]),
        aspect_ratio=_quantiles(manifest["width"] / manifest["height"]),
        bit_depths=_counts(manifest, "bit_depth"),
        channels=_counts(manifest, "channels"),
        sites=_counts(manifest, "site"),
        parts=_counts(manifest, "given_part"),
        n_bytes=int(manifest["n_bytes"].sum()) if "n_bytes" in manifest else 0,
        scanners=_counts(manifest, "scanner") or _counts(manifest, "manufacturer"),
        photometric=_counts(manifest, "photometric"),
        intensity=intensity_statistics(manifest, read, progress=progress) if read else {},
        extra={**_given_folds(manifest), **_bags(manifest, y)},
    )


def _given_folds(manifest: pd.DataFrame) -> dict[str, int]:
    """How many images have a given fold, and how many folds there are."""
    if "given_fold" not in manifest:
        return {"n_given_fold": 0}
    return {"n_given_fold": int(manifest["given_fold"].notna().sum()), "n_folds": int(manifest["given_fold"].nunique())}


def _bags(manifest: pd.DataFrame, y: np.ndarray) -> dict[str, int]:
    """Whether the images are tiles (they have a place), how many studies there are, and how many have images of different labels.

    n_studies: 0 unless every image names its study; n_mixed_studies, n_mixed_patients: in some label both 0 and 1 are known.
    """
    found = {"tiled": int({"x", "y"} <= {*manifest.columns}), "n_studies": 0, "n_mixed_studies": 0}
    columns = {"patients": ["patient_id"], "studies": ["patient_id", "study_id"]}
    if "study_id" not in manifest or manifest["study_id"].isna().any():
        del columns["studies"]
    for unit, names in columns.items():
        groups = pd.DataFrame(y).groupby([manifest[name].to_numpy() for name in names])
        found[f"n_{unit}"] = groups.ngroups
        found[f"n_mixed_{unit}"] = int((groups.max() > groups.min()).any(axis=1).sum())  # blank labels are skipped
    return found


def _resolve(task: Task | Auto, y: np.ndarray) -> Task:
    seen = infer_task(y)
    if task in {"auto", seen}:
        return seen
    if task == "multilabel" and y.shape[1] > 1:
        return task
    expected = "one label" if task == "binary" else "exactly one class in every image, none missing"
    raise InputError(f"task {task} does not fit the labels: expected {expected}; {y.shape[1]} label columns look {seen}; set task: auto")


def _quantiles(values: pd.Series) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in np.quantile(values.to_numpy(dtype=float), QUANTILES))


def _counts(manifest: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in manifest:
        return {}
    return {str(value): int(n) for value, n in manifest[column].dropna().value_counts().sort_index().items()}
