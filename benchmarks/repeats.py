"""One config, several seeds: what chance in splits, weights and order does to the result.

    python -m benchmarks.repeats configs/pneumoniamnist.yaml --seeds 5 --out reports/repeats

Each seed is a whole `medcnn run` in a folder of its own (finished ones are not done again); the test part of every one of
them is opened once, after its training. Prints a table as Markdown: the headline of each seed with its interval, the mean
and standard deviation over the seeds, and what the other rungs reach. CPU seconds are those of all stages of the run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from medcnn.artifact import STAMP
from medcnn.config_file import read_config
from medcnn.tables import Record, read_records
from pipelines.finetune import finetune

SEEDS_APART = 100  # the models of a run take the seeds that follow its own, fold by fold
SHOWN = ("auroc", "accuracy", "balanced_accuracy", "brier", "log_loss", "calibration_slope")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value, as for medcnn run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, one for each seed")
    asked = parser.parse_args()
    found = []
    for seed in range(0, asked.seeds * SEEDS_APART, SEEDS_APART):
        config = read_config(asked.config, [*asked.overrides, f"seed={seed}"])
        run = finetune(config, asked.out / f"{config.name}_seed{seed}", update=True)
        found.append(row_of(run.folder, seed))
        print(json.dumps(found[-1]), flush=True)
    print(as_table(found))


def row_of(folder: Path, seed: int) -> dict[str, Any]:
    """Headline numbers of a finished run (the macro average where there is one), the rungs' AUROC, and CPU seconds."""
    records = [record for record in read_records(folder / "metrics.json") if record.subset == "all"]
    row: dict[str, Any] = {"seed": seed, **{name: numbers for name in SHOWN if (numbers := first(records, name))}}
    ladder = json.loads((folder / "ladder" / "ladder.json").read_text(encoding="utf-8"))
    row["rungs"] = {rung["rung"]: (rung["auroc"]["value"], rung["accuracy"]["value"]) for rung in ladder["rungs"]}
    stamps = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob(STAMP)]
    row["cpu_seconds"] = round(sum(stamp["cpu_seconds"] for stamp in stamps), 1)
    return row


def first(records: list[Record], metric: str) -> tuple[float | None, float | None, float | None] | None:
    """Value and limits of the recalibrated headline: the first record of the metric, a macro average before single labels."""
    named = [record for record in records if record.metric == metric and record.level == records[0].level]
    named.sort(key=lambda record: record.label not in {"macro", "all"})
    return (named[0].value, named[0].low, named[0].high) if named else None


def as_table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = [name for name in SHOWN if name in rows[0]]
    lines = ["| seed | " + " | ".join(names) + " | CPU s |", "|" + "---|" * (len(names) + 2)]
    lines += [f"| {row['seed']} | " + " | ".join(written(*row[name]) for name in names) + f" | {row['cpu_seconds']:.0f} |" for row in rows]
    means = {name: [row[name][0] for row in rows] for name in names} | {"cpu": [row["cpu_seconds"] for row in rows]}
    lines.append(
        "| mean (SD) | "
        + " | ".join(f"{np.mean(v):.4f} ({np.std(v, ddof=1) if len(v) > 1 else np.nan:.4f})" for v in list(means.values())[:-1])
    )
    lines[-1] += f" | {np.mean(means['cpu']):.0f} |"
    for rung in rows[0]["rungs"]:
        auroc, accuracy = (np.array([row["rungs"][rung][k] for row in rows], float) for k in (0, 1))
        lines.append(f"\nrung {rung}: AUROC {auroc.mean():.4f} (SD {auroc.std():.4f}), accuracy {accuracy.mean():.4f}")
    return "\n".join(lines)


def written(value: float | None, low: float | None, high: float | None) -> str:
    """0.991 (0.985-0.996)"""
    if value is None:
        return "not estimable"
    return f"{value:.4f}" + (f" ({low:.4f}-{high:.4f})" if low is not None and high is not None else "")


if __name__ == "__main__":
    main()
