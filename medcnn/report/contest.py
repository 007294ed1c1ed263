"""A comparison's facts, read once, and the figures in which all models stand together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medcnn.report.blocks import Figure, Panels
from medcnn.report.charts import decision_chart, roc_chart, slug
from medcnn.report.diagrams import ForestRow, cost_chart, forest_chart
from medcnn.report.facts import ComparisonFacts
from medcnn.report.lookup import Results
from medcnn.report.numbers import difference, estimate, is_known
from medcnn.tables import Comparison

FEW_MODELS = 6


@dataclass(frozen=True)
class Contest:
    """The facts of a comparison with each model's results, found once."""

    facts: ComparisonFacts

    @cached_property
    def results(self) -> dict[str, Results]:
        """Model -> its results."""
        return {model.name: Results(model.records, model.curves, recalibration=model.recalibration) for model in self.facts.models}

    @property
    def first(self) -> Results:
        """The results of the first model: all have the same labels."""
        return next(iter(self.results.values()))

    @property
    def labels(self) -> list[str]:
        """The labels that all models were tested on."""
        return self.first.labels

    @property
    def headline(self) -> str:
        """The label of the headline: the only one, or the macro average."""
        return self.first.headline

    def differences(self, *metrics: str, label: str | None = None) -> list[Comparison]:
        """The paired differences of these metrics, in their order."""
        return [found for metric in metrics for found in self.facts.comparisons if found.metric == metric and label in {None, found.label}]

    def per_label(self, build: Callable[[str], Sequence[Any]]) -> list[Any]:
        """Blocks of each label, in panels when there are several."""
        panels = {label: list(build(label)) for label in self.labels}
        kept = {label: blocks for label, blocks in panels.items() if blocks}
        if len(self.labels) == 1:
            return list(kept.get(self.labels[0], []))
        return [Panels(list(kept), list(kept.values()))] if kept else []


def roc_overlay(contest: Contest, label: str, *words: str) -> Figure | None:
    """The ROC curves of all models, when they are few enough to be told apart."""
    if len(contest.results) > FEW_MODELS:
        return None
    return roc_chart({name: results.curve("roc", label) for name, results in contest.results.items()}, name=label, id_words=[label, *words])


def auroc_forest(contest: Contest, label: str) -> Figure | None:
    """The AUROC of each model with its interval."""
    found = [(name, record) for name, results in contest.results.items() if (record := results.best("auroc", label)) is not None]
    if not found:
        return None
    rows = [ForestRow(name, (), record.value, record.low, record.high, estimate(record)) for name, record in found]
    return forest_chart(
        rows,
        id=slug("forest-models", label),
        title=f"AUROC of each model, {label}",
        axis_title="AUROC",
        columns=(),
        reference=None,
        first="Model",
    )


def difference_forest(contest: Contest, label: str) -> Figure | None:
    """The paired AUROC differences with their intervals, against zero."""
    found = [
        record
        for record in contest.differences("auroc", label=label)
        if not record.method.endswith("_non_inferiority") and is_known(record.difference)
    ]
    if not found:
        return None
    rows = [ForestRow(f"{record.a} − {record.b}", (), record.difference, record.low, record.high, difference(record)) for record in found]
    return forest_chart(
        rows,
        id=slug("forest-differences", label),
        title=f"AUROC differences, {label}",
        axis_title="Difference in AUROC",
        columns=(),
        reference=0.0,
        first="Pair",
    )


def decision_overlay(contest: Contest, label: str, *words: str) -> Figure | None:
    """The decision curves of all models, when they are few enough to be told apart."""
    if len(contest.results) > FEW_MODELS:
        return None
    curves = {name: results.curve("decision_curve", label) for name, results in contest.results.items()}
    return decision_chart(curves, contest.first.curve("decision_curve_all", label), name=label, id_words=[label, *words])


def cost_figure(contest: Contest, key: str, title: str, *, id: str = "") -> Figure | None:
    """AUROC against one cost, for the models whose cost is known; None for fewer than two."""
    points = []
    for model in contest.facts.models:
        record, value = contest.results[model.name].best("auroc", contest.headline), model.model.get(key)
        if record is not None and record.value is not None and value:
            points.append((model.name, float(value), record.value, record.low, record.high))
    return cost_chart(points, axis_title=title, id=id or slug("cost", key)) if len(points) > 1 else None
