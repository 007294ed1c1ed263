"""How often the 95% intervals of the AUROC, and of a sensitivity, contain the truth, by simulation with fixed seeds.

    python benchmarks/coverage.py [--samples 4000] [--out reports/examples/coverage.md]

Scores are normal with a true AUROC of 0.70, 0.85 or 0.95. Designs: one image per patient; 1-7 images per patient that
share the patient's label; 1-7 images with labels of their own. Patients share half of the score's variance. The numbers
of positives (patients, where they carry the label) are fixed at the prevalence, at least one.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.special import logit, ndtri
from threadpoolctl import threadpool_limits

from medcnn.evaluation.clustered import Design, cluster_design
from medcnn.evaluation.discrimination import FEW_LOGIT, FEW_WALD, NO_VARIANCE, auroc_interval, effective_sizes
from medcnn.evaluation.estimates import FloatArray, IntArray
from medcnn.evaluation.intervals import proportion_interval

SIZES, PREVALENCES, TRUTHS = (60, 200, 500, 2000), (0.02, 0.05, 0.10, 0.20, 0.50), (0.70, 0.85, 0.95)
DESIGNS = {"single": "one image per patient", "shared": "1-7 images per patient, one label", "mixed": "1-7 images per patient, own labels"}
METHODS = ("delong", "default", "logit", "newcombe")
Z = float(ndtri(0.975))
CHUNK = 2_000_000  # scores held at a time


@dataclass(frozen=True)
class Layout:
    """Labels, positives first, and the patient of each row; the same in every sample of a cell."""

    y: IntArray
    patient: IntArray
    n_patients: int


def make_layout(design: str, n: int, prevalence: float, rng: np.random.Generator) -> Layout:
    if design == "single":
        patient = np.arange(n)
    else:
        sizes = rng.integers(1, 8, n)
        patient = np.repeat(np.arange(n), sizes)[:n]
    n_patients = int(patient.max()) + 1
    if design == "shared":
        positive = rng.permutation(n_patients) < max(1, round(prevalence * n_patients))
        y = positive[patient].astype(np.int64)
    else:
        y = (rng.permutation(n) < max(1, round(prevalence * n))).astype(np.int64)
    order = np.argsort(-y, kind="stable")
    return Layout(y[order], patient[order], n_patients)


def draw_scores(layout: Layout, truth: float, samples: int, rng: np.random.Generator) -> FloatArray:
    """(samples, n): variance 1, half of it the patient's, positives shifted so that two patients' images give the AUROC `truth`."""
    own = rng.standard_normal((samples, len(layout.y)))
    shared = rng.standard_normal((samples, layout.n_patients))[:, layout.patient]
    scores: FloatArray = np.sqrt(0.5) * (own + shared) + np.sqrt(2) * ndtri(truth) * layout.y
    return scores


def simulate(layout: Layout, scores: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """AUROC, DeLong's and Obuchowski's variance of each sample, (samples,). The formulas of the package, all samples at once."""
    m = int(layout.y.sum())
    n = len(layout.y) - m
    order = np.argsort(scores, axis=1)
    is_case = order < m
    controls_below = np.empty(scores.shape)
    np.put_along_axis(controls_below, order, np.cumsum(~is_case, axis=1).astype(np.float64), axis=1)
    cases_below = np.empty(scores.shape)
    np.put_along_axis(cases_below, order, np.cumsum(is_case, axis=1).astype(np.float64), axis=1)
    v10, v01 = controls_below[:, :m] / n, 1 - cases_below[:, m:] / m
    auroc = v10.mean(axis=1)
    d10, d01 = v10 - auroc[:, None], v01 - auroc[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        delong = (d10**2).sum(axis=1) / (m * np.float64(m - 1)) + (d01**2).sum(axis=1) / (n * np.float64(n - 1))
    cases, controls = (
        _by_patient(d10, layout.patient[:m], layout.n_patients) / m,
        _by_patient(d01, layout.patient[m:], layout.n_patients) / n,
    )
    design = cluster_design(layout.y, layout.patient, layout.n_patients)
    i10, i01, i = (np.float64(count) for count in (design.n_patients_positive, design.n_patients_negative, layout.n_patients))
    with np.errstate(divide="ignore", invalid="ignore"):
        obuchowski = (cases**2).sum(axis=1) * i10 / (i10 - 1) + (controls**2).sum(axis=1) * i01 / (i01 - 1)
        obuchowski += 2 * (cases * controls).sum(axis=1) * i / (i - 1)
    return auroc, delong, obuchowski


def _by_patient(values: FloatArray, patient: IntArray, n_patients: int) -> FloatArray:
    membership = sparse.csr_matrix((np.ones(len(patient)), (np.arange(len(patient)), patient)), shape=(len(patient), n_patients))
    sums: FloatArray = np.asarray((membership.T @ values.T).T)
    return sums


def covered(truth: float, auroc: FloatArray, variance: FloatArray, sizes: tuple[FloatArray, FloatArray], method: str) -> FloatArray:
    """Whether each interval contains the truth; Newcombe's answers where a variance is 0, as in `auroc_interval`."""
    m, n = sizes
    spread = truth * (1 - truth) * (1 + ((m + n) / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))) / (m * n)
    newcombe = np.abs(auroc - truth) <= Z * np.sqrt(spread)
    if method == "newcombe":
        return newcombe
    usable = (auroc > 0) & (auroc < 1) & (variance > NO_VARIANCE)
    inside = np.clip(auroc, 1e-9, 1 - 1e-9)
    se = np.sqrt(np.where(usable, variance, 1.0))
    gap = np.abs(logit(inside) - logit(truth)) * inside * (1 - inside) if method == "logit" else np.abs(auroc - truth)
    return np.where(usable, gap <= Z * se, newcombe)


def newcombe_sizes(design: Design, auroc: FloatArray, delong: FloatArray, obuchowski: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`effective_sizes` of each sample: the design effect is estimated anew in each."""
    usable = (delong > NO_VARIANCE) & (obuchowski > NO_VARIANCE)
    design_effect = np.divide(obuchowski, delong, out=np.full(len(auroc), np.nan), where=usable)
    sizes = np.array([effective_sizes(design, float(effect)) for effect in design_effect])
    return sizes[:, 0], sizes[:, 1]


def coverage_of(design: str, n: int, prevalence: float, truth: float, samples: int) -> tuple[dict[str, float], Layout]:
    seed = [list(DESIGNS).index(design), n, round(1000 * prevalence), round(1000 * truth)]
    layout = make_layout(design, n, prevalence, np.random.default_rng(seed[:3]))
    counts = cluster_design(layout.y, layout.patient, layout.n_patients)
    rng, hits, done = np.random.default_rng(seed), dict.fromkeys(METHODS, 0.0), 0
    while done < samples:
        k = min(samples - done, max(1, CHUNK // n))
        scores = draw_scores(layout, truth, k, rng)
        auroc, delong, obuchowski = simulate(layout, scores)
        if done == 0:
            _require_the_package_agrees(layout, scores[0], auroc[0], obuchowski[0])
        sizes = newcombe_sizes(counts, auroc, delong, obuchowski)
        for method in METHODS:
            variance = delong if method == "delong" else obuchowski
            hits[method] += covered(truth, auroc, variance, sizes, method).sum()
        done += k
    return {method: hits[method] / samples for method in METHODS}, layout


def _require_the_package_agrees(layout: Layout, scores: FloatArray, auroc: float, variance: float) -> None:
    """The simulation is about the package's interval, not about a copy of it that may differ."""
    found = auroc_interval(layout.y, scores, layout.patient)
    assert found.value is not None
    assert abs(found.value - auroc) < 1e-12
    assert found.se is None or abs(found.se**2 - variance) < 1e-12


def recommend(by_truth: list[dict[str, float]]) -> str:
    """The first interval within 93-97% at each true AUROC; else the one that comes nearest, with how near."""
    for method in METHODS[1:]:
        if all(0.93 <= cell[method] <= 0.97 for cell in by_truth):
            return method
    safe = [method for method in METHODS[1:] if all(cell[method] >= 0.93 for cell in by_truth)]
    if safe:
        return f"{min(safe, key=lambda method: max(cell[method] for cell in by_truth))} (too wide)"
    best = max(METHODS[1:], key=lambda method: min(cell[method] for cell in by_truth))
    return f"none ({best}: {100 * min(cell[best] for cell in by_truth):.0f}%)"


def shown(by_truth: list[dict[str, float]], method: str) -> str:
    return " / ".join(f"{100 * cell[method]:.1f}{'' if 0.93 <= cell[method] <= 0.97 else '*'}" for cell in by_truth)


@dataclass(frozen=True)
class Cell:
    """One row of a table: coverage by method at each of TRUTHS."""

    design: str
    n: int
    prevalence: float
    counts: Design
    by_truth: list[dict[str, float]]

    @property
    def line(self) -> str:
        methods = METHODS[1:] if self.design == "single" else METHODS
        columns = [f"{self.n}", f"{100 * self.prevalence:.0f}%", f"{self.counts.n_positive} ({self.counts.n_patients_positive})"]
        return "| " + " | ".join([*columns, *(shown(self.by_truth, method) for method in methods), recommend(self.by_truth)]) + " |"

    def lowest(self, method: str, enough: float) -> float:
        """The lowest coverage among the true AUROCs at which `auroc_interval` gives no warning."""
        fewest = min(self.counts.n_patients_positive, self.counts.n_patients_negative)
        return min((cell[method] for truth, cell in zip(TRUTHS, self.by_truth, strict=True) if fewest * (1 - truth) >= enough), default=1.0)


def run(samples: int) -> Iterator[Cell]:
    for design in DESIGNS:
        for n in SIZES:
            for prevalence in PREVALENCES:
                found = [coverage_of(design, n, prevalence, truth, samples) for truth in TRUTHS]
                layout = found[0][1]
                counts = cluster_design(layout.y, layout.patient, layout.n_patients)
                yield Cell(design, n, prevalence, counts, [cell for cell, _ in found])


def report(samples: int) -> str:
    cells = list(run(samples))
    lines = [
        "# Coverage of the 95% intervals of the AUROC",
        "",
        f"`python benchmarks/coverage.py --samples {samples}`: percent of {samples} simulated samples whose interval contains the truth, at a true",
        f"AUROC of {' / '.join(f'{truth:.2f}' for truth in TRUTHS)} (Monte Carlo error {100 * np.sqrt(0.95 * 0.05 / samples):.1f} points). A star marks",
        "less than 93% or more than 97%. Default: DeLong with one image per patient, Obuchowski otherwise; logit: the same variance on the",
        "logit scale; Newcombe at the effective numbers of cases. Where a variance is 0 (an AUROC of 1, one positive) all columns hold",
        "Newcombe's interval, as in `auroc_interval`. Named in the last column: the first of the three within 93-97% at every AUROC, else",
        "the one that is nowhere too narrow.",
        "",
        "Lowest coverage where `auroc_interval` gives no warning (fewest: cases, or patients, of the rarer class):",
        "",
    ]
    for method, enough in (("default", FEW_WALD), ("logit", FEW_LOGIT), ("newcombe", 0.0)):
        rule = f"fewest x (1 - AUROC) at least {enough:g}" if enough else "everywhere"
        lines.append(f"* {method}, {rule}: {100 * min(cell.lowest(method, enough) for cell in cells):.1f}%")
    for design, words in DESIGNS.items():
        extra = "" if design == "single" else " DeLong (wrong here) |"
        lines += ["", f"## {words}", "", f"| images | prevalence | positive images (patients) |{extra} default | logit | Newcombe | use |"]
        lines.append("|" + "---|" * (7 if design == "single" else 8))
        lines += [cell.line for cell in cells if cell.design == design]
    lines += proportion_table(max(200, samples // 4))
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- clustered proportions

PATIENTS, SHARES, CORRELATIONS = (5, 10, 20, 50, 200), (0.70, 0.90, 0.97), (0.05, 0.3, 0.7)


def proportion_coverage(n_patients: int, share: float, correlation: float, samples: int) -> tuple[float, float]:
    """Coverage of `proportion_interval` and of the Wald interval; hits of a patient's 1-7 images are beta-binomial."""
    rng = np.random.default_rng([n_patients, round(100 * share), round(100 * correlation)])
    sizes = rng.integers(1, 8, n_patients)
    alpha, beta = share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1)
    patient = np.repeat(np.arange(n_patients), sizes)
    clustered = wald = 0
    for _ in range(samples):
        hit = rng.random(len(patient)) < rng.beta(alpha, beta, n_patients)[patient]
        found = proportion_interval(hit, patient)
        assert found.value is not None and found.low is not None and found.high is not None and found.se is not None
        clustered += found.low <= share <= found.high
        wald += abs(found.value - share) <= Z * found.se
    return clustered / samples, wald / samples


def proportion_table(samples: int) -> list[str]:
    lines = [
        "",
        "## sensitivity or specificity, 1-7 images per patient",
        "",
        "Wilson's interval at the effective size (`proportion_interval`), in brackets the Wald interval of the ratio estimator.",
    ]
    lines += [f"Per proportion: correlation within a patient {' / '.join(f'{value:g}' for value in CORRELATIONS)}; {samples} samples.", ""]
    lines += ["| patients | " + " | ".join(f"proportion {share:g}" for share in SHARES) + " |", "|" + "---|" * (1 + len(SHARES))]
    for n_patients in PATIENTS:
        columns = []
        for share in SHARES:
            cells = [proportion_coverage(n_patients, share, correlation, samples) for correlation in CORRELATIONS]
            columns.append(" / ".join(f"{100 * own:.0f}{'' if 0.93 <= own <= 0.97 else '*'} ({100 * wald:.0f})" for own, wald in cells))
        lines.append(f"| {n_patients} | " + " | ".join(columns) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=4000, help="simulated samples per cell")
    parser.add_argument("--out", type=Path, help="write the table here instead of printing it")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        table = report(arguments.samples)
    if arguments.out is None:
        print(table)
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
