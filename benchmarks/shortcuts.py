"""What the shortcut probes find on the real cohorts beside the repository, and what they cost on a large made-up one.

    python -m benchmarks.shortcuts [--made-up 100000] [--size-px 128]
Prints AUROC (95% interval) of each probe and label, the findings, and CPU seconds. On covid_cxr the file must give
COVID-19 away with an AUROC near 1, and a thumbnail must tell it from no finding with an accuracy of about 95%.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from medcnn.config import Config
from medcnn.config_file import read_config
from medcnn.data.audit import audit, exclude
from medcnn.data.cache import prepare_image
from medcnn.data.ingest import ingest, row_reader
from medcnn.data.shortcut_findings import shortcut_findings
from medcnn.data.shortcuts import probe_shortcuts, rows_to_probe
from medcnn.data.split import deal
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.plan import ImagePlan, SplitPlan
from medcnn.tables import infer_task, label_matrix, label_names

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COHORTS = {
    "covid_cxr, three classes": ("covid_cxr", []),
    "covid_cxr, COVID-19 against no finding": ("covid_cxr", ["task=binary", "data.classes=[no_findings, covid19]"]),
    "pneumoniamnist, train and val": ("pneumoniamnist", []),
    "histology": ("histology", []),
}


def summarise(probed: pd.DataFrame) -> pd.DataFrame:
    """AUROC with its interval and the accuracy at 1/2, for each probe and label."""
    rows = []
    for (probe, label), group in probed.groupby(["probe", "label"], observed=True):
        found = auroc_interval(group["y"], group["p"], group["patient_id"].cat.codes)
        row = {"probe": probe, "label": label, "auroc": found.value, "low": found.low, "high": found.high, "method": found.method}
        accuracy = float(((group["p"] >= 0.5) == group["y"]).mean())
        rows.append({**row, "accuracy": accuracy, "n": len(group), "n_positive": int(group["y"].sum())})
    return pd.DataFrame(rows)


def cohort(config: Config, size_px: int) -> tuple[pd.DataFrame, np.ndarray, str]:
    """The rows to look at, their prepared images uint8 (n, S, S, C), and which rows they are."""
    manifest, flow = ingest(config.data, task=config.task)
    kept, _ = exclude(manifest, audit(manifest, config.audit, flow=flow), config.audit)
    scheme = "holdout" if config.split.scheme == "auto" else config.split.scheme
    split = deal(kept, SplitPlan(**{**config.split.model_dump(), "scheme": scheme}), labels=label_names(kept), seed=config.seed)
    rows, scope = rows_to_probe(kept, split)
    side = size_px if config.image.size_px == "auto" else config.image.size_px
    plan = ImagePlan(size_px=side, channels=1 if (rows["channels"] == 1).mean() > 0.5 else 3, fit="pad")
    read = row_reader(config.data)
    images = np.stack([prepare_image(read(Path(path), int(frame)), plan) for path, frame in zip(rows["path"], rows["frame"], strict=True)])
    return rows, images, scope


def report(title: str, manifest: pd.DataFrame, images: np.ndarray, scope: str = "") -> None:
    """Probe, take intervals, print."""
    labels = label_names(manifest)
    start = time.process_time()
    probed = probe_shortcuts(manifest, images, np.arange(len(manifest)), labels, task=infer_task(label_matrix(manifest, labels)), seed=0)
    seconds = time.process_time() - start
    summary = summarise(probed)
    print(f"\n== {title}: images {images.shape}. {scope}")
    for row in summary.sort_values(["label", "auroc"], ascending=[True, False]).itertuples():
        interval = f"{row.auroc:.3f} ({row.low:.3f} to {row.high:.3f})"
        print(f"{row.label:14} {row.probe:22} {interval}  accuracy {row.accuracy:.3f}  {row.n_positive} of {row.n}  {row.method}")
    print(*[f"- {note}" for note in probed.attrs["notes"]], sep="\n")
    print(*[f"{finding.severity}: {finding.text}" for finding in shortcut_findings(summary)], sep="\n")
    table_mb = probed.memory_usage(deep=True).sum() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seconds:.1f} s CPU for the probes; table of {len(probed):,} rows, {table_mb:.0f} MiB; peak memory so far {peak:.2f} GiB")


def made_up(n_images: int, n_labels: int, size_px: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Noise in colour, with labels and a scanner that have nothing to do with it: what counts is the time."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (1000, size_px, size_px, 3), np.uint8)
    images = few[rng.integers(0, len(few), n_images)]
    names = [f"image{number:07d}" for number in range(n_images)]
    table = pd.DataFrame({"image_id": names, "patient_id": [f"p{number}" for number in rng.integers(0, n_images // 3, n_images)]})
    table = table.assign(path=[f"{name}.png" for name in names], frame=0, height=rng.integers(800, 1200, n_images), width=1024)
    table = table.assign(
        bit_depth=8, channels=3, sha256=names, scanner=rng.choice(list("ABCDE"), n_images), view=rng.choice(["AP", "PA"], n_images)
    )
    for label in range(n_labels):
        table[f"y_{label}"] = (rng.random(n_images) < 0.002 + 0.02 * label).astype(np.float64)
    return table, images


def main() -> None:
    """Each cohort that is there; then the made-up one when asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--made-up", type=int, default=0, help="number of made-up images, with 14 labels")
    parser.add_argument("--size-px", type=int, default=128)
    arguments = parser.parse_args()
    for title, (name, overrides) in COHORTS.items():
        config = read_config(CONFIGS / f"{name}.yaml", overrides)
        if config.data.path is None or not config.data.path.exists():
            print(f"\n== {title}: {name}'s images are not here")
            continue
        report(title, *cohort(config, arguments.size_px))
    if arguments.made_up:
        report(f"{arguments.made_up:,} made-up images", *made_up(arguments.made_up, 14, 64))


if __name__ == "__main__":
    main()
