"""Several models on the same test rows: every pair, every label, differences first, p values corrected for the number of pairs.

A difference is a - b. Nothing is compared unless the models were tested on the same images with the same labels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.alignment import align_tables
from medcnn.evaluation.clustered import influence_variance
from medcnn.evaluation.estimates import BoolArray, FloatArray, IntArray, repeated_patients
from medcnn.evaluation.intervals import patient_codes
from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.evaluation.multiclass import Task as AurocTask
from medcnn.evaluation.multiclass import label_tasks, mean_auroc_influence, pair_tasks
from medcnn.evaluation.operating_points import Thresholds
from medcnn.evaluation.paired_metrics import LOWER_IS_BETTER, difference_of, paired_metric
from medcnn.evaluation.seeds import seed_difference, seed_groups
from medcnn.evaluation.significance import (
    Difference,
    McNemar,
    adjust_p,
    linearised_difference,
    non_inferiority,
    paired_auroc_test,
    paired_proportion_test,
)
from medcnn.tables import Comparison, infer_task, label_matrix, label_names

Pairs = list[tuple[int, int]]
WHOLE = "all"  # label of what concerns the whole probability vector of a multi-class model


@dataclass(frozen=True)
class Contest:
    """Models on the rows of one label. y (n,); p: one (n,) per model; patient (n,) codes or None; fold (n,)."""

    names: Sequence[str]
    label: str
    y: FloatArray
    p: Sequence[FloatArray]
    patient: IntArray | None
    fold: IntArray

    @property
    def pairs(self) -> Pairs:
        """All pairs of models, in the order given."""
        return list(combinations(range(len(self.names)), 2))

    def comparison(self, metric: str, a: int, b: int, found: Difference, threshold: float | None = None, note: str = "") -> Comparison:
        """The record of a found difference."""
        return Comparison(
            metric=metric,
            label=self.label,
            a=self.names[a],
            b=self.names[b],
            difference=found.difference,
            low=found.low,
            high=found.high,
            statistic=found.statistic,
            p=found.p,
            method=found.method,
            threshold=threshold,
            n=len(self.y),
            n_patients=len(self.y) if self.patient is None else len(np.unique(self.patient)),
            note="; ".join(part for part in (found.note, note) if part),
        )


def compare_models(tables: Mapping[str, pd.DataFrame], config: EvaluationConfig, thresholds: Mapping[str, Thresholds]) -> list[Comparison]:
    """Every paired difference of `comparison.json`, for all pairs of models and each label.

    tables: model -> checked predictions table of its test rows; thresholds: model -> label -> operating points (a number,
    or fold -> number), in the same order for each model. Comparisons are made at the first of config.units. Per label:
    AUROC (DeLong, or Obuchowski when patients repeat), non-inferiority when config.margin is set, sensitivity, specificity
    and accuracy at each operating point (McNemar), and by bootstrap Brier score, log-loss, average precision, calibration
    slope and, where both models share a threshold, net benefit. Of several labels also the macro AUROC, of several classes
    Hand-Till M and the top-1 accuracy; of models named METHOD_seedN also their methods, seeds averaged. p values are corrected over the pairs within one metric, label, method and threshold.
    Raises InputError for fewer than two models, and for models whose labels, images, parts, patients or truth differ.
    """
    tables = align_tables(tables)
    first = next(iter(tables.values()))
    task = infer_task(label_matrix(first, label_names(first)))
    units = {name: at_level(table, config.units[0], config.aggregation, task) for name, table in tables.items()}
    found: list[tuple[str, Comparison]] = []
    for column, label in enumerate(label_names(first)):
        contest = _contest(units, column, label)
        if len(contest.y):
            found += _label_comparisons(contest, config, [thresholds.get(name, {}).get(label, ()) for name in tables])
    if task != "binary":
        found += _across_labels(units, task == "multiclass")
    return _corrected(found, config.correction)


def _label_comparisons(
    contest: Contest, config: EvaluationConfig, thresholds: Sequence[Sequence[float | Mapping[int, float]]]
) -> Iterator[tuple[str, Comparison]]:
    yield from _aurocs(contest, config.margin)
    yield from _across_seeds(contest)
    for name in ("average_precision", "brier", "log_loss", "calibration_slope"):
        yield from _bootstrapped(contest, name, config)
    if len({len(points) for points in thresholds}) > 1:
        counts = ", ".join(f"{name} {len(points)}" for name, points in zip(contest.names, thresholds, strict=True))
        nothing = Difference(
            difference=None, method="mcnemar", note=f"not compared: the models have different numbers of operating points ({counts})"
        )
        yield from (("points", contest.comparison("accuracy", a, b, nothing)) for a, b in contest.pairs)
        return
    for slot, points in enumerate(zip(*thresholds, strict=True)):
        by_row = [_by_row(point, contest.fold, contest.label) for point in points]
        yield from _decisions(contest, by_row, str(slot))
        yield from _net_benefits(contest, by_row, str(slot), config)


# ---------------------------------------------------------------- what is compared


def _aurocs(contest: Contest, margin: float | None) -> Iterator[tuple[str, Comparison]]:
    for a, b in contest.pairs:
        test = paired_auroc_test(contest.y, contest.p[a], contest.p[b], contest.patient)
        yield "", contest.comparison("auroc", a, b, test)
        if margin is not None:
            yield "", _non_inferiority(contest, a, b, test, margin)
            mirrored = paired_auroc_test(contest.y, contest.p[b], contest.p[a], contest.patient)
            yield "", _non_inferiority(contest, b, a, mirrored, margin)


def _across_seeds(contest: Contest) -> Iterator[tuple[str, Comparison]]:
    """Methods of which several seeds were given, compared as groups."""
    scores = dict(zip(contest.names, contest.p, strict=True))
    for (a, models_a), (b, models_b) in combinations(seed_groups(contest.names).items(), 2):
        found = seed_difference(contest.y, [scores[name] for name in models_a], [scores[name] for name in models_b], contest.patient)
        yield "", replace(contest.comparison("auroc", 0, 1, found), a=a, b=b)


def _non_inferiority(contest: Contest, a: int, b: int, test: Difference, margin: float) -> Comparison:
    p, shown = non_inferiority(test, margin)
    verdict = f"{contest.names[a]} is {'' if shown else 'not shown to be '}non-inferior to {contest.names[b]} at a margin of {margin:g}"
    statistic = (test.difference + margin) / test.se if test.difference is not None and test.se else None
    named = replace(test, method=f"{test.method}_non_inferiority", p=p, statistic=statistic)
    return contest.comparison("auroc", a, b, named, note=verdict)


def _bootstrapped(
    contest: Contest, metric: str, config: EvaluationConfig, at: FloatArray | None = None, slot: str = "", threshold: float | None = None
) -> Iterator[tuple[str, Comparison]]:
    values = paired_metric(metric, contest.y, contest.p, contest.patient, n_resamples=config.n_bootstrap, seed=config.seed, thresholds=at)
    for a, b in contest.pairs:
        yield slot, contest.comparison(metric, a, b, difference_of(values, a, b, contest.patient), threshold)


def _decisions(contest: Contest, by_row: Sequence[FloatArray], slot: str) -> Iterator[tuple[str, Comparison]]:
    called = [p >= at for p, at in zip(contest.p, by_row, strict=True)]
    everyone = np.ones(len(contest.y), dtype=np.bool_)
    for metric, among in (("sensitivity", contest.y == 1), ("specificity", contest.y == 0), ("accuracy", everyone)):
        patient = None if contest.patient is None else repeated_patients(contest.patient[among], int(among.sum()))
        for a, b in contest.pairs:
            hits = [(called[model] == (contest.y == 1))[among] for model in (a, b)]
            shared, note = _shared_threshold(contest, by_row, a, b)
            for found in _mcnemars(*paired_proportion_test(hits[0], hits[1], patient)):
                record = contest.comparison(metric, a, b, found, shared, note)
                n_patients = record.n_patients if contest.patient is None else len(np.unique(contest.patient[among]))
                yield slot, replace(record, n=int(among.sum()), n_patients=min(n_patients, int(among.sum())))


def _mcnemars(found: Difference, counts: McNemar | None) -> Iterator[Difference]:
    """The asymptotic test and, for independent cases, the exact and the mid-p one with the same interval."""
    yield found
    if counts is not None:
        discordant = f"{counts.b} right only by a, {counts.c} only by b"
        yield replace(found, method="mcnemar_exact", statistic=float(min(counts.b, counts.c)), p=counts.p_exact, note=discordant)
        yield replace(found, method="mcnemar_mid_p", statistic=float(min(counts.b, counts.c)), p=counts.p_mid, note=discordant)


def _net_benefits(contest: Contest, by_row: Sequence[FloatArray], slot: str, config: EvaluationConfig) -> Iterator[tuple[str, Comparison]]:
    if all(np.array_equal(at, by_row[0]) for at in by_row) and by_row[0].max() < 1:
        threshold = float(by_row[0][0]) if np.ptp(by_row[0]) == 0 else None
        yield from _bootstrapped(contest, "net_benefit", config, by_row[0], slot, threshold)
        return
    reason = "not compared: the models' thresholds differ (or reach 1), and net benefits at different threshold probabilities are different quantities"
    nothing = Difference(difference=None, method="bootstrap", note=reason)
    yield from ((slot, contest.comparison("net_benefit", a, b, nothing)) for a, b in contest.pairs)


def _across_labels(units: Mapping[str, UnitTable], multiclass: bool) -> Iterator[tuple[str, Comparison]]:
    tables = list(units.values())
    first = tables[0]
    codes, n_patients = patient_codes(first.patient, len(first.patient))
    contest = Contest(list(units), "macro", first.y[:, 0], [], repeated_patients(first.patient, len(first.patient)), first.fold)
    yield from _mean_aurocs(contest, "auroc", label_tasks, tables, codes, n_patients)
    if not multiclass:
        return
    yield from _mean_aurocs(contest, "hand_till_m", pair_tasks, tables, codes, n_patients)
    whole = replace(contest, label=WHOLE)
    hits = [table.p.argmax(axis=1) == first.y.argmax(axis=1) for table in tables]
    for a, b in contest.pairs:
        for found in _mcnemars(*paired_proportion_test(hits[a], hits[b], contest.patient)):
            yield "", whole.comparison("accuracy", a, b, found, note="most probable class")


def _mean_aurocs(
    contest: Contest, metric: str, tasks_of: Callable[..., list[AurocTask]], tables: Sequence[UnitTable], codes: IntArray, n_patients: int
) -> Iterator[tuple[str, Comparison]]:
    usable = [[task for task in tasks_of(table.y, table.p, table.labels) if not task.lacking] for table in tables]
    if not usable[0]:
        return
    found = [mean_auroc_influence(tasks, codes, n_patients) for tasks in usable]
    unit = f"{len(usable[0])} labels" if metric == "auroc" else f"{len(usable[0]) // 2} pairs of classes"
    for a, b in contest.pairs:
        difference, variance = found[a][0] - found[b][0], influence_variance(found[a][1] - found[b][1])
        yield "", contest.comparison(metric, a, b, linearised_difference(difference, variance), note=f"mean of {unit}")


# ---------------------------------------------------------------- rows, thresholds, corrections


def _contest(units: Mapping[str, UnitTable], column: int, label: str) -> Contest:
    tables = list(units.values())
    first = tables[0]
    known: BoolArray = ~np.isnan(first.y[:, column])
    patient = repeated_patients(first.patient[known], int(known.sum()))
    return Contest(list(units), label, first.y[known, column], [table.p[known, column] for table in tables], patient, first.fold[known])


def _by_row(point: float | Mapping[int, float], fold: IntArray, label: str) -> FloatArray:
    if not isinstance(point, Mapping):
        return np.full(len(fold), float(point))
    absent = sorted({int(number) for number in fold} - {int(number) for number in point})
    if absent:
        raise InputError(f"comparison: label {label} has no threshold for fold {absent[0]}; there is one for folds {sorted(point)}")
    values = {int(number): float(value) for number, value in point.items()}
    return np.array([values[int(number)] for number in fold], dtype=np.float64)


def _shared_threshold(contest: Contest, by_row: Sequence[FloatArray], a: int, b: int) -> tuple[float | None, str]:
    if np.array_equal(by_row[a], by_row[b]) and np.ptp(by_row[a]) == 0:
        return float(by_row[a][0]), ""
    shown = [
        f"{contest.names[model]} at {by_row[model].mean():.4g}{' (mean over folds)' if np.ptp(by_row[model]) > 0 else ''}"
        for model in (a, b)
    ]
    return None, ", ".join(shown)


def _corrected(found: Sequence[tuple[str, Comparison]], correction: str) -> list[Comparison]:
    """p_adjusted within each metric, label, method and operating point; a fallback within a method does not split its group."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, (slot, record) in enumerate(found):
        groups.setdefault((record.metric, record.label, record.method, slot), []).append(index)
    adjusted: list[float | None] = [None] * len(found)
    for members in groups.values():
        for index, value in zip(members, adjust_p([found[index][1].p for index in members], correction), strict=True):
            adjusted[index] = value
    return [replace(record, p_adjusted=value) for (_, record), value in zip(found, adjusted, strict=True)]


# ---------------------------------------------------------------- in words

NAMES = {
    "auroc": "AUROC",
    "hand_till_m": "Hand-Till M",
    "average_precision": "average precision",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "net_benefit": "net benefit",
    "calibration_slope": "calibration slope",
}
DUPLICATES = frozenset({"mcnemar_exact", "mcnemar_mid_p"})  # other p values of a difference that is already told
LEVEL = 0.05


def comparison_sentences(comparisons: Sequence[Comparison], margin: float | None = None) -> list[str]:
    """What may be claimed, one sentence per pair and label for the AUROC and each metric that differs, then what does not differ.

    A difference is claimed when its corrected p is below 0.05. Non-inferiority is told when margin is given.
    """
    told = [record for record in comparisons if record.method not in DUPLICATES and not record.method.endswith("_non_inferiority")]
    sentences = [_sentence(record) for record in told if record.metric in {"auroc", "hand_till_m"}]
    if margin is not None:
        sentences += [_verdict(record) for record in comparisons if record.method.endswith("_non_inferiority")]
    others = [record for record in told if record.metric not in {"auroc", "hand_till_m"} and record.difference is not None]
    sentences += [_sentence(record) for record in others if _claimed(record)]
    equal: dict[tuple[str, str, str], list[str]] = {}
    for record in others:
        if not _claimed(record):
            equal.setdefault((record.label, record.a, record.b), []).append(_metric(record))
    for (label, a, b), metrics in equal.items():
        sentences.append(f"{label}: between {a} and {b} no difference can be claimed in {', '.join(dict.fromkeys(metrics))}.")
    return sentences


def _sentence(record: Comparison) -> str:
    if record.difference is None:
        return f"{_of(record)}{record.a} and {record.b} cannot be compared ({record.note})."
    interval = "" if record.low is None or record.high is None else f", 95% interval {record.low:+.3g} to {record.high:+.3g}"
    p = "" if record.p_adjusted is None else ", corrected p " + ("below 0.001" if record.p_adjusted < 0.001 else f"{record.p_adjusted:.3f}")
    numbers = f"difference {record.difference:+.3g}{interval}{p}, {record.method}"
    if not _claimed(record):
        return f"{_of(record)}between {record.a} and {record.b} no difference can be claimed ({numbers})."
    word = "higher" if record.difference > 0 else "lower"
    better = " (better)" if (word == "lower") == (record.metric in LOWER_IS_BETTER) and record.metric != "calibration_slope" else ""
    return f"{_of(record)}{record.a} is {word}{better} than {record.b} ({numbers})."


def _claimed(record: Comparison) -> bool:
    return record.p_adjusted is not None and record.p_adjusted < LEVEL


def _verdict(record: Comparison) -> str:
    limit = "" if record.low is None else f" (lower limit of the difference {record.low:+.3g})"
    return f"{_of(record)}{record.note.split('; ')[-1]}{limit}."


def _of(record: Comparison) -> str:
    return (
        f"{record.label} {_metric(record)}: "
        if record.label in {"macro", "weighted", "micro"}
        else f"{_metric(record)} of {record.label}: "
    )


def _metric(record: Comparison) -> str:
    name = NAMES.get(record.metric, record.metric.replace("_", " "))
    return name if record.threshold is None else f"{name} at {record.threshold:.3g}"
