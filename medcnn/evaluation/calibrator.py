"""What is fixed before the test part is opened: the recalibration and the operating points, fitted on validation rows.

Both are fitted for each fold's model on that fold's own validation rows, and applied to that fold's test rows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import write_file
from medcnn.config import CalibrationConfig, EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.estimates import FloatArray
from medcnn.evaluation.operating_points import OperatingPoint, Thresholds, choose_operating_points, thresholds_at
from medcnn.evaluation.recalibrated_predictions import Recalibration, fit_predictions
from medcnn.tables import Task, label_names, probability_matrix

CALIBRATOR_FILE, THRESHOLDS_FILE = "calibrator.json", "thresholds.json"
RAW = "none"


@dataclass(frozen=True)
class Calibrator:
    """requested: the method that was asked for. points: operating points by the probabilities they are for: the method's
    name and, for the numbers before recalibration, "none"."""

    requested: str
    recalibration: Recalibration
    points: Mapping[str, Sequence[OperatingPoint]]

    @property
    def method(self) -> str:
        """Name under which recalibrated numbers are stated: the method, or "auto: " and what it chose where labels differ."""
        names = sorted({name for names in self.recalibration.methods().values() for name in names.split("/")})
        return names[0] if len(names) == 1 else f"{self.requested}: {'/'.join(names)}"

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of a predictions table with p_LABEL recalibrated, each row by its fold's map."""
        return self.recalibration.apply(frame)

    def probabilities(self, logits: FloatArray, fold: int) -> FloatArray:
        """Recalibrated probabilities (n, n_labels) for one fold model's logits (n, n_labels)."""
        labels = self.recalibration.labels
        frame = pd.DataFrame({f"logit_{label}": logits[:, column] for column, label in enumerate(labels)})
        frame = frame.assign(fold=fold, **{f"p_{label}": np.nan for label in labels})
        return probability_matrix(self.apply(frame), labels)

    def thresholds(self, recalibration: str, level: str) -> Thresholds:
        """label -> one mapping of fold -> threshold for each rule, for probabilities that went through `recalibration`."""
        return thresholds_at(self.points[recalibration], level)

    def write(self, folder: Path) -> None:
        """Write `calibrator.json` and `thresholds.json`."""
        maps = {"requested": self.requested, "method": self.method, "recalibration": self.recalibration.as_dict()}
        points = {name: [point.as_dict() for point in points] for name, points in self.points.items()}
        write_file(folder / CALIBRATOR_FILE, (json.dumps(maps, indent=1) + "\n").encode())
        write_file(folder / THRESHOLDS_FILE, (json.dumps(points, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Calibrator":
        """The inverse of `write`. Raises InputError when a file is missing or damaged."""
        maps, points = _read(folder / CALIBRATOR_FILE), _read(folder / THRESHOLDS_FILE)
        return cls(
            requested=maps["requested"],
            recalibration=Recalibration.from_dict(maps["recalibration"]),
            points={name: [OperatingPoint(**point) for point in rows] for name, rows in points.items()},
        )


def fit_calibrator(val: pd.DataFrame, calibration: CalibrationConfig, evaluation: EvaluationConfig, *, task: Task, seed: int) -> Calibrator:
    """Fit the recalibration and choose the operating points on a checked predictions table of validation rows.

    Raises InputError when there are none, or when a row is not of part val: test rows cannot choose anything here.
    """
    strangers = sorted(set(val["part"]) - {"val"})
    if strangers or val.empty:
        raise InputError(f"calibration and thresholds are fitted on rows of part val; got {strangers or 'no rows'}")
    if not label_names(val):
        raise InputError("calibration needs y_LABEL columns; got none")
    recalibration = fit_predictions(val, calibration.method, task=task, seed=seed)
    fitted = Calibrator(calibration.method, recalibration, {})
    tables = {RAW: val, fitted.method: fitted.apply(val)}
    return Calibrator(
        calibration.method,
        recalibration,
        {name: choose_operating_points(table, evaluation, task=task) for name, table in tables.items()},
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the folder of a finished calibration") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is damaged ({error}); delete its folder and run again") from None
