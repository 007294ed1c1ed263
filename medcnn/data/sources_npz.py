"""MedMNIST-like NPZ files: arrays PART_images and PART_labels, or images and labels."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.config_data import DataConfig
from medcnn.data.arrays import npz_member, npz_names
from medcnn.data.images import UnreadableImage
from medcnn.data.labels import Labels, class_labels, finding_labels
from medcnn.data.sources import Candidates
from medcnn.errors import InputError, MissingExtra
from medcnn.section import Auto
from medcnn.tables import PARTS, Task


def npz_path(config: DataConfig) -> Path:
    """The file: data.path, else $MEDMNIST_ROOT/DATASET.npz, else what the medmnist package downloads. Raises InputError."""
    if config.path is not None and config.path.is_file():
        return config.path
    if config.dataset is None:
        raise InputError(f"{config.path}: no such file; expected an NPZ file with train_images, train_labels, ...")
    roots = [Path(root) for root in (os.environ.get("MEDMNIST_ROOT"), Path.home() / ".medmnist") if root]
    for root in roots:
        if (root / f"{config.dataset}.npz").is_file():
            return root / f"{config.dataset}.npz"
    return _download(config.dataset, roots[0])


def _download(name: str, root: Path) -> Path:
    try:
        import medmnist
    except ImportError:
        raise MissingExtra("medmnist", "medmnist", f"downloading {name}") from None
    if name not in medmnist.INFO:
        raise InputError(f"data.dataset {name!r}: MedMNIST has no such set; it has {', '.join(sorted(medmnist.INFO))}")
    root.mkdir(parents=True, exist_ok=True)
    try:
        getattr(medmnist, medmnist.INFO[name]["python_class"])(split="train", download=True, root=str(root))
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["unknown error"])[0]
        raise InputError(
            f"{name} could not be downloaded ({reason}); put {name}.npz into {root} and set MEDMNIST_ROOT, or set data.path"
        ) from None
    return root / f"{name}.npz"


def npz_candidates(config: DataConfig, task: Task | Auto) -> Candidates:
    """Every image of every part; image_id `train/000123`, path `FILE.npz#train_images`, frame the row of the array.

    Class names come from data.classes in the order of the label numbers, else from the medmnist package when
    data.dataset names a set, else they are the numbers. Raises InputError when arrays are missing or do not fit together.
    """
    file = npz_path(config)
    parts = _parts(file)
    tables, labels = [], []
    for part in parts:
        prefix = f"{part}_" if part else ""
        images, numbers = _member(file, f"{prefix}images"), _member(file, f"{prefix}labels")
        _check_arrays(file, prefix, images, numbers)
        ids = [f"{part or 'all'}/{row:06d}" for row in range(len(images))]
        tables.append(
            pd.DataFrame(
                {"image_id": ids, "patient_id": ids, "path": f"{file.name}#{prefix}images", "frame": range(len(ids)), "given_part": part}
            )
        )
        labels.append(numbers.reshape(len(numbers), -1))
    if len({array.shape[1] for array in labels}) > 1:
        raise InputError(f"{file}: the parts have different numbers of labels: {[array.shape[1] for array in labels]}")
    y = _labels(np.concatenate(labels), config, task, str(file)).y
    rows = pd.concat([pd.concat(tables, ignore_index=True), y], axis=1)
    if not any(parts):
        rows = rows.drop(columns="given_part")
    notes = ["No patient is named in an NPZ file: every image counts as its own patient"]
    if file != config.path:
        notes.append(f"Read from {file}")
    return Candidates(rows=rows, n_found=len(rows), notes=notes)


def _parts(file: Path) -> list[str]:
    """The parts that the file has: some of train, val, test; or [""] for a file with just images and labels."""
    try:
        names = set(npz_names(file))
    except UnreadableImage as error:
        raise InputError(str(error)) from None
    parts = [part for part in PARTS if f"{part}_images" in names]
    if not parts and "images" not in names:
        raise InputError(f"{file}: expected arrays train_images, train_labels, ... (or images, labels); it has {sorted(names)[:12]}")
    return parts or [""]


def _member(file: Path, member: str) -> np.ndarray:
    try:
        return npz_member(file, member)
    except UnreadableImage as error:
        raise InputError(str(error)) from None


def _check_arrays(file: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in {1, 3})
    if images.dtype not in (np.uint8, np.uint16) or not grey_or_colour:
        raise InputError(f"{file}: {prefix}images is {images.dtype} {images.shape}; expected uint8 or uint16 (N, H, W) or (N, H, W, 3)")
    if not images.size:
        raise InputError(f"{file}: {prefix}images has shape {images.shape}: there is no image in it")
    if labels.ndim == 0 or len(images) != len(labels):
        raise InputError(f"{file}: {len(images)} {prefix}images but {len(labels) if labels.ndim else 'a single number as'} {prefix}labels")
    is_real = np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating) or labels.dtype == bool
    if not is_real or labels.ndim > 2 or not labels.size:
        raise InputError(f"{file}: {prefix}labels is {labels.dtype} {labels.shape}; expected numbers (N,), (N, 1) or (N, n_labels)")


def _labels(numbers: np.ndarray, config: DataConfig, task: Task | Auto, source: str) -> Labels:
    if numbers.shape[1] > 1:
        names = _names(numbers.shape[1], config, config.label_columns or config.classes, source)
        return finding_labels(pd.DataFrame(numbers, columns=names), names, config, source=source)
    values = numbers[:, 0]
    strange = ~np.isin(values, np.arange(1000))
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise InputError(f"{source}: label {values[row]!r} in row {row}; expected class numbers 0, 1, 2, ...")
    names = _names(int(values.max()) + 1, config, config.classes, source)
    named = config.model_copy(update={"classes": tuple(names)})
    return class_labels([names[int(value)] for value in values], named, task, source=source)


def _names(n: int, config: DataConfig, given: tuple[str, ...], source: str) -> list[str]:
    if given:
        if len(given) != n:
            raise InputError(f"{source}: {len(given)} names {list(given)} for {n} labels; give one for each, in the order of their numbers")
        if len(set(given)) < n:
            raise InputError(f"{source}: the names {list(given)} are not all different; each label needs its own")
        return list(given)
    return _published_names(config.dataset, n) or [str(number) for number in range(n)]


def _published_names(dataset: str | None, n: int) -> list[str] | None:
    if dataset is None:
        return None
    try:
        from medmnist import INFO
    except ImportError:
        return None
    labels = INFO.get(dataset, {}).get("label", {})
    return [labels[str(number)] for number in range(n)] if len(labels) == n else None
