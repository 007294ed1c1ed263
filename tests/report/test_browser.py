"""The page in headless Chromium: no console message, nothing fetched, the slider, the tabs and the theme work.

A probe, put into a copy of the page, drives it and writes what it saw into the document, which Chromium prints.
"""

import html as html_escapes
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcnn.report.comparison_html import build_comparison_report
from medcnn.report.facts import ComparisonFacts, RunFacts
from medcnn.report.html import build_report

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: the page was not opened in a browser")

WATCH = """<script>
window.seen = {errors: [], blocked: []};
addEventListener("error", event => seen.errors.push(event.message || "resource"), true);
addEventListener("unhandledrejection", event => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", event => seen.blocked.push(event.blockedURI));
</script>"""
PROBE = """<script>addEventListener("load", () => {
const q = selector => document.querySelector(selector), text = selector => q(selector)?.textContent ?? null;
const report = {resources: performance.getEntriesByType("resource").map(entry => entry.name)};
BODY
Object.assign(report, seen);
const out = document.createElement("output"); out.id = "probe"; out.textContent = JSON.stringify(report); document.body.append(out);
});</script>"""


def drive(page: str, body: str, folder: Path, *flags: str) -> dict[str, Any]:
    """Open the page, run `body` (which fills `report`), return the report and the console's lines."""
    file = folder / "page.html"
    file.write_text(
        page.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{PROBE.replace('BODY', body)}</body>"), encoding="utf-8"
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
    ]
    command = [
        str(BROWSER),
        *options,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000",
        *flags,
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<output id="probe">(.*?)</output>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(html_escapes.unescape(found.group(1)))
    report["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return report


SLIDE = """
const range = q("input[type=range]"), data = JSON.parse(q("[data-slider] script").textContent);
report.start = ["tp", "fp", "fn", "tn"].map(key => text(`[data-out=${key}]`));
range.value = data.t.indexOf(0.7); range.dispatchEvent(new Event("input"));
report.moved = ["tp", "fp", "fn", "tn"].map(key => text(`[data-out=${key}]`));
report.shown = text("[data-slider] output");
report.sensitivity = text("[data-out=sensitivity]");
report.mark = text("[data-slider] .mark text");
report.benefit = text("[data-out=nb]");
q("[data-slider] input[type=text]").value = "5"; q("[data-slider] input[type=text]").dispatchEvent(new Event("input"));
report.ppv = text("[data-out=ppv]");
q("[data-slider] .buttons button").click();
report.back = ["tp", "fp", "fn", "tn"].map(key => text(`[data-out=${key}]`));
const before = getComputedStyle(document.body).backgroundColor; q("[data-theme-toggle]").click();
report.theme = [before, getComputedStyle(document.body).backgroundColor];
const svg = q("#discrimination svg[data-box]"); svg.scrollIntoView();
const box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: box.left + box.width * 0.5, clientY: box.top + box.height * 0.3}));
report.tip = q("#tip").hidden ? null : text("#tip");
report.wide = document.documentElement.scrollWidth - innerWidth;
"""


def test_the_slider_moves_the_table(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    facts = facts_of()
    frame = facts.predictions
    assert frame is not None
    seen = drive(build_report(facts), SLIDE, tmp_path)
    assert seen["errors"] == seen["blocked"] == seen["console"] == []
    assert [name for name in seen["resources"] if not name.startswith("data:")] == []

    y, p = frame["y_pneumonia"].to_numpy(), frame["p_pneumonia"].to_numpy()

    def cells(t: float) -> list[str]:
        return [str(int(((y == label) & ((p >= t) == called)).sum())) for label, called in ((1, True), (0, True), (1, False), (0, False))]

    assert seen["start"] == seen["back"] == cells(0.42)
    assert seen["moved"] == cells(0.7)
    assert seen["moved"] != seen["start"]
    assert seen["shown"] == "0.7"
    tp, fp, fn, tn = map(int, cells(0.7))
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    assert seen["sensitivity"].startswith(f"{100 * sensitivity:.1f}%{tp}/{tp + fn}, ")
    assert seen["mark"] == "threshold 0.7"
    assert float(seen["benefit"].replace("−", "-")) == pytest.approx((tp - fp * 0.7 / 0.3) / len(y), abs=6e-4)
    ppv = sensitivity * 0.05 / (sensitivity * 0.05 + (1 - specificity) * 0.95)
    assert seen["ppv"] == f"{100 * ppv:.1f}%at prevalence 5.0%"
    assert seen["theme"][0] != seen["theme"][1]
    assert "Sensitivity" in seen["tip"]
    assert "threshold" in seen["tip"]
    assert seen["wide"] <= 0


def test_one_label_is_shown_at_a_time_and_all_on_paper(facts_of: Callable[..., RunFacts], tmp_path: Path) -> None:
    body = """
    const visible = () => [...document.querySelectorAll("[data-panels]")].map(group => [...group.querySelectorAll(":scope > .panel")].filter(panel => !panel.hidden).map(panel => panel.dataset.name).join());
    report.first = visible();
    [...document.querySelectorAll("[role=tab]")].find(tab => tab.textContent === "mass").click();
    report.second = visible();
    report.selected = [...document.querySelectorAll("[role=tab][aria-selected=true]")].map(tab => tab.textContent);
    """
    seen = drive(build_report(facts_of(labels=("effusion", "mass"), n=300)), body, tmp_path)
    assert seen["errors"] == seen["blocked"] == seen["console"] == []
    assert len(seen["first"]) >= 5
    assert set(seen["first"]) == {"effusion"}
    assert set(seen["second"]) == set(seen["selected"]) == {"mass"}


def test_a_comparison_opens_on_a_phone(comparison_of: Callable[..., ComparisonFacts], tmp_path: Path) -> None:
    body = "report.wide = document.documentElement.scrollWidth - innerWidth; report.sections = document.querySelectorAll('main > section').length;"
    seen = drive(build_comparison_report(comparison_of()), body, tmp_path, "--window-size=500,900")
    assert seen["errors"] == seen["blocked"] == seen["console"] == []
    assert seen["wide"] <= 0
    assert seen["sections"] == 11


def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    page = "<html><head></head><body><img src='https://example.org/x.png'><script>missing()</script></body></html>"
    seen = drive(page, "", tmp_path)
    assert any("missing" in message for message in seen["errors"])
    assert seen["resources"] == ["https://example.org/x.png"]
    assert seen["console"]
