"""A search on tiny made-up images: the test part is never read, a kill costs one trial, the config stays as it is."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from medcnn.config import Config
from medcnn.config_file import read_yaml, write_config
from medcnn.errors import InputError
from medcnn.tables import read_table, write_table
from pipelines.search import search_settings

from .conftest import tiny_config

pytest.importorskip("optuna")

SPACE = {"training.learning_rate": [0.0003, 0.03], "training.batch_size": [8, 16, 32], "training.imbalance": ["none", "loss_weights"]}


def config_of(**search: Any) -> Config:
    return tiny_config(
        training={"epochs": 1, "n_workers": 0, "device": "cpu"}, search={"n_trials": 4, "n_folds": 2, "space": SPACE, **search}
    )


def trials_of(folder: Path) -> pd.DataFrame:
    return read_table(folder / "trials.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that was searched, and not trained."""
    folder = tmp_path_factory.mktemp("search") / "run"
    search_settings(config_of(), folder, quiet=True)
    return folder


def test_what_is_found_can_be_pasted_and_the_config_is_as_it_was(searched: Path) -> None:
    trials = trials_of(searched / "search").set_index("trial")
    assert list(trials.index) == [0, 1, 2, 3, 4]
    best = yaml.safe_load((searched / "search" / "best.yaml").read_text())
    row = trials.loc[trials.loc[1:, "log_loss"].idxmin()]
    assert best["training"] == {key.removeprefix("training."): row[key] for key in SPACE}
    assert read_yaml(searched / "config.yaml") == config_of().model_dump(mode="json")
    assert trials.loc[0, "training.learning_rate"] == 0.003
    assert not (searched / "train").exists() and not (searched / "test_ledger.jsonl").exists()


def poison(run: Path, part: str) -> None:
    """Spoil the images and labels of a part, and forget what was searched."""
    shutil.rmtree(run / "search")
    (run / "search.journal").unlink()
    split = read_table(run / "cohort" / "split" / "split.parquet")
    spoilt = set(split.loc[split["part"] == part, "image_id"])
    index = read_table(run / "cohort" / "cache" / "index.parquet")
    images = np.load(run / "cohort" / "cache" / "images.npy", mmap_mode="r+")
    rows = np.flatnonzero(index["image_id"].isin(spoilt))
    assert len(rows) == len(spoilt) > 10
    images[rows] = np.random.default_rng(0).integers(0, 255, images[rows].shape)
    images.flush()
    manifest = read_table(run / "cohort" / "audit" / "manifest.parquet")
    manifest["y_nodule"] = manifest["y_nodule"].where(~manifest["image_id"].isin(spoilt), 1 - manifest["y_nodule"])
    write_table(manifest, run / "cohort" / "audit" / "manifest.parquet")


@pytest.mark.parametrize("part", ["test", "train"])
def test_the_test_part_is_never_read(searched: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(searched, copy)
    poison(copy, part)
    found = trials_of(search_settings(config_of(), copy, quiet=True))
    assert found.equals(trials_of(searched / "search")) == (part == "test")


def test_a_killed_search_ends_as_one_that_was_not(searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    shutil.rmtree(run / "search")
    (run / "search.journal").unlink()
    write_config(config_of(), tmp_path / "config.yaml")
    code = f"from pathlib import Path; from medcnn.config_file import read_config; from pipelines.search import search_settings; search_settings(read_config(Path({str(tmp_path / 'config.yaml')!r})), Path({str(run)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    journal, end = run / "search.journal", time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None and (not journal.exists() or journal.read_text().count('"noted"') < 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = journal.read_text().count('"noted"')
    assert done < 4 and not (run / "search").exists()
    before = journal.read_text()
    assert trials_of(search_settings(config_of(), run, quiet=True)).equals(trials_of(searched / "search"))
    assert journal.read_text().startswith(before[: before.rfind("\n") + 1])
    assert journal.read_text().count('"noted"') == 4  # none was scored twice


def test_a_search_that_is_done_is_not_done_again_and_can_be_made_longer(searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    before = (run / "search" / "stamp.json").read_bytes()
    search_settings(config_of(), run, quiet=True)
    assert (run / "search" / "stamp.json").read_bytes() == before
    longer = trials_of(search_settings(config_of(n_trials=5), run, update=True, quiet=True))
    assert len(longer) == 6
    assert longer.head(5).equals(trials_of(searched / "search"))
    assert (run / "search.journal").read_text().count('"noted"') == 5


def test_the_report_of_a_run_in_the_same_folder_says_that_it_was_searched(searched: Path, tmp_path: Path) -> None:
    from pipelines.finetune import finetune, rewrite_report

    run = tmp_path / "run"
    shutil.copytree(searched, run)
    best = yaml.safe_load((run / "search" / "best.yaml").read_text())["training"]
    config = config_of()
    chosen = config.model_copy(update={"training": config.training.model_copy(update=best)})
    finetune(chosen, run, update=True, quiet=True)
    statement = "Before, 4 settings of training.learning_rate, training.batch_size, training.imbalance of the main model were compared"
    for _ in range(2):
        html = (run / "report.html").read_text()
        assert statement in html and "The model has the best of them." in html
        rewrite_report(run)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run, elsewhere)
    shutil.rmtree(elsewhere / "search")
    finetune(chosen, elsewhere, quiet=True)
    assert statement not in (elsewhere / "report.html").read_text()


def test_what_cannot_be_searched_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean training.learning_rate"):
        search_settings(config_of(space={"training.learning_rat": [0.1, 0.2]}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
