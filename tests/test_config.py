"""The config tree: what it refuses and how it says so."""

import json
from pathlib import Path

import pytest

from medcnn.config_file import build_config, changed_keys, config_schema, read_config, write_config
from medcnn.errors import InputError

MINIMAL = "name: small\ndata: {source: phantom}\n"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, MINIMAL + "training: {epochs: 3}\n"), ["training.epochs=7", "model.pretrained=false"])
    assert (config.training.epochs, config.model.pretrained) == (7, False)


def test_a_relative_path_starts_at_the_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "name: a\ndata: {source: npz, path: ../set.npz}\ncohort: shared\n"))
    assert config.data.path == (tmp_path.parent / "set.npz").resolve()
    assert config.cohort == (tmp_path / "shared").resolve()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "training: {epoch: 3}", ["training.epoch is not a known key", "did you mean training.epochs?"]),
        (MINIMAL + "training: {epochs: -1}", ["training.epochs", "greater than or equal to 1 or 'auto'", "got -1"]),
        (MINIMAL + "trainings: {}", ["trainings is not a known key", "did you mean training?"]),
        ("data: {source: phantom}", ["name is required and missing"]),
        ("name: 'a b'\ndata: {source: phantom}", ["name", "pattern", "got 'a b'"]),
        ("name: a\ndata: {source: npz}", ["source npz needs path (a file) or dataset"]),
        ("name: a\ndata: {source: table, path: x.csv}", ["label_column"]),
        ("name: a\ndata: {source: table, path: x.csv, label_column: y, label_columns: [z]}", ["not both"]),
        ("name: a\ndata: {source: folder, path: x, classes: [a, b], positive: c}", ["positive 'c' is not among classes"]),
        (MINIMAL + "split: {val_fraction: 0.6, test_fraction: 0.5}", ["leave nothing to train on"]),
        (MINIMAL + "evaluation: {thresholds: [{rule: fixed}]}", ["rule fixed needs a value"]),
        (MINIMAL + "evaluation: {thresholds: [{rule: youden, value: 0.5}]}", ["takes no value"]),
        (MINIMAL + "evaluation: {thresholds: [{rule: sensitivity, value: 2}]}", ["from 0 to 1"]),
        (MINIMAL + "seed: 1\nseed: 2", ["given twice"]),
        ("- a list", ["expected a mapping"]),
        ("name: [unclosed", ["not valid YAML"]),
    ],
)
def test_a_wrong_config_is_refused_with_file_and_reason(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    for words in expected:
        assert words in str(caught.value)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="epochs.*batch_size"):
        read_config(write(tmp_path, MINIMAL + "training: {epochs: x, batch_size: 0}"))


@pytest.mark.parametrize("override", ["training.epochs", "=3", "name.deeper=3", "training.epochs=[1"])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="override"):
        read_config(write(tmp_path, MINIMAL), [override])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        read_config(Path("nowhere.yaml"))


def test_writing_and_reading_gives_the_same_config(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, MINIMAL), ["evaluation.thresholds=[{rule: fixed, value: 0.3}]"])
    write_config(config, tmp_path / "out.yaml")
    assert read_config(tmp_path / "out.yaml") == config


def test_changed_keys_are_dotted() -> None:
    assert changed_keys({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]


def test_schema_refuses_unknown_keys() -> None:
    schema = json.loads(config_schema())
    assert schema["additionalProperties"] is False
    assert schema["properties"]["training"]


def test_config_is_frozen() -> None:
    config = build_config({"name": "a", "data": {"source": "phantom"}}, source="test")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_every_shipped_config_is_valid() -> None:
    files = sorted(CONFIGS.rglob("*.yaml"))
    assert len(files) == 8, "the number of shipped configs changed: mend this count"
    for file in files:
        assert read_config(file).name
