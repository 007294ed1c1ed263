"""The page: sections and the summary through the templates, everything inline, nothing fetched."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

import medcnn
from medcnn.report.blocks import Figure, Section
from medcnn.report.charts import calibration_chart, decision_chart, roc_chart
from medcnn.report.checklist import checklist_blocks
from medcnn.report.cohort_sections import data_section, identity_section, methods_section, reference_section
from medcnn.report.context_sections import errors_section, provenance_section, subgroups_section, training_section
from medcnn.report.cost_section import cost_section
from medcnn.report.decision_sections import classification_section, utility_section
from medcnn.report.facts import RunFacts
from medcnn.report.ladder_sections import ladder_section
from medcnn.report.numbers import date
from medcnn.report.performance_sections import (
    calibration_section,
    discrimination_section,
    label_distribution,
    label_forest,
    operating_points,
    overall_section,
)
from medcnn.report.prose import methods_paragraph, results_paragraph
from medcnn.report.reading import Reading, read_facts
from medcnn.report.summary import Summary, summarise


def build_report(facts: RunFacts) -> str:
    """One self-contained HTML page about one model: byte for byte the same for the same facts; no network, no outside file."""
    reading = read_facts(facts)
    title = (facts.config.report.title if facts.config is not None else "") or facts.name
    authors = facts.config.report.authors if facts.config is not None else ""
    summary = summarise(reading, summary_figures(reading))
    return render_page(
        title=title, authors=authors, kicker="Model evaluation", summary=summary, sections=report_sections(reading), made=_made(facts)
    )


def render_page(*, title: str, authors: str, kicker: str, summary: Summary, sections: Sequence[Section], made: str) -> str:
    """The page of a summary and its sections."""
    page = _environment().get_template("report.html")
    return page.render(title=title, authors=authors, kicker=kicker, summary=summary, sections=sections, made=made)


def report_sections(reading: Reading) -> list[Section]:
    """The sections of a run's report, in the order of the reporting guidance; the ladder only where there is one."""
    methods, results = methods_paragraph(reading), results_paragraph(reading)
    return [
        identity_section(reading),
        data_section(reading),
        reference_section(reading),
        methods_section(reading),
        discrimination_section(reading),
        calibration_section(reading),
        overall_section(reading),
        *([ladder_section(reading)] if reading.facts.ladder else []),
        classification_section(reading),
        utility_section(reading),
        subgroups_section(reading),
        training_section(reading),
        errors_section(reading),
        cost_section(reading),
        provenance_section(reading, checklist_blocks(reading), [methods, results]),
    ]


def summary_figures(reading: Reading) -> list[Figure]:
    """The four essential plots of the headline label; none when there are several labels (the sections have them)."""
    results = reading.results
    if len(results.labels) != 1:
        chart = label_forest(results, id="forest-summary")
        return [chart] if chart else []
    label = results.labels[0]
    points = results.thresholds(label)
    charts = [
        roc_chart({label: results.curve("roc", label)}, name=label, id_words=["summary"], points=operating_points(reading, label)),
        calibration_chart(results, label, name=label, id_words=["summary"], spread=reading.distribution(label)),
        label_distribution(reading, label, words=["summary"]),
        decision_chart(
            {"Model": results.curve("decision_curve", label)},
            results.curve("decision_curve_all", label),
            name=label,
            id_words=["summary"],
            mark=points[0] if points else None,
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _made(facts: RunFacts) -> str:
    when = date(max((stamp.finished for stamp in facts.stamps), default=""))
    return f"medcnn {medcnn.__version__}" + (f", {when}" if when else "")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medcnn.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = _script_json
    environment.globals["inline"] = _inline
    return environment


def _inline(name: str) -> Markup:
    """A template file as it is: our own style sheet and script."""
    source = jinja2.PackageLoader("medcnn.report", "templates").get_source(_environment(), name)[0]
    return Markup(source)  # noqa: S704 - a file of this package


def _script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(sign, code)
    return Markup(text)  # noqa: S704 - the signs that matter were replaced
