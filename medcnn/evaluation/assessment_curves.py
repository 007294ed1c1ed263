"""The curves of a report as one tidy table: a row per point, at most 500 points a curve.

curve                    x                        y                      low, high           n
roc                      1 - specificity          sensitivity            -                   -    (threshold too)
precision_recall         sensitivity              precision              -                   -    (threshold too)
calibration_smooth       probability              observed share         95% band            -
calibration_grouped      mean p of a group        observed share         Wilson interval     rows
distribution_positive    middle of a bin of p     share of its class     edges of the bin    rows
distribution_negative    middle of a bin of p     share of its class     edges of the bin    rows
decision_curve           threshold probability    net benefit            95% band            -
decision_curve_all       threshold probability    net benefit            -                   -
decision_curve_none      threshold probability    0                      -                   -
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig
from medcnn.evaluation.binning import grouped_points
from medcnn.evaluation.calibration_curve import calibration_curve
from medcnn.evaluation.curves import thin_curve, threshold_curve
from medcnn.evaluation.measures import Sample
from medcnn.evaluation.utility import decision_curve, threshold_grid

COLUMNS = ("curve", "label", "part", "level", "subset", "recalibration", "x", "y", "low", "high", "n", "threshold")
NUMBERS = COLUMNS[6:]
N_BINS = 50


def label_curves(sample: Sample, config: EvaluationConfig) -> pd.DataFrame:
    """All curves of one label: columns curve and NUMBERS. Those that one class alone cannot give are absent."""
    parts = [*_ranking_curves(sample), *_calibration_curves(sample), *_distributions(sample), *_decision_curves(sample, config)]
    return pd.concat(parts, ignore_index=True)


def _points(curve: str, **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"curve": curve, **columns})
    return frame.reindex(columns=["curve", *NUMBERS]).astype(dict.fromkeys(NUMBERS, np.float64))


def _ranking_curves(sample: Sample) -> Iterator[pd.DataFrame]:
    if sample.y.min() == sample.y.max():
        return
    curve = thin_curve(threshold_curve(sample.y, sample.p))
    # Parquet readers and JSON differ about infinity: "nobody" is the next number above 1.
    threshold = np.where(np.isinf(curve.threshold), np.nextafter(1.0, 2.0), curve.threshold)
    yield _points("roc", x=1 - curve.specificity, y=curve.sensitivity, threshold=threshold)
    yield _points("precision_recall", x=curve.sensitivity, y=curve.precision, threshold=threshold)


def _calibration_curves(sample: Sample) -> Iterator[pd.DataFrame]:
    smooth = calibration_curve(sample.y, sample.p, sample.patients, surface=sample.surface)
    if smooth.p.size:
        yield _points("calibration_smooth", x=smooth.p, y=smooth.observed, low=smooth.low, high=smooth.high)
    groups = grouped_points(sample.y, sample.p, sample.patients)
    columns = {
        name: [getattr(group, source) for group in groups]
        for name, source in (("x", "mean_p"), ("y", "observed"), ("low", "low"), ("high", "high"), ("n", "n"))
    }
    yield _points("calibration_grouped", **columns)


def _distributions(sample: Sample) -> Iterator[pd.DataFrame]:
    edges = np.linspace(0, 1, N_BINS + 1)
    for name, label in (("distribution_positive", 1), ("distribution_negative", 0)):
        rows = sample.p[sample.y == label]
        if rows.size:
            counts = np.histogram(rows, edges)[0]
            yield _points(name, x=(edges[:-1] + edges[1:]) / 2, y=counts / rows.size, low=edges[:-1], high=edges[1:], n=counts)


def _decision_curves(sample: Sample, config: EvaluationConfig) -> Iterator[pd.DataFrame]:
    grid = threshold_grid(config.utility_range[0], min(config.utility_range[1], 0.99))
    curve = decision_curve(sample.y, sample.p, grid, sample.patients, n_resamples=config.n_bootstrap, seed=config.seed)
    yield _points("decision_curve", x=grid, y=curve.model, low=curve.low, high=curve.high, threshold=grid)
    yield _points("decision_curve_all", x=grid, y=curve.treat_all, threshold=grid)
    yield _points("decision_curve_none", x=grid, y=np.zeros(grid.size), threshold=grid)
