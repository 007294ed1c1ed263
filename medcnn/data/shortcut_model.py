"""The shortcuts as a rung of the ladder: one logistic regression on all that holds little or no disease, on the run's own split."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcnn.data.shortcut_features import file_features, metadata_columns, metadata_features, pixel_features
from medcnn.data.shortcuts import fit_probability
from medcnn.progress import Progress, silent
from medcnn.tables import Task, label_matrix


def predict_shortcuts(
    manifest: pd.DataFrame,
    images: np.ndarray,
    rows: np.ndarray,
    labels: Sequence[str],
    *,
    split: pd.DataFrame,
    task: Task,
    seed: int,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Probability of each label for every val and test row, from a fit on the fold's train rows: image_id, fold, p_LABEL.

    images: uint8 (N, H, W, C) prepared images; rows: int (n,), the image of each manifest row. Features: facts of the
    file, border, grey levels, thumbnail, metadata of the acquisition; traits of the patient (age, sex) are no shortcut
    and stay out. Several classes: one against the rest, scaled to a sum of one. A label that the train rows hold in one
    class only gets its share there.
    """
    acquisition, _ = metadata_columns(manifest)
    found = [file_features(manifest), *pixel_features(images, rows, progress=progress).values()]
    if acquisition:
        found.append(metadata_features(manifest, acquisition))
    X, y = np.concatenate(found, axis=1), label_matrix(manifest, labels)
    place = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    folds = []
    for fold, of_fold in split.groupby("fold", sort=True):
        train, asked = (
            place.loc[of_fold.loc[chosen, "image_id"]].to_numpy() for chosen in (of_fold["part"] == "train", of_fold["part"] != "train")
        )
        p = np.stack(
            [fit_probability(X, y[:, column], np.sort(train), asked, seed=[seed, int(str(fold))]) for column in range(len(labels))], axis=1
        )
        if task == "multiclass":
            p /= p.sum(axis=1, keepdims=True)
        folds.append(
            pd.DataFrame(
                {
                    "image_id": manifest["image_id"].to_numpy()[asked],
                    "fold": fold,
                    **dict(zip([f"p_{label}" for label in labels], p.T, strict=True)),
                }
            )
        )
    return pd.concat(folds, ignore_index=True)
