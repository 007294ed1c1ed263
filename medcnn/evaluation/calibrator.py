"""What is fixed before the test part is opened: the recalibration and the operating points, fitted on validation rows.

Both are fitted for each fold on rows of patients whom it does not test (`calibration_rows`), and applied to its test rows.
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
from medcnn.evaluation.calibration_rows import FITTED_ON, calibration_rows, fitting_source
from medcnn.evaluation.estimates import FloatArray
from medcnn.evaluation.operating_points import OperatingPoint, Thresholds, choose_operating_points, thresholds_at
from medcnn.evaluation.recalibrated_predictions import Recalibration, fit_predictions
from medcnn.tables import Task, label_names, probability_matrix

CALIBRATOR_FILE, THRESHOLDS_FILE = "calibrator.json", "thresholds.json"
RAW = "none"


@dataclass(frozen=True)
class Calibrator:
    """requested: the method that was asked for. points: operating points by the probabilities they are for: the method's
    name and, for the numbers before recalibration, "none". fitted_on: the rows that both were fitted on, in words."""

    requested: str
    recalibration: Recalibration
    points: Mapping[str, Sequence[OperatingPoint]]
    fitted_on: str = FITTED_ON["own"]

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
        maps = {
            "requested": self.requested,
            "method": self.method,
            "fitted_on": self.fitted_on,
            "recalibration": self.recalibration.as_dict(),
        }
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
            fitted_on=maps.get("fitted_on", FITTED_ON["own"]),
        )


def fit_calibrator(
    predictions: pd.DataFrame, calibration: CalibrationConfig, evaluation: EvaluationConfig, *, task: Task, seed: int
) -> Calibrator:
    """Fit the recalibration and choose the operating points of each fold on its `calibration_rows`.

    predictions: a checked table of val and test rows. Where it has val rows, no test row chooses anything; where it has none,
    the test rows of the other folds do (cross-fitting). Raises InputError when there are no rows to fit on, when a row is of
    part train, or when a patient would stand on both sides of a fold's map.
    """
    if not label_names(predictions):
        raise InputError("calibration needs y_LABEL columns; got none")
    rows, fitted_on = calibration_rows(predictions), FITTED_ON[fitting_source(predictions)]
    recalibration = fit_predictions(rows, calibration.method, task=task, seed=seed)
    fitted = Calibrator(calibration.method, recalibration, {}, fitted_on)
    tables = {RAW: rows, fitted.method: fitted.apply(rows)}
    points = {name: choose_operating_points(table, evaluation, task=task) for name, table in tables.items()}
    return Calibrator(calibration.method, recalibration, points, fitted_on)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the folder of a finished calibration") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is damaged ({error}); delete its folder and run again") from None
