"""The page: everything is there, nothing is fetched, nothing is unescaped, whatever the task and however little is known."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from medcnn.evaluation.calibration_rows import FITTED_ON
from medcnn.report.comparison_html import build_comparison_report
from medcnn.report.comparison_sections import typeset
from medcnn.report.facts import ComparisonFacts, ErrorImage, RunFacts
from medcnn.report.html import _environment, build_report
from medcnn.report.numbers import interval
from medcnn.tables import Record

Facts = Callable[..., RunFacts]
SECTIONS = [
    "identity", "data", "reference", "methods", "discrimination", "calibration", "overall", "ladder",
    "classification", "utility", "subgroups", "training", "errors", "cost", "provenance",
]  # fmt: skip
KINDS: dict[str, dict[str, object]] = {
    "binary": {},
    "bare": {"rich": False, "n": 150, "images_per_patient": 3},
    "multiclass": {"labels": ("covid", "normal", "pneumonia"), "exclusive": True, "n": 300},
    "multilabel": {"labels": ("effusion", "mass"), "n": 300},
}
ATTACK = "\"><script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would see of a page: tags, what they refer to, ids, text outside of scripts and styles."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.wrong: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page_of(facts_of: Facts) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind not in made:
            made[kind] = build_report(facts_of(**KINDS[kind]))
        return made[kind]

    return make


def refers_outside(page: Page) -> list[str]:
    """Everything that a browser would fetch for this page."""
    found = []
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "data", "poster", "action", "xlink:href", "background"):
            value = attributes.get(key) or ""
            if value and not value.startswith(("#", "data:")):
                found.append(f"{tag} {key}={value[:60]}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched(page_of: Callable[[str], str], kind: str) -> None:
    html = page_of(kind)
    assert refers_outside(Page(html)) == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", html)
    assert "default-src 'none'" in html


def test_a_reference_outside_is_seen() -> None:
    assert refers_outside(Page('<img src="http://x/y.png"><a href="#a">a</a>')) == ["img src=http://x/y.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_whole(page_of: Callable[[str], str], kind: str) -> None:
    page = Page(page_of(kind))
    assert page.wrong == []
    assert page.stack == []
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert [name for name in ids if name in SECTIONS] == [name for name in SECTIONS if name != "ladder" or kind != "bare"]
    targets = {(attributes["href"] or "")[1:] for attributes in page.all("a")}
    assert targets <= set(ids)
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    assert all(attributes.get("alt") for attributes in page.all("img"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_facts_give_the_same_bytes(page_of: Callable[[str], str], facts_of: Facts, kind: str) -> None:
    assert build_report(facts_of(**KINDS[kind])) == page_of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_is_shown_raw(page_of: Callable[[str], str], kind: str) -> None:
    text = Page(page_of(kind)).text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|\d\.\d{7,}", text), re.search(r".{30}(\bnan\b|\bNone\b|\d\.\d{7,}).{30}", text)


def test_the_headline_is_on_the_first_page(page_of: Callable[[str], str], facts_of: Facts) -> None:
    facts, html = facts_of(), page_of("binary")
    summary = Page(html[html.index('id="summary"') : html.index('id="identity"')]).text
    first = next(record for record in facts.records if record.metric == "auroc" and record.recalibration == "temperature")
    assert f"{first.value:.3f}" in summary
    assert f"{first.low:.3f} to {first.high:.3f}" in summary
    frame = facts.predictions
    assert frame is not None
    called = frame["p_pneumonia"] >= 0.42
    tp, positive = int((called & (frame["y_pneumonia"] == 1)).sum()), int(frame["y_pneumonia"].sum())
    assert f"{tp} of {positive}" in summary
    assert f"{100 * tp / positive:.1f}%" in summary
    assert "Test set opened 2 times" in summary
    assert "separates the classes" in summary


@pytest.mark.parametrize("kind", KINDS)
def test_every_estimate_of_the_headline_is_somewhere(page_of: Callable[[str], str], facts_of: Facts, kind: str) -> None:
    facts = facts_of(**KINDS[kind])
    text = Page(page_of(kind)).text
    shown = [record for record in facts.records if record.subset == "all" and record.recalibration == (facts.recalibration or "none")]
    missing = [record for record in shown if record.low is not None and interval(record.metric, record.low, record.high) not in text]
    assert len(shown) > 30
    assert not missing, missing[0]


def test_what_only_the_author_knows_is_marked_until_it_is_written(facts_of: Facts) -> None:
    facts = facts_of()
    assert facts.config is not None
    assert "report.intended_use" in Page(build_report(facts)).text
    written = facts.config.model_copy(
        update={"report": facts.config.report.model_copy(update={"intended_use": "Triage in casualty by radiographers."})}
    )
    text = Page(build_report(replace(facts, config=written))).text
    assert "report.intended_use" not in text
    assert "Triage in casualty by radiographers." in text


def test_what_users_write_is_escaped(facts_of: Facts) -> None:
    facts = facts_of(n=120, labels=(ATTACK, "mass"))
    assert facts.config is not None
    report = facts.config.report.model_copy(update={"title": ATTACK, "authors": ATTACK, "population": ATTACK})
    error = ErrorImage(image_id=ATTACK, label=ATTACK, y=1, p=0.1, threshold=0.4, picture=b"x", heatmap=b"y", method=ATTACK)
    finding = replace(facts.findings[0], text=ATTACK, todo=ATTACK, kind=ATTACK)
    html = build_report(
        replace(
            facts, name=ATTACK, errors=[error], findings=[finding], config=facts.config.model_copy(update={"report": report}),
            versions={ATTACK: ATTACK}, hashes={ATTACK: ATTACK}, model={"name": ATTACK, "weights": ATTACK}, ledger=[{"when": ATTACK, "who": ATTACK}],
        )
    )  # fmt: skip
    page = Page(html)
    assert refers_outside(page) == []
    assert not any("evil" in str(attributes.get("src")) for attributes in page.all("img"))
    assert len(page.all("script")) == len(Page(build_report(facts_of(n=120, labels=("a", "mass")))).all("script"))
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.wrong == []


def test_a_label_with_one_class_is_not_estimable(facts_of: Facts) -> None:
    records = [Record(metric="auroc", label="x", value=None, n=50, n_positive=0, n_patients=50, note="not estimable: one class only")]
    text = Page(build_report(RunFacts(name="r", records=records))).text
    assert "not estimable" in text
    assert "One class only" in text


def test_no_records_at_all_still_make_a_page() -> None:
    assert Page(build_report(RunFacts(name="empty", records=[]))).wrong == []


def test_a_bare_file_is_not_called_internal_or_external(page_of: Callable[[str], str]) -> None:
    text = Page(page_of("bare")).text
    assert "internal test" not in text.lower()
    assert "external test part" not in text.lower()


def test_a_small_test_set_is_said(facts_of: Facts) -> None:
    assert "Small test set" in Page(build_report(facts_of(n=150, rich=False, images_per_patient=3))).text
    assert "Small test set" not in Page(build_report(facts_of())).text


def test_parts_that_share_patients_are_said(facts_of: Facts) -> None:
    facts = facts_of()
    apart = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("ppqr"), "part": ["train", "train", "val", "test"], "fold": 0})
    torn = apart.assign(patient_id=list("pqqr"))
    assert "none stands in two parts" in Page(build_report(replace(facts, split=apart))).text
    assert "The parts share patients: 1 patient of 3" in Page(build_report(replace(facts, split=torn))).text


def test_the_counts_at_a_threshold_that_differs_by_fold_are_those_of_the_records(facts_of: Facts) -> None:
    facts = facts_of(rich=False)
    moved = [replace(record, value=77.0) if record.metric == "true_positives" else record for record in facts.records]
    moved = [replace(record, value=23.0) if record.metric == "false_negatives" else record for record in moved]
    assert "77 of 100: of those with the finding" in Page(build_report(replace(facts, records=moved))).text


def test_size_does_not_grow_with_n(facts_of: Facts) -> None:
    rng = np.random.default_rng(0)
    few, many = (facts_of(n=n, rich=False) for n in (400, 4000))
    assert len(build_report(many)) < 1.6 * len(build_report(few))
    dense = many.curves[many.curves["curve"] == "roc"].sample(frac=30, replace=True, random_state=rng).sort_values("x")
    noisy = pd.concat([many.curves[many.curves["curve"] != "roc"], dense], ignore_index=True)
    assert len(build_report(replace(many, curves=noisy))) < 2 * len(build_report(many))


def test_a_comparison_is_whole(comparison_of: Callable[..., ComparisonFacts]) -> None:
    facts = comparison_of()
    html = build_comparison_report(facts)
    page = Page(html)
    assert page.wrong == []
    assert refers_outside(page) == []
    assert html == build_comparison_report(facts)
    main = next(record for record in facts.comparisons if record.metric == "auroc")
    assert f"+{main.difference:.3f}" in page.text
    assert f"{main.low:.3f} to {main.high:.3f}".replace("-", "−") in page.text
    assert "non-inferior" in page.text
    assert not re.search(r"\bnan\b|\bNone\b|\d\.\d{7,}", page.text)


def test_a_comparison_of_four_models_on_two_labels(comparison_of: Callable[..., ComparisonFacts]) -> None:
    html = build_comparison_report(comparison_of(("a", "b"), n_models=4, n=200))
    page = Page(html)
    assert page.wrong == []
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert "macro" in page.text


def test_a_comparison_escapes_names(comparison_of: Callable[..., ComparisonFacts]) -> None:
    facts = comparison_of(n=120)
    named = replace(
        facts, name=ATTACK, sentences=[ATTACK], models=[replace(model, name=f"{ATTACK}{k}") for k, model in enumerate(facts.models)]
    )
    page = Page(build_comparison_report(named))
    assert page.wrong == []
    assert page.all("img") == []


def test_patients_with_the_label_are_no_label_of_their_own(facts_of: Facts) -> None:
    facts = facts_of()
    assert facts.counts is not None
    counts = facts.counts.assign(n_labelled_pneumonia=[1200, 200, 400], n_positive_patients_pneumonia=[512, 80, 150])
    text = Page(build_report(replace(facts, counts=counts))).text
    assert "patients_pneumonia" not in text
    assert "50.0%; 512 patients" in text


def test_what_was_fitted_is_listed(facts_of: Facts) -> None:
    fitted = {"pneumonia": {"method": "platt", "parameters": {"slope": 0.62, "intercept": -0.1}, "n": 200, "n_positive": 90}}
    info = {"method": "platt", "requested": "auto", "fitted_on": "validation rows", "parameters": fitted}
    text = Page(build_report(replace(facts_of(), recalibration_info=info))).text
    assert "Platt scaling slope 0.620, intercept −0.100 90/200" in text
    assert "Requested auto" in text
    assert "Fitted on tuning rows" in text
    assert "applied to the mean of the fold models" not in text
    pooled = info | {"fitted_on": FITTED_ON["out_of_fold"]}
    text = Page(build_report(replace(facts_of(), recalibration_info=pooled))).text
    assert "applied to the mean of the fold models, which is less extreme: a calibration slope somewhat above 1 is expected" in text


def test_pictures_stay_within_their_budget(facts_of: Facts) -> None:
    facts = facts_of()
    large = replace(facts.errors[0], picture=b"x" * 400_000, heatmap=None)
    html = build_report(replace(facts, errors=[large] * 20))
    assert "The first 3 of 20" in Page(html).text
    assert len(html) < 3_000_000


def test_folds_are_pooled(facts_of: Facts) -> None:
    facts = facts_of()
    fold = pd.DataFrame(
        {"part": ["train", "val", "test"], "n_images": [300, 50, 80], "n_patients": [300, 50, 80], "n_positive_pneumonia": [120, 20, 32]}
    )
    counts = pd.concat([fold.assign(fold=k) for k in range(5)], ignore_index=True)
    text = Page(build_report(replace(facts, counts=counts))).text
    assert "each of 400 patients tested once" in text
    assert "Fold 4, internal test" in text


def test_nothing_in_a_script_element_can_end_it() -> None:
    filtered = _environment().filters["script_json"]
    written = str(filtered({"label": "</script><!--<script>&amp;", "t": [0.5]}))
    assert not set("<>&") & set(written)
    assert json.loads(written) == {"label": "</script><!--<script>&amp;", "t": [0.5]}


def section(html: str, name: str, after: str) -> str:
    """The text of one section."""
    return Page(html[html.index(f'<section id="{name}">') : html.index(f'<section id="{after}">')]).text


def test_each_subgroup_has_its_own_numbers(facts_of: Facts) -> None:
    facts = facts_of()
    text = section(build_report(facts), "subgroups", "training")
    own = [
        record
        for record in facts.records
        if record.subset.startswith("sex=")
        and record.recalibration == "temperature"
        and record.metric in {"auroc", "oe_ratio", "sensitivity"}
    ]
    assert len(own) == 6
    for record in own:
        assert interval(record.metric, record.low, record.high) in text, record
    assert "Cochran" in text


def test_the_other_mcnemar_tests_stand_only_in_the_full_table(comparison_of: Callable[..., ComparisonFacts]) -> None:
    html = build_comparison_report(comparison_of())
    assert "mid-p" not in section(html, "classification", "utility")
    assert "mid-p" in section(html, "differences", "cost")


def test_claims_about_the_average_come_first(comparison_of: Callable[..., ComparisonFacts]) -> None:
    facts = comparison_of(("a", "b"), n_models=4, n=200)
    assert "macro" not in facts.sentences[0]
    claims = Page(build_comparison_report(facts)).text.split("What may be claimed", 1)[1]
    assert claims.startswith(" Macro AUROC: efficientnet_lite0 is higher")


def test_sentences_are_typeset() -> None:
    assert (
        typeset("average precision of a: b-2 is lower (difference -0.02)", ["a"])
        == "Average precision of a: b-2 is lower (difference −0.02)"
    )
    assert typeset("a: no difference", ["a"]) == "a: no difference"
