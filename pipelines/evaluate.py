"""Anybody's predictions: the whole evaluation and report, without a run."""

from collections.abc import Sequence
from pathlib import Path

from medcnn.config import EvaluationConfig
from medcnn.config_file import build_evaluation
from medcnn.predictions import evaluate_table
from medcnn.tables import check_predictions, read_table


def evaluate(
    predictions: Path,
    out: Path,
    *,
    thresholds: Sequence[float] = (),
    by: Sequence[str] = (),
    prevalence: float | None = None,
    task: str = "auto",
    settings: Sequence[str] = (),
) -> Path:
    """Evaluate a CSV or Parquet of predictions (y_LABEL, p_LABEL) and write metrics.json, curves.parquet, report.html.

    thresholds: probabilities; positive means p >= threshold (default 0.5). settings: `key=value` of the evaluation section.
    Returns the folder. Raises InputError for a table, threshold or setting that does not fit.
    """
    given = {"thresholds": [{"rule": "fixed", "value": value} for value in thresholds or (0.5,)], "by": list(by), "prevalence": prevalence}
    config: EvaluationConfig = build_evaluation(given, settings)
    table = check_predictions(read_table(predictions), source=str(predictions))
    return evaluate_table(table, out, config, name=predictions.stem, task=task)
