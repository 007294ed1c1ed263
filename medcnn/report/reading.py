"""A run's facts, read once: results seen from the headline, the units that were evaluated, counts at every threshold."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from medcnn.evaluation.levels import UnitTable, at_level
from medcnn.report.counts import ThresholdCounts, count_thresholds, probability_bins
from medcnn.report.facts import RunFacts
from medcnn.report.lookup import MANY_LABELS, Distribution, Results
from medcnn.report.words import rows_words, rule_words
from medcnn.tables import Task, infer_task, label_matrix, label_names

COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")
FINE_STEPS, COARSE_STEPS = 1000, 100


@dataclass(frozen=True)
class Reading:
    """One model's facts with what follows from them."""

    facts: RunFacts
    results: Results

    @cached_property
    def thresholds(self) -> dict[str, list[float]]:
        """Thresholds of each label: those with records, else those of the operating points."""
        stated = {label: self.results.thresholds(label) for label in self.results.labels}
        return {
            label: found or [point.threshold for point in self.facts.thresholds if point.label == label] for label, found in stated.items()
        }

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """The predictions of the part that the headline is about."""
        table = self.facts.predictions
        if table is None:
            return None
        return table[table["part"] == self.results.part].reset_index(drop=True)

    @cached_property
    def units(self) -> UnitTable | None:
        """The units of the headline's level: images, studies or patients."""
        if self.rows is None or self.rows.empty:
            return None
        aggregation = self.facts.config.evaluation.aggregation if self.facts.config is not None else "mean"
        return at_level(self.rows, self.results.level, aggregation, self.task)

    @cached_property
    def task(self) -> Task:
        """binary, multiclass or multilabel; from the plan, the fingerprint or the labels themselves."""
        if self.facts.plan is not None:
            return self.facts.plan.task
        if self.facts.fingerprint is not None:
            return self.facts.fingerprint.task
        if self.facts.predictions is None:
            return "binary" if len(self.results.labels) == 1 else "multilabel"
        return infer_task(label_matrix(self.facts.predictions, label_names(self.facts.predictions)))

    @cached_property
    def counts(self) -> dict[str, ThresholdCounts]:
        """Counts at every threshold of each label; empty without predictions."""
        if self.units is None:
            return {}
        n_steps = FINE_STEPS if len(self.units.labels) <= MANY_LABELS else COARSE_STEPS
        return {
            label: count_thresholds(
                self.units.y[:, k], self.units.p[:, k], label=label, extra=self.thresholds.get(label, ()), n_steps=n_steps
            )
            for k, label in enumerate(self.units.labels)
        }

    def labelled(self, label: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels (n,) and probabilities (n,) of the evaluated units that have this label; None without predictions."""
        if self.units is None or label not in self.units.labels:
            return None
        k = self.units.labels.index(label)
        known = ~np.isnan(self.units.y[:, k])
        return self.units.y[known, k], self.units.p[known, k]

    def cells(self, label: str, threshold: float) -> tuple[int, int, int, int] | None:
        """True positives, false positives, false negatives, true negatives at a threshold; None when unknown.

        Of the records when they have them: with cross-validation a threshold may differ by fold, and stands for its mean.
        """
        found = [self.results.best(metric, label, threshold=threshold) for metric in COUNTS]
        if all(record is not None and record.value is not None for record in found):
            tp, fp, fn, tn = (round(record.value or 0) for record in found if record is not None)
            return tp, fp, fn, tn
        return self.counts[label].at(threshold) if label in self.counts else None

    def distribution(self, label: str, *, recalibration: str | None = None) -> Distribution | None:
        """How the probabilities are spread within each class: of the curves, else of the predictions; None when unknown."""
        known = self.results.distribution(label, recalibration=recalibration)
        if known is not None or recalibration not in {None, self.results.recalibration}:
            return known
        units = self.labelled(label)
        if units is None or not units[0].size:
            return None
        return Distribution(*probability_bins(*units))

    def fractions(self, label: str, threshold: float) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each proportion at a threshold; empty when counts are unknown."""
        cells = self.cells(label, threshold)
        if cells is None:
            return {}
        tp, fp, fn, tn = cells
        return {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}

    def rule(self, label: str, threshold: float) -> str:
        """How a threshold was chosen, in words; empty when unknown."""
        for point in self.facts.thresholds:
            if point.label == label and abs(point.threshold - threshold) < 1e-9:
                return rule_words(point.rule) + (f", on {rows_words(point.chosen_on)}" if point.chosen_on else "")
        return ""

    def prevalence(self, label: str) -> float | None:
        """Share of the evaluated units with the label; None when unknown."""
        record = self.results.first(label)
        if record is None or record.n_positive is None or not record.n:
            return None
        return record.n_positive / record.n


def read_facts(facts: RunFacts) -> Reading:
    """The facts with their results, seen from the headline."""
    level = (
        facts.plan.evaluation.levels[0]
        if facts.plan is not None
        else facts.config.evaluation.units[0]
        if facts.config is not None
        else None
    )
    return Reading(facts, Results(facts.records, facts.curves, recalibration=facts.recalibration, level=level))
