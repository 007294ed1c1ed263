"""Tiles with the label of their slide, from PNG files to report: one prediction for each slide, the attention in it, colours of the training rows."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medcnn.config_file import build_config
from medcnn.data.stain import fit_target, stain_of
from medcnn.inference import predict_new
from medcnn.model.card import read_card
from medcnn.plan import read_plan
from medcnn.runs import reopen_run
from medcnn.tables import read_records, read_table
from pipelines.finetune import finetune
from tests.data.test_stain import WARM_E, WARM_H, E, H, stained

N_PATIENTS, N_TILES = 20, 6


def write_tiles(folder: Path) -> Path:
    """Slides of 20 patients, 6 tiles of 32 px each in 2 rows; two tiles of every other patient's slides have a dark blot. Every
    third patient has two slides."""
    rows = []
    for patient in range(N_PATIENTS):
        for slide in range(2 if patient % 3 == 0 else 1):
            for tile in range(N_TILES):
                seed = patient * 100 + slide * 10 + tile
                pixels = stained(*((H, E) if patient % 4 < 2 else (WARM_H, WARM_E)), amounts=0.5, size=32, seed=seed)
                if patient % 2 and tile < 2:
                    pixels[8:24, 8:24] = pixels[8:24, 8:24] // 3
                name = f"{patient:02d}_{slide}_{tile}.png"
                cv2.imwrite(str(folder / name), pixels[..., ::-1])
                row = {
                    "image": name,
                    "label": ["well", "ill"][patient % 2],
                    "patient": f"p{patient:02d}",
                    "slide": f"s{patient:02d}_{slide}",
                }
                rows.append({**row, "x": 512 * (tile % 3), "y": 512 * (tile // 3)})
    pd.DataFrame(rows).to_csv(folder / "tiles.csv", index=False)
    return folder / "tiles.csv"


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run whose ladder the plan chose."""
    folder = tmp_path_factory.mktemp("bags")
    tree = {
        "name": "bags", "modality": "histology",
        "data": {"source": "table", "path": str(write_tiles(folder)), "label_column": "label", "classes": ["well", "ill"],
                 "patient_column": "patient", "study_column": "slide", "covariates": ["x", "y"]},
        "audit": {"min_class_patients": 2},
        "split": {"scheme": "holdout", "test_fraction": 0.3, "val_fraction": 0.2},
        "image": {"size_px": 32, "stain": "macenko"}, "model": {"name": "tf_efficientnet_lite0"},
        "training": {"n_threads": 1}, "prediction": {"engine": "torch"}, "evaluation": {"n_bootstrap": 20}, "report": {"n_errors": 4},
    }  # fmt: skip
    return finetune(build_config(tree, source="test"), folder / "run", quiet=True).folder


def test_the_plan_sees_labels_of_slides(sliced: Path) -> None:
    decided = read_plan(sliced / "plan/plan.yaml")
    assert decided.ladder.rungs == ("prevalence", "shortcuts", "frozen", "mil")
    assert (decided.ladder.headline, decided.ladder.bag, decided.evaluation.levels) == ("mil", "study", ("study", "patient"))
    assert "27 slides, not of their 162 tiles" in decided.reasons["ladder.rungs"]
    assert {record.level for record in read_records(sliced / "metrics.json")} == {"study", "patient"}


def test_each_tile_carries_its_slides_prediction_and_its_own_weight(sliced: Path) -> None:
    predictions = read_table(sliced / "predict/mil/predictions.parquet")
    attention = read_table(sliced / "predict/mil/attention.parquet")
    rows = predictions.merge(attention, on=["image_id", "part", "fold"], validate="one_to_one")
    assert len(rows) == len(predictions)
    of_slide = rows.groupby("study_id")
    assert (of_slide["p_ill"].nunique() == 1).all()
    assert np.allclose(of_slide["attention"].sum(), 1, atol=1e-5)
    assert rows["p_ill"].nunique() > 3
    frozen = read_table(sliced / "predict/frozen/predictions.parquet")
    pd.testing.assert_frame_equal(frozen[["image_id", "part", "fold", "y_ill"]], predictions[["image_id", "part", "fold", "y_ill"]])


def test_the_colours_are_those_of_the_training_rows(sliced: Path) -> None:
    card = read_card(sliced / "train/mil/fold0")
    split, index = read_table(sliced / "cohort/split/split.parquet"), read_table(sliced / "cohort/cache/index.parquet")
    pixels = np.load(sliced / "cohort/cache/images.npy")
    row_of = dict(zip(index["image_id"], index["row"], strict=True))
    train = [row_of[name] for name in split.loc[split["part"] == "train", "image_id"]]
    expected = fit_target(np.stack([stain_of(pixels[row], "macenko") for row in train]), "macenko")
    assert np.allclose(card.stain_target, expected)
    everybody = fit_target(np.stack([stain_of(image, "macenko") for image in pixels]), "macenko")
    assert not np.allclose(card.stain_target, everybody, atol=1e-9)
    assert read_card(sliced / "train/frozen/fold0").stain_target == card.stain_target
    assert (sliced / "features/fold0/features.npy").is_file()


def test_new_slides_are_predicted_as_in_the_run(sliced: Path, tmp_path: Path) -> None:
    run = reopen_run(sliced)
    test = read_table(sliced / "predictions.parquet").query("part == 'test'").sort_values("image_id")
    tiles = pd.read_csv(sliced.parent / "tiles.csv").rename(columns={"image": "path", "patient": "patient_id", "slide": "study_id"})
    names = set(test["image_id"])
    table = tiles.assign(image_id=tiles["path"])[lambda frame: frame["path"].isin(names)]
    assert len(table) == len(test) > 0
    table.sample(frac=1, random_state=0).assign(path=lambda frame: str(sliced.parent) + "/" + frame["path"]).to_csv(
        tmp_path / "new.csv", index=False
    )
    found = predict_new(run, [tmp_path / "new.csv"]).sort_values("image_id")
    assert np.allclose(found["p_ill"], test["p_ill"], atol=1e-5)
    assert found.groupby("bag")["p_ill"].nunique().max() == 1
    assert found["positive_ill"].isin([0, 1]).all()


def test_the_report_shows_where_the_attention_lay(sliced: Path) -> None:
    shown = json.loads((sliced / "explain/bags.json").read_text())
    assert len(shown) == 4
    assert all(bag["placed"] and bag["n_images"] == N_TILES for bag in shown)
    mosaic = cv2.imread(str(sliced / "explain" / shown[0]["picture"]))
    assert mosaic.shape == (2 * 64, 3 * 64, 3)  # two rows of three tiles
    report = (sliced / "report.html").read_text()
    assert "Where the attention lay" in report
    assert "Attention over bags" in report
    assert json.loads((sliced / "explain/errors.json").read_text()) == []
