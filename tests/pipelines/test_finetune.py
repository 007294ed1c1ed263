"""Raw files to report on tiny images: what is written, what is skipped, what is refused, what survives a kill."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from medcnn.artifact import file_digest, read_stamp
from medcnn.errors import InputError
from medcnn.tables import read_records, read_table
from pipelines.finetune import finetune, make_plan, rewrite_report
from tests.pipelines.conftest import tiny_config

STAGES = ("plan", "train/main/fold0", "predict/main", "calibrate", "evaluate", "explain", "report")
COHORT_STAGES = ("ingest", "audit", "fingerprint", "split", "cache", "shortcuts")


def stamps(folder: Path) -> dict[str, str]:
    found = {stage: read_stamp(folder / stage) for stage in (*STAGES, *(f"cohort/{stage}" for stage in COHORT_STAGES))}
    assert all(found.values())
    return {stage: stamp.finished + stamp.key for stage, stamp in found.items() if stamp}


def test_every_stage_is_there_and_the_results_are_on_top(finished: Path) -> None:
    assert len(stamps(finished)) == 13
    for name in ("report.html", "metrics.json", "predictions.parquet", "config.yaml", "test_ledger.jsonl"):
        assert (finished / name).is_file()
    leftovers = [path.name for path in finished.rglob(".*") if not path.name.endswith(".lock")]
    assert not leftovers


def test_predictions_have_the_promised_columns_and_parts(finished: Path) -> None:
    table = read_table(finished / "predictions.parquet")
    assert {"image_id", "patient_id", "part", "fold", "y_nodule", "logit_nodule", "p_nodule"} <= set(table.columns)
    assert set(table["part"]) == {"val", "test"}
    raw = read_table(finished / "predict" / "main" / "predictions.parquet")
    np.testing.assert_allclose(raw["p_nodule"], 1 / (1 + np.exp(-raw["logit_nodule"])), atol=1e-6)


def test_no_patient_stands_in_two_parts(finished: Path) -> None:
    split = read_table(finished / "cohort" / "split" / "split.parquet")
    assert split.groupby("patient_id")["part"].nunique().max() == 1
    assert len(split) == len(read_table(finished / "cohort" / "audit" / "manifest.parquet"))


def test_metrics_are_stated_before_and_after_calibration(finished: Path) -> None:
    records = read_records(finished / "metrics.json")
    names = {record.metric for record in records}
    wanted = "auroc average_precision brier scaled_brier log_loss ece calibration_intercept calibration_slope oe_ratio sensitivity specificity ppv npv accuracy balanced_accuracy f1"
    assert set(wanted.split()) <= names
    assert len({record.recalibration for record in records}) == 2
    assert all(record.part == "test" for record in records)


def test_auroc_agrees_with_another_library(finished: Path) -> None:
    from sklearn.metrics import roc_auc_score

    table = read_table(finished / "predictions.parquet").query("part == 'test'")
    stated = next(record for record in read_records(finished / "metrics.json") if record.metric == "auroc" and record.subset == "all")
    assert stated.value == pytest.approx(roc_auc_score(table["y_nodule"], table["p_nodule"]), abs=1e-12)


def test_running_again_does_nothing(finished: Path) -> None:
    before = stamps(finished)
    ledger = (finished / "test_ledger.jsonl").read_text()
    finetune(tiny_config(), finished, quiet=True)
    assert stamps(finished) == before
    assert (finished / "test_ledger.jsonl").read_text() == ledger
    assert len(ledger.splitlines()) == 1


def test_two_runs_of_one_config_are_identical(finished: Path, tmp_path: Path) -> None:
    again = finetune(tiny_config(), tmp_path / "again", quiet=True).folder
    for name in ("train/main/fold0/weights.safetensors", "cohort/split/split.parquet", "cohort/cache/images.npy"):
        assert file_digest(again / name) == file_digest(finished / name)
    pd.testing.assert_frame_equal(read_table(again / "predictions.parquet"), read_table(finished / "predictions.parquet"))


def test_a_changed_config_is_refused_then_redone_where_it_matters(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    changed = tiny_config(report={"n_errors": 1, "title": "A title"})
    with pytest.raises(InputError, match="report.title"):
        finetune(changed, copy, quiet=True)
    before = stamps(copy)
    finetune(changed, copy, update=True, quiet=True)
    after = stamps(copy)
    assert {stage for stage in before if before[stage] != after[stage]} == {"explain", "report"}


def test_an_edited_plan_is_honoured(tmp_path: Path) -> None:
    config = tiny_config()
    planned = make_plan(config, tmp_path / "run")
    text = (planned / "plan.yaml").read_text()
    assert "  epochs: 2" in text
    (planned / "plan.yaml").write_text(text.replace("  epochs: 2", "  epochs: 1"))
    run = finetune(config, tmp_path / "run", quiet=True)
    assert len(read_table(run.folder / "train/main/fold0/history.csv")) == 1
    with pytest.raises(InputError, match="edited by hand"):
        finetune(tiny_config(seed=1), run.folder, update=True, quiet=True)


def test_folds_test_every_patient_once(tmp_path: Path) -> None:
    config = tiny_config(split={"scheme": "kfold", "n_folds": 3}, training={"epochs": 1})
    run = finetune(config, tmp_path / "folds", quiet=True)
    table = read_table(run.folder / "predictions.parquet")
    tested = table[table["part"] == "test"]
    assert len(tested) == tested["image_id"].nunique() == 120
    assert sorted(tested["fold"].unique()) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_other_tasks_reach_a_report(tmp_path: Path, kind: str) -> None:
    run = finetune(tiny_config(data={"phantom_labels": kind, "n_images": 200}), tmp_path / kind, quiet=True)
    labels = {record.label for record in read_records(run.folder / "metrics.json") if record.metric == "auroc"}
    assert "macro" in labels
    assert len(labels) > 2
    assert "<html" in (run.folder / "report.html").read_text()


def test_a_report_is_written_again_and_as_pdf(finished: Path) -> None:
    pytest.importorskip("weasyprint")
    before = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    written = rewrite_report(finished, pdf=True)
    assert (finished / "report.html").read_text() == before
    assert written[1].read_bytes().startswith(b"%PDF")


def test_a_report_of_a_run_that_lacks_a_stage_says_which(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "cohort" / "shortcuts")
    with pytest.raises(InputError, match="stage shortcuts is not there"):
        rewrite_report(copy)


def test_the_resolved_config_and_the_plan_are_saved(finished: Path) -> None:
    assert yaml.safe_load((finished / "config.yaml").read_text())["training"]["epochs"] == 2
    plan = yaml.safe_load((finished / "plan" / "plan.yaml").read_text())
    assert "auto" not in json.dumps({key: value for key, value in plan.items() if key != "reasons"}).replace('"device": "auto"', "")


def test_figures_come_with_their_numbers(finished: Path) -> None:
    svgs = {path.stem for path in (finished / "report" / "figures").glob("*.svg")}
    assert svgs
    assert svgs == {path.stem for path in (finished / "report" / "figures").glob("*.csv")}


def test_no_folder_of_this_machine_stands_in_the_report(finished: Path, tmp_path: Path) -> None:
    shared = finetune(tiny_config(cohort=str(tmp_path / "secret_folder" / "shared")), tmp_path / "run", quiet=True)
    assert (tmp_path / "secret_folder" / "shared").is_dir()
    for folder in (finished, shared.folder):
        assert str(folder.parent) not in (folder / "report.html").read_text()
    assert "secret_folder" not in (shared.folder / "report.html").read_text()
