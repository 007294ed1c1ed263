"""Made-up facts for the report: simulated predictions, and records and curves that were computed from them."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medcnn.artifact import Stamp
from medcnn.cohort import Exclusion, Finding, Flow
from medcnn.config import Config, build_config
from medcnn.report.facts import CURVE_COLUMNS, ErrorImage, OperatingPoint, RunFacts
from medcnn.tables import Record

THRESHOLD = 0.42


def simulate(n: int, labels: Sequence[str], *, seed: int = 0, exclusive: bool = False, images_per_patient: int = 1) -> pd.DataFrame:
    """Predictions whose probabilities are true to the labels (calibrated), with sex and site as covariates."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"image_id": [f"image{k:05d}" for k in range(n)], "patient_id": [f"patient{k // images_per_patient}" for k in range(n)], "part": "test", "fold": 0})
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


def wilson(k: int, n: int) -> tuple[float, float, float]:
    z, p = 1.959964, k / n
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return p, float(centre - half), float(centre + half)


def label_records(frame: pd.DataFrame, label: str, *, subset: str = "all", recalibration: str = "temperature") -> list[Record]:
    """Records of one label at THRESHOLD."""
    y, p = frame[f"y_{label}"].to_numpy(), frame[f"p_{label}"].to_numpy()
    if recalibration == "none":
        p = 1 / (1 + np.exp(-1.6 * np.log(p / (1 - p))))
    common: dict[str, Any] = {"label": label, "subset": subset, "recalibration": recalibration, "n": len(y), "n_positive": int(y.sum()), "n_patients": frame["patient_id"].nunique()}
    area = auroc(y, p)
    half = 1.96 * np.sqrt(area * (1 - area) / min(y.sum(), (1 - y).sum()) / 2)
    records = [Record(metric="auroc", value=area, low=area - half, high=min(area + half, 1.0), method=method, **common) for method in ("delong", "logit")]
    records.append(Record(metric="average_precision", value=0.9, low=0.87, high=0.93, method="logit", **common))
    records.append(Record(metric="calibration_intercept", value=0.03, low=-0.2, high=0.26, method="profile", **common))
    slope = 1.02 if recalibration != "none" else 0.64
    records.append(Record(metric="calibration_slope", value=slope, low=slope - 0.12, high=slope + 0.13, method="profile", **common))
    ratio = float(y.sum() / p.sum())
    records.append(Record(metric="oe_ratio", value=ratio, low=ratio - 0.07, high=ratio + 0.07, method="wald", **common))
    brier = float(((y - p) ** 2).mean())
    records += [Record(metric="brier", value=brier, low=brier - 0.01, high=brier + 0.01, method="wald", **common), Record(metric="scaled_brier", value=0.5, low=0.44, high=0.56, method="wald", **common)]
    records += [Record(metric="log_loss", value=0.41, low=0.37, high=0.45, method="wald", **common), Record(metric="ece", value=0.031, note="15 bins of equal width; noise floor 0.027", **common)]
    return records + rate_records(y, p, common)


def rate_records(y: np.ndarray, p: np.ndarray, common: dict[str, Any]) -> list[Record]:
    """Sensitivity, specificity, PPV, NPV, net benefit and F1 at THRESHOLD."""
    called = p >= THRESHOLD
    tp, fp = int((called & (y == 1)).sum()), int((called & (y == 0)).sum())
    fn, tn = int(y.sum()) - tp, int((1 - y).sum()) - fp
    pairs = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}
    records = []
    for metric, (k, n) in pairs.items():
        value, low, high = wilson(k, n)
        records.append(Record(metric=metric, value=value, low=low, high=high, method="wilson", threshold=THRESHOLD, **common))
    benefit = (tp - fp * THRESHOLD / (1 - THRESHOLD)) / len(y)
    records.append(Record(metric="net_benefit", value=benefit, low=benefit - 0.03, high=benefit + 0.03, method="bootstrap", threshold=THRESHOLD, **common))
    return [*records, Record(metric="f1", value=2 * tp / (2 * tp + fp + fn), threshold=THRESHOLD, **common)]


def label_curves(frame: pd.DataFrame, label: str, *, recalibration: str = "temperature") -> pd.DataFrame:
    """ROC, precision-recall, calibration and decision curves of one label."""
    y, p = frame[f"y_{label}"].to_numpy(), frame[f"p_{label}"].to_numpy()
    if recalibration == "none":
        p = 1 / (1 + np.exp(-1.6 * np.log(p / (1 - p))))
    t = np.concatenate([[np.inf], np.sort(np.unique(p))[::-1]])
    sensitivity = np.array([(p[y == 1] >= v).mean() for v in t])
    false_alarm = np.array([(p[y == 0] >= v).mean() for v in t])
    with np.errstate(invalid="ignore"):
        precision = np.array([y[p >= v].mean() if (p >= v).any() else 1.0 for v in t])
    tables = [pd.DataFrame({"curve": "roc", "x": false_alarm, "y": sensitivity, "threshold": t}), pd.DataFrame({"curve": "precision_recall", "x": sensitivity, "y": precision, "threshold": t})]
    grid = np.linspace(p.min(), p.max(), 101)
    ideal = grid if recalibration != "none" else 1 / (1 + np.exp(-0.64 * np.log(grid / (1 - grid))))
    half = 0.03 + 0.1 * grid * (1 - grid)
    tables.append(pd.DataFrame({"curve": "calibration_smooth", "x": grid, "y": ideal, "low": np.maximum(ideal - half, 0), "high": np.minimum(ideal + half, 1)}))
    groups = [(p[k].mean(), *wilson(int(y[k].sum()), len(k)), len(k)) for k in np.array_split(np.argsort(p), 10)]
    tables.append(pd.DataFrame(groups, columns=["x", "y", "low", "high", "n"]).assign(curve="calibration_grouped"))
    pt = np.linspace(0.01, 0.6, 60)
    model = np.array([(((p >= v) & (y == 1)).sum() - ((p >= v) & (y == 0)).sum() * v / (1 - v)) / len(y) for v in pt])
    tables.append(pd.DataFrame({"curve": "decision_curve", "x": pt, "y": model, "low": model - 0.03, "high": model + 0.03}))
    tables.append(pd.DataFrame({"curve": "decision_curve_all", "x": pt, "y": (y.sum() - (1 - y).sum() * pt / (1 - pt)) / len(y)}))
    table = pd.concat(tables, ignore_index=True).assign(label=label, part="test", level="image", subset="all", recalibration=recalibration)
    return table.reindex(columns=list(CURVE_COLUMNS))


def picture(seed: int) -> bytes:
    """A small grey PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def make_config(**report: Any) -> Config:
    """A config of phantom images with some of the author's fields filled in."""
    return build_config({"name": "phantom-run", "data": {"source": "phantom"}, "report": {"title": "Pneumonia on chest radiographs", **report}}, source="test")


def make_facts(labels: Sequence[str] = ("pneumonia",), *, n: int = 400, exclusive: bool = False, rich: bool = True, **changes: Any) -> RunFacts:
    """Plausible facts of a run; rich: with everything a pipeline knows, else those of a bare predictions file."""
    frame = simulate(n, labels, exclusive=exclusive)
    records, curves = [], []
    for label in labels:
        for kind in ("temperature", "none") if rich else ("none",):
            records += label_records(frame, label, recalibration=kind)
            curves.append(label_curves(frame, label, recalibration=kind))
        for sex in ("F", "M") if rich else ():
            records += label_records(frame[frame["sex"] == sex], label, subset=f"sex={sex}")
    if len(labels) > 1:
        mean = float(np.mean([r.value for r in records if r.metric == "auroc" and r.method == "delong" and r.subset == "all"]))
        kind = "temperature" if rich else "none"
        records.append(Record(metric="auroc", label="macro", value=mean, low=mean - 0.01, high=mean + 0.01, method="bootstrap_patient", n=n, n_patients=n, recalibration=kind))
    known: dict[str, Any] = {"name": "phantom-run", "records": records, "curves": pd.concat(curves, ignore_index=True), "predictions": frame}
    if rich:
        known |= rich_facts(labels)
    return RunFacts(**{**known, **changes})


def rich_facts(labels: Sequence[str]) -> dict[str, Any]:
    """What a pipeline knows besides predictions and numbers."""
    excluded = tuple(Exclusion(where=f"folder/file{k}.png", kind="unreadable", reason="the file ends in the middle of the image") for k in range(3))
    parts = pd.DataFrame({"fold": 0, "part": ["train", "val", "test"], "n_images": [1400, 200, 400], "n_patients": [1200, 180, 400]})
    for label in labels:
        parts[f"n_positive_{label}"] = [600, 90, 170]
    stamp: dict[str, Any] = {"key": "k", "settings": {}, "inputs": {}, "code": "c", "outputs": {}, "finished": "2025-11-22T18:00:00+0000", "version": "0.1.0"}
    epochs = np.arange(1, 16)
    return {
        "config": make_config(population="Adults with suspected pneumonia, one hospital, 2019 to 2021."),
        "flow": Flow(source="folder", n_found=2003, n_files=2000, n_images=2000, n_patients=1780, excluded=excluded),
        "findings": [Finding(severity="warning", kind="shortcut", text="The file size alone separates the classes (AUROC 0.71).", todo="Look for a marker or a scanner that goes with the class.")],
        "counts": parts,
        "thresholds": [OperatingPoint(label=label, threshold=THRESHOLD, rule="the highest Youden index", chosen_on="the tuning part") for label in labels],
        "history": pd.DataFrame({"epoch": epochs, "fold": 0, "seed": 0, "train_loss": 0.7 * 0.85**epochs + 0.05, "val_loss": 0.65 * 0.86**epochs + 0.12, "val_auroc": 0.97 - 0.3 * 0.7**epochs}),
        "errors": [ErrorImage(image_id=f"image{k}", label=labels[0], y=k % 2, p=0.03 + 0.94 * (1 - k % 2), threshold=THRESHOLD, picture=picture(k), heatmap=picture(k + 9)) for k in range(6)],
        "ledger": [{"when": "2025-11-20T10:00:00", "who": "ana", "config": "a" * 64, "predictions": "b" * 64}, {"when": "2025-11-22T18:00:00", "who": "ana", "config": "a" * 64, "predictions": "c" * 64}],
        "stamps": [Stamp(stage=stage, cpu_seconds=seconds, wall_seconds=seconds / 2, peak_memory_mb=800.0, **stamp) for stage, seconds in (("ingest", 3.1), ("train", 91.0), ("evaluate", 4.2))],
        "versions": {"medcnn": "0.1.0", "python": "3.12", "torch": "2.9.0"},
        "hashes": {"predictions": "c" * 64, "config": "a" * 64},
        "model": {"name": "tf_efficientnet_lite0", "n_parameters": 3_373_000, "multiply_adds": 4.0e8, "input_size_px": 128, "weights": "ImageNet", "images_per_second": 210.0, "training_seconds": 91.0},
        "recalibration": "temperature",
        "recalibration_info": {"method": "temperature", "temperature": 1.62, "fitted_on": "the tuning part"},
        "seed": 0,
    }


@pytest.fixture(scope="session")
def facts_of() -> Callable[..., RunFacts]:
    """The factory."""
    return make_facts
