"""Slides through to the report: made-up ones, whose classes differ in how many nuclei they have, evaluated by slide."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.config_file import build_config
from medcnn.data.cache import open_cache
from medcnn.inference import predict_new
from medcnn.runs import reopen_run
from medcnn.tables import read_records, read_table
from pipelines.audit import audit_cohort
from pipelines.finetune import finetune
from tests.data.made_slides import aperio, tissue_picture, write_slide

pytest.importorskip("openslide", reason="needs the extra wsi")

N_SLIDES = 16


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    rows = []
    for number in range(N_SLIDES):
        dense = number % 2 == 1
        picture = tissue_picture(420, 480, seed=number, nuclei=0.009 if dense else 0.003)
        write_slide(root / "slides" / f"s{number:02d}.svs", picture, description=aperio(480, 420, User="Musterfrau"))
        rows.append({"image": f"s{number:02d}", "dx": "dense" if dense else "sparse", "patient": f"p{number // 4}{dense:d}"})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    tree = {
        "name": "slides",
        "modality": "histology",
        "data": {
            "source": "slides", "path": str(root / "slides"), "label_table": str(root / "labels.csv"), "label_column": "dx",
            "classes": ["sparse", "dense"], "patient_column": "patient", "slides": {"tile_px": 64, "mpp": 0.5},
        },
        "audit": {"min_class_patients": 2},
        "split": {"scheme": "holdout", "val_fraction": 0.2, "test_fraction": 0.4},
        "image": {"size_px": 32, "channels": 3, "stain": "none"},
        "model": {"name": "simple_cnn", "pretrained": False},
        "training": {"epochs": 2, "batch_size": 32, "n_threads": 1, "n_workers": 0, "device": "cpu"},
        "ladder": {"rungs": ["prevalence", "main"]},
        "evaluation": {"levels": ["study", "image", "patient"], "n_bootstrap": 30},
    }  # fmt: skip
    finetune(build_config(tree, source="the test"), root / "run", quiet=True)
    return root / "run"


def test_slides_are_evaluated_by_slide(finished: Path) -> None:
    manifest = read_table(finished / "cohort" / "audit" / "manifest.parquet")
    assert manifest["study_id"].nunique() == N_SLIDES
    test = read_table(finished / "predictions.parquet").query("part == 'test'")
    found = {
        record.level: record.n for record in read_records(finished / "metrics.json") if record.metric == "auroc" and record.subset == "all"
    }
    assert found == {"image": len(test), "study": test["study_id"].nunique(), "patient": test["patient_id"].nunique()}
    assert found["study"] > found["patient"]


def test_the_cache_holds_the_tiles(finished: Path) -> None:
    manifest = read_table(finished / "cohort" / "audit" / "manifest.parquet")
    cached = open_cache(finished / "cohort" / "cache")
    assert len(cached) == len(manifest)
    rows = cached.rows(manifest["image_id"])
    first = manifest.iloc[0]
    picture = tissue_picture(420, 480, seed=0, nuclei=0.003)
    tile = picture[first["y"] : first["y"] + 64, first["x"] : first["x"] + 64]
    halved = tile.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(cached.images[rows[0]] - halved).max() <= 1


def test_no_name_of_a_person_is_in_any_file_of_the_run(finished: Path) -> None:
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if b"Musterfrau" in path.read_bytes()] == []


def test_a_new_slide_is_cut_and_predicted_and_a_broken_one_says_why(finished: Path, tmp_path: Path) -> None:
    write_slide(tmp_path / "new.svs", tissue_picture(420, 480, seed=99), description=aperio(480, 420))
    (tmp_path / "broken.svs").write_bytes(b"broken")
    found = predict_new(reopen_run(finished), [tmp_path])
    good = found[found["problem"] == ""]
    assert len(good) > 10
    assert good["image_id"].str.startswith("new.svs/").all()
    assert good["p_dense"].between(0, 1).all()
    assert found.loc[found["problem"] != "", "image_id"].tolist() == ["broken.svs"]
    assert "no such slide format" in found["problem"].max()


@pytest.mark.slow
def test_the_shipped_config_shows_each_real_file(shared_data: Path, tmp_path: Path) -> None:
    from medcnn.config_file import read_config

    config = read_config(Path(__file__).resolve().parents[2] / "configs" / "slides.yaml")
    assert config.data.path == shared_data / "wsi"
    _, text = audit_cohort(config, tmp_path / "out", quick=True)
    assert "implausible_resolution" in text
