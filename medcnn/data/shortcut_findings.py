"""What the shortcut probes found, in words: a warning for each probe that tells a label well without seeing the disease."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medcnn.cohort import Finding
from medcnn.data.dates import NAME as DATE
from medcnn.errors import InputError

THRESHOLD = 0.75  # a lower limit of the AUROC above this is a warning
N_NAMED = 5  # labels in a sentence
SUMMARY_COLUMNS = ("probe", "label", "auroc", "low", "high")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a probe is spoken of. what: subject of the sentence; why: what it means if it does well; todo: what to do then."""

    what: str
    plural: bool
    why: str
    todo: str


SOURCES = (
    "Look where the images with and without the label come from. Where each source has one class, no result on them tells disease "
    "from source: take both classes from the same sources, or state this beside every number."
)
TIMES = (
    "Look at the share of the label by year. Take both classes from the same months, or test on a later period than was trained on. "
    "(Dates that were shifted per patient, up to a year, only show what is coarser than that.)"
)
PIXELS = (
    "Look at the probe's AUROC beside the model's, which must be clearly better to show that the model sees more; "
    "test on images of another source, and look at the heat maps."
)
PROBES = {
    "file": Probe(
        what="Size, aspect, bit depth and format of the file",
        plural=True,
        why="none of this is disease, so a network may learn the source instead",
        todo=SOURCES,
    ),
    "border": Probe(
        what="The outermost 3% of the prepared image on each side",
        plural=False,
        why="markers, collimation and padding are there and hardly any disease, so a network may learn these instead",
        todo=f"Look at the borders of both classes; crop or mask what gives the label away. {PIXELS}",
    ),
    "grey_levels": Probe(
        what="The histogram of grey levels (and colours), without any place in the image,",
        plural=False,
        why="exposure, processing or stain may do this as well as disease, and a network may learn these instead",
        todo=PIXELS,
    ),
    "thumbnail": Probe(
        what="A linear model of a 16 x 16 thumbnail",
        plural=False,
        why="so coarse a picture shows framing, posture and exposure beside any large finding, and a network may learn these instead",
        todo=PIXELS,
    ),
    "metadata": Probe(
        what="The metadata of the acquisition",
        plural=True,
        why="a network that recognises them in the image may learn them instead of the disease",
        todo=SOURCES,
    ),
    "patient": Probe(
        what="Traits of the patient such as age and sex",
        plural=True,
        why="the classes differ in case mix, and a network that reads these traits off the image may learn them instead of the disease",
        todo="Match the classes, or report each subgroup (evaluation.by); a model must do better than these traits alone.",
    ),
}
COLUMN = "metadata."  # followed by the name of one column


def shortcut_findings(summary: pd.DataFrame, *, threshold: float = THRESHOLD) -> list[Finding]:
    """A warning of kind "shortcut" for each probe whose AUROC has its lower limit above `threshold` for some label; else one info.

    summary: probe, label, auroc, low, high (out-of-fold AUROC with its limits, in [0, 1]), one row for each probe and
    label of probe_shortcuts. The joint metadata probe is left out for a label that a single column gives away.
    Raises InputError for a missing column, an unknown probe, a number that is no AUROC, or a threshold outside [0.5, 1).
    """
    _require_summary(summary, threshold)
    if summary.empty:
        text = "The shortcut probes could not be run: no label has enough patients of both classes, or all images are alike in everything."
        return [Finding(severity="info", kind="shortcut_probes", text=text, todo="Look by eye whether source and label go together.")]
    strong = summary[summary["low"] > threshold].sort_values(["auroc", "label"], ascending=[False, True], kind="stable")
    given_away = set(strong.loc[strong["probe"].astype(str).str.startswith(COLUMN), "label"])
    strong = strong[(strong["probe"] != "metadata") | ~strong["label"].isin(given_away)]
    order = [*PROBES, *sorted(probe for probe in set(strong["probe"].astype(str)) if probe.startswith(COLUMN))]
    found = [_warning(probe, strong[strong["probe"] == probe]) for probe in order if (strong["probe"] == probe).any()]
    return found or [_nothing_found(summary, threshold)]


def _warning(probe: str, rows: pd.DataFrame) -> Finding:
    said = _probe(probe)
    columns = (rows[column].head(N_NAMED) for column in ("label", "auroc", "low", "high"))
    first, *others = [(label, f"with AUROC {_interval(*limits)}") for label, *limits in zip(*columns, strict=True)]
    told = [f"{first[0]} from the rest {first[1]}", *(f"{label} {how}" for label, how in others)]
    more = f", and {len(rows) - N_NAMED} more labels" if len(rows) > N_NAMED else ""
    text = f"{said.what} alone tell{'' if said.plural else 's'} {_joined(told)}{more} (patients kept apart): {said.why}."
    return Finding(severity="warning", kind="shortcut", text=text, todo=said.todo)


def _nothing_found(summary: pd.DataFrame, threshold: float) -> Finding:
    best = summary.sort_values(["auroc", "probe", "label"], ascending=[False, True, True], kind="stable").iloc[0]
    text = (
        f"No shortcut probe ({', '.join(dict.fromkeys(summary['probe'].astype(str)))}) tells a label from the rest with an AUROC surely above "
        f"{threshold:g}; the highest is {_interval(best['auroc'], best['low'], best['high'])}, {best['label']} by {best['probe']}."
    )
    todo = "Linear probes see plain shortcuts only: a small marker, a texture or a hidden stratum would escape them."
    return Finding(severity="info", kind="shortcut_probes", text=text, todo=todo)


def _probe(name: str) -> Probe:
    if not name.startswith(COLUMN):
        return PROBES[name]
    if DATE.search(name.removeprefix(COLUMN)):
        why = "the label tracks the time of acquisition, and with it may go scanners, protocols and whom one examined"
        return Probe(what=f"The acquisition date ({name.removeprefix(COLUMN)})", plural=False, why=why, todo=TIMES)
    why = "a network that recognises it in the image may learn it instead of the disease"
    return Probe(what=f"The column {name.removeprefix(COLUMN)}", plural=False, why=why, todo=SOURCES)


def _interval(auroc: float, low: float, high: float) -> str:
    return f"{auroc:.2f} ({low:.2f} to {high:.2f})"


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _require_summary(summary: pd.DataFrame, threshold: float) -> None:
    if not 0.5 <= threshold < 1:
        raise InputError(f"shortcut findings: threshold is {threshold}; expected an AUROC from 0.5 to below 1")
    missing = [column for column in SUMMARY_COLUMNS if column not in summary]
    if missing:
        raise InputError(f"shortcut findings: column {missing[0]} is missing; expected {', '.join(SUMMARY_COLUMNS)}")
    unknown = [name for name in summary["probe"].astype(str) if name not in PROBES and not name.startswith(COLUMN)]
    if unknown:
        raise InputError(f"shortcut findings: probe {unknown[0]!r} is unknown; expected {', '.join(PROBES)} or {COLUMN}COLUMN")
    numbers = summary[["auroc", "low", "high"]].to_numpy(np.float64)
    wrong = ~((numbers >= 0) & (numbers <= 1)).all(axis=1)
    if wrong.any():
        row = summary.iloc[int(np.flatnonzero(wrong)[0])]
        came = f"{row['auroc']} ({row['low']} to {row['high']})"
        raise InputError(f"shortcut findings: {row['probe']} for {row['label']} is {came}; expected an AUROC and its limits from 0 to 1")
