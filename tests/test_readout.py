"""What a report says of costs."""

from pathlib import Path

import pytest

from medcnn.artifact import COST_FILE, Key, drafted, read_stamp
from medcnn.members import Member
from medcnn.readout import cpu_seconds_of


def test_frozen_models_cost_their_features_too_and_once(tmp_path: Path) -> None:
    trained = {Member("frozen", 0): tmp_path / "f0", Member("frozen", 1): tmp_path / "f1", Member("main", 0): tmp_path / "m0"}
    for folder in trained.values():
        folder.mkdir()
        (folder / COST_FILE).write_text('{"cpu_seconds": 10.0}')
    with drafted(tmp_path / "features", Key(stage="features", settings={}, inputs={}, code="")):
        sum(number**2 for number in range(300_000))
    stamp = read_stamp(tmp_path / "features")
    assert stamp is not None and stamp.cpu_seconds > 0
    frozen = [member for member in trained if member.rung == "frozen"]
    assert cpu_seconds_of(frozen, trained, tmp_path / "features") == pytest.approx(20 + stamp.cpu_seconds)
    assert cpu_seconds_of(trained, trained, tmp_path / "features") == pytest.approx(30 + stamp.cpu_seconds)
    assert cpu_seconds_of([Member("main", 0)], trained, tmp_path / "features") == 10
    assert cpu_seconds_of([Member("main", 0)], trained, None) == 10
