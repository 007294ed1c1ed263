"""A map fitted on out-of-fold predictions of single models, applied to the mean of all fold models: how far is it off?

    python -m benchmarks.pooled_calibration
    python -m benchmarks.pooled_calibration RUN RUN    # two finished runs of one config (kfold_holdout) with different seeds

Made-up data with a known truth; k models, each trained without one fold; a temperature fitted on the out-of-fold rows
(each predicted by one model) as scheme kfold_holdout does, then 20,000 new images. Columns: the calibration slope (ideal 1) and
the log-loss above that of a temperature fitted on the mean itself, for `mapped mean` (what medcnn does), `mean of mapped` (each model
recalibrated, then averaged) and one model alone. A mean of calibrated models is underconfident in any case
(Ranjan & Gneiting 2010, doi:10.1111/j.1467-9868.2009.00726.x).
Two runs: development images only. Each has an honest prediction by a model of either run; the temperature of the single
models is applied to the mean of the two. No test row is read.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

CASES = (
    ("regression", 150, 20, 5),
    ("regression", 600, 20, 5),
    ("perceptron", 300, 10, 5),
    ("perceptron", 1500, 10, 4),
    ("forest", 400, 10, 5),
)
N_NEW, N_REPEATS, N_RESAMPLES = 20_000, 12, 200
Array = np.ndarray


def slope(scores: Array, y: Array) -> float:
    """What log odds must be multiplied by for the lowest log-loss: the inverse of the temperature."""
    found = minimize_scalar(
        lambda log: float(np.logaddexp(0, -(2 * y - 1) * scores * np.exp(log)).mean()), bounds=(-4, 3), method="bounded"
    )
    return float(np.exp(found.x))


def log_loss(p: Array, y: Array) -> float:
    """Mean over the images."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-np.where(y == 1, np.log(p), np.log1p(-p)).mean())


def log_odds(p: Array) -> Array:
    """Finite for 0 and 1."""
    return np.asarray(logit(np.clip(p, 1e-9, 1 - 1e-9)))


def errors(p: Array, y: Array, best: float) -> list[float]:
    """Calibration slope, and log-loss above the best."""
    return [slope(log_odds(p), y), log_loss(p, y) - best]


def made_up(kind: str, n: int, n_features: int, k: int, rng: np.random.Generator) -> list[float]:
    """Slope and excess log-loss of mapped mean, mean of mapped, and one model alone."""
    x, new = (rng.normal(size=(rows, n_features)) for rows in (n, N_NEW))
    y, y_new = ((rng.random(len(rows)) < expit(_truth(rows))).astype(float) for rows in (x, new))
    fold = rng.permutation(np.arange(n) % k)
    out_of_fold, scores = np.zeros(n), []
    for number in range(k):
        model = _model(kind, int(rng.integers(1_000_000))).fit(x[fold != number], y[fold != number])
        held = fold == number
        out_of_fold[held] = logit(np.clip(model.predict_proba(x[held])[:, 1], 0.005, 0.995))
        scores.append(logit(np.clip(model.predict_proba(new)[:, 1], 0.005, 0.995)))
    factor, each = slope(out_of_fold, y), np.stack(scores)
    mean = log_odds(expit(each).mean(axis=0))
    best = log_loss(expit(slope(mean, y_new) * mean), y_new)
    alone = np.mean([errors(expit(factor * one), y_new, best) for one in each], axis=0)
    return [*errors(expit(factor * mean), y_new, best), *errors(expit(factor * each).mean(axis=0), y_new, best), *alone]


def _truth(x: Array) -> Array:
    return np.asarray(1.2 * x[:, 0] - x[:, 1] + 0.8 * x[:, 2] * x[:, 3] + 0.5 * np.sin(2 * x[:, 4]) - 0.3)


def _model(kind: str, seed: int):  # type: ignore[no-untyped-def]  # one of scikit-learn's
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if kind == "regression":
        return LogisticRegression(C=100, max_iter=300)
    if kind == "forest":
        return RandomForestClassifier(30, min_samples_leaf=2, random_state=seed)
    return MLPClassifier((32,), max_iter=60, learning_rate_init=0.005, random_state=seed)


def of_runs(folders: list[Path]) -> list[float]:
    """Slopes of the single models and of their mean, and the excess log-loss of mapped mean and mean of mapped; with their 95% limits."""
    rows = [pd.read_parquet(folder / "predict/main/predictions.parquet").query("part == 'val'").set_index("image_id") for folder in folders]
    (label,) = [column[2:] for column in rows[0] if column.startswith("y_")]
    images = rows[0].index.intersection(rows[1].index)
    y = rows[0].loc[images, f"y_{label}"].to_numpy()
    each = np.stack([table.loc[images, f"logit_{label}"].to_numpy(float) for table in rows])

    def taken(some: Array) -> list[float]:
        scores, truth = each[:, some], y[some]
        factor, mean = float(np.mean([slope(one, truth) for one in scores])), log_odds(expit(scores).mean(axis=0))
        best = log_loss(expit(slope(mean, truth) * mean), truth)
        mapped = log_loss(expit(factor * mean), truth) - best, log_loss(expit(factor * scores).mean(axis=0), truth) - best
        return [factor, slope(mean, truth), slope(mean, truth) / factor, *mapped]

    rng = np.random.default_rng(0)
    drawn = np.array([taken(rng.integers(0, len(y), len(y))) for _ in range(N_RESAMPLES)])
    print(pd.DataFrame(
        {"value": taken(np.arange(len(y))), "low": np.quantile(drawn, 0.025, axis=0), "high": np.quantile(drawn, 0.975, axis=0)},
        index=["slope, single", "slope, mean of two", "ratio", "excess, mapped mean", "excess, mean of mapped"],
    ).to_string(float_format="{:.5f}".format))  # fmt: skip
    return taken(np.arange(len(y)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    folders = parser.parse_args().runs
    if folders:
        of_runs(folders)
        return
    warnings.filterwarnings("ignore", category=UserWarning)  # scikit-learn's perceptron stops early on purpose
    rng = np.random.default_rng(0)
    names = ["mapped mean", "excess", "mean of mapped", "excess", "one model", "excess"]
    for case in CASES:
        found = np.mean([made_up(*case, rng) for _ in range(N_REPEATS)], axis=0)
        print(*case, "|", ", ".join(f"{name} {value:.3f}" for name, value in zip(names, found, strict=True)), flush=True)


if __name__ == "__main__":
    main()
