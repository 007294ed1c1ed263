"""Trials of a hyper-parameter search: Optuna proposes, each proposal is scored fold by fold, and a journal keeps what is done.

A trial depends on the seed, its number and the trials before it alone. So a search that was killed goes on with the
same trials as one that was not.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from medcnn.errors import Diverged, InputError, MissingExtra
from medcnn.search_space import Dimension, Value

Outcome = Literal["complete", "pruned", "diverged", "refused"]
Score = Callable[[Mapping[str, Value], int], float]  # values, fold -> loss; the lower the better
N_RANDOM = 8  # trials at random before the sampler learns from them
N_UNPRUNED = 4  # trials that are all scored to the end


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting. values: dotted key -> value; losses: of the folds that were scored, the lower the better.

    number: from 1; 0 is the config as it stands. outcome: pruned, when the first folds were worse than the median of
    the trials before it; diverged, when a number of the network was no longer finite; refused, when values that are
    good by themselves cannot be together. note: why.
    """

    number: int
    outcome: Outcome
    values: Mapping[str, Value]
    losses: Sequence[float]
    seconds: float
    note: str = ""

    @property
    def loss(self) -> float | None:
        """Mean over the folds; None unless all were scored."""
        return statistics.fmean(self.losses) if self.outcome == "complete" else None


def run_trials(  # noqa: PLR0913 - the front door
    space: Sequence[Dimension],
    score: Score,
    *,
    standing: Mapping[str, Value],
    n_folds: int,
    n_trials: int,
    seed: int,
    journal: Path,
    name: str,
    say: Callable[[str], None] = lambda _: None,
) -> list[Trial]:
    """Score the config as it stands and n_trials settings; those that the journal has under this name are not scored again.

    standing: the values of the config as it stands, for which score is given none. score: called for each fold in turn;
    not for the rest of a trial that is pruned. Only one process may use the journal. TPE (doi:10.5555/2986459.2986743) proposes. Raises MissingExtra without Optuna.
    """
    study = _open_study(journal, name)
    if n_done := len(_finished(study)):
        say(f"search: {n_done} trials were done before")
    if "standing" not in study.user_attrs:
        study.set_user_attr("standing", _noted(replace(_scored(0, {}, score, n_folds), values=standing)))
    say(_line(_read(0, study.user_attrs["standing"]), n_trials))
    while (number := len(_finished(study)) + 1) <= n_trials:
        _one_trial(study, number, space, score, n_folds, seed)
        say(_line(_read(number, _finished(study)[-1]), n_trials))
    return [_read(number, noted) for number, noted in enumerate([study.user_attrs["standing"], *_finished(study)[:n_trials]])]


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the lowest loss, the config as it stands left out; None when none was complete."""
    losses = {trial.number: loss for trial in trials if trial.number and (loss := trial.loss) is not None}
    return trials[min(losses, key=losses.__getitem__)] if losses else None


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row for each trial: trial, outcome, log_loss, log_loss_fold0 ..., seconds, a column for each key, note."""
    n_folds = max(len(trial.losses) for trial in trials)
    rows = [
        {
            "trial": trial.number, "outcome": trial.outcome, "log_loss": trial.loss,
            **{f"log_loss_fold{fold}": trial.losses[fold] if fold < len(trial.losses) else None for fold in range(n_folds)},
            "seconds": trial.seconds, **trial.values, "note": trial.note,
        }
        for trial in trials
    ]  # fmt: skip
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- one trial


def _one_trial(study: Any, number: int, space: Sequence[Dimension], score: Score, n_folds: int, seed: int) -> None:
    import optuna

    words = np.random.SeedSequence([seed, number]).generate_state(1)
    study.sampler = optuna.samplers.TPESampler(seed=int(words[0]), n_startup_trials=N_RANDOM)
    trial = study.ask()
    values = {dimension.key: dimension.settle(_propose(trial, dimension)) for dimension in space}
    scored = _scored(number, values, score, n_folds, trial)
    trial.set_user_attr("noted", _noted(scored))
    _tell(study, trial.number, scored)


def _tell(study: Any, place: int, scored: Trial) -> None:
    import optuna

    if scored.outcome == "complete":
        study.tell(place, scored.loss)
    else:
        study.tell(place, state=optuna.trial.TrialState.PRUNED)


def _propose(trial: Any, dimension: Dimension) -> Value:
    if dimension.choices:
        chosen: Value = trial.suggest_categorical(dimension.key, list(dimension.choices))
        return chosen
    if dimension.whole:
        return int(trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log))
    return float(trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log))


def _scored(number: int, values: Mapping[str, Value], score: Score, n_folds: int, trial: Any = None) -> Trial:
    """trial: Optuna's, which is told each fold and may then call the rest off."""
    started, losses = time.monotonic(), list[float]()
    outcome: Outcome = "complete"
    note = ""
    try:
        for fold in range(n_folds):
            losses.append(score(values, fold))
            if trial is not None and fold < n_folds - 1:
                trial.report(statistics.fmean(losses), step=fold)
                if trial.should_prune():
                    outcome = "pruned"
                    break
    except Diverged as problem:
        outcome, note = "diverged", str(problem)
    except InputError as problem:
        if trial is None:
            raise
        outcome, note = "refused", str(problem)
    seconds = round(time.monotonic() - started, 2)
    return Trial(number=number, outcome=outcome, values=values, losses=losses, seconds=seconds, note=note)


def _line(trial: Trial, n_trials: int) -> str:
    what = f"trial {trial.number} of {n_trials}" if trial.number else "the config as it stands"
    folds = ", ".join(f"{loss:.4f}" for loss in trial.losses) or "no fold"
    mean = f"log-loss {trial.loss:.4f} " if trial.loss is not None else f"{trial.outcome} "
    values = [f"{key}={value}" for key, value in trial.values.items()]
    return " ".join([f"search: {what}: {mean}({folds})", *values, *([f"[{trial.note}]"] if trial.note else [])])


# ---------------------------------------------------------------- the journal


def _open_study(journal: Path, name: str) -> Any:
    """The study of this name. The trial that a killed process was at is called off, unless its scores were noted already."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "search", "`medcnn search`") from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)  # of a killed process: the stage's own lock is held
    _cut_torn_line(journal)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal))))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=N_UNPRUNED)
    study = optuna.create_study(study_name=name, storage=storage, pruner=pruner, direction="minimize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if noted := trial.user_attrs.get("noted"):
            _tell(study, trial.number, _read(trial.number, noted))
        else:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _cut_torn_line(journal: Path) -> None:
    """A kill may leave half a line at the end, to which the next line would be glued."""
    if journal.is_file() and not (text := journal.read_bytes()).endswith(b"\n"):
        journal.write_bytes(text[: text.rfind(b"\n") + 1])


def _finished(study: Any) -> list[Mapping[str, Any]]:
    """What was noted of each finished trial, in their order; those that were killed are left out."""
    import optuna

    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return [trial.user_attrs["noted"] for trial in study.get_trials(deepcopy=False, states=over)]


def _noted(trial: Trial) -> dict[str, Any]:
    return {
        "outcome": trial.outcome,
        "values": dict(trial.values),
        "losses": list(trial.losses),
        "seconds": trial.seconds,
        "note": trial.note,
    }


def _read(number: int, noted: Mapping[str, Any]) -> Trial:
    return Trial(number=number, **noted)
