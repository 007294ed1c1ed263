"""One training of one of the systems that benchmarks/peers.py compares, alone in its process so that its CPU time is its own.

    python -m benchmarks.peers_training JOB.json

Each trains as its own documentation shows, on the same files, from the same weights, with one thread and no workers.
The job (peers_job.Job) says what; the result goes to the job's `out` as JSON: CPU seconds since the process began
(children included) and validation AUROC at the end of each epoch, then the test AUROC of the model that it kept,
which for all of them is the epoch with the lowest validation loss.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peers_job import MODEL, PARTS, SPLIT, Clock, Job, auroc, cpu_seconds


def train_medcnn(job: Job, clock: Clock) -> float:
    """The stages of `medcnn run` from files to the trained model; the config's settings, but for the learning rate and the split.

    The system's name says which: `all layers`: all of them learn from the first step, at one rate, as AutoTimm does it;
    `frozen`: the ladder's rung of that name, a logistic regression on pretrained features, one epoch of which is all.
    Returns the test AUROC.
    """
    import pandas as pd

    from medcnn import cohort_stages, model_stages, predict_stages, train_stages
    from medcnn.config_file import read_config
    from medcnn.runs import open_run

    rung: Any = "frozen" if "frozen" in job.system else "main"
    config = read_config(Path(job.config), [f"{key}={value}" for key, value in _settings(job, rung).items()])
    run = replace(open_run(config, Path(job.scratch) / "run", quiet=True), progress=clock.progress)
    audited = cohort_stages.audit(run, cohort_stages.ingest(run))
    cohort_stages.require_sound(run, audited)
    planned = model_stages.plan(run, cohort_stages.fingerprint(run, audited))
    dealt, cached = cohort_stages.split(run, audited, planned), cohort_stages.cache(run, audited, planned)
    inputs = {"audit": audited, "split": dealt, "cache": cached, "plan": planned}
    if rung == "frozen":
        clock.start()
    inputs |= train_stages.features(run, inputs)
    trained = train_stages.train(run, inputs)
    if rung == "frozen":
        clock.end_epoch()
    predicted = pd.read_parquet(predict_stages.predict(run, inputs, trained)[rung] / "predictions.parquet")
    label = next(name.removeprefix("y_") for name in predicted.columns if name.startswith("y_"))
    val, test = (auroc(rows[f"y_{label}"], rows[f"p_{label}"]) for rows in (predicted[predicted["part"] == part] for part in PARTS[1:]))
    (folder,) = trained.values()
    clock.auroc += [val] if rung == "frozen" else pd.read_csv(folder / "history.csv")["val_auroc"].tolist()
    return test


def _settings(job: Job, rung: str) -> dict[str, Any]:
    settings = {
        "data.path": str(Path(job.work) / SPLIT), "data.image_root": job.image_root, "data.part_column": "part", "split.scheme": "given",
        "image.size_px": job.size_px, "model.name": MODEL, "training.epochs": job.epochs, "training.batch_size": job.batch_size,
        "training.learning_rate": job.learning_rate, "seed": job.seed, "ladder.rungs": f"[{rung}]",
    }  # fmt: skip
    if "all layers" in job.system:
        settings |= {"training.head_epochs": 0, "training.backbone_lr_factor": 1.0}
    return settings


def train(job: Job, clock: Clock) -> float:
    """Train with the system that the first word of its name says; only its own packages are imported. Returns the test AUROC."""
    system = job.system.partition(" ")[0]
    if system == "fastai":
        from benchmarks.peers_fastai import train as train_fastai

        return train_fastai(job, clock)
    if system == "autotimm":
        from benchmarks.peers_autotimm import train as train_autotimm

        return train_autotimm(job, clock)
    if system == "medcnn":
        return train_medcnn(job, clock)
    raise ValueError(f"system {job.system!r}: expected a name that starts with medcnn, fastai or autotimm")


def main() -> None:
    import torch

    torch.set_num_threads(1)
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    clock, started = Clock(job.epochs), time.monotonic()
    test = train(job, clock)
    result = {
        "system": job.system, "learning_rate": job.learning_rate, "seed": job.seed, "cpu_before": clock.before, "cpu": clock.seconds,
        "val_auroc": clock.auroc, "test_auroc": test, "cpu_total": cpu_seconds(), "wall": time.monotonic() - started,
    }  # fmt: skip
    if not len(clock.seconds) == len(clock.auroc) == job.epochs:
        raise RuntimeError(f"{job.system}: {len(clock.seconds)} ends of epochs, {len(clock.auroc)} AUROCs noted, expected {job.epochs}")
    Path(job.out).write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
