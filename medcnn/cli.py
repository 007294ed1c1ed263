"""`medcnn VERB ...`: parse, call, print. Nothing heavy is imported before a verb works."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from medcnn.errors import InputError, RunError

app = typer.Typer(
    name="medcnn",
    help="From a folder of clinical images to an AUROC, calibration and comparison report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config; `medcnn init DIR` writes one", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Values that win over the file", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run (default: reports/NAME)", show_default=False)]
Update = Annotated[bool, typer.Option("--update", help="The folder holds a run of another config: redo what depends on the change")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only")]

# What the user can mend, although the system and not medcnn found it.
INTERRUPTED = 130  # what Ctrl-C ends with
USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


@app.command()
def run(config: ConfigFile, overrides: Overrides = None, out: Out = None, update: Update = False, quiet: Quiet = False) -> None:
    """Raw files to report. Run it again to resume: finished stages are skipped.

    Example: medcnn run configs/pneumoniamnist.yaml training.epochs=5 --out reports/quick
    """
    from medcnn.config_file import read_config
    from pipelines.finetune import finetune

    done = finetune(read_config(config, overrides or ()), out, update=update, quiet=quiet)
    _print_headline(done.folder / "metrics.json")
    print(f"report: {done.folder / 'report.html'}")


@app.command()
def plan(config: ConfigFile, overrides: Overrides = None, out: Out = None, update: Update = False) -> None:
    """Stop after the plan and show it: every decision with its reason.

    Example: medcnn plan configs/covid_cxr.yaml
    """
    from medcnn.config_file import read_config
    from pipelines.finetune import make_plan

    folder = make_plan(read_config(config, overrides or ()), out, update=update)
    print((folder / "plan.yaml").read_text(encoding="utf-8"))
    print(f"edit {folder / 'plan.yaml'} and run again: a changed value is honoured")


@app.command()
def search(config: ConfigFile, overrides: Overrides = None, out: Out = None, update: Update = False, quiet: Quiet = False) -> None:
    """Try settings of the main model (config: search) on inner folds of the training patients. The config is not changed.

    Example: medcnn search configs/pneumoniamnist.yaml search.n_trials=10
    """
    from medcnn.config_file import read_config
    from medcnn.search import found_text
    from pipelines.search import search_settings

    folder = search_settings(read_config(config, overrides or ()), out, update=update, quiet=quiet)
    print(found_text(folder))
    print(f"written: {folder / 'best.yaml'}, {folder / 'trials.csv'}")


@app.command()
def audit(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Out = None,
    update: Update = False,
    quick: Annotated[bool, typer.Option("--quick", help="Files and tables only: no split, no cache, no probes")] = False,
) -> None:
    """Everything that can be known before training: what came in, what is wrong with it, what could mislead a model. Writes audit.html.

    Example: medcnn audit configs/histology.yaml
    """
    from medcnn.config_file import read_config
    from pipelines.audit import audit_cohort

    page, text = audit_cohort(read_config(config, overrides or ()), out, update=update, quick=quick)
    print(text)
    print(f"with pictures: {page}")


@app.command()
def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="CSV or Parquet with y_LABEL (0, 1, blank) and p_LABEL; image_id, patient_id and covariates are used when there",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write", show_default=False)],
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", help="Operating point, p >= T; may be repeated", show_default=False)
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Covariate whose subgroups are evaluated; may be repeated", show_default=False)
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", help="Prevalence of the intended use, for PPV and NPV", show_default=False)
    ] = None,
    task: Annotated[str, typer.Option("--task", help="binary, multiclass, multilabel, or auto: read from the labels")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="evaluation setting, for instance --set n_bootstrap=500; may be repeated", show_default=False),
    ] = None,
) -> None:
    """The whole evaluation and report from anybody's predictions.

    Example: medcnn evaluate predictions.csv --threshold 0.3 --by sex --out reports/theirs
    """
    from pipelines.evaluate import evaluate as evaluate_file

    folder = evaluate_file(
        predictions, out, thresholds=threshold or (), by=by or (), prevalence=prevalence, task=task, settings=settings or ()
    )
    _print_headline(folder / "metrics.json")
    print(f"report: {folder / 'report.html'}")


@app.command()
def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_PREDICTIONS...", help="Run folders or prediction files, two or more, on the same images", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write", show_default=False)],
    threshold: Annotated[
        list[float] | None,
        typer.Option("--threshold", help="Operating point of prediction files, p >= T; may be repeated", show_default=False),
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Non-inferiority margin of the AUROC difference", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="evaluation setting, for instance --set correction=fdr_bh; may be repeated", show_default=False),
    ] = None,
) -> None:
    """Paired comparison of models on the same images.

    Example: medcnn compare reports/pneumoniamnist reports/pneumoniamnist_efficientnet --out reports/compared
    """
    from pipelines.compare import compare as compare_models

    folder, sentences = compare_models(models, out, thresholds=threshold or (), margin=margin, settings=settings or ())
    print("\n".join(sentences))
    print(f"report: {folder / 'report.html'}")


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run", show_default=False)],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...", help="Image files, DICOM files, folders, an NPZ file, or a table with a column path", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help=".csv or .parquet to write", show_default=False)],
) -> None:
    """A finished run on new images, prepared and calibrated as in the run.

    Example: medcnn predict reports/pneumoniamnist ward_images/ --out probabilities.csv
    """
    from pipelines.external import apply_run

    table, compared = apply_run(run_folder, inputs, out)
    n_failed = int(table["problem"].ne("").sum())
    print(f"{len(table) - n_failed} images predicted, {n_failed} not readable (column problem): {out}")
    print("\n".join(compared))


@app.command()
def recalibrate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="CSV or Parquet of the new site; some rows labelled", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write", show_default=False)],
) -> None:
    """A finished model at a new site: shift its probabilities by a few labelled cases, and say what that is worth.

    Example: medcnn recalibrate new_site.csv --out reports/new_site
    """
    from pipelines.site import recalibrate as recalibrate_file

    print("\n".join(recalibrate_file(predictions, out)))
    print(f"shifted predictions: {out / 'predictions.parquet'}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run", show_default=False)],
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write report.pdf (extra pdf)")] = False,
) -> None:
    """Write a finished run's report again, with its figures as SVG and their numbers as CSV.

    Example: medcnn report reports/pneumoniamnist --pdf
    """
    from pipelines.finetune import rewrite_report

    for path in rewrite_report(run_folder, pdf=pdf):
        print(path)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern such as 'resnet*'")] = "",
) -> None:
    """Backbones: parameters, multiply-adds, input size, where the weights would come from.

    Example: medcnn models 'tf_efficientnet_lite*'
    """
    from medcnn.model.catalogue import list_models

    rows = list_models(pattern)
    if not rows:
        raise InputError(f"{pattern}: no backbone has this in its name; `medcnn models` without a pattern lists all")
    print(f"{'name':36}{'parameters':>14}{'multiply-adds':>16}{'input':>7}  weights")
    for row in rows:
        print(f"{row.name:36}{row.n_parameters:>14,}{row.n_multiply_adds:>16,}{row.size_px:>7}  {row.weights}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with images, DICOM files, a CSV or an NPZ", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Config to write (default: NAME.yaml here)", show_default=False)
    ] = None,
) -> None:
    """Look at a folder and write a commented config for it.

    Example: medcnn init ~/chest_xrays
    """
    from medcnn.survey import write_commented_config

    path, seen = write_commented_config(folder, out)
    print("\n".join(seen))
    print(f"wrote {path}; read it through, then: medcnn audit {path}")


@app.command()
def doctor() -> None:
    """What this machine has (torch, GPU, decoders, extras) and what is missing for what.

    Example: medcnn doctor
    """
    from medcnn.doctor import examine

    print("\n".join(examine()))


@app.command()
def schema() -> None:
    """JSON schema of the config, for editors.

    Example: medcnn schema > configs/schema.json
    """
    from medcnn.config_file import config_schema

    print(config_schema())


def _print_headline(metrics: Path) -> None:
    from medcnn.readout import headline
    from medcnn.tables import read_records

    for line in headline(read_records(metrics)):
        print(line)


def main() -> None:
    """Run the command line: exit code 2 for what the user can mend, 1 for a failure, 130 after Ctrl-C; no traceback."""
    try:
        if "WORLD_SIZE" in os.environ:  # started by torchrun
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else each process that ends is a page of warnings
            from medcnn.model.distributed import take_part

            take_part(app)
        else:
            app(standalone_mode=True)
    except InputError as error:
        _stop(str(error), 2)
    except RunError as error:
        _stop(str(error), 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        todo = "; free some disk space and run again" if error.errno == errno.ENOSPC else ""
        _stop(f"{place}{error.strerror or error}{todo}", 2 if error.errno in USER_ERRNOS else 1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _stop("stopped; the same command goes on from here", INTERRUPTED)
        raise


def _stop(message: str, code: int) -> None:
    print(f"medcnn: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
