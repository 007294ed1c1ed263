"""Cost: stages grouped by rung, sums and peaks by hand, energy that was not measured says so."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from medcnn.report.blocks import Facts as Pairs
from medcnn.report.blocks import Table, Text
from medcnn.report.cost_section import cost_section
from medcnn.report.facts import Energy, RunFacts
from medcnn.report.reading import read_facts

Facts = Callable[..., RunFacts]


def pairs_of(facts: RunFacts) -> dict[str, str]:
    found = [block for block in cost_section(read_facts(facts)).blocks if isinstance(block, Pairs)]
    return dict(found[0].pairs)


def test_models_of_a_rung_share_a_row(facts_of: Facts) -> None:
    facts = facts_of()
    ingest, train, evaluate = facts.stamps
    models = [
        replace(train, settings={"rung": "main"}, peak_memory_mb=900.0 + 400 * k, finished=f"2025-11-22T1{k}:00:00+0000") for k in range(3)
    ]
    small = replace(train, settings={"rung": "simple_cnn"})
    (table,) = [
        block
        for block in cost_section(read_facts(replace(facts, stamps=[ingest, *models, small, evaluate]))).blocks
        if isinstance(block, Table)
    ]
    assert [list(row) for row in table.rows[:3]] == [
        ["ingest", "1", "1.6 s", "3.1 s", "800 MB", "22 Nov 2025, 18:00"],
        ["train, main model", "3", "2 min 16 s", "4 min 33 s", "1.7 GB", "22 Nov 2025, 12:00"],
        ["train, small network", "1", "46 s", "1 min 31 s", "800 MB", "22 Nov 2025, 18:00"],
    ]
    assert list(table.rows[-1]) == ["all", "", "3 min 6 s", "6 min 11 s", "1.7 GB", ""]
    assert table.strong_rows == [4]


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        (None, "not measured (install the extra energy)"),
        (Energy(watt_hours=53.2, kg_co2=0.021, source="codecarbon 3"), "53.2 Wh, 0.021 kg CO₂ equivalents (codecarbon 3)"),
        (Energy(watt_hours=53.2), "53.2 Wh (codecarbon)"),
    ],
)
def test_energy(facts_of: Facts, energy: Energy | None, words: str) -> None:
    assert pairs_of(replace(facts_of(), energy=energy))["Energy"] == words


def test_gpu_time_of_the_headline(facts_of: Facts) -> None:
    facts = facts_of()
    assert "GPU time in training" not in pairs_of(facts)
    on_gpu = [replace(rung, gpu_seconds=70.0 if rung.name == "main" else 95.0) for rung in facts.ladder]
    assert pairs_of(replace(facts, ladder=on_gpu))["GPU time in training"] == "1 min 35 s"


def test_a_bare_file_has_no_cost(facts_of: Facts) -> None:
    (block,) = cost_section(read_facts(facts_of(rich=False, n=150, images_per_patient=3))).blocks
    assert isinstance(block, Text)
    assert "not estimable" in block.text
