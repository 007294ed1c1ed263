"""How long the evaluation of a large multi-label table takes, and how much memory: rows x 14 labels, each row its own patient.

    python -m benchmarks.bench_assessment [--rows 1000000] [--labels 14] [--patients-per 1] [--csv]
Target: 1,000,000 rows x 14 labels under 60 s CPU and 4 GiB, reading included.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from medcnn.config import EvaluationConfig
from medcnn.evaluation.assessment import assess
from medcnn.tables import check_predictions, read_table


def made_up_table(n_rows: int, n_labels: int, images_per_patient: int) -> pd.DataFrame:
    """Probabilities that are somewhat too extreme, prevalence from 1 to 30%, one label in fifty missing."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": rng.permutation(n_rows) // images_per_patient})
    for label in range(n_labels):
        lp = rng.normal(np.log(0.01 + 0.02 * label), 1.3, n_rows)
        y = (rng.random(n_rows) < expit(lp)).astype(np.float64)
        y[rng.random(n_rows) < 0.02] = np.nan
        table[f"y_{label}"], table[f"p_{label}"] = y, expit(1.2 * lp).astype(np.float32)
    return table


def main() -> None:
    """Make the table, write it, read it back, check it, assess it; print CPU seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--patients-per", type=int, default=1)
    parser.add_argument("--csv", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("table.csv" if arguments.csv else "table.parquet")
        made = made_up_table(arguments.rows, arguments.labels, arguments.patients_per)
        made.to_csv(path, index=False) if arguments.csv else made.to_parquet(path, index=False)
        del made
        start, wall = time.process_time(), time.perf_counter()
        table = check_predictions(read_table(path), source=path.name)
        read = time.process_time() - start
        thresholds = {str(label): [0.1] for label in range(arguments.labels)}
        result = assess(table, config=EvaluationConfig(), thresholds=thresholds, task="multilabel" if arguments.labels > 1 else "binary")
    cpu, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{arguments.rows:,} rows x {arguments.labels} labels, {arguments.patients_per} image(s) per patient")
    print(f"read and check {read:.1f} s, all {cpu:.1f} s CPU, {time.perf_counter() - wall:.1f} s elapsed; peak {peak:.2f} GiB")
    print(f"{len(result.records)} records, {len(result.curves)} curve points")


if __name__ == "__main__":
    main()
