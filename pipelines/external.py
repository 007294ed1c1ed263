"""A finished run applied to new images."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medcnn.artifact import make_folder
from medcnn.errors import InputError
from medcnn.inference import predict_new
from medcnn.progress import shown
from medcnn.runs import reopen_run
from medcnn.tables import write_table


def apply_run(run_folder: Path, inputs: Sequence[Path], out: Path) -> pd.DataFrame:
    """Predict new images with a finished run and write the table (.csv or .parquet). Raises InputError."""
    if out.suffix not in {".csv", ".parquet"}:
        raise InputError(f"{out}: expected a file that ends in .csv or .parquet")
    table = predict_new(reopen_run(run_folder), inputs, progress=shown)
    make_folder(out.parent)
    write_table(table, out)
    return table
