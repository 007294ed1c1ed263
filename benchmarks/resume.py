"""Kill `medcnn run` with SIGKILL at random moments, run it again to its end, compare the results with an undisturbed run's.

    python benchmarks/resume.py --out FOLDER [--moments 20] [--seed 0]

Prints a table: the moment (seconds after the first stage began), the stage that was at work, whether weights,
predictions and metrics have the same sha256 as those of the run that nothing disturbed. Exit code 1 if one differs.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from medcnn.artifact import file_digest
from medcnn.config_file import build_config, write_config

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "name": "resume",
    "modality": "chest_xray",
    "data": {"source": "phantom", "n_images": 160, "covariates": ["sex", "age", "site"]},
    "split": {"scheme": "holdout", "test_fraction": 0.3, "val_fraction": 0.25},
    "image": {"size_px": 32, "channels": 1},
    "model": {"name": "simple_cnn"},
    "ladder": {"rungs": ["prevalence", "main"]},
    "training": {"epochs": 6, "batch_size": 16, "learning_rate": 0.003, "n_threads": 1, "device": "cpu", "checkpoint_minutes": 0},
    "evaluation": {"by": ["sex"], "n_bootstrap": 50},
    "report": {"n_errors": 2},
}


def digests(folder: Path) -> dict[str, str]:
    """sha256 of what a finished run found: the weights of each model, predictions, metrics."""
    files = [*sorted(folder.glob("train/**/weights.safetensors")), folder / "predictions.parquet", folder / "metrics.json"]
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def start(config: Path, out: Path) -> subprocess.Popen[str]:
    """`medcnn run`, whose first stage has begun."""
    command = [sys.executable, "-u", "-m", "medcnn", "run", str(config), "--out", str(out)]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def run_whole(config: Path, out: Path) -> float:
    """Run to the end; returns the seconds from the first stage's beginning to the end."""
    process = start(config, out)
    started = time.monotonic()
    process.communicate()
    if process.returncode:
        raise SystemExit(f"{out}: `medcnn run` ended with {process.returncode}")
    return time.monotonic() - started


def run_killed(config: Path, out: Path, seconds: float) -> str:
    """Run and kill after so many seconds; returns the stage that was at work, or `over` if it came too late."""
    process = start(config, out)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    lines = process.communicate()[0].splitlines()
    if process.returncode == 0:
        return "over"
    begun = [line.removesuffix(" ...") for line in lines if line.endswith(" ...")]
    finished = {line.partition(": done")[0] for line in lines if ": done" in line}
    return begun[-1] if begun and begun[-1] not in finished else f"after {begun[-1]}" if begun else "the first one"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    config = given.out / "resume.yaml"
    write_config(build_config(TINY, source="resume"), config)
    duration = run_whole(config, given.out / "whole")
    expected, n_different = digests(given.out / "whole"), 0
    print(f"{'moment':>8}  {'stage':28}  equal?", flush=True)
    for number, moment in enumerate(np.sort(np.random.default_rng(given.seed).uniform(0, duration, given.moments))):
        folder = given.out / f"killed{number}"
        stage = run_killed(config, folder, float(moment))
        run_whole(config, folder)
        equal = digests(folder) == expected
        n_different += not equal
        print(f"{moment:6.2f} s  {stage:28}  {'yes' if equal else 'NO'}", flush=True)
    print(f"{given.moments - n_different} of {given.moments} equal: {', '.join(expected)}")
    raise SystemExit(int(n_different > 0))


if __name__ == "__main__":
    main()
