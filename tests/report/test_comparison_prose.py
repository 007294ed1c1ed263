"""The two paragraphs of a comparison."""

from collections.abc import Callable
from dataclasses import replace

from medcnn.report.comparison_prose import comparison_methods, comparison_results
from medcnn.report.contest import Contest
from medcnn.report.facts import ComparisonFacts


def test_methods_and_results(comparison_of: Callable[..., ComparisonFacts]) -> None:
    facts = comparison_of()
    methods, results = comparison_methods(Contest(facts)).text, comparison_results(Contest(facts)).text
    for said in (
        "efficientnet_lite0 and simple_cnn on the same 400 images of 400 patients",
        "AUROC (DeLong)",
        "(Holm)",
        "less than 0.05 below",
        "(McNemar)",
    ):
        assert said in methods, said
    assert "mid-p" not in methods
    found = next(record for record in facts.comparisons if record.metric == "auroc")
    assert f"was +{found.difference:.3f} ({found.low:.3f} to {found.high:.3f}), corrected p <0.001." in results
    assert "efficientnet_lite0 0.8" in results


def test_nothing_is_said_of_what_was_not_done(comparison_of: Callable[..., ComparisonFacts]) -> None:
    facts = replace(comparison_of(), comparisons=[], sentences=[], correction="none", margin=None)
    text = comparison_methods(Contest(facts)).text + comparison_results(Contest(facts)).text
    assert "corrected" not in text
    assert "non-inferior" not in text
    assert "difference between" not in text
