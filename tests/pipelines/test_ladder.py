"""Whole ladders on tiny images: what each rung leaves behind, that the headline is what was promised, and that executors agree."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.artifact import file_digest
from medcnn.tables import read_table
from pipelines.finetune import finetune
from tests.pipelines.conftest import tiny_config

RUNGS = ["prevalence", "shortcuts", "simple_cnn", "main", "ensemble"]
LADDER = {"rungs": RUNGS, "n_seeds": 2, "weights": "fitted"}
TRAINING = {"epochs": 1, "select": "last"}


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished ladder: three folds beside a test part, two seeds."""
    config = tiny_config(
        ladder=LADDER, model={"name": "small_vgg"}, split={"scheme": "kfold_holdout", "n_folds": 3, "val_fraction": 0}, training=TRAINING
    )
    return finetune(config, tmp_path_factory.mktemp("ladder") / "run", quiet=True).folder


def test_each_rung_predicts_the_same_rows(climbed: Path) -> None:
    tables = [read_table(climbed / "predict" / rung / "predictions.parquet") for rung in RUNGS]
    split = read_table(climbed / "cohort/split/split.parquet")
    for table in tables:
        pd.testing.assert_frame_equal(table[["image_id", "part", "fold", "y_nodule"]], tables[0][["image_id", "part", "fold", "y_nodule"]])
    assert set(tables[0].loc[tables[0]["part"] == "test", "image_id"]) == set(split.loc[split["part"] == "test", "image_id"])
    assert not tables[0].duplicated(["image_id", "part"]).any()


def test_a_test_row_is_the_mean_of_its_models(climbed: Path) -> None:
    for rung in ("simple_cnn", "main"):
        members = read_table(climbed / "predict" / rung / "members.parquet")
        mean = read_table(climbed / "predict" / rung / "predictions.parquet").query("part == 'test'").set_index("image_id")["p_nodule"]
        by_hand = members.query("part == 'test'").groupby("image_id")["p_nodule"]
        assert set(by_hand.size()) == {6}  # three folds, two seeds
        np.testing.assert_allclose(by_hand.mean()[mean.index], mean, atol=1e-12)


def test_the_ensemble_is_the_mean_of_the_trained_rungs_as_its_weights_say(climbed: Path) -> None:
    tables = {rung: read_table(climbed / "predict" / rung / "predictions.parquet") for rung in RUNGS}
    noted = json.loads((climbed / "predict/ensemble/weights.json").read_text())
    assert (noted["how"], noted["fitted_on"]) == ("fitted", "out-of-fold predictions of the development patients")
    share = {(each["part"], each["fold"]): each["weights"] for each in noted["folds"]}
    assert set(share) == {("test", 0), ("val", 0), ("val", 1), ("val", 2)}
    by_hand = sum(
        tables[rung]["p_nodule"] * [share[part, fold][rung] for part, fold in zip(tables[rung]["part"], tables[rung]["fold"], strict=True)]
        for rung in ("simple_cnn", "main")
    )
    np.testing.assert_allclose(tables["ensemble"]["p_nodule"], by_hand, atol=1e-12)
    assert "without the patients whom the fold tests" in (climbed / "report.html").read_text()


def test_the_headline_is_the_last_rung_and_its_numbers_are_the_runs(climbed: Path) -> None:
    found = json.loads((climbed / "ladder/ladder.json").read_text())
    assert [rung["rung"] for rung in found["rungs"]] == RUNGS
    stated = next(record for record in json.loads((climbed / "metrics.json").read_text()) if record["metric"] == "auroc")
    assert found["rungs"][-1]["auroc"]["value"] == pytest.approx(stated["value"], abs=1e-12)
    assert found["rungs"][0]["auroc"]["value"] == 0.5
    assert found["selection"]["best"] in {"simple_cnn", "main", "ensemble"}


def test_new_images_are_predicted_by_all_of_them(climbed: Path, tmp_path: Path) -> None:
    from medcnn.inference import predict_new
    from medcnn.runs import reopen_run

    table = read_table(climbed / "predictions.parquet").query("part == 'test'")
    manifest = read_table(climbed / "cohort/audit/manifest.parquet").set_index("image_id")
    pixels = np.load(climbed / "cohort/cache/images.npy")
    index = list(read_table(climbed / "cohort/cache/index.parquet")["image_id"])
    chosen = table["image_id"].iloc[:5]
    assert set(chosen) <= set(manifest.index)
    np.savez(tmp_path / "new.npz", images=np.stack([pixels[index.index(image)] for image in chosen]))
    found = predict_new(reopen_run(climbed), [tmp_path / "new.npz"])
    np.testing.assert_allclose(found["p_nodule"], table.set_index("image_id").loc[chosen, "p_nodule"], atol=1e-6)


def test_models_trained_side_by_side_are_the_same(climbed: Path, tmp_path: Path) -> None:
    sections = {"ladder": LADDER, "model": {"name": "small_vgg"}, "split": {"scheme": "kfold_holdout", "n_folds": 3, "val_fraction": 0}}
    beside = finetune(tiny_config(**sections, training=TRAINING, jobs=2), tmp_path / "run", quiet=True).folder
    names = [path.relative_to(climbed) for path in sorted(climbed.glob("train/*/*/weights.safetensors"))]
    assert len(names) == 12
    for name in [*names, "predictions.parquet", "metrics.json"]:
        assert file_digest(beside / name) == file_digest(climbed / name), name


@pytest.mark.parametrize("n_repeats", [1, 2])
def test_out_of_fold_predictions_cover_everybody_once(n_repeats: int, tmp_path: Path) -> None:
    split = {"scheme": "kfold", "n_folds": 2, "n_repeats": n_repeats, "val_fraction": 0}
    config = tiny_config(ladder={"rungs": ["prevalence", "main"]}, split=split, training=TRAINING)
    run = finetune(config, tmp_path / "run", quiet=True).folder
    table = read_table(run / "predictions.parquet")
    assert set(table["part"]) == {"test"}
    assert sorted(table["image_id"]) == sorted(read_table(run / "cohort/audit/manifest.parquet")["image_id"])
    assert len(list(run.glob("train/main/*/weights.safetensors"))) == 2 * n_repeats


def test_a_soup_is_one_model_a_fold_and_no_worse_on_val(tmp_path: Path) -> None:
    split = {"scheme": "kfold", "n_folds": 2, "val_fraction": 0.25}
    ladder = {"rungs": ["main", "soup"], "n_seeds": 3, "headline": "soup"}
    run = finetune(tiny_config(ladder=ladder, split=split, training={"epochs": 2, "select": "last"}), tmp_path / "run", quiet=True).folder
    table = read_table(run / "predictions.parquet").query("part == 'test'")
    assert not table["image_id"].duplicated().any()
    for fold in range(2):
        mixed = read_table(run / f"train/soup/fold{fold}/history.csv").iloc[0]
        assert len(list(run.glob(f"train/main/fold{fold}*"))) == 3
        assert mixed["val_loss"] <= mixed["best_alone"]
        by_hand = read_table(run / "predict/soup/members.parquet").query("part == 'val' and fold == @fold")
        losses = -np.log(np.where(by_hand["y_nodule"] == 1, by_hand["p_nodule"], 1 - by_hand["p_nodule"]))
        assert losses.mean() == pytest.approx(mixed["val_loss"], abs=1e-5)
        assert 1 <= mixed["n_mixed"] <= 3


def test_an_ensemble_may_stand_before_what_it_is_made_of(tmp_path: Path) -> None:
    rungs = ["simple_cnn", "ensemble", "main"]
    run = finetune(
        tiny_config(ladder={"rungs": rungs, "weights": "equal"}, model={"name": "small_vgg"}, training=TRAINING),
        tmp_path / "run",
        quiet=True,
    ).folder
    p = {rung: read_table(run / "predict" / rung / "predictions.parquet")["p_nodule"] for rung in rungs}
    np.testing.assert_allclose(p["ensemble"], (p["simple_cnn"] + p["main"]) / 2, atol=1e-12)
    assert [rung["rung"] for rung in json.loads((run / "ladder/ladder.json").read_text())["rungs"]] == rungs


def test_the_report_shows_the_ladder_and_can_be_written_again(climbed: Path) -> None:
    from pipelines.finetune import rewrite_report

    html = (climbed / "report.html").read_text()
    for words in ("simple_cnn", "small_vgg", "Ensemble", "Prevalence", "Ladder"):
        assert words.casefold() in html.casefold(), words
    rewrite_report(climbed)
    assert (climbed / "report.html").read_text() == html


def test_views_of_an_image_are_the_same_alone_as_in_its_run(tmp_path: Path) -> None:
    from medcnn.inference import predict_new
    from medcnn.runs import reopen_run

    config = tiny_config(training=TRAINING, prediction={"n_views": 3})
    run = finetune(config, tmp_path / "run", quiet=True).folder
    table = read_table(run / "predictions.parquet").query("part == 'test'").set_index("image_id")
    pixels, index = np.load(run / "cohort/cache/images.npy"), list(read_table(run / "cohort/cache/index.parquet")["image_id"])
    chosen = list(table.index[:4])
    np.savez(tmp_path / "new.npz", images=np.stack([pixels[index.index(image)] for image in chosen]))
    found = predict_new(reopen_run(run), [tmp_path / "new.npz"])
    np.testing.assert_allclose(found["p_nodule"], table.loc[chosen, "p_nodule"], atol=1e-6)
