"""Made-up facts for the report: simulated predictions, and the records and curves that the evaluation takes from them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medcnn.artifact import Stamp
from medcnn.cohort import Exclusion, Finding, Flow
from medcnn.config import Config, EvaluationConfig, ThresholdConfig
from medcnn.config_file import build_config
from medcnn.evaluation.assessment import assess
from medcnn.evaluation.comparison import compare_models, comparison_sentences
from medcnn.evaluation.ladder import SingleModels, ladder_numbers
from medcnn.plan import Plan
from medcnn.report.facts import ComparisonFacts, ErrorImage, ModelFacts, OperatingPoint, RunFacts, RungFacts
from medcnn.tables import Task, check_predictions

THRESHOLD = 0.42


def simulate(n: int, labels: Sequence[str], *, seed: int = 0, exclusive: bool = False, images_per_patient: int = 1) -> pd.DataFrame:
    """Predictions whose probabilities are true to the labels (calibrated), with sex and site as covariates."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "image_id": [f"image{k:05d}" for k in range(n)],
            "patient_id": [f"patient{k // images_per_patient}" for k in range(n)],
            "part": "test",
            "fold": 0,
        }
    )
    logits = rng.normal(-0.6, 2.2, size=(n, len(labels)))
    if exclusive:
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        y = np.eye(len(labels))[[rng.choice(len(labels), p=row) for row in p]]
    else:
        p = 1 / (1 + np.exp(-logits))
        y = (rng.random(p.shape) < p).astype(float)
    for k, label in enumerate(labels):
        frame[f"y_{label}"], frame[f"p_{label}"] = y[:, k], p[:, k]
    frame["sex"] = rng.choice(["F", "M"], n)
    return frame


def auroc(y: np.ndarray, p: np.ndarray) -> float:
    """By definition, over all pairs."""
    a, b = p[y == 1], p[y == 0]
    return float((np.greater.outer(a, b) + 0.5 * np.equal.outer(a, b)).mean())


def distort(frame: pd.DataFrame, labels: Sequence[str], *, exclusive: bool) -> pd.DataFrame:
    """The same rows with probabilities that are too extreme, as before recalibration."""
    raw = frame.copy()
    p = frame[[f"p_{label}" for label in labels]].to_numpy()
    raw[[f"p_{label}" for label in labels]] = (
        p**1.7 / (p**1.7).sum(axis=1, keepdims=True) if exclusive else p**1.7 / (p**1.7 + (1 - p) ** 1.7)
    )
    return raw


def evaluation(**changes: Any) -> EvaluationConfig:
    """A quick evaluation at THRESHOLD, by sex."""
    fixed = ThresholdConfig(rule="fixed", value=THRESHOLD)
    return EvaluationConfig(**{"thresholds": (fixed,), "by": ("sex",), "n_bootstrap": 60, **changes})


def picture(seed: int) -> bytes:
    """A small grey PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def make_config(config: EvaluationConfig, **report: Any) -> Config:
    """A config of phantom images with some of the author's fields filled in."""
    tree = {"name": "phantom-run", "data": {"source": "phantom"}, "evaluation": config.model_dump(mode="json")}
    return build_config({**tree, "report": {"title": "Pneumonia on chest radiographs", **report}}, source="test")


def task_of(labels: Sequence[str], *, exclusive: bool) -> Task:
    """The task of a made-up table."""
    return "binary" if len(labels) == 1 else "multiclass" if exclusive else "multilabel"


def make_facts(
    labels: Sequence[str] = ("pneumonia",),
    *,
    n: int = 400,
    exclusive: bool = False,
    images_per_patient: int = 1,
    rich: bool = True,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> RunFacts:
    """Facts of a run, its numbers taken from simulated predictions; rich: with all that a pipeline knows, else those of a bare file."""
    frame = check_predictions(simulate(n, labels, exclusive=exclusive, images_per_patient=images_per_patient), source="made-up")
    config = evaluation(**(settings or {}))
    points = {label: [point.value for point in config.thresholds if point.value is not None] for label in labels}
    tables = {"temperature": frame, "none": distort(frame, labels, exclusive=exclusive)} if rich else {"none": frame}
    done = [
        assess(table, config=config, thresholds=points, recalibration=kind, task=task_of(labels, exclusive=exclusive))
        for kind, table in tables.items()
    ]
    known: dict[str, Any] = {
        "name": "phantom-run",
        "records": [record for assessment in done for record in assessment.records],
        "curves": pd.concat([assessment.curves for assessment in done], ignore_index=True),
        "predictions": frame,
    }
    if rich:
        known |= {
            **rich_facts(labels),
            "ladder": make_ladder(frame, labels, config, exclusive=exclusive),
            "split_hash": "e" * 64,
            "plan": make_plan(labels, exclusive=exclusive),
            "config": make_config(config, population="Adults with suspected pneumonia, one hospital, 2019 to 2021."),
        }
    return RunFacts(**{**known, **changes})


MODELS = {"frozen": (5, 3.4e6, 35.0), "simple_cnn": (5, 1.0e5, 410.0), "main": (10, 3.4e6, 5200.0), "ensemble": (20, 3.4e6, 5645.0)}


def make_ladder(frame: pd.DataFrame, labels: Sequence[str], config: EvaluationConfig, *, exclusive: bool) -> list[RungFacts]:
    """Rungs that see the truth through less and less noise; ensemble is the headline and has the frame's own probabilities."""
    rng = np.random.default_rng(11)
    columns = [f"p_{label}" for label in labels]
    p = frame[columns].to_numpy()
    tables = {"prevalence": frame.copy()}
    tables["prevalence"][columns] = 1 / len(labels) if exclusive else 0.4
    for name, noise in (("shortcuts", 5.0), ("frozen", 1.6), ("simple_cnn", 1.3), ("main", 0.35), ("ensemble", 0.0)):
        odds = np.log(p) - np.log1p(-p) + rng.normal(0, 1, p.shape) * noise
        shaken = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True) if exclusive else 1 / (1 + np.exp(-odds))
        tables[name] = frame.copy()
        tables[name][columns] = shaken if noise else p
    task = task_of(labels, exclusive=exclusive)
    single = SingleModels(mean=0.91, sd=0.008, n=5)
    numbers = ladder_numbers(tables, config, task=task, headline="ensemble")
    return [
        RungFacts(
            name=found.rung,
            numbers=replace(found, single=single if found.rung == "main" else None),
            model={"simple_cnn": "simple_cnn", "main": "tf_efficientnet_lite0", "frozen": "tf_efficientnet_lite0"}.get(found.rung, ""),
            n_models=MODELS.get(found.rung, (0, None, 0.0))[0],
            n_parameters=MODELS.get(found.rung, (0, None, 0.0))[1],
            cpu_seconds=MODELS.get(found.rung, (0, None, 0.0))[2],
            images_per_second=210.0 if found.rung in MODELS else None,
        )
        for found in numbers
    ]


def make_comparison(labels: Sequence[str] = ("pneumonia",), *, n: int = 400, n_models: int = 2, **changes: Any) -> ComparisonFacts:
    """Facts of a comparison: the first model is the true one, each further one sees the truth through more noise."""
    truth, config = check_predictions(simulate(n, labels), source="made-up"), evaluation(by=(), margin=0.05)
    rng = np.random.default_rng(7)
    names = ["efficientnet_lite0", "simple_cnn", "fully_connected", "resnet18"][:n_models]
    tables, models = {}, []
    points = {label: [THRESHOLD] for label in labels}
    for k, name in enumerate(names):
        table = truth.copy()
        for label in labels:
            logit = np.log(truth[f"p_{label}"] / (1 - truth[f"p_{label}"]))
            table[f"p_{label}"] = 1 / (1 + np.exp(-(logit + rng.normal(0, 1e-9 + 0.9 * k, n))))
        done = assess(table, config=config, thresholds=points, task=task_of(labels, exclusive=False))
        card = {
            "name": name,
            "n_parameters": 3.4e6 / 5**k,
            "multiply_adds": 4e8 / 20**k,
            "input_size_px": 64,
            "weights": "ImageNet",
            "images_per_second": 210.0 * (k + 1),
            "training_seconds": 300.0 / (k + 1),
        }
        tables[name] = table
        models.append(ModelFacts(name=name, records=done.records, curves=done.curves, model=card))
    comparisons = compare_models(tables, config, dict.fromkeys(names, points))
    facts: dict[str, Any] = {
        "name": " against ".join(names),
        "models": models,
        "comparisons": comparisons,
        "sentences": comparison_sentences(comparisons, margin=0.05),
        "margin": 0.05,
    }
    return ComparisonFacts(
        **{
            **facts,
            "same": {"images": n, "patients": n},
            "versions": {"medcnn": "0.1.0"},
            "hashes": dict.fromkeys(names, "d" * 64),
            **changes,
        }
    )


def make_plan(labels: Sequence[str], *, exclusive: bool) -> Plan:
    """A plan with a reason or two."""
    training = {
        "epochs": 15,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "backbone_lr_factor": 0.1,
        "head_epochs": 1,
        "imbalance": "none",
        "precision": "float32",
        "n_workers": 2,
    }
    return Plan.model_validate(
        {
            "task": task_of(labels, exclusive=exclusive), "labels": list(labels), "seed": 0, "split": {"scheme": "holdout"},
            "image": {"size_px": 128, "channels": 3, "fit": "pad"}, "augment": {"policy": "chest_xray"},
            "model": {"name": "tf_efficientnet_lite0", "pretrained": True, "dropout": 0.2}, "training": training,
            "reasons": {"image.size_px": "large enough for the finding, small enough for two cores", "training.epochs": "few patients"},
        }
    )  # fmt: skip


def rich_facts(labels: Sequence[str]) -> dict[str, Any]:
    """What a pipeline knows besides predictions and numbers."""
    excluded = tuple(
        Exclusion(where=f"folder/file{k}.png", kind="unreadable", reason="the file ends in the middle of the image") for k in range(3)
    )
    parts = pd.DataFrame({"fold": 0, "part": ["train", "val", "test"], "n_images": [1400, 200, 400], "n_patients": [1200, 180, 400]})
    for label in labels:
        parts[f"n_positive_{label}"] = [600, 90, 170]
    stamp: dict[str, Any] = {
        "key": "k",
        "settings": {},
        "inputs": {},
        "code": "c",
        "outputs": {},
        "finished": "2025-11-22T18:00:00+0000",
        "version": "0.1.0",
    }
    epochs = np.arange(1, 16)
    return {
        "flow": Flow(source="folder", n_found=2003, n_files=2000, n_images=2000, n_patients=1780, excluded=excluded),
        "findings": [
            Finding(
                severity="warning",
                kind="shortcut",
                text="The file size alone separates the classes (AUROC 0.71).",
                todo="Look for a marker or a scanner that goes with the class.",
            )
        ],
        "counts": parts,
        "thresholds": [OperatingPoint(label=label, threshold=THRESHOLD, rule="youden", chosen_on="validation rows") for label in labels],
        "history": pd.DataFrame(
            {
                "epoch": epochs,
                "fold": 0,
                "seed": 0,
                "train_loss": 0.7 * 0.85**epochs + 0.05,
                "val_loss": 0.65 * 0.86**epochs + 0.12,
                "val_auroc": 0.97 - 0.3 * 0.7**epochs,
            }
        ),
        "errors": [
            ErrorImage(
                image_id=f"image{k}",
                label=labels[0],
                y=k % 2,
                p=0.03 + 0.94 * (1 - k % 2),
                threshold=THRESHOLD,
                picture=picture(k),
                heatmap=picture(k + 9),
            )
            for k in range(6)
        ],
        "ledger": [
            {"when": "2025-11-20T10:00:00", "who": "ana", "config": "a" * 64, "predictions": "b" * 64},
            {"when": "2025-11-22T18:00:00", "who": "ana", "config": "a" * 64, "predictions": "c" * 64},
        ],
        "stamps": [
            Stamp(stage=stage, cpu_seconds=seconds, wall_seconds=seconds / 2, peak_memory_mb=800.0, **stamp)
            for stage, seconds in (("ingest", 3.1), ("train", 91.0), ("evaluate", 4.2))
        ],
        "versions": {"medcnn": "0.1.0", "python": "3.12", "torch": "2.9.0"},
        "hashes": {"predictions": "c" * 64, "config": "a" * 64},
        "model": {
            "name": "tf_efficientnet_lite0",
            "n_parameters": 3_373_000,
            "multiply_adds": 4.0e8,
            "input_size_px": 128,
            "weights": "ImageNet",
            "images_per_second": 210.0,
            "training_seconds": 91.0,
        },
        "recalibration": "temperature",
        "recalibration_info": {"method": "temperature", "temperature": 1.62, "fitted_on": "the tuning part"},
        "seed": 0,
    }


@pytest.fixture(scope="session")
def facts_of() -> Callable[..., RunFacts]:
    """The factory of a run's facts; the same arguments give the same object."""
    made: dict[str, RunFacts] = {}

    def make(*args: Any, **kwargs: Any) -> RunFacts:
        key = repr((args, kwargs))
        if key not in made:
            made[key] = make_facts(*args, **kwargs)
        return made[key]

    return make


@pytest.fixture(scope="session")
def comparison_of() -> Callable[..., ComparisonFacts]:
    """The factory of a comparison's facts."""
    return make_comparison
