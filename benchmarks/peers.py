"""Against fastai and AutoTimm: CPU seconds to the same validation AUROC, from the same weights, files and split, on one thread.

    python3 -m venv PEERS && PEERS/bin/pip install -r benchmarks/peers_env.txt && PEERS/bin/pip install --no-deps -e .
    PEERS/bin/python -m benchmarks.peers --work FOLDER [--epochs 4] [--tuning-epochs 2] [--aside VARIANT ...] [--out benchmarks/results]

Every training is a process of its own (benchmarks/peers_training.py), one after another, the systems in turn so that what
else the machine does falls on all alike; finished ones are kept in FOLDER and not repeated. First each system's learning
rate is chosen by short trainings at seed TUNING_SEED: the one of the grid with the highest validation AUROC, averaged over
the epochs. Then each is trained at SEEDS. The target is the lowest, over systems and seeds, of the best validation AUROC,
less MARGIN: all reach it. No choice looks at the test part. --aside adds one training each of variants.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.peers_job import MODEL, PARTS, SPLIT, WEIGHTS, Job
from benchmarks.peers_table import write_results
from medcnn.config import Config
from medcnn.config_file import read_config
from medcnn.plan import SplitPlan

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "configs" / "histology.yaml"
TUNED = ("medcnn", "fastai", "fastai all layers", "autotimm mild")  # each finds its learning rate; the better way of fastai goes on
# Trained at the first seed only, each at the learning rate of a tuned system.
ASIDE = {
    "autotimm mild channels_last": "autotimm mild",
    "autotimm": "autotimm mild",
    "fastai": "fastai",
    "fastai all layers channels_last": "fastai all layers",
    "medcnn all layers": "medcnn",
    "medcnn frozen": "medcnn",
}
GRID = (1e-3, 3e-3, 3e-4, 1e-2)
TUNING_SEED, SEEDS = 100, (0, 1, 2)
VAL_FRACTION, TEST_FRACTION, SPLIT_SEED = 0.2, 0.25, 0
SIZE_PX, BATCH_SIZE = 96, 32
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1")


def prepare(work: Path, config: Config) -> None:
    """Deal the audited cohort to parts (`split.csv`, PART.csv) and write the pretrained weights, unless that is done."""
    from safetensors.torch import save_file

    from medcnn.data.audit import audit, exclude
    from medcnn.data.ingest import ingest
    from medcnn.data.split import deal
    from medcnn.model.weights import load_pretrained
    from medcnn.tables import label_names

    if (work / SPLIT).is_file():
        return
    manifest, flow = ingest(config.data, task=config.task)
    kept, _ = exclude(manifest, audit(manifest, config.audit, flow=flow), config.audit)
    plan = SplitPlan(scheme="holdout", val_fraction=VAL_FRACTION, test_fraction=TEST_FRACTION)
    split = deal(kept, plan, labels=label_names(kept), seed=SPLIT_SEED)
    table = pd.read_csv(str(config.data.path))
    files = kept[["image_id", "path"]].merge(split[["image_id", "part"]], on="image_id", validate="one_to_one")
    dealt = table.merge(files.rename(columns={"path": config.data.image_column}), on=config.data.image_column, validate="one_to_one")
    save_file({name: tensor.contiguous() for name, tensor in load_pretrained(MODEL).items()}, work / WEIGHTS)
    columns = [config.data.image_column, str(config.data.label_column), str(config.data.patient_column), *config.data.covariates]
    for part in PARTS:
        dealt.loc[dealt["part"] == part, columns[:2]].to_csv(work / f"{part}.csv", index=False)
    dealt[[*columns, "part"]].to_csv(work / SPLIT, index=False)


def run(job: Mapping[str, Any], work: Path, config: Config) -> dict[str, Any]:
    """Train once in a process of its own, unless that was done before; returns what it found."""
    name = f"{job['system'].replace(' ', '_')}-lr{job['learning_rate']:g}-seed{job['seed']}-epochs{job['epochs']}"
    out, scratch, order = work / f"{name}.json", work / "scratch" / name, work / f"{name}.job"
    if not out.is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        places: dict[str, Any] = {
            "work": str(work),
            "scratch": str(scratch),
            "out": str(out),
            "config": str(CONFIG),
            "image_root": str(config.data.image_root),
        }
        full = Job(**job, **places, size_px=SIZE_PX, batch_size=BATCH_SIZE)
        order.write_text(json.dumps(asdict(full)) + "\n", encoding="utf-8")
        with (work / f"{name}.log").open("w", encoding="utf-8") as log:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peers_training", str(order)]
            subprocess.run(command, env=os.environ | ONE_THREAD, cwd=REPOSITORY, stdout=log, stderr=log, check=True)  # noqa: S603
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    curve = " ".join(f"{value:.3f}" for value in result["val_auroc"])
    print(f"{name}: {result['cpu'][-1]:.0f} CPU s, val AUROC {curve}", file=sys.stderr, flush=True)
    return result


def tune(work: Path, config: Config, grid: Iterable[float], epochs: int) -> list[dict[str, Any]]:
    """A short training of each system at each rate, the systems in turn."""
    jobs = [{"system": name, "learning_rate": rate, "seed": TUNING_SEED, "epochs": epochs} for rate in grid for name in TUNED]
    return [run(job, work, config) for job in jobs]


def chosen_rates(tuned: Sequence[dict[str, Any]]) -> tuple[dict[str, float], tuple[str, ...]]:
    """System -> the learning rate whose validation AUROC, averaged over the epochs, is highest; and of each package its best system."""
    best: dict[str, tuple[float, float]] = {}
    for result in tuned:
        found = (statistics.mean(result["val_auroc"]), result["learning_rate"])
        best[result["system"]] = max(best.get(result["system"], (0.0, 0.0)), found)
    packages = dict.fromkeys(name.partition(" ")[0] for name in best)
    finalists = tuple(
        max((name for name in best if name.partition(" ")[0] == package), key=lambda name: best[name]) for package in packages
    )
    return {name: rate for name, (_, rate) in best.items()}, finalists


def final_jobs(rates: Mapping[str, float], finalists: Iterable[str], seeds: Iterable[int], epochs: int) -> list[dict[str, Any]]:
    """The trainings that count: each finalist at each seed, the systems in turn."""
    return [{"system": name, "learning_rate": rates[name], "seed": seed, "epochs": epochs} for seed in seeds for name in finalists]


def aside_jobs(rates: Mapping[str, float], variants: Iterable[str], epochs: int) -> list[dict[str, Any]]:
    """One training of each variant; a logistic regression on frozen features knows one epoch."""
    return [
        {"system": name, "learning_rate": rates[ASIDE[name]], "seed": SEEDS[0], "epochs": 1 if "frozen" in name else epochs}
        for name in variants
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the split, the weights and every training")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--tuning-epochs", type=int, default=2)
    parser.add_argument("--grid", type=float, nargs="+", default=GRID, help="learning rates to choose from")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--aside", nargs="*", default=[], choices=[*ASIDE], help="variants to train too")
    parser.add_argument("--only", help="train this system alone, at seed 0 and the first learning rate, and stop: to try it out")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results", help="folder of peers.md and peers.csv")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    config = read_config(CONFIG)
    prepare(work, config)
    if arguments.only:
        print(run({"system": arguments.only, "learning_rate": GRID[1], "seed": SEEDS[0], "epochs": arguments.epochs}, work, config))
        return
    tuned = tune(work, config, arguments.grid, arguments.tuning_epochs)
    rates, finalists = chosen_rates(tuned)
    final = [run(job, work, config) for job in final_jobs(rates, finalists, arguments.seeds, arguments.epochs)]
    aside = [run(job, work, config) for job in aside_jobs(rates, arguments.aside, arguments.epochs)]
    write_results(arguments.out, tuned, final, aside, pd.read_csv(work / SPLIT))


if __name__ == "__main__":
    main()
