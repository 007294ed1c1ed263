"""`torchrun -m medcnn run`: two processes, one run folder, one voice; killed, it ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.resume import digests
from medcnn.artifact import file_digest
from medcnn.config_file import write_config
from medcnn.tables import read_table
from tests.pipelines.conftest import tiny_config

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "data": {"n_images": 80},
    "training": {"device": "cpu", "epochs": 3, "checkpoint_minutes": 0},
    "report": {"n_errors": 0},
    "evaluation": {"n_bootstrap": 0},
}


def torchrun(config: Path, out: Path, n: int = 2) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={n}",
        "-m",
        "medcnn",
        "run",
        config,
        "--out",
        out,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    write_config(tiny_config(**SMALL), path)
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of a run by two processes that nothing interrupts."""
    folder = tmp_path_factory.mktemp("torchrun") / "run"
    process = torchrun(config, folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return folder, out


def test_the_first_process_alone_speaks_and_writes(whole: tuple[Path, str]) -> None:
    folder, out = whole
    assert out.count("ingest ...") == out.count("train/main/fold0: done in") == out.count("report: done in") == 1
    assert len((folder / "test_ledger.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in folder.rglob(".*") if not path.name.endswith(".lock")] == []
    history = read_table(folder / "train/main/fold0/history.csv")
    assert len(history) == 3


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bits(config: Path, whole: tuple[Path, str], tmp_path: Path) -> None:
    """SIGKILL for torchrun and both processes, once there is a checkpoint."""
    process = torchrun(config, tmp_path / "run")
    until = time.monotonic() + 120
    while not list(tmp_path.glob("run/train/main/.fold0.draft/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < until, "no checkpoint came"
        time.sleep(0.005)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    for pid in (process.pid, *children):
        os.killpg(pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run/train/main/fold0").exists()
    process = torchrun(config, tmp_path / "run")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert digests(tmp_path / "run") == digests(whole[0])
    assert file_digest(tmp_path / "run/train/main/fold0/history.csv") == file_digest(whole[0] / "train/main/fold0/history.csv")


def test_an_error_within_the_training_is_told_once(tmp_path: Path) -> None:
    write_config(tiny_config(**{**SMALL, "training": {"device": "cpu", "batch_size": 3}}), tmp_path / "small.yaml")
    process = torchrun(tmp_path / "small.yaml", tmp_path / "run")
    out, err = process.communicate()
    assert process.returncode != 0
    assert err.count("medcnn: ") == 1 and "too few for 2 processes" in err
    assert str(ROOT / "medcnn") not in err, "a traceback of ours"
    assert out.count("train/main/fold0 ...") == 1


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "medcnn", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode == 0 and "medcnn run" in done.stdout.replace("\n", " ")) or "run" in done.stdout.split()
