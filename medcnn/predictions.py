"""Predictions without stages: evaluate anybody's table, compare several. One folder is written, whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from medcnn.artifact import Key, code_digest, digest, drafted, expose, is_current, make_folder, read_stamp, recover
from medcnn.config import EvaluationConfig
from medcnn.errors import InputError
from medcnn.evaluation.assessment import Assessment, assess
from medcnn.evaluation.calibrator import Calibrator
from medcnn.evaluation.operating_points import Thresholds
from medcnn.report.facts import ComparisonFacts, ModelFacts, OperatingPoint, RunFacts
from medcnn.runs import LEDGER_FILE, append_ledger, ledger_entry, reopen_run
from medcnn.tables import (
    Level,
    Task,
    check_predictions,
    infer_task,
    label_matrix,
    label_names,
    read_records,
    read_table,
    write_records,
    write_table,
)

CODE = ("evaluation", "report", "tables", "predictions")


@dataclass(frozen=True)
class TestedModel:
    """One model's predictions on a test set. thresholds: label -> operating points, a number or fold -> number each.

    level: the one that the model's own report is about; blank for a predictions file.
    """

    name: str
    table: pd.DataFrame
    task: Task
    thresholds: Thresholds
    recalibration: str = "none"
    assessment: Assessment | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    level: Level | None = None


def evaluate_table(table: pd.DataFrame, out: Path, config: EvaluationConfig, *, name: str, task: str = "auto") -> Path:
    """Write `metrics.json`, `curves.parquet`, `report.html`, the figures and the test ledger of a checked predictions table.

    Test rows are evaluated when the table has parts. Raises InputError when `out` holds somebody else's files.
    """
    from medcnn.readout import versions
    from medcnn.report.figures import write_figures
    from medcnn.report.html import build_report

    chosen = resolve_task(table, task, name)
    content = table_digest(table)
    settings = {"name": name, "task": chosen, "evaluation": config.model_dump(mode="json")}
    key = Key(stage="evaluate", settings=settings, inputs={"predictions": content}, code=code_digest(*CODE))
    if is_written(out, key):
        return out
    with drafted(out, key) as draft:
        assessment = assess(table, config=config, thresholds=fixed_thresholds(table, config), recalibration="none", task=chosen)
        write_records(assessment.records, draft / "metrics.json")
        write_table(assessment.curves, draft / "curves.parquet")
        _carry_ledger(out, draft, ledger_entry(name, digest(settings), content))
        points = [
            OperatingPoint(label=label, threshold=value, rule="fixed")
            for label, values in fixed_thresholds(table, config).items()
            for value in values
        ]
        ledger = [json.loads(line) for line in (draft / LEDGER_FILE).read_text(encoding="utf-8").splitlines()]
        facts = RunFacts(
            name=name, records=assessment.records, curves=assessment.curves, predictions=table, thresholds=points, ledger=ledger,
            versions=versions(), hashes={"predictions": content}, recalibration="none",
        )  # fmt: skip
        (draft / "report.html").write_text(build_report(facts), encoding="utf-8")
        write_figures(facts, draft / "figures")
    return out


def compare_tables(models: Sequence[TestedModel], out: Path, config: EvaluationConfig) -> tuple[Path, list[str]]:
    """Write `comparison.json`, each model's records and `report.html`; returns the folder and the sentences.

    Raises InputError for fewer than two models, two of one name, or models that were not tested on the same images.
    """
    from medcnn.evaluation.comparison import compare_models, comparison_sentences
    from medcnn.readout import versions
    from medcnn.report.comparison_html import build_comparison_report

    _require_comparable_names(models)
    config = _at_common_level(models, config)
    tables = {model.name: model.table[model.table["part"] == "test"].reset_index(drop=True) for model in models}
    contents = {name: table_digest(table) for name, table in tables.items()}
    settings = {"evaluation": config.model_dump(mode="json"), "thresholds": {model.name: model.thresholds for model in models}}
    key = Key(stage="compare", settings=settings, inputs=contents, code=code_digest(*CODE))
    comparisons = compare_models(tables, config, thresholds={model.name: model.thresholds for model in models})
    sentences = comparison_sentences(comparisons, margin=config.margin)
    if is_written(out, key):
        return out, sentences
    with drafted(out, key) as draft:
        write_records(comparisons, draft / "comparison.json")
        shown = [_model_facts(model, config, draft) for model in models]
        same = {"images": len(next(iter(tables.values()))), "patients": int(next(iter(tables.values()))["patient_id"].nunique())}
        facts = ComparisonFacts(
            name=" against ".join(tables), models=shown, comparisons=comparisons, sentences=sentences, same=same,
            versions=versions(), hashes=contents, correction=config.correction, margin=config.margin,
        )  # fmt: skip
        (draft / "report.html").write_text(build_comparison_report(facts), encoding="utf-8")
    return out, sentences


def read_model(path: Path, config: EvaluationConfig) -> TestedModel:
    """A run folder (its calibrated predictions and stored thresholds) or a predictions file (the config's fixed thresholds)."""
    if path.is_dir():
        return _read_run(path)
    table = check_predictions(read_table(path), source=str(path))
    return TestedModel(path.stem, table, resolve_task(table, "auto", path.stem), fixed_thresholds(table, config))


def resolve_task(table: pd.DataFrame, task: str, source: str) -> Task:
    """The task that was asked for, or what the labels say; raises InputError when the labels do not allow it."""
    y = label_matrix(table, label_names(table))
    seen = infer_task(y)
    if task == "auto":
        return seen
    if task not in {"binary", "multiclass", "multilabel"}:
        raise InputError(f"task {task!r} is unknown; expected binary, multiclass, multilabel or auto")
    if (task == "binary") != (y.shape[1] == 1) or (task == "multiclass" and seen != "multiclass"):
        raise InputError(f"{source}: task {task} does not fit {y.shape[1]} label columns that look {seen}")
    return task  # type: ignore[return-value]


def fixed_thresholds(table: pd.DataFrame, config: EvaluationConfig) -> dict[str, list[float]]:
    """label -> the config's fixed operating points. Raises InputError for a rule that needs validation rows."""
    searched = [point.rule for point in config.thresholds if point.rule != "fixed"]
    if searched:
        raise InputError(f"threshold rule {searched[0]} is chosen on validation rows, which a predictions file lacks; use rule fixed")
    values = [point.value for point in config.thresholds if point.value is not None]
    return {label: list(values) for label in label_names(table)}


def _read_run(folder: Path) -> TestedModel:
    from medcnn.members import read_members
    from medcnn.plan import read_plan
    from medcnn.readout import model_facts

    run = reopen_run(folder.resolve())
    evaluated, calibrator = run.done("evaluate"), Calibrator.read(run.done("calibrate"))
    decided = read_plan(run.done("plan") / "plan.yaml")
    predicted = run.done(f"predict/{decided.ladder.headline}")
    trained = {member: run.done(member.place) for member in read_members(predicted)}
    records = [record for record in read_records(evaluated / "metrics.json") if record.recalibration == calibrator.method]
    curves = read_table(evaluated / "curves.parquet")
    return TestedModel(
        name=run.folder.name,
        table=check_predictions(read_table(evaluated / "predictions.parquet"), source=str(folder)),
        task=decided.task,
        thresholds=calibrator.thresholds(calibrator.method, decided.evaluation.levels[0]),
        recalibration=calibrator.method,
        assessment=Assessment(records=records, curves=curves[curves["recalibration"] == calibrator.method]),
        facts=model_facts(trained, decided, predicted),
        level=decided.evaluation.levels[0],
    )


def _model_facts(model: TestedModel, config: EvaluationConfig, draft: Path) -> ModelFacts:
    assessment = model.assessment or assess(
        model.table, config=config, thresholds=model.thresholds, recalibration=model.recalibration, task=model.task
    )
    make_folder(draft / "metrics")
    write_records(assessment.records, draft / "metrics" / f"{model.name}.json")
    return ModelFacts(
        name=model.name, records=assessment.records, curves=assessment.curves, model=model.facts, recalibration=model.recalibration
    )


def _at_common_level(models: Sequence[TestedModel], config: EvaluationConfig) -> EvaluationConfig:
    """The settings, their level that of the runs unless they name one. Raises InputError for runs of different levels."""
    of_runs = {model.name: model.level for model in models if model.level}
    if config.levels != "auto" or not of_runs:
        return config
    if len({*of_runs.values()}) > 1:
        said = ", ".join(f"{name}: {level}" for name, level in of_runs.items())
        raise InputError(f"the runs are about different levels ({said}); say at which one to compare them, as in levels=[patient]")
    return config.model_copy(update={"levels": (next(iter(of_runs.values())),)})


def _require_comparable_names(models: Sequence[TestedModel]) -> None:
    names = [model.name for model in models]
    if len(names) < 2:
        raise InputError(f"got {len(names)} model; expected two or more run folders or prediction files")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InputError(f"two models are called {sorted(repeated)[0]}; a model is named by its run's folder or its file: rename one")


def is_written(out: Path, key: Key) -> bool:
    """Whether `out` holds exactly this already. Raises InputError when it holds anything that medcnn did not write there."""
    make_folder(out.parent)
    recover(out)
    if out.is_file():
        raise InputError(f"{out}: is a file; --out names a folder")
    stamp = read_stamp(out) if out.exists() else None
    if stamp is None and out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds other files, which would be replaced; give --out a new folder")
    if stamp is not None and stamp.stage != key.stage:
        raise InputError(f"{out}: holds the stage {stamp.stage}, which would be replaced; give --out a new folder")
    return is_current(out, key)


def table_digest(table: pd.DataFrame) -> str:
    """sha256 (hex) of a table's columns and values."""
    return digest([list(table.columns), pd.util.hash_pandas_object(table, index=False).tolist()])


def _carry_ledger(out: Path, draft: Path, entry: Mapping[str, str]) -> None:
    if (out / LEDGER_FILE).is_file():
        expose(out / LEDGER_FILE, draft / LEDGER_FILE)
    append_ledger(draft / LEDGER_FILE, entry)
