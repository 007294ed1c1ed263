"""The lowest rung: what somebody would say who knows the share of each class and sees no image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcnn.tables import Task, label_matrix


def predict_prevalence(manifest: pd.DataFrame, split: pd.DataFrame, labels: Sequence[str], *, task: Task) -> pd.DataFrame:
    """The share of each label among a fold's train rows, for every val and test row: image_id, fold, p_LABEL.

    Laplace's rule ((positives + 1) / (n + 2), for K classes (n_k + 1) / (n + K)) keeps it off 0 and 1. Missing labels
    are left out.
    """
    y = manifest.set_index("image_id")[[f"y_{label}" for label in labels]]
    folds = []
    for fold, rows in split.groupby("fold", sort=True):
        known = label_matrix(y.loc[rows.loc[rows["part"] == "train", "image_id"]], labels)
        n_classes = len(labels) if task == "multiclass" else 2
        shares = (np.nansum(known, axis=0) + 1) / ((~np.isnan(known)).sum(axis=0) + n_classes)
        asked = rows.loc[rows["part"] != "train", "image_id"]
        folds.append(
            pd.DataFrame({"image_id": asked, "fold": fold, **{f"p_{label}": share for label, share in zip(labels, shares, strict=True)}})
        )
    return pd.concat(folds, ignore_index=True)
