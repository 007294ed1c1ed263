"""The two paragraphs say what was done and found, and nothing that is unknown."""

from collections.abc import Callable
from dataclasses import replace

from medcnn.report.facts import OperatingPoint, RunFacts
from medcnn.report.prose import methods_paragraph, results_paragraph
from medcnn.report.reading import read_facts

Facts = Callable[..., RunFacts]


def test_methods_name_what_was_done(facts_of: Facts) -> None:
    text = methods_paragraph(read_facts(facts_of())).text
    for said in (
        "2,000 images of 1,780 patients; 3 entries of 2,003 found were left out",
        "1,200 patients (1,400 images) for training",
        "tf_efficientnet_lite0 (3.37 million parameters)",
        "128 × 128 pixels",
        "15 epochs",
        "all images of a patient stayed in one part",
        "temperature scaling, fitted on the tuning part only",
        "Thresholds were set by the highest Youden index on tuning rows before the test part was opened",
        "AUROC (DeLong)",
        "medcnn 0.1.0 and torch 2.9.0",
    ):
        assert said in text, said


def test_results_carry_values_intervals_and_counts(facts_of: Facts) -> None:
    facts = facts_of()
    text = results_paragraph(read_facts(facts)).text
    frame = facts.predictions
    assert frame is not None
    n, events = len(frame), int(frame["y_pneumonia"].sum())
    assert f"internal test part held {n} images of {n} patients, {events}/{n}" in text
    found = next(r for r in facts.records if r.metric == "auroc" and r.recalibration == "temperature")
    assert f"The AUROC was {found.value:.3f} (95% interval {found.low:.3f} to {found.high:.3f}, DeLong)" in text
    assert f"({int((frame['p_pneumonia'] >= 0.42)[frame['y_pneumonia'] == 1].sum())}/{events}; " in text


def test_clusters_are_named(facts_of: Facts) -> None:
    reading = read_facts(facts_of(n=150, rich=False, images_per_patient=3))
    assert "150 images of 50 patients" in results_paragraph(reading).text
    assert "Obuchowski, patients as clusters" in methods_paragraph(reading).text
    assert "trained" not in methods_paragraph(reading).text


def test_several_labels_give_the_average_first(facts_of: Facts) -> None:
    text = results_paragraph(read_facts(facts_of(labels=("effusion", "mass"), n=300))).text
    assert text.index("macro AUROC over 2 labels") < text.index("effusion (") < text.index("mass (")


def test_a_rule_with_a_target_is_written_out(facts_of: Facts) -> None:
    points = [
        OperatingPoint(label="pneumonia", threshold=0.42, rule="sensitivity 0.95"),
        OperatingPoint(label="pneumonia", threshold=0.5, rule="cost 5"),
    ]
    text = methods_paragraph(read_facts(replace(facts_of(), thresholds=points))).text
    assert "a sensitivity of at least 0.95 and the lowest cost, one missed case weighing as much as 5 false alarms" in text


def test_nothing_known_says_nothing() -> None:
    reading = read_facts(RunFacts(name="r", records=[]))
    assert methods_paragraph(reading).text == ""
    assert results_paragraph(reading).text == ""
