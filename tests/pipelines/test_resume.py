"""A run that is killed, wherever, and started again ends with the bits of one that nothing disturbed."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.resume import digests, run_killed, run_whole
from medcnn import artifact, runs
from medcnn.config_file import write_config
from pipelines.finetune import finetune
from tests.pipelines.conftest import tiny_config

SMALL: dict[str, Any] = {"training": {"device": "cpu", "checkpoint_minutes": 0}, "evaluation": {"n_bootstrap": 0}}
STAGES = (
    "ingest", "audit", "fingerprint", "plan", "split", "cache", "shortcuts",
    "train/main/fold0", "predict/main", "calibrate", "evaluate", "ladder", "explain", "report",
)  # fmt: skip
POINTS = ("begun", "worked", "stamped")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    write_config(tiny_config(**SMALL), path)
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """sha256 of the results of a run that nothing disturbs."""
    found = digests(finetune(tiny_config(**SMALL), tmp_path_factory.mktemp("whole") / "run", quiet=True).folder)
    assert set(found) == {"train/main/fold0/weights.safetensors", "predictions.parquet", "metrics.json"}
    return found


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(stage: str, point: str) -> None:
    """Lay the mine: within the stage's work, between work and stamp, or between the stamp and the move into place."""
    name = stage.rpartition("/")[2]
    drafted, publish = runs.drafted, artifact._publish

    @contextmanager
    def mined(folder: Path, key: artifact.Key) -> Iterator[Path]:
        with drafted(folder, key) as draft:
            if folder.name == name and point == "begun":
                die()
            yield draft
            if folder.name == name and point == "worked":
                die()

    def mined_publish(draft: Path, folder: Path) -> None:
        if folder.name == name and point == "stamped":
            die()
        publish(draft, folder)

    runs.drafted, artifact._publish = mined, mined_publish


def run_mined(out: Path, stage: str, point: str) -> int:
    """Exit code of a forked process that runs the flow over the mine."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        die_at(stage, point)
        finetune(tiny_config(**SMALL), out, quiet=True)
    finally:
        os._exit(1)


def test_killed_in_each_stage_thrice(expected: Mapping[str, str], tmp_path: Path) -> None:
    """42 kills on the way of one run: each of the next processes goes on where the last one fell."""
    out = tmp_path / "run"
    for stage in STAGES:
        for point in POINTS:
            assert run_mined(out, stage, point) == -signal.SIGKILL, f"{stage} was not reached, or not killed when it had {point}"
            if point == "stamped":
                break_off = [path.name for path in out.rglob(".*.draft")]
                assert break_off == [f".{stage.rpartition('/')[2]}.draft"]
    finetune(tiny_config(**SMALL), out, quiet=True)
    assert digests(out) == expected
    assert not list(out.rglob(".*.draft"))


def moments(n: int, duration: float) -> list[float]:
    return [float(moment) for moment in np.random.default_rng(7).uniform(0, duration, n)]


def test_killed_at_three_random_moments(config: Path, expected: Mapping[str, str], tmp_path: Path) -> None:
    """kill -9 of the whole command, three times on the way of one run."""
    for seconds in (0.3, *moments(2, 6)):
        run_killed(config, tmp_path / "run", seconds)
    run_whole(config, tmp_path / "run")
    assert digests(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments(config: Path, expected: Mapping[str, str], tmp_path: Path) -> None:
    """Each time a run of its own, killed once."""
    duration = run_whole(config, tmp_path / "whole")
    assert digests(tmp_path / "whole") == expected
    stages = []
    for number, seconds in enumerate(moments(20, duration)):
        stages.append(run_killed(config, tmp_path / str(number), seconds))
        run_whole(config, tmp_path / str(number))
        assert digests(tmp_path / str(number)) == expected, f"killed after {seconds:.2f} s, in stage {stages[-1]}"
    assert len(set(stages)) >= 3, f"the moments all fell into {set(stages)}"
