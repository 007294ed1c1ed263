"""The gate before training: every check on one page, pictures only when they may be shown, and it stops where errors are open."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medcnn.audit_stages import UNLABELLED, UNSOUND, what_is_missing
from medcnn.cohort import Finding, read_findings, write_json
from medcnn.config import Config
from medcnn.config_data import AuditConfig
from medcnn.config_file import build_config
from medcnn.data.drift import TRAITS
from medcnn.runs import open_run
from medcnn.tables import read_table
from pipelines.audit import QUICK, audit_cohort
from pipelines.external import apply_run
from pipelines.finetune import finetune

N = 90


def picture(rng: np.random.Generator, *, ill: bool) -> np.ndarray:
    """A made-up film: a bright head at the top, two dark fields, a shadow in one of them when ill."""
    texture = cv2.GaussianBlur(rng.normal(0, 1, (64, 64)), (0, 0), 4)  # each its own, or they would count as changed copies
    image = np.clip(150 + 60 * texture / texture.std(), 0, 255).astype(np.uint8)
    for centre, axes, shade in (((32, 5), (10, 6), 220), ((18, 34), (10, 18), 60), ((46, 32), (10, 16), 60)):
        cv2.ellipse(image, tuple(int(c + rng.integers(-2, 3)) for c in centre), axes, 0, 0, 360, shade, -1)
    if ill:
        cv2.circle(image, (18, 40), 6, 170, -1)
    return np.clip(image + 30 * texture / texture.std() + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def films(folder: Path, *, blank: bool = False) -> Config:
    """A table of films: the third is a copy of the second with another label; the test part is brighter; ages and sexes with slips."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(N):
        part = ("train", "val", "test")[number * 3 // N]
        image = picture(rng, ill=number % 2 == 1)
        if part == "test":
            image = np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8)
        if number == 0 and blank:
            image[:] = 12
        if number == 5:
            image = np.rot90(image, 2).copy()
        name = f"{number:03d}.png"
        cv2.imwrite(str(folder / "images" / name), image)
        rows.append({"image": name, "label": ("well", "ill")[number % 2], "part": part, "age": 40, "sex": "F"})
    table = pd.DataFrame(rows)
    cv2.imwrite(str(folder / "images" / "001.png"), cv2.imread(str(folder / "images" / "002.png"), 0))
    table.loc[7, "age"] = 412
    table.to_csv(folder / "table.csv", index=False)
    tree = {
        "name": "films",
        "data": {
            "source": "table", "path": str(folder / "table.csv"), "image_root": str(folder / "images"), "label_column": "label", "part_column": "part",
            "classes": ["well", "ill"], "covariates": ["age", "sex"],
        },
        "audit": {"exclude": {"label_conflict": "one picture, two labels"}},
        "image": {"size_px": 32, "channels": 1},
        "model": {"name": "simple_cnn"},
        "training": {"epochs": 1, "n_threads": 1},
        "ladder": {"rungs": ["main"]},
        "evaluation": {"n_bootstrap": 20},
        "split": {"scheme": "given"},
    }  # fmt: skip
    return build_config(tree, source="test")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("films")
    return audit_cohort(films(folder), folder / "run")


def test_the_page_says_what_was_found_with_pictures(audited: tuple[Path, str]) -> None:
    page, text = audited
    html = page.read_text()
    for kind in ("label_conflict", "impossible_age", "part_drift", "label_noise"):
        assert kind in text
        assert kind.replace("_", " ") in html
    assert "Excluded: one picture, two labels." in html
    assert "age is impossible in 1 of 90 images: 412.0" in html
    assert "test (30 patients) against" in html
    assert "Group 1 of 1" in html
    assert html.count("data:image/jpeg;base64,") >= 2
    assert html.count("2 taken out by the audit") >= 1
    assert ' src="http' not in html


def test_what_new_images_are_compared_with_has_no_name(audited: tuple[Path, str]) -> None:
    reference = read_table(audited[0].parent / "cohort" / "drift" / "reference.parquet")
    assert list(reference) == list(TRAITS)
    assert len(reference) == 58  # train and val without the two that left
    drift = read_table(audited[0].parent / "cohort" / "drift" / "drift.csv")
    assert set(drift["new_set"]) == {"val", "test"}
    kinds = {finding.text.split(" ")[0] for finding in read_findings(audited[0].parent / "cohort" / "drift" / "findings.json")}
    assert kinds == {"test"}


def test_no_image_leaves_the_cohort_when_the_config_says_so(tmp_path: Path) -> None:
    config = films(tmp_path)
    hidden = config.model_copy(update={"report": config.report.model_copy(update={"n_errors": 0})})
    page, _ = audit_cohort(hidden, tmp_path / "run", quick=True)
    html = page.read_text()
    assert "data:image/jpeg" not in html
    assert "No image leaves the cohort (report.n_errors is 0)." in html
    assert list((tmp_path / "run" / "pictures").glob("*.jpg")) == []
    assert QUICK in html


def test_open_errors_are_shown_and_end_the_audit(tmp_path: Path) -> None:
    page, text = audit_cohort(films(tmp_path, blank=True), tmp_path / "run")
    assert "ERROR   blank_image: 1 of 90 images is blank" in text
    assert UNSOUND in text
    assert UNSOUND in page.read_text()
    assert not (tmp_path / "run" / "cohort" / "cache").exists()


@pytest.fixture(scope="module")
def trained(audited: tuple[Path, str]) -> Path:
    """The same cohort, trained: what the audit did is not done again."""
    run = audited[0].parent
    return finetune(films(run.parent / "again"), run.parent / "trained", quiet=True).folder


def test_the_report_has_the_findings_of_every_stage_and_their_pictures(trained: Path) -> None:
    html = (trained / "report.html").read_text()
    assert "part drift" in html
    assert "label noise" in html
    assert "Pictures: label conflict" in html
    assert "data:image/jpeg;base64," in html


def test_new_images_of_the_same_kind_raise_no_warning_and_others_do(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for name, change in (("like", lambda x: x), ("unlike", lambda x: cv2.GaussianBlur(255 - x, (0, 0), 3))):
        (tmp_path / name).mkdir()
        for number in range(40):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), change(picture(rng, ill=number % 2 == 1)))
    _, like = apply_run(trained, [tmp_path / "like"], tmp_path / "like.csv")
    assert not any(sentence.startswith("warning") for sentence in like)
    _, unlike = apply_run(trained, [tmp_path / "unlike"], tmp_path / "unlike.csv")
    assert unlike[0].startswith("warning: the new images (40 patients) against the training images (58)")
    assert "40 of 40 new images lie outside" in unlike[1]
    numbers = json.loads((tmp_path / "unlike.drift.json").read_text())
    assert numbers["auroc"] > 0.95
    assert numbers["n"] == numbers["n_outside"] == 40


def test_a_run_that_kept_no_traits_says_so(trained: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), picture(np.random.default_rng(1), ill=False))
    kept = trained / "cohort" / "drift" / "reference.parquet"
    aside = kept.rename(kept.with_suffix(".aside"))
    try:
        assert "keeps no traits" in apply_run(trained, [tmp_path / "one.png"], tmp_path / "out.csv")[1][0]
    finally:
        aside.rename(kept)


@pytest.mark.parametrize(
    ("kind", "accepted", "missing"), [("unlabelled", True, UNLABELLED), ("unlabelled", False, UNSOUND), ("duplicate", True, "")]
)
def test_how_far_the_audit_goes(tmp_path: Path, kind: str, accepted: bool, missing: str) -> None:
    config = films(tmp_path)
    run = open_run(config.model_copy(update={"audit": AuditConfig(accept={kind: "only looked at"} if accepted else {})}), tmp_path / "run")
    severity = "error" if kind == "unlabelled" else "warning"
    write_json([Finding(severity=severity, kind=kind, text="Seen.", todo="Look.")], tmp_path / "findings.json")
    assert what_is_missing(run, tmp_path) == missing
