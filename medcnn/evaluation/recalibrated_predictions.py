"""Recalibration of a whole predictions table: per fold (each fold has its own model), per label, written as one JSON object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray, repeated_patients
from medcnn.evaluation.multiclass_recalibration import SoftmaxRecalibrator, fit_softmax_recalibration, logits_of
from medcnn.evaluation.recalibration import Recalibrator, fit_recalibration, log_odds_of
from medcnn.tables import Task, label_matrix, label_names, logit_matrix, probability_matrix

ALL_CLASSES = "all"  # the key under which the one map of a multi-class model stands


@dataclass(frozen=True)
class Recalibration:
    """The maps of every fold and label. For multi-class, one map per fold under the label "all"."""

    task: Task
    labels: tuple[str, ...]
    maps: Mapping[int, Mapping[str, Recalibrator | SoftmaxRecalibrator]]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of the predictions with p_LABEL recalibrated; logit_LABEL stays what the model said.

        Raises InputError for a fold that has no map.
        """
        frame = frame.copy()
        columns = [f"p_{label}" for label in self.labels]
        p = probability_matrix(frame, self.labels).copy()
        for fold in np.unique(frame["fold"].to_numpy()):
            if int(fold) not in self.maps:
                raise InputError(f"recalibration: fold {fold} has no map; it was fitted for folds {sorted(self.maps)}")
            rows = np.flatnonzero(frame["fold"].to_numpy() == fold)
            p[rows] = self._apply_fold(frame.iloc[rows], self.maps[int(fold)])
        frame[columns] = p
        return frame

    def _apply_fold(self, frame: pd.DataFrame, maps: Mapping[str, Recalibrator | SoftmaxRecalibrator]) -> FloatArray:
        logits = model_logits(frame, self.labels, self.task)
        if self.task == "multiclass":
            return maps[ALL_CLASSES].apply(logits)
        return np.column_stack([maps[label].apply(logits[:, column]) for column, label in enumerate(self.labels)])

    def methods(self) -> dict[str, str]:
        """What was applied to each label: "platt", or "platt/none" where the folds differ."""
        names = [ALL_CLASSES] if self.task == "multiclass" else list(self.labels)
        return {name: "/".join(sorted({maps[name].method for maps in self.maps.values()})) for name in names}

    def notes(self) -> list[str]:
        """Every remark of a fit, with its fold and label."""
        return [f"fold {fold}, {name}: {part.note}" for fold, maps in self.maps.items() for name, part in maps.items() if part.note]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        maps = {str(fold): {name: part.as_dict() for name, part in maps.items()} for fold, maps in self.maps.items()}
        return {"task": self.task, "labels": list(self.labels), "maps": maps}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recalibration":
        """The inverse of `as_dict`. Raises InputError where a part is missing or a method unknown."""
        if missing := {"task", "labels", "maps"} - set(values):
            raise InputError(f"recalibration: {sorted(missing)[0]} is missing; expected task, labels and maps")
        kind = SoftmaxRecalibrator if values["task"] == "multiclass" else Recalibrator
        maps = {int(fold): {name: kind.from_dict(part) for name, part in maps.items()} for fold, maps in values["maps"].items()}
        return cls(values["task"], tuple(values["labels"]), maps)


def fit_predictions(frame: pd.DataFrame, method: str, *, task: Task, seed: int = 0) -> Recalibration:
    """Fit `method` on a checked predictions table that holds only the rows to fit on: validation or out-of-fold, never test.

    Each fold gets its own maps. Binary and multi-label: rows whose label is missing are left out of that label's fit.
    Raises InputError when the table has test rows and validation rows of one fold together, or no row.
    """
    labels = tuple(label_names(frame))
    if frame.empty:
        raise InputError("recalibration: there is no row to fit on; expected validation or out-of-fold rows")
    mixed = frame.groupby("fold")["part"].nunique()
    if (mixed > 1).any():
        raise InputError(f"recalibration: fold {mixed.idxmax()} brings rows of several parts; give the validation rows alone")
    folds = frame["fold"].to_numpy(dtype=np.int64)
    maps = {int(fold): _fit_fold(frame[folds == fold], labels, method, task, seed) for fold in np.unique(folds)}
    return Recalibration(task, labels, maps)


def model_logits(frame: pd.DataFrame, labels: Sequence[str], task: Task) -> FloatArray:
    """The model's logits (n, k): the logit columns, else log odds of p (binary, multi-label) or ln p (multi-class)."""
    if all(f"logit_{label}" in frame for label in labels):
        return logit_matrix(frame, labels)
    p = probability_matrix(frame, labels)
    return logits_of(p) if task == "multiclass" else log_odds_of(p)


def _fit_fold(
    frame: pd.DataFrame, labels: Sequence[str], method: str, task: Task, seed: int
) -> dict[str, Recalibrator | SoftmaxRecalibrator]:
    logits, y = model_logits(frame, labels, task), label_matrix(frame, labels)
    patient = frame["patient_id"].to_numpy()
    if task == "multiclass":
        patients = repeated_patients(patient, len(frame))
        return {ALL_CLASSES: fit_softmax_recalibration(method, y.argmax(axis=1), logits, patients=patients, seed=seed)}
    maps: dict[str, Recalibrator | SoftmaxRecalibrator] = {}
    for column, label in enumerate(labels):
        known = ~np.isnan(y[:, column])
        if not known.any():
            maps[label] = Recalibrator("none", requested=method, note=f"{method} cannot be fitted: no row has this label")
            continue
        patients = repeated_patients(patient[known], int(known.sum()))
        maps[label] = fit_recalibration(method, y[known, column], logits[known, column], patients=patients, seed=seed)
    return maps
