"""The trials of a search on made-up scores: what is proposed, what is called off, what a kill leaves, what is best."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medcnn.errors import Diverged, InputError
from medcnn.search_space import Dimension, Value
from medcnn.trials import Trial, best_of, run_trials, trials_table

pytest.importorskip("optuna")

SPACE = [
    Dimension("training.learning_rate", 1e-4, 1e-1),
    Dimension("training.epochs", 1, 20, whole=True),
    Dimension("training.loss", choices=("focal", "cross_entropy")),
]
STANDING = {"training.learning_rate": 0.1, "training.epochs": 1, "training.loss": "focal"}


def made_up(values: Mapping[str, Value], fold: int) -> float:
    """Lowest at learning rate 0.01 with many epochs of cross-entropy."""
    from math import log10

    values = values or STANDING
    rate, epochs = values["training.learning_rate"], values["training.epochs"]
    assert isinstance(rate, float) and isinstance(epochs, int)
    return abs(log10(rate) + 2) + 1 / epochs + 0.5 * (values["training.loss"] == "focal") + 0.01 * fold


def search(journal: Path, score: Any = made_up, **more: Any) -> list[Trial]:
    settings = {"standing": STANDING, "n_folds": 3, "n_trials": 12, "seed": 0, "journal": journal, "name": "a", **more}
    return run_trials(SPACE, score, **settings)


def timeless(trials: list[Trial]) -> list[Any]:
    return [(trial.number, trial.outcome, dict(trial.values), list(trial.losses), trial.note) for trial in trials]


def test_every_trial_is_what_was_scored(tmp_path: Path) -> None:
    trials = search(tmp_path / "j")
    assert [trial.number for trial in trials] == list(range(13))
    for trial in trials:
        assert list(trial.losses) == [made_up(trial.values, fold) for fold in range(len(trial.losses))]
        assert 1e-4 <= trial.values["training.learning_rate"] <= 0.1  # type: ignore[operator]
        assert trial.loss is None if trial.outcome == "pruned" else trial.loss == pytest.approx(sum(trial.losses) / 3)
    assert trials[0].values == STANDING


def test_the_seed_decides_the_trials(tmp_path: Path) -> None:
    first = timeless(search(tmp_path / "one"))
    assert timeless(search(tmp_path / "two")) == first
    assert timeless(search(tmp_path / "three", seed=1)) != first


def test_it_learns_where_low_losses_are(tmp_path: Path) -> None:
    """Against as many draws at random, over several seeds."""
    late, early = [], []
    for seed in range(2):
        trials = search(tmp_path / str(seed), n_trials=24, seed=seed)
        late += [made_up(trial.values, 0) for trial in trials[16:]]
        early += [made_up(trial.values, 0) for trial in trials[1:9]]
    assert sum(late) / len(late) < 0.7 * sum(early) / len(early)


def test_bad_trials_are_called_off_after_a_fold(tmp_path: Path) -> None:
    trials = search(tmp_path / "j", n_trials=20)
    pruned = [trial for trial in trials if trial.outcome == "pruned"]
    assert pruned
    assert all(trial.number > 4 and len(trial.losses) < 3 for trial in pruned)
    complete = [trial for trial in trials[1:] if trial.outcome == "complete"]
    for trial in pruned:  # worse than the median of those before it, at the same fold
        k = len(trial.losses)
        before = sorted(sum(other.losses[:k]) / k for other in complete if other.number < trial.number)
        assert sum(trial.losses) / k > before[(len(before) - 1) // 2]


def test_done_trials_are_not_scored_again_and_more_are_added(tmp_path: Path) -> None:
    few = search(tmp_path / "j", n_trials=5)
    asked = []

    def counted(values: Mapping[str, Value], fold: int) -> float:
        asked.append(fold)
        return made_up(values, fold)

    assert timeless(search(tmp_path / "j", counted, n_trials=5)) == timeless(few)
    assert not asked
    more = search(tmp_path / "j", counted, n_trials=8)
    assert timeless(more)[:6] == timeless(few)
    assert len(asked) == sum(len(trial.losses) for trial in more[6:])
    assert timeless(more) == timeless(search(tmp_path / "other", n_trials=8))
    assert timeless(search(tmp_path / "j", counted, n_trials=3)) == timeless(few)[:4]
    assert len(search(tmp_path / "j", counted, n_trials=2, name="another study")) == 3


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_trials import made_up, search

def slowly(values, fold):
    time.sleep(0.05)
    return made_up(values, fold)

search(Path(sys.argv[1]), slowly)
"""


def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(tests=str(Path(__file__).parent)), str(journal)], env=environment)
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None and (not journal.exists() or journal.read_text().count('"noted"') < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with journal.open("a") as file:
        file.write('{"op_code": 6, "worker')  # as if the kill had come amid a line
    journal.with_name("j.lock").touch()  # and while the journal was locked
    asked = []

    def counted(values: Mapping[str, Value], fold: int) -> float:
        asked.append(fold)
        return made_up(values, fold)

    whole = timeless(search(tmp_path / "whole"))
    started = time.monotonic()
    assert timeless(search(journal, counted)) == whole
    assert time.monotonic() - started < 20  # Optuna alone gives a left lock 30 seconds
    assert len(asked) < sum(len(losses) for *_, losses, _ in whole) - 6


def test_a_diverged_trial_is_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    def fragile(values: Mapping[str, Value], fold: int) -> float:
        if values and values["training.epochs"] > 10:  # type: ignore[operator]
            raise Diverged("the loss is not finite")
        if values and values["training.loss"] == "focal":
            raise InputError("these do not go together")
        return made_up(values, fold)

    trials = search(tmp_path / "j", fragile)
    assert {trial.outcome for trial in trials} >= {"complete", "diverged", "refused"}
    for trial in trials[1:]:
        assert (trial.outcome == "diverged") == (trial.values["training.epochs"] > 10)  # type: ignore[operator]
        assert trial.note == {"diverged": "the loss is not finite", "refused": "these do not go together"}.get(trial.outcome, "")
    assert timeless(search(tmp_path / "j", fragile)) == timeless(trials)
    best = best_of(trials)
    assert best is not None and best.outcome == "complete"


def test_what_the_config_as_it_stands_cannot_do_stops_the_search(tmp_path: Path) -> None:
    def refusing(values: Mapping[str, Value], fold: int) -> float:
        raise InputError("no such device")

    with pytest.raises(InputError, match="no such device"):
        search(tmp_path / "j", refusing)


def test_best_and_table(tmp_path: Path) -> None:
    trials = search(tmp_path / "j")
    best = best_of(trials)
    assert best is not None and best.number > 0
    assert best.loss == min(trial.loss for trial in trials[1:] if trial.loss is not None)
    assert best_of(trials[:1]) is None
    table = trials_table(trials).set_index("trial")
    assert table.loc[best.number, "log_loss"] == best.loss
    assert table["training.epochs"].dtype.kind == "i"
    assert list(table.columns[:5]) == ["outcome", "log_loss", "log_loss_fold0", "log_loss_fold1", "log_loss_fold2"]
    assert table["log_loss"].isna().equals(table["outcome"].ne("complete"))
