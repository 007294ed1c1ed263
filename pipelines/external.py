"""A finished run applied to new images."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medcnn.artifact import make_folder
from medcnn.errors import InputError
from medcnn.inference import predict_new
from medcnn.new_images import compare_with_training, write_comparison
from medcnn.progress import shown
from medcnn.runs import reopen_run
from medcnn.tables import write_table


def apply_run(run_folder: Path, inputs: Sequence[Path], out: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Predict new images with a finished run and write the table (.csv or .parquet); beside it NAME.drift.json, whether the
    images are like those that the run was trained on.

    Returns the table, and what the comparison says. Raises InputError.
    """
    if out.suffix not in {".csv", ".parquet"}:
        raise InputError(f"{out}: expected a file that ends in .csv or .parquet")
    run = reopen_run(run_folder)
    table = predict_new(run, inputs, progress=shown)
    compared = compare_with_training(run, inputs, progress=shown)
    make_folder(out.parent)
    write_table(table, out)
    write_comparison(compared, out.with_suffix(".drift.json"))
    return table, compared.sentences
