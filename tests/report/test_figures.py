"""Figures on disk: an SVG that stands alone and the numbers it was drawn from."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from medcnn.report.blocks import walk_figures
from medcnn.report.facts import ComparisonFacts, RunFacts
from medcnn.report.figures import write_figures
from medcnn.report.html import report_sections
from medcnn.report.reading import read_facts


def test_each_figure_is_written_twice(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    facts = facts_of()
    files = write_figures(facts, tmp_path / "new" / "figures")
    names = {path.name for path in files}
    for name in ("roc", "precision-recall", "calibration", "distribution", "decision-curve", "thresholds", "forest"):
        assert {f"{name}-pneumonia.svg", f"{name}-pneumonia.csv"} <= names
    assert {"flow.svg", "training-loss.csv"} <= names
    for path in files:
        if path.suffix == ".svg":
            tree = ElementTree.parse(path).getroot()  # noqa: S314 - our own drawing
            assert tree.tag.endswith("svg")
            assert "var(" not in path.read_text()


def test_the_numbers_are_those_of_the_curves(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    facts = facts_of()
    write_figures(facts, tmp_path)
    drawn = pd.read_csv(tmp_path / "roc-pneumonia.csv")
    curve = facts.curves.query("curve == 'roc' and recalibration == 'temperature'").reset_index(drop=True)
    pd.testing.assert_frame_equal(drawn[["x", "y"]], curve[["x", "y"]])
    spread = pd.read_csv(tmp_path / "distribution-pneumonia.csv")
    assert facts.predictions is not None
    assert spread["n_positive"].sum() == facts.predictions["y_pneumonia"].sum()
    counts = pd.read_csv(tmp_path / "thresholds-pneumonia.csv")
    assert (counts[["tp", "fp", "fn", "tn"]].sum(axis=1) == len(facts.predictions)).all()


def test_labels_that_look_alike_get_files_of_their_own(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    facts = facts_of(labels=("a/b", "a b"), n=120)
    figures = walk_figures(report_sections(read_facts(facts)))
    assert len({figure.id for figure in figures}) == len(figures)
    write_figures(facts, tmp_path)
    assert len(list(tmp_path.glob("roc-a-b*.svg"))) == 2


def test_the_same_facts_give_the_same_files(
    facts_of: Callable[..., RunFacts], comparison_of: Callable[..., ComparisonFacts], tmp_path: Path
) -> None:
    for facts in (facts_of(), comparison_of()):
        first, second = (write_figures(facts, tmp_path / name) for name in ("one", "two"))
        assert len(first) == len(second) > 8
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_nothing_known_writes_nothing(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    assert write_figures(RunFacts(name="r", records=[]), tmp_path) == []
    assert write_figures(replace(facts_of(), records=[], curves=facts_of().curves.iloc[:0], predictions=None), tmp_path) != []
