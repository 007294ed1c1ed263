"""What the statistics cost: CPU seconds of this process and peak memory, with scikit-learn measured in the same run.

    python benchmarks/bench_statistics.py

Prints a Markdown table; exits with 1 when a target is missed. Times are the best of several, in CPU seconds of one thread.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from medcnn.evaluation.areas import average_precision_interval, partial_auroc_intervals
from medcnn.evaluation.bootstrap import bootstrap_auroc, percentile_interval
from medcnn.evaluation.curves import thin_curve, threshold_curve
from medcnn.evaluation.discrimination import auroc_interval
from medcnn.evaluation.significance import paired_auroc_test

Row = tuple[str, float, str, bool | None]


def cpu_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def cohort(n: int, *, decimals: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (30% positive) and two correlated scores with ties."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.float64)
    shared = rng.normal(size=n) + y
    a, b = (np.round(shared + 0.5 * rng.normal(size=n), decimals) for _ in range(2))
    return y, a, b


def limit(name: str, seconds: float, target: float) -> Row:
    return name, seconds, f"at most {target:.2f}", seconds <= target


def large_samples() -> list[Row]:
    y, a, _ = cohort(1_000_000)
    rows = [limit("AUROC with DeLong interval, n = 1,000,000", cpu_seconds(lambda: auroc_interval(y, a)), 0.70)]
    rows.append(("scikit-learn roc_auc_score alone, n = 1,000,000", cpu_seconds(lambda: roc_auc_score(y, a)), "for comparison", None))
    rows.append(
        ("average precision with linearised interval, n = 1,000,000", cpu_seconds(lambda: average_precision_interval(y, a), 2), "", None)
    )
    rows.append(
        (
            "partial AUROC with linearised interval, n = 1,000,000",
            cpu_seconds(lambda: partial_auroc_intervals(y, a, low=0.9, high=1), 2),
            "",
            None,
        )
    )
    rows.append(("curve of 500 points, n = 1,000,000", cpu_seconds(lambda: thin_curve(threshold_curve(y, a)), 2), "", None))
    y, a, b = cohort(100_000)
    rows.append(limit("paired DeLong test, n = 100,000", cpu_seconds(lambda: paired_auroc_test(y, a, b)), 0.05))
    patient = np.array([f"patient{number:05d}" for number in np.random.default_rng(1).integers(0, 30_000, 100_000)], dtype=object)
    rows.append(limit("Obuchowski interval, 100,000 images of 30,000 patients", cpu_seconds(lambda: auroc_interval(y, a, patient)), 0.20))
    rows.append(
        ("Obuchowski paired test, 100,000 images of 30,000 patients", cpu_seconds(lambda: paired_auroc_test(y, a, b, patient)), "", None)
    )
    return rows


def bootstrap_against_scikit_learn(decimals: int, n: int = 10_000, n_resamples: int = 2000) -> list[Row]:
    """The loop draws the very resamples that `bootstrap_auroc` draws, so that both intervals must be the same."""
    y, s, _ = cohort(n, decimals=decimals, seed=2)
    order = np.lexsort((s, y))
    y, s = y[order], s[order]

    def loop() -> np.ndarray:
        rng = np.random.default_rng(np.random.SeedSequence(0))
        values = np.empty(n_resamples)
        for resample in range(n_resamples):
            rows = rng.integers(0, n, size=n)
            values[resample] = roc_auc_score(y[rows], s[rows])
        return values

    theirs = loop()
    ours = bootstrap_auroc(y, s, n_resamples=n_resamples, seed=0)
    same = float(np.abs(ours - theirs).max())
    assert same < 1e-12, f"the resampled AUROCs differ by {same}"
    assert np.allclose(percentile_interval(ours)[:2], percentile_interval(theirs)[:2], rtol=0, atol=1e-12)
    slow, fast = cpu_seconds(loop, 1), cpu_seconds(lambda: bootstrap_auroc(y, s, n_resamples=n_resamples, seed=0))
    what = f"{n_resamples} bootstrap resamples of AUROC, n = {n:,}, {len(np.unique(s)):,} distinct scores"
    return [
        (f"{what}: this project", fast, f"{slow / fast:.0f} times faster, at least 40", slow / fast >= 40),
        (f"{what}: loop over scikit-learn (same resamples, largest difference {same:.0e})", slow, "for comparison", None),
    ]


def memory() -> list[tuple[str, str]]:
    rows = []
    for n in (100_000, 1_000_000):
        y, a, b = cohort(n)
        for name, work in (
            ("DeLong interval", lambda y=y, a=a: auroc_interval(y, a)),
            ("paired DeLong test", lambda y=y, a=a, b=b: paired_auroc_test(y, a, b)),
            ("bootstrap, 5 resamples", lambda y=y, a=a: bootstrap_auroc(y, a, n_resamples=5)),
        ):
            rows.append((f"{name}, n = {n:,}", f"{peak_bytes(work) / n:.0f} bytes per row"))
    return rows


def main() -> int:
    rows = [*large_samples(), *bootstrap_against_scikit_learn(9), *bootstrap_against_scikit_learn(2)]
    print("| what | CPU s | target | met |\n|---|---|---|---|")
    for name, seconds, target, met in rows:
        print(f"| {name} | {seconds:.3f} | {target} | {'' if met is None else 'yes' if met else 'NO'} |")
    print("\n| peak memory | |\n|---|---|")
    for name, peak in memory():
        print(f"| {name} | {peak} |")
    return int(any(met is False for *_, met in rows))


if __name__ == "__main__":
    with threadpool_limits(1):  # a time on several threads compares with nothing
        sys.exit(main())
