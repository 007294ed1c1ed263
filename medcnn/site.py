"""A finished model at a new site: its probabilities shifted to the site's prevalence by a few labelled cases, and what that is worth."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcnn.artifact import Key, code_digest, drafted
from medcnn.errors import InputError
from medcnn.evaluation.estimates import Estimate, repeated_patients
from medcnn.evaluation.recalibration import log_odds_of
from medcnn.evaluation.site_update import SiteUpdate, update_for_site
from medcnn.predictions import is_written, table_digest
from medcnn.tables import label_names, write_table

CODE = ("evaluation", "tables", "site")


def update_site(table: pd.DataFrame, out: Path, *, name: str) -> list[str]:
    """Fit recalibration-in-the-large to the labelled rows of a checked predictions table, label by label.

    Writes `site_update.json` (the shift and the cross-validated change of Brier score and log-loss, with 95% intervals)
    and `predictions.parquet` (every row, shifted). Returns what may be said, a sentence per label. Raises InputError
    when no row of a label is labelled, or `out` holds somebody else's files.
    """
    key = Key(stage="site", settings={"name": name}, inputs={"predictions": table_digest(table)}, code=code_digest(*CODE))
    updates = {label: _update(table, label) for label in label_names(table)}
    sentences = [_sentence(label, update) for label, update in updates.items()]
    if is_written(out, key):
        return sentences
    shifted = table.copy()
    for label, update in updates.items():
        shifted[f"p_{label}"] = update.recalibrator.apply(log_odds_of(table[f"p_{label}"].to_numpy(np.float64)))
    with drafted(out, key) as draft:
        write_table(shifted, draft / "predictions.parquet")
        stated = {label: _stated(update) for label, update in updates.items()}
        (draft / "site_update.json").write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")
    return sentences


def _update(table: pd.DataFrame, label: str) -> SiteUpdate:
    known = table[table[f"y_{label}"].notna()]
    if known.empty:
        raise InputError(f"y_{label}: no row is labelled; expected some labelled cases of the new site")
    patients = repeated_patients(known["patient_id"].to_numpy(), len(known))
    return update_for_site(known[f"y_{label}"].to_numpy(np.float64), known[f"p_{label}"].to_numpy(np.float64), patients)


def _stated(update: SiteUpdate) -> dict[str, Any]:
    estimates = {"intercept": update.intercept, **{f"change_of_{score}": estimate for score, estimate in update.change.items()}}
    return {
        "recalibrator": update.recalibrator.as_dict(),
        "helps": update.helps,
        **{key: asdict(value) for key, value in estimates.items()},
    }


def _sentence(label: str, update: SiteUpdate) -> str:
    verdict = "the labelled cases show a gain" if update.helps else "no gain can be claimed from these cases"
    shift, change = _written(update.intercept), _written(update.change["log_loss"])
    return f"{label}: {update.recalibrator.n} labelled cases shift the log odds by {shift}; log-loss changes by {change}: {verdict}."


def _written(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"an amount that is not estimable ({estimate.note})"
    limits = (
        f" (95% interval {estimate.low:+.3f} to {estimate.high:+.3f})" if estimate.low is not None and estimate.high is not None else ""
    )
    return f"{estimate.value:+.3f}{limits}"
