"""Rows of ablations to a table: mean and SD over seeds, differences to the default with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.ablations_tasks import Bench
from medcnn.evaluation.seeds import seed_difference

Row = dict[str, Any]
Reader = Callable[[Row], np.ndarray]


def macro_auroc(bench: Bench, probabilities: np.ndarray) -> float:
    """Mean AUROC over the questions put to a model."""
    return float(np.mean([area(y, scores) for y, scores in bench.readings(probabilities).values()]))


def area(y: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of the known labels."""
    known = ~np.isnan(y)
    return float(roc_auc_score(y[known], scores[known]))


def as_table(benches: Mapping[str, Bench], rows: Sequence[Row], read: Reader) -> str:
    """Markdown: a table for each task, a line for each option; below it the single questions of a task that has several."""
    blocks = []
    for name, bench in benches.items():
        own = [row for row in rows if row["task"] == name]
        options = list(dict.fromkeys(row["option"] for row in own))
        if not options:
            continue
        lines = [
            f"\n### {name}\n",
            "| option | seeds | AUROC (SD) | minus the default's (95% interval) | log-loss (SD) | minus the default's (95% interval) | CPU s |",
            "|---|---|---|---|---|---|---|",
            *(_line(bench, [row for row in own if row["option"] == option], own, read) for option in options),
        ]
        blocks += lines + (_questions(bench, own, options, read) if len(bench.labels) > 1 else [])
    return "\n".join(blocks)


def _line(bench: Bench, mine: list[Row], own: list[Row], read: Reader) -> str:
    against = mine[0]["against"]
    theirs = [row for row in own if row["option"] == against]
    name = mine[0]["option"] + (f", against {against}" if against not in {"", "default"} else "")
    numbers = [f"{np.mean([row[key] for row in mine]):.4f} ({_sd([row[key] for row in mine])})" for key in ("auroc", "log_loss")]
    gains = ["", ""]
    if theirs:
        theirs = theirs if len(mine) == 1 else [row for row in theirs if row["seed"] in {one["seed"] for one in mine}]
        a, b = ([read(row) for row in some] for some in (mine, theirs))
        gains = [_auroc_gain(bench, a, b), _loss_gain(bench, a, b)]
    seconds = np.mean([row["cpu_seconds"] for row in mine])
    return f"| {name} | {len(mine)} | {numbers[0]} | {gains[0]} | {numbers[1]} | {gains[1]} | {seconds:.1f} |"


def _sd(values: Sequence[float]) -> str:
    return f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "one"


def _auroc_gain(bench: Bench, a: list[np.ndarray], b: list[np.ndarray]) -> str:
    gains = [_gain_of(bench, label, a, b) for label in bench.labels]
    if len(gains) > 1:
        return f"{np.mean([gain[0] for gain in gains]):+.4f} (below)"
    return _written(*gains[0])


def _gain_of(bench: Bench, label: str, a: list[np.ndarray], b: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean AUROC of a minus that of b. A mixture, of which there is one, counts twice: no variance between seeds is known of it."""
    if min(len(a), len(b)) < 1 or len(b) < 2:
        return np.nan, np.nan, np.nan
    a = a * 2 if len(a) == 1 else a
    sides = [[bench.readings(one)[label] for one in some] for some in (a, b)]
    y = sides[0][0][0]
    known = ~np.isnan(y)
    scores = [[score[known] for _, score in side] for side in sides]
    found = seed_difference(y[known], scores[0], scores[1], bench.patients[bench.test][known])
    missing = [np.nan if value is None else value for value in (found.difference, found.low, found.high)]
    return missing[0], missing[1], missing[2]


def _loss_gain(bench: Bench, a: list[np.ndarray], b: list[np.ndarray]) -> str:
    """Mean log-loss of a minus that of b; variance between groups of patients (of the mean over seeds) plus that between seeds."""
    if len(b) < 2:
        return ""
    losses = [np.array([bench.losses(one) for one in some]) for some in (a, b)]
    each = losses[0].mean(axis=0) - losses[1].mean(axis=0)
    known = ~np.isnan(each)
    groups = np.unique(bench.patients[bench.test][known], return_inverse=True)[1]
    n, n_groups, mean = int(known.sum()), int(groups.max()) + 1, float(each[known].mean())
    sums = np.bincount(groups, weights=each[known] - mean)
    between = sum(float(np.nanmean(some, axis=1).var(ddof=1)) / len(some) for some in losses if len(some) > 1)
    half = 1.96 * float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum() / n**2 + between))
    return _written(mean, mean - half, mean + half)


def _written(value: float, low: float, high: float) -> str:
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{value:+.4f}{mark} ({low:+.4f} to {high:+.4f})"


def _questions(bench: Bench, own: list[Row], options: Sequence[str], read: Reader) -> list[str]:
    lines = ["", "| question | option | AUROC | minus the default's (95% interval) |", "|---|---|---|---|"]
    for label in bench.labels:
        default = [read(row) for row in own if row["option"] == "default"]
        for option in options:
            mine = [read(row) for row in own if row["option"] == option]
            value = np.mean([area(*bench.readings(one)[label]) for one in mine])
            gain = "" if option == "default" else _written(*_gain_of(bench, label, mine, default))
            lines.append(f"| {label} | {option} | {value:.4f} | {gain} |")
    return lines
