"""One cohort, one ladder of models: raw files to report.

`python -m pipelines.finetune CONFIG [section.key=value ...]` does the same work as `medcnn run`.
"""

import sys
from pathlib import Path

from medcnn import audit_stages, cohort_stages, model_stages, predict_stages, stain_stages, train_stages
from medcnn.config import Config
from medcnn.config_file import read_config
from medcnn.readout import write_extras
from medcnn.runs import Run, open_run, reopen_run


def finetune(config: Config, out: Path | None = None, *, update: bool = False, quiet: bool = False) -> Run:
    """Every stage in its order; those that are done are skipped. Returns the finished run.

    Raises InputError for what the user can mend (config, data, findings of the audit), RunError for a failure.
    """
    run = open_run(config, out, update=update, quiet=quiet)

    ingested = cohort_stages.ingest(run)
    audited = cohort_stages.audit(run, ingested)
    cohort_stages.require_sound(run, audited)

    fingerprinted = cohort_stages.fingerprint(run, audited)
    planned = model_stages.plan(run, fingerprinted)
    dealt = cohort_stages.split(run, audited, planned)
    cached = cohort_stages.cache(run, audited, planned)
    probed = cohort_stages.shortcuts(run, audited, dealt, cached, planned)
    drifted = audit_stages.drift(run, ingested, audited, dealt)

    inputs = {"audit": audited, "split": dealt, "cache": cached, "plan": planned}
    inputs |= stain_stages.stain(run, inputs)
    featured = train_stages.features(run, inputs)
    doubted = audit_stages.doubts(run, inputs | featured)
    trained = train_stages.train(run, inputs | featured)
    trained = train_stages.mix(run, inputs, trained)
    predicted = predict_stages.predict(run, inputs | featured, trained)

    headline = model_stages.headline(planned, predicted)
    calibrated = model_stages.calibrate(run, headline, planned)
    evaluated = model_stages.evaluate(run, audited, headline, calibrated, planned)
    climbed = model_stages.ladder(run, predicted, evaluated, planned)
    explained = model_stages.explain(
        run, inputs | {rung: folder for rung, folder in predicted.items() if rung == "mil"}, trained, evaluated
    )
    pictured = audit_stages.pictures(run, ingested, {"shortcuts": probed, "drift": drifted, "doubts": doubted, "audit": audited})
    folders = {
        "ingest": ingested, "audit": audited, "fingerprint": fingerprinted, "plan": planned, "split": dealt, "cache": cached, "shortcuts": probed,
        "drift": drifted, "doubts": doubted, "pictures": pictured,
        **featured, **{f"predict/{rung}": folder for rung, folder in predicted.items()}, "calibrate": calibrated, "evaluate": evaluated, "ladder": climbed, "explain": explained,
    }  # fmt: skip
    model_stages.report(run, folders, trained)
    return run


def make_plan(config: Config, out: Path | None = None, *, update: bool = False) -> Path:
    """Ingest, audit, fingerprint and plan; returns the plan's folder."""
    run = open_run(config, out, update=update)
    audited = cohort_stages.audit(run, cohort_stages.ingest(run))
    return model_stages.plan(run, cohort_stages.fingerprint(run, audited))


def rewrite_report(folder: Path, *, pdf: bool = False) -> list[Path]:
    """Write a finished run's report again, its figures as SVG with their numbers as CSV, and the PDF when asked.

    Nothing is trained again: raises InputError when a stage before the report is not finished.
    """
    return write_extras(reopen_run(folder), pdf=pdf)


if __name__ == "__main__":
    finished = finetune(read_config(Path(sys.argv[1]), sys.argv[2:]))
    print(f"report: {finished.folder / 'report.html'}")
