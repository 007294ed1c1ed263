"""The tables of benchmarks/peers.py: from what each training noted to peers.md and peers.csv."""

import importlib.metadata
import math
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

MARGIN = 0.005  # below the lowest of the best validation AUROCs: what all reach
OTHER_MARGINS = (0.02, 0.01, 0.005, 0.0)
OURS = "medcnn"
PACKAGES = ("torch", "torchvision", "timm", "fastai", "autotimm", "pytorch-lightning")
Result = dict[str, Any]


def lowest_best(final: Iterable[Result]) -> float:
    """The lowest, over all trainings, of the best validation AUROC of each."""
    return min(max(result["val_auroc"]) for result in final)


def reached(result: Result, target: float) -> tuple[int, float]:
    """First epoch (from 1) whose validation AUROC is at least the target, and the CPU seconds at its end; 0 and inf for never."""
    for number, (value, seconds) in enumerate(zip(result["val_auroc"], result["cpu"], strict=True), start=1):
        if value >= target:
            return number, seconds
    return 0, math.inf


def summarise(final: Sequence[Result], target: float) -> pd.DataFrame:
    """One row per system, in the order they come: what it took to reach the target, and what the kept models say of the test part."""
    ours = statistics.mean(reached(result, target)[1] for result in final if result["system"] == OURS)
    rows = []
    for system in dict.fromkeys(result["system"] for result in final):
        own = [result for result in final if result["system"] == system]
        epochs, seconds = zip(*(reached(result, target) for result in own), strict=True)
        mean = statistics.mean(seconds)
        rows.append({
            "system": system, "learning rate": f"{own[0]['learning_rate']:g}",
            "CPU s to target": f"{mean:.0f} ({', '.join(f'{value:.0f}' for value in seconds)})",
            "over ours": f"{mean / ours:.2f}", "epochs to target": ", ".join(map(str, epochs)),
            "CPU s before the first batch": f"{_mean(own, 'cpu_before'):.1f}",
            "CPU s an epoch, median (lowest)": f"{statistics.median(_epochs(own)):.1f} ({min(_epochs(own)):.1f})",
            "best val AUROC": _spread([max(result["val_auroc"]) for result in own]),
            "test AUROC": _spread([result["test_auroc"] for result in own]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def sensitivity(final: Sequence[Result]) -> pd.DataFrame:
    """Mean CPU seconds to other targets: the lowest best AUROC less each margin."""
    systems = dict.fromkeys(result["system"] for result in final)
    rows = []
    for margin in OTHER_MARGINS:
        target = lowest_best(final) - margin
        means = {
            system: statistics.mean(reached(result, target)[1] for result in final if result["system"] == system) for system in systems
        }
        rows.append({"target": f"{target:.3f}", **{system: f"{mean:.0f} ({mean / means[OURS]:.2f})" for system, mean in means.items()}})
    return pd.DataFrame(rows)


def tuning(tuned: Sequence[Result]) -> pd.DataFrame:
    """Mean over the epochs of the validation AUROC at each learning rate, and what the tuning cost."""
    rates = sorted({result["learning_rate"] for result in tuned})
    rows = []
    for system in dict.fromkeys(result["system"] for result in tuned):
        own = {result["learning_rate"]: result for result in tuned if result["system"] == system}
        means = {f"{rate:g}": f"{statistics.mean(own[rate]['val_auroc']):.3f}" if rate in own else "" for rate in rates}
        rows.append({"system": system, **means, "CPU s of the tuning": f"{sum(result['cpu'][-1] for result in own.values()):.0f}"})
    return pd.DataFrame(rows)


def raw(phases: Mapping[str, Iterable[Result]]) -> pd.DataFrame:
    """Every epoch of every training: system, learning_rate, seed, phase, epoch, cpu_seconds, val_auroc; test_auroc on the last."""
    rows = []
    for phase, results in phases.items():
        for result in results:
            base = {"phase": phase, "system": result["system"], "learning_rate": result["learning_rate"], "seed": result["seed"]}
            rows.append({**base, "epoch": 0, "cpu_seconds": result["cpu_before"]})
            rows += [
                {**base, "epoch": number, "cpu_seconds": seconds, "val_auroc": value}
                for number, (seconds, value) in enumerate(zip(result["cpu"], result["val_auroc"], strict=True), start=1)
            ]
            if phase != "tuning":
                rows[-1]["test_auroc"] = result["test_auroc"]
    return pd.DataFrame(rows).round({"cpu_seconds": 2, "val_auroc": 5, "test_auroc": 5})


def write_results(folder: Path, tuned: Sequence[Result], final: Sequence[Result], aside: Sequence[Result], split: pd.DataFrame) -> None:
    """Write peers.md, the tables in words, and peers.csv, every epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    raw({"tuning": tuned, "final": final, "aside": aside}).to_csv(folder / "peers.csv", index=False)
    target = lowest_best(final) - MARGIN
    seeds = sorted({result["seed"] for result in final})
    counts = split.groupby(["part", "label"], sort=False).size().unstack()
    text = [
        "# Against fastai and AutoTimm",
        f"`python -m benchmarks.peers`, commit {_commit()}; {', '.join(f'{name} {importlib.metadata.version(name)}' for name in PACKAGES)}.",
        f"{len(final[0]['cpu'])} epochs, seeds {', '.join(map(str, seeds))}, one thread. Parts (images by class):",
        _markdown(counts.reset_index()),
        f"Target: validation AUROC **{target:.4f}**, the lowest of the best ({lowest_best(final):.4f}) less {MARGIN}. CPU seconds count from "
        "the start of the process: imports, reading the data (ours: ingest, audit, cache), training, validation. Test AUROC: of the epoch "
        "with the lowest validation loss, mean (SD over seeds).",
        _markdown(summarise(final, target)),
        *(["Variants, one training each:", _markdown(summarise([*final, *aside], target).iloc[-len(aside) :])] if aside else []),
        "## Other targets",
        "Mean CPU seconds to the target (times ours); inf: some seed never reaches it.",
        _markdown(sensitivity(final)),
        "## Learning rates",
        f"Mean over the epochs of the validation AUROC of one training each (seed {tuned[0]['seed']}); the highest was taken. Not counted above.",
        _markdown(tuning(tuned)),
    ]
    (folder / "peers.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _epochs(results: Iterable[Result]) -> list[float]:
    """CPU seconds of the epochs after the first, in which all layers learn; of the only one where there is one."""
    return [
        after - before
        for result in results
        for before, after in pairwise(result["cpu"] if len(result["cpu"]) > 1 else [result["cpu_before"], *result["cpu"]])
    ]


def _mean(results: Sequence[Result], name: str) -> float:
    return statistics.mean(float(result[name]) for result in results)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" + (f" ({statistics.stdev(values):.3f})" if len(values) > 1 else "")


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.strip() or "unknown"
