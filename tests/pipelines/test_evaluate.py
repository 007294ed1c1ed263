"""Anybody's predictions: evaluated, compared, refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.errors import InputError
from medcnn.tables import read_comparisons, read_records
from pipelines.compare import compare
from pipelines.evaluate import evaluate
from pipelines.external import apply_run


def predictions(n: int = 300, noise: float = 1.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    y = rng.integers(0, 2, n)
    score = 2 * (y - 0.5) + np.random.default_rng(seed).normal(0, noise, n)
    return pd.DataFrame(
        {"image_id": [f"i{k}" for k in range(n)], "y_disease": y, "p_disease": 1 / (1 + np.exp(-score)), "sex": rng.choice(["F", "M"], n)}
    )


def test_a_bare_file_gets_metrics_and_a_report(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "theirs.csv", index=False)
    out = evaluate(
        tmp_path / "theirs.csv", tmp_path / "out", thresholds=[0.3, 0.5], by=["sex"], prevalence=0.1, settings=["n_bootstrap=50"]
    )
    records = read_records(out / "metrics.json")
    assert {record.threshold for record in records if record.metric == "sensitivity"} == {0.3, 0.5}
    assert {"sex=F", "sex=M"} <= {record.subset for record in records}
    assert "theirs" in (out / "report.html").read_text()


def test_evaluating_again_appends_to_the_ledger_only_when_something_changed(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "theirs.csv", index=False)
    for thresholds in ([0.5], [0.5], [0.4]):
        evaluate(tmp_path / "theirs.csv", tmp_path / "out", thresholds=thresholds, settings=["n_bootstrap=20"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "test_ledger.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert set(lines[0]) == {"when", "who", "name", "config", "predictions"}


def test_somebody_elses_folder_is_not_replaced(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(InputError, match="holds other files"):
        evaluate(tmp_path / "theirs.csv", tmp_path)
    assert (tmp_path / "theirs.csv").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "multilabl"}, "unknown"),
        ({"task": "multiclass"}, "does not fit"),
        ({"settings": ["n_bootstraps=3"]}, "n_bootstrap"),
        ({"thresholds": [1.5]}, "0 to 1"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, given: dict[str, object], words: str) -> None:
    predictions().to_csv(tmp_path / "theirs.csv", index=False)
    with pytest.raises(InputError, match=words):
        evaluate(tmp_path / "theirs.csv", tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_two_files_are_compared(tmp_path: Path) -> None:
    predictions(noise=0.7).to_csv(tmp_path / "good.csv", index=False)
    predictions(noise=3, seed=1).to_csv(tmp_path / "poor.csv", index=False)
    out, sentences = compare([tmp_path / "good.csv", tmp_path / "poor.csv"], tmp_path / "out", settings=["n_bootstrap=50"])
    auroc = next(row for row in read_comparisons(out / "comparison.json") if row.metric == "auroc")
    assert (auroc.a, auroc.b) == ("good", "poor")
    assert auroc.difference is not None and auroc.difference > 0
    assert auroc.p_adjusted is not None and auroc.p_adjusted < 0.05
    assert sentences
    assert "good" in (out / "report.html").read_text()


def test_models_tested_on_other_images_are_refused(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "a.csv", index=False)
    predictions().iloc[:-3].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(InputError, match="3"):
        compare([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out")


def test_one_model_is_no_comparison(tmp_path: Path) -> None:
    predictions().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match="two or more"):
        compare([tmp_path / "a.csv"], tmp_path / "out")


def test_two_runs_are_compared_on_their_one_split(finished: Path, other: Path, tmp_path: Path) -> None:
    out, sentences = compare([finished, other], tmp_path / "out", settings=["n_bootstrap=50"])
    names = {(row.a, row.b) for row in read_comparisons(out / "comparison.json")}
    assert names == {("small", "other")}
    assert sentences


def test_a_finished_run_predicts_new_images(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.full((40, 50), 80 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    table, compared = apply_run(finished, [tmp_path], tmp_path / "out.csv")
    assert "3 of 3 new images lie outside" in compared[0]
    assert table["p_nodule"].between(0, 1).sum() == 3
    assert table.loc[table["image_id"] == "broken.png", "problem"].str.len().item() > 0
    pd.testing.assert_series_equal(pd.read_csv(tmp_path / "out.csv")["p_nodule"], table["p_nodule"], check_exact=False)


def test_predicting_a_test_image_again_gives_the_same_probability(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    from medcnn.data.images import read_row
    from medcnn.tables import read_table

    manifest = read_table(finished / "cohort" / "audit" / "manifest.parquet")
    stated = read_table(finished / "predictions.parquet").query("part == 'test'").iloc[0]
    row = manifest[manifest["image_id"] == stated["image_id"]].iloc[0]
    Image.fromarray(read_row(row["path"], int(row["frame"]))).save(tmp_path / "one.png")
    table, compared = apply_run(finished, [tmp_path / "one.png"], tmp_path / "out.csv")
    assert compared[0].startswith("0 of 1 new images")
    assert table["p_nodule"].item() == pytest.approx(stated["p_nodule"], abs=1e-5)
