"""Finding a number among a run's records, and a curve among its curves; what the headline is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.report.numbers import is_known
from medcnn.tables import Record

AVERAGES = ("macro", "weighted", "micro", "all")  # all: the whole probability vector of several classes
RESTATED = "restated_"  # methods of predictive values at another prevalence than that of the tested rows
FINE_POINTS, COARSE_POINTS, MANY_LABELS = 500, 150, 20  # a page stays below 5 MB
ANY = object()


@dataclass(frozen=True)
class Distribution:
    """Numbers of negatives and positives (k,) in bins of the probability with edges (k + 1,)."""

    edges: np.ndarray
    negatives: np.ndarray
    positives: np.ndarray


class Results:
    """Records and curves of one model, seen from the headline: one part, one level, one recalibration, all rows.

    part: test if there is one. level: that of the first record of the part. recalibration: as asked, else the one
    that differs from "none" if there is exactly one, else "none".
    """

    def __init__(
        self, records: Sequence[Record], curves: pd.DataFrame, *, recalibration: str | None = None, level: str | None = None
    ) -> None:
        parts = [record.part for record in records]
        self.part = "test" if "test" in parts or not parts else parts[0]
        self.every = [record for record in records if record.part == self.part]
        levels = list(dict.fromkeys(record.level for record in self.every))
        self.levels = levels
        self.level = level if level in levels else (levels[0] if levels else "image")
        here = [record for record in self.every if record.level == self.level]
        kinds = list(dict.fromkeys(record.recalibration for record in here))
        done = [kind for kind in kinds if kind != "none"]
        self.recalibrations = kinds
        self.recalibration = (
            recalibration
            if recalibration in kinds
            else (done[0] if len(done) == 1 else "none" if "none" in kinds or not kinds else kinds[0])
        )
        self.records = here
        self.curves = curves
        named = list(dict.fromkeys(record.label for record in here))
        own = [label for label in named if label not in AVERAGES]
        self.labels = own or named
        self.averages = [label for label in AVERAGES if label in named] if own else []

    @property
    def headline(self) -> str:
        """The label of the headline: the only label, else macro, else the first."""
        if len(self.labels) == 1:
            return self.labels[0]
        return self.averages[0] if self.averages else (self.labels[0] if self.labels else "")

    def find(
        self,
        metric: str,
        label: str | None = None,
        *,
        subset: str = "all",
        threshold: object = ANY,
        recalibration: str | None = None,
        level: str | None = None,
    ) -> list[Record]:
        """All records that fit, in their order. threshold: a number (within 1e-9), None, or ANY."""
        pool = self.records if level is None else [record for record in self.every if record.level == level]
        wanted = recalibration or self.recalibration
        return [
            record
            for record in pool
            if record.metric == metric
            and (label is None or record.label == label)
            and record.subset == subset
            and record.recalibration == wanted
            and _same_threshold(record.threshold, threshold)
        ]

    def best(
        self, metric: str, label: str, *, subset: str = "all", threshold: object = ANY, recalibration: str | None = None
    ) -> Record | None:
        """The one record to print: the first that is estimable and has an interval; evaluation puts the fitting method first."""
        found = self.find(metric, label, subset=subset, threshold=threshold, recalibration=recalibration)
        return min(found, key=_lacks) if found else None

    def restated(self, metric: str, label: str, threshold: float) -> Record | None:
        """PPV or NPV restated to the prevalence of the intended use; None when none was given."""
        return next((record for record in self.find(metric, label, threshold=threshold) if record.method.startswith(RESTATED)), None)

    def heterogeneity(self, label: str) -> list[Record]:
        """Tests that the AUROC is the same in all subgroups of a covariate; the covariate is their subset."""
        return [
            record
            for record in self.records
            if record.metric == "heterogeneity_auroc" and record.label == label and record.recalibration == self.recalibration
        ]

    def thresholds(self, label: str) -> list[float]:
        """Thresholds at which sensitivity was taken for this label, in the order of the records."""
        values = [record.threshold for record in self.find("sensitivity", label) if record.threshold is not None]
        return list(dict.fromkeys(values))

    def subsets(self) -> list[str]:
        """Subgroups for which there is any record, in order."""
        tests = {record.subset for record in self.records if record.metric.startswith("heterogeneity")}
        return list(dict.fromkeys(record.subset for record in self.records if record.subset not in {"all", *tests}))

    def curve(self, name: str, label: str, *, recalibration: str | None = None, subset: str = "all") -> pd.DataFrame:
        """The rows of one curve, in their order, few enough to be drawn; empty when it was not computed."""
        table = self.curves
        if table.empty:
            return table
        keep = (table["curve"] == name) & (table["label"] == label)
        for column, value in (
            ("part", self.part),
            ("level", self.level),
            ("subset", subset),
            ("recalibration", recalibration or self.recalibration),
        ):
            if column in table:
                keep &= table[column].fillna(value) == value
        return thin(table[keep].reset_index(drop=True), FINE_POINTS if len(self.labels) <= MANY_LABELS else COARSE_POINTS)

    def distribution(self, label: str, *, recalibration: str | None = None) -> Distribution | None:
        """How the probabilities are spread within each class; None when it was not computed."""
        sides = [self.curve(f"distribution_{side}", label, recalibration=recalibration) for side in ("negative", "positive")]
        known = [side for side in sides if not side.empty]
        if not known:
            return None
        edges = np.append(known[0]["low"].to_numpy(dtype=float), known[0]["high"].iloc[-1])
        empty = np.zeros(len(edges) - 1)
        negatives, positives = (empty if side.empty else side["n"].to_numpy(dtype=float) for side in sides)
        return Distribution(edges, negatives, positives)

    def first(self, label: str) -> Record | None:
        """A record of this label that carries the counts: n, n_positive, n_patients."""
        for metric in ("auroc", "brier", "log_loss"):
            record = self.best(metric, label)
            if record is not None:
                return record
        return next((record for record in self.records if record.label == label and record.subset == "all"), None)


def _same_threshold(value: float | None, wanted: object) -> bool:
    if wanted is ANY:
        return True
    if value is None or wanted is None:
        return value is None and wanted is None
    return isinstance(wanted, int | float) and abs(value - float(wanted)) < 1e-9


def _lacks(record: Record) -> tuple[bool, bool, bool]:
    return (not is_known(record.value), record.method.startswith(RESTATED), not is_known(record.low))


def thin(frame: pd.DataFrame, n_points: int) -> pd.DataFrame:
    """At most n_points rows of a curve, evenly taken, always with its ends."""
    if len(frame) <= n_points:
        return frame
    keep = np.unique(np.linspace(0, len(frame) - 1, n_points).round().astype(int))
    return frame.iloc[keep].reset_index(drop=True)
