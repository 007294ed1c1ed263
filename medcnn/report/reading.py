"""A run's facts, read once: results found from the headline, counts at every threshold. What all sections are given."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from medcnn.report.counts import ThresholdCounts, count_labels, tested_rows
from medcnn.report.facts import RunFacts
from medcnn.report.lookup import Results


@dataclass(frozen=True)
class Reading:
    """One model's facts with what follows from them."""

    facts: RunFacts
    results: Results

    @cached_property
    def thresholds(self) -> dict[str, list[float]]:
        """Thresholds of each label: those with records, then those of the operating points."""
        return {
            label: list(dict.fromkeys([*self.results.thresholds(label), *(p.threshold for p in self.facts.thresholds if p.label == label)]))
            for label in self.results.labels
        }

    @cached_property
    def counts(self) -> dict[str, ThresholdCounts]:
        """Counts at every threshold of each label; empty without predictions at the headline's level."""
        return dict(count_labels(self.facts.predictions, self.results.part, self.thresholds, level=self.results.level))

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """The predictions that the headline is about."""
        return tested_rows(self.facts.predictions, self.results.part)

    def labelled(self, label: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels (n,) and probabilities (n,) of the tested rows that have this label."""
        if self.rows is None or f"y_{label}" not in self.rows:
            return None
        known = self.rows[self.rows[f"y_{label}"].notna()]
        return known[f"y_{label}"].to_numpy(dtype=float), known[f"p_{label}"].to_numpy(dtype=float)

    def fractions(self, label: str, threshold: float) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each proportion at a threshold; empty when counts are unknown."""
        if label not in self.counts:
            return {}
        tp, fp, fn, tn = self.counts[label].at(threshold)
        return {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}

    def rule(self, label: str, threshold: float) -> str:
        """How a threshold was chosen, in words; empty when unknown."""
        for point in self.facts.thresholds:
            if point.label == label and abs(point.threshold - threshold) < 1e-9:
                return point.rule + (f", chosen on {point.chosen_on}" if point.chosen_on else "")
        return ""


def read_facts(facts: RunFacts) -> Reading:
    """The facts with their results, seen from the headline."""
    level = facts.config.evaluation.levels[0] if facts.config is not None else None
    return Reading(facts, Results(facts.records, facts.curves, recalibration=facts.recalibration, level=level))
