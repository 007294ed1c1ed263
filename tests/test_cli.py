"""The command line: help is quick and shows an example; an error is one line with the right exit code, no traceback."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MEDCNN = [sys.executable, "-m", "medcnn"]
VERBS = ("run", "plan", "search", "audit", "evaluate", "compare", "predict", "recalibrate", "report", "models", "init", "doctor", "schema")


def medcnn(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MEDCNN, *words], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str) -> None:
    done = medcnn(verb, "--help")
    assert done.returncode == 0
    assert re.search(rf"Example: medcnn {verb}", done.stdout)


def test_help_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    medcnn("run", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["audit", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["evaluate", "nowhere.csv", "--out", "out"], "nowhere.csv: no such file"),
        (["compare", "a", "b", "--out", "out"], "a: "),
        (["predict", "nowhere", "x.png", "--out", "p.csv"], "nowhere: "),
        (["report", "nowhere"], "nowhere: "),
        (["init", "nowhere"], "nowhere: no such folder"),
        (["models", "resnet_of_no_kind"], "resnet_of_no_kind"),
    ],
)
def test_what_the_user_can_mend_ends_with_2_and_one_line(tmp_path: Path, words: list[str], expected: str) -> None:
    done = medcnn(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    done = medcnn("run", cwd=tmp_path)
    assert done.returncode == 2
    assert "CONFIG" in done.stderr


def test_doctor_names_what_is_here() -> None:
    done = medcnn("doctor")
    assert done.returncode == 0
    assert "torch" in done.stdout
    assert "device:" in done.stdout


def test_the_committed_schema_is_the_configs() -> None:
    committed = Path(__file__).resolve().parents[1] / "configs" / "schema.json"
    assert medcnn("schema").stdout == committed.read_text()
