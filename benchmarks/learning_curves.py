"""What pretraining buys: AUROC against the number of patients (or groups) that are learnt from.

    python -m benchmarks.learning_curves configs/histology.yaml --out reports/curves
    python -m benchmarks.learning_curves configs/covid_cxr.yaml task=binary data.classes=[no_findings,pneumonia] image.size_px=64 --out reports/curves

One test part of 30% of the patients; from the others 25, 50, 100, 200 and 400 are drawn, anew for each seed and each size
holding the smaller one. Five ways to learn from the same images: the config's backbone fine-tuned from its pretrained and
from random weights, a logistic regression on the frozen features of both, SimpleCNN; beside them the shortcut probes.
Every network sees the same number of images: PASSES passes, at least FEWEST_STEPS steps. Learning rates and epochs are not
tuned on anything here. AUROC: mean over seeds, its 95% interval from the patients of the test part and from the seeds; the last
columns are differences to the fine-tuned pretrained backbone, paired, both sources of variance in them (evaluation.seeds).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn import cohort_stages, model_stages
from medcnn.config_file import read_config
from medcnn.data.augment import AugmentedImages, build_augmentation
from medcnn.data.cache import CachedImages, open_cache
from medcnn.data.shortcut_model import predict_shortcuts
from medcnn.data.split import deal
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.evaluation.seeds import seed_difference
from medcnn.model.backbones import build_model, normalisation
from medcnn.model.features import open_features, write_features
from medcnn.model.frozen import train_frozen
from medcnn.model.predict import predict, predict_from_features
from medcnn.model.signature import Signature
from medcnn.model.training import train
from medcnn.plan import ModelPlan, Plan, SplitPlan, TrainingPlan, read_plan
from medcnn.runs import open_run
from medcnn.tables import label_matrix, read_table

PASSES, FEWEST_STEPS, BATCH = 12, 60, 32
ARMS = ("fine-tuned, pretrained", "fine-tuned, random", "frozen, pretrained", "frozen, random", "SimpleCNN", "shortcuts")


class Cohort:
    """One cohort with its test part: everything that an arm needs to know."""

    def __init__(self, config_path: Path, overrides: list[str], out: Path) -> None:
        config = read_config(config_path, overrides)
        run = open_run(config, out / config.name, update=True)
        audited = cohort_stages.audit(run, cohort_stages.ingest(run))
        planned = model_stages.plan(run, cohort_stages.fingerprint(run, audited))
        self.plan: Plan = read_plan(planned / "plan.yaml")
        self.images: CachedImages = open_cache(cohort_stages.cache(run, audited, planned))
        manifest = read_table(audited / "manifest.parquet")
        dealt = deal(manifest, SplitPlan(scheme="holdout", test_fraction=0.3, val_fraction=0), labels=self.plan.labels, seed=0)
        manifest = manifest.merge(dealt[["image_id", "part"]], on="image_id", validate="one_to_one")
        self.manifest = manifest.drop(columns="part")
        rows = self.images.rows(manifest["image_id"])
        self.order = np.argsort(rows)
        self.y = np.full((len(self.images), len(self.plan.labels)), np.nan, np.float32)
        self.y[rows] = label_matrix(manifest, self.plan.labels)
        self.patients = np.full(len(self.images), -1)
        self.patients[rows] = pd.factorize(manifest["patient_id"], sort=True)[0]
        self.test = np.sort(rows[manifest["part"] == "test"])
        self.pool = np.sort(rows[manifest["part"] == "train"])

    def drawn(self, n_patients: int, seed: int) -> np.ndarray:
        """Rows of n patients of the pool; a larger n with the same seed adds to a smaller one."""
        patients = np.random.default_rng([seed, 1]).permutation(np.unique(self.patients[self.pool]))[:n_patients]
        return self.pool[np.isin(self.patients[self.pool], patients)]


def scores_of(arm: str, cohort: Cohort, rows: np.ndarray, seed: int, out: Path) -> np.ndarray:
    """Probabilities (n_test,) of the positive class after learning from `rows`."""
    if arm == "shortcuts":
        return _shortcuts(cohort, rows, seed)
    if arm.startswith("frozen"):
        return _frozen(cohort, rows, seed, pretrained=arm.endswith("pretrained"), out=out)
    model = ModelPlan(name="simple_cnn", pretrained=False, dropout=0.3)
    if arm != "SimpleCNN":
        model = cohort.plan.model.model_copy(update={"pretrained": arm.endswith("pretrained")})
    return _network(cohort, rows, seed, model)


def _network(cohort: Cohort, rows: np.ndarray, seed: int, model_plan: ModelPlan) -> np.ndarray:
    image = cohort.plan.image
    epochs = max(PASSES, -(-FEWEST_STEPS // -(-len(rows) // BATCH)))
    learning: dict[str, Any] = {"learning_rate": 2e-3, "backbone_lr_factor": 0.3 if model_plan.pretrained else 1.0}
    plan = TrainingPlan(
        epochs=epochs, batch_size=BATCH, **learning, head_epochs=1 if model_plan.pretrained else 0, imbalance="none",
        precision="float32", device="cpu", n_workers=0, n_threads=1, select="last", norm_statistics="plain",
    )  # fmt: skip
    model = build_model(model_plan, channels=image.channels, n_outputs=2, size_px=image.size_px, seed=seed)
    mean, std = normalisation(model_plan, image.channels)
    augmentation = build_augmentation(cohort.plan.augment, size_px=image.size_px, channels=image.channels)
    result = train(
        model, AugmentedImages(cohort.images.images, augmentation, seed), cohort.y, rows_train=rows, rows_val=np.arange(0),
        task="binary", plan=plan, mean=mean, std=std, seed=seed,
    )  # fmt: skip
    source = AugmentedImages(cohort.images.images, None, 0)
    return predict(model, source, cohort.test, card=result.signature, device="cpu", n_threads=1)[1][:, 0]


def _frozen(cohort: Cohort, rows: np.ndarray, seed: int, *, pretrained: bool, out: Path) -> np.ndarray:
    """Features are made once for each kind of weights (random: once for each seed)."""
    image = cohort.plan.image
    plan = cohort.plan.model.model_copy(update={"pretrained": pretrained})
    model = build_model(plan, channels=image.channels, n_outputs=2, size_px=image.size_px, seed=seed)
    mean, std = normalisation(plan, image.channels)
    signature = Signature(task="binary", mean=mean, std=std)
    folder = out / ("pretrained" if pretrained else f"random{seed}")
    if not folder.exists():
        folder.mkdir()
        source = AugmentedImages(cohort.images.images, None, 0)
        write_features(model, source, len(cohort.images), signature=signature, folder=folder, device="cpu", n_threads=1)
    features = open_features(folder)
    train_frozen(
        model, features, cohort.y, rows_train=rows, patients=cohort.patients, task="binary", signature=signature, seed=seed, n_threads=1
    )
    return predict_from_features(model, features, cohort.test, card=signature)[1][:, 0]


def _shortcuts(cohort: Cohort, rows: np.ndarray, seed: int) -> np.ndarray:
    part = np.full(len(cohort.images), "", dtype=object)
    part[rows], part[cohort.test] = "train", "test"
    places = cohort.images.rows(cohort.manifest["image_id"])
    split = pd.DataFrame({"image_id": cohort.manifest["image_id"], "part": part[places], "fold": 0})
    split = split[split["part"] != ""]
    found = predict_shortcuts(
        cohort.manifest, cohort.images.images, places, cohort.plan.labels, split=split, task="binary", seed=seed
    ).set_index("image_id")
    ids = pd.Series(cohort.manifest["image_id"].to_numpy(), index=places).loc[cohort.test]
    return found.loc[ids, f"p_{cohort.plan.labels[0]}"].to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[25, 50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    cohort = Cohort(asked.config, asked.overrides, asked.out)
    y, patients = cohort.y[cohort.test, 0], cohort.patients[cohort.test]
    largest = len(np.unique(cohort.patients[cohort.pool]))
    print(
        f"{len(cohort.pool)} images of {largest} patients to learn from, {len(y)} test images ({int(y.sum())} positive) of {len(np.unique(patients))} patients"
    )
    found: dict[tuple[int, str], list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in [min(size, largest) for size in asked.sizes]:
            for arm in ARMS:
                started = time.process_time()
                found[size, arm] = [scores_of(arm, cohort, cohort.drawn(size, seed), seed, Path(scratch)) for seed in range(asked.seeds)]
                print(
                    json.dumps(_row(size, arm, found, y, patients) | {"cpu_seconds": round(time.process_time() - started, 1)}), flush=True
                )
    print(as_table(found, y, patients, asked.seeds))


Scores = dict[tuple[int, str], list[np.ndarray]]


def _row(size: int, arm: str, found: Scores, y: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """AUROC of an arm: mean over seeds; variance between patients (of one seed, the mean over them) plus that of the mean over seeds."""
    estimates = [auroc_interval(y, scores, patients) for scores in found[size, arm]]
    values = np.array([estimate.value for estimate in estimates], float)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    between_patients = float(np.mean([(estimate.se or 0.0) ** 2 for estimate in estimates]))
    half = 1.96 * float(np.sqrt(between_patients + spread**2 / len(values)))
    row = {"size": size, "arm": arm, "auroc": round(float(values.mean()), 4), "sd_seeds": round(spread, 4)}
    row |= {"low": round(float(values.mean()) - half, 4), "high": round(min(1.0, float(values.mean()) + half), 4)}
    if arm != ARMS[0] and len(values) > 1 and (size, ARMS[0]) in found:
        difference = seed_difference(y, found[size, ARMS[0]], found[size, arm], patients)
        row |= {"gain": difference.difference, "gain_low": difference.low, "gain_high": difference.high, "p": difference.p}
    return row


def as_table(found: Scores, y: np.ndarray, patients: np.ndarray, n_seeds: int) -> str:
    """Markdown: a line for each arm and size."""
    lines = [
        f"| patients | way | AUROC, mean of {n_seeds} seeds (95% interval) | SD over seeds | {ARMS[0]} minus this (95% interval) |",
        "|---|---|---|---|---|",
    ]
    for size, arm in found:
        row = _row(size, arm, found, y, patients)
        gain = f"{row['gain']:+.3f} ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})" if row.get("gain_low") is not None else ""
        lines.append(f"| {size} | {arm} | {row['auroc']:.3f} ({row['low']:.3f}-{row['high']:.3f}) | {row['sd_seeds']:.3f} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
