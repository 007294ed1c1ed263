"""Several models on the same images: paired differences, corrected for the number of pairs, in one report."""

from collections.abc import Sequence
from pathlib import Path

from medcnn.config_file import build_evaluation
from medcnn.predictions import compare_tables, read_model


def compare(
    models: Sequence[Path],
    out: Path,
    *,
    thresholds: Sequence[float] = (),
    margin: float | None = None,
    settings: Sequence[str] = (),
) -> tuple[Path, list[str]]:
    """Compare run folders or prediction files and write comparison.json, metrics.json and report.html.

    Returns the folder and what may be claimed, in sentences. Raises InputError when the models were not tested on the
    same images, labels and patients, or share a name.
    """
    given = {"thresholds": [{"rule": "fixed", "value": value} for value in thresholds or (0.5,)], "margin": margin}
    config = build_evaluation(given, settings)
    return compare_tables([read_model(path, config) for path in models], out, config)
