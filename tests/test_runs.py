"""What a stage's result depends on, and the test ledger."""

import ast
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import medcnn
from medcnn.config import Config
from medcnn.runs import ROOMS, Run, append_ledger, ledger_entry, note_opening, read_ledger

ROOT = Path(medcnn.__file__).parent
NOT_DECIDING = {  # stage -> what its source imports, but its result does not depend on
    "cache": {"data/pseudonyms"},
    "predict": {"data/shortcut_findings", "data/stratification", "evaluation/calibration", "evaluation/folds", "evaluation/logistic"},
    "search": {"data/cache"},
    "explain": {"model/signature"},
}
TO_MEASURE = {
    f"model/{name}" for name in ("backbones", "batches", "device_augment", "devices", "distributed", "optimisation", "signature", "weights")
}


def files(room: str) -> set[str]:
    found = (ROOT / room).glob("*.py") if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
    return {file.relative_to(ROOT).with_suffix("").as_posix() for file in found}


def imported(file: str) -> set[str]:
    """Files of the rooms that a file imports, by name."""
    nodes = [node for node in ast.walk(ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names} | {str(node.module) for node in nodes}
    paths = {name.removeprefix("medcnn.").replace(".", "/") for name in names if name.startswith("medcnn.")}
    return {path for path in paths if (ROOT / f"{path}.py").is_file() and path.split("/")[0] in {"data", "model", "evaluation"}}


@pytest.mark.parametrize("stage", ROOMS)
def test_a_stage_is_redone_when_source_that_it_imports_changes(stage: str) -> None:
    own = set().union(*map(files, ROOMS[stage]))
    assert own
    in_rooms = {file for file in own if "/" in file}  # what joins the rooms reads far more than it computes with
    lacking = set().union(*map(imported, in_rooms)) - own - NOT_DECIDING.get(stage, set()) - (TO_MEASURE if stage == "plan" else set())
    assert not lacking, f"{stage}: {sorted(lacking)}"


def test_the_guess_of_the_prevalence_is_redone_with_its_source() -> None:
    assert "evaluation/baseline" in ROOMS["predict"]  # predict_stages.py imports it, and stands in no room


def test_an_opening_that_is_noted_is_not_noted_again(tmp_path: Path) -> None:
    """A kill between the line and the stamp of evaluate has the stage done again."""
    path, one = tmp_path / "test_ledger.jsonl", ledger_entry("trial", "c" * 64, "p" * 64, run="trial")
    append_ledger(path, one)
    append_ledger(path, {**one, "when": "2031-01-01T00:00:00+0000", "who": "somebody else"})
    assert [line["when"] for line in read_ledger(path)] == [one["when"]]
    for key in ("run", "config", "predictions", "name"):
        append_ledger(path, {**one, key: "another"})
        append_ledger(path, {**one, key: "another"})
    assert len(read_ledger(path)) == 5
    older = {key: value for key, value in one.items() if key != "run"}
    path.write_text(json.dumps(older) + "\n")  # a line of before runs were named
    append_ledger(path, one)
    assert read_ledger(path) == [older]


def test_openings_by_several_runs_at_once_are_all_noted(tmp_path: Path) -> None:
    config = Config.model_validate({"name": "one", "data": {"source": "phantom"}})
    runs = [Run(config, tmp_path / f"run{number}", tmp_path, shared=True) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: note_opening(run, {"name": run.folder.name}), runs))
    assert {entry["name"] for entry in read_ledger(runs[0].ledger)} == {run.folder.name for run in runs}
