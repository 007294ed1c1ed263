"""What is wrong with a cohort, found before anything is trained: copies, conflicting labels, leaks, classes too small, what cannot be, bad images.

A finding of severity `error` stops the run unless the config accepts its kind, or excludes the images, with a reason.
"""

from collections.abc import Iterable, Sequence
from typing import get_args

import numpy as np
import pandas as pd

from medcnn.cohort import Exclusion, Finding, Flow, Severity
from medcnn.config_data import AuditConfig
from medcnn.data import burned_in_text, covariates, display_findings, quality_findings
from medcnn.data.copies import KEPT_FIRST, copy_findings, first_of
from medcnn.data.formats import Unreadable
from medcnn.data.labels import suggest
from medcnn.errors import InputError
from medcnn.tables import infer_task, label_matrix, label_names

EXCLUDABLE = (
    "label_conflict",
    "duplicate_across_parts",
    "patient_across_parts",
    "duplicate",
    "near_duplicate",
    *quality_findings.EXCLUDABLE,
    *display_findings.EXCLUDABLE,
)  # in the order in which images leave
OTHER_KINDS = (
    "unreadable",
    "left_out",
    "unlabelled",
    "missing_labels",
    "one_class",
    "small_class",
    "class_lacks_in_part",
    "patient_in_two_classes",
    "patient_under_two_ids",
    *covariates.KINDS,
    *burned_in_text.KINDS,
    *(kind for kind in display_findings.KINDS if kind not in display_findings.EXCLUDABLE),
    *(kind for kind in quality_findings.KINDS if kind not in quality_findings.EXCLUDABLE),
)


def audit(
    manifest: pd.DataFrame,
    config: AuditConfig,
    *,
    flow: Flow | None = None,
    split: pd.DataFrame | None = None,
    traits: pd.DataFrame | None = None,
    pixels: pd.DataFrame | None = None,
    today: float | None = None,
) -> list[Finding]:
    """Every finding, errors first.

    manifest: as ingest gives it. flow: adds what did not come in. split: image_id, part, fold; with it, leaks are looked
    for between its parts, else between the manifest's given parts. traits: `traits.parquet` of ingest; None: image
    quality is not looked at, and of copies only those with identical pixels are found. today: days since 1970, beyond which
    a date is impossible; None: covariates are not looked at.
    pixels: `pixels.parquet` of ingest; None: whether all images are displayed alike is not looked at.
    Classes are counted without the images that the config excludes.
    Raises InputError when the config names a kind that does not exist or gives no reason.
    """
    _check_config(config)
    manifest = manifest.sort_values("image_id", kind="stable").reset_index(drop=True)
    found = _left_out(flow) if flow else []
    found += copy_findings(manifest, split, traits)
    if split is None and "given_part" in manifest:
        found += _patients_across_parts(manifest)
    if traits is not None:
        found += quality_findings.quality_findings(manifest, traits)
    if pixels is not None:
        found += display_findings.display_findings(manifest, pixels, traits)
    found += burned_in_text.text_findings(manifest, traits)
    if today is not None:
        found += covariates.covariate_findings(manifest, today=today)
    kept = manifest[~manifest["image_id"].isin(_leaving(found, config))]
    found += _label_findings(kept, config)
    return sorted(found, key=lambda finding: get_args(Severity).index(finding.severity))


def exclude(manifest: pd.DataFrame, findings: Sequence[Finding], config: AuditConfig) -> tuple[pd.DataFrame, list[Exclusion]]:
    """The manifest without the images that leave it by config.exclude, and each of these with its reason.

    Raises InputError when no image would be left.
    """
    leaving = _leaving(findings, config)
    kept = manifest[~manifest["image_id"].isin(leaving)].reset_index(drop=True)
    if kept.empty:
        raise InputError(
            f"audit.exclude ({', '.join(config.exclude)}) would leave no image of {len(manifest)}; accept a finding instead, or mend the data"
        )
    return kept, [Exclusion(where=image, kind=kind, reason=config.exclude[kind]) for image, kind in leaving.items()]


def require_sound(findings: Iterable[Finding], config: AuditConfig) -> None:
    """Raise InputError listing each error that the config neither accepts nor excludes."""
    errors = open_errors(findings, config)
    if errors:
        listed = "; ".join(f"({number}) {finding.kind}: {finding.text} {finding.todo}" for number, finding in enumerate(errors, start=1))
        raise InputError(f"the audit found {len(errors)} error{'s' if len(errors) > 1 else ''}: {listed}")


def open_errors(findings: Iterable[Finding], config: AuditConfig) -> list[Finding]:
    """The errors that the config neither accepts nor excludes."""
    return [finding for finding in findings if finding.severity == "error" and not _is_settled(finding, config)]


def _is_settled(finding: Finding, config: AuditConfig) -> bool:
    return finding.kind in config.accept or (finding.kind in config.exclude and bool(finding.exclude_ids))


def _leaving(findings: Sequence[Finding], config: AuditConfig) -> dict[str, str]:
    """image_id -> the kind for which it leaves."""
    leaving: dict[str, str] = {}
    for kind in EXCLUDABLE:
        for finding in findings:
            if finding.kind == kind and kind in config.exclude:
                leaving.update({image: kind for image in finding.exclude_ids if image not in leaving})
    return leaving


def _check_config(config: AuditConfig) -> None:
    for section, entries, known in (("accept", config.accept, (*EXCLUDABLE, *OTHER_KINDS)), ("exclude", config.exclude, EXCLUDABLE)):
        for kind, reason in entries.items():
            if kind not in known:
                raise InputError(
                    f"audit.{section}: {kind!r} is no kind of finding that can be {section.removesuffix('e')}ed here; {suggest(kind, known)}"
                )
            if not reason.strip():
                raise InputError(f"audit.{section}.{kind}: the reason is blank; say in words why, the report shows it")


# ---------------------------------------------------------------- files


def _left_out(flow: Flow) -> list[Finding]:
    unreadable = [item for item in flow.excluded if item.kind in get_args(Unreadable)]
    others = [item for item in flow.excluded if item.kind not in get_args(Unreadable)]
    found = []
    if unreadable:
        found.append(
            Finding(
                severity="info",
                kind="unreadable",
                text=f"{len(unreadable)} of {flow.n_found} files (or frames) cannot be read as an image: {_counted(unreadable)}.",
                todo="flow.json names each with its reason; look whether they lack in one class or site more than in another.",
            )
        )
    if others:
        text = f"{len(others)} of {flow.n_found} files (or rows) did not come in for other reasons: {_counted(others)}."
        found.append(Finding(severity="info", kind="left_out", text=text, todo="flow.json names each with its reason."))
    return found


def _counted(items: Sequence[Exclusion]) -> str:
    kinds = pd.Series([item.kind for item in items]).value_counts()
    return ", ".join(f"{n} {kind}" for kind, n in kinds.items()) + f"; first {items[0].where}"


# ---------------------------------------------------------------- parts


def _patients_across_parts(manifest: pd.DataFrame) -> list[Finding]:
    placed = manifest.dropna(subset="given_part")
    parts = placed.groupby("patient_id")["given_part"].agg(lambda parts: min(parts, key=KEPT_FIRST.index))
    kept_part = placed["patient_id"].map(parts)
    leaving = placed[placed["given_part"] != kept_part]
    patients = sorted(set(leaving["patient_id"]))
    if not patients:
        return []
    return [
        Finding(
            severity="error",
            kind="patient_across_parts",
            text=f"{len(patients)} of {manifest['patient_id'].nunique()} patients have images in two given parts, first {first_of(patients)}.",
            todo="Deal the parts anew by patient (split.scheme: holdout), or set audit.exclude.patient_across_parts to a reason: their images in test stay, else those in train.",
            image_ids=tuple(placed.loc[placed["patient_id"].isin(patients), "image_id"]),
            exclude_ids=tuple(leaving["image_id"]),
        )
    ]


# ---------------------------------------------------------------- labels


def _label_findings(manifest: pd.DataFrame, config: AuditConfig) -> list[Finding]:
    labels = label_names(manifest)
    y = label_matrix(manifest, labels)
    if np.isnan(y).all():
        text = f"None of {len(manifest)} images has a label."
        todo = "Nothing can be trained or evaluated: give labels (data.label_table, data.label_column), or accept this to look at the images only."
        return [Finding(severity="error", kind="unlabelled", text=text, todo=todo)]
    return [
        *_missing_labels(manifest, labels, y),
        *_class_sizes(manifest, labels, y, config),
        *_classes_by_part(manifest, labels, y),
        *_patients_in_two_classes(manifest, y),
    ]


def _missing_labels(manifest: pd.DataFrame, labels: Sequence[str], y: np.ndarray) -> list[Finding]:
    n_missing = {label: int(n) for label, n in zip(labels, np.isnan(y).sum(axis=0), strict=True) if n}
    if not n_missing:
        return []
    listed = ", ".join(f"{label} {n}" for label, n in n_missing.items())
    text = f"Labels are missing in {int(np.isnan(y).any(axis=1).sum())} of {len(manifest)} images: {listed}."
    todo = "A missing label is neither trained on nor evaluated; look whether labels lack in one site or class more than in another."
    images = tuple(manifest.loc[np.isnan(y).any(axis=1), "image_id"])
    return [Finding(severity="info", kind="missing_labels", text=text, todo=todo, image_ids=images)]


def _class_sizes(manifest: pd.DataFrame, labels: Sequence[str], y: np.ndarray, config: AuditConfig) -> list[Finding]:
    one_hot = y.shape[1] > 1 and infer_task(y) == "multiclass"
    found = []
    for column, label in enumerate(labels):
        for value in (1,) if one_hot else (0, 1):
            patients = manifest.loc[y[:, column] == value, "patient_id"].nunique()
            name = f"{label}" if one_hot else f"{label} = {value}"
            if patients == 0:
                text, todo = (
                    f"No image has {name}.",
                    "A class that does not occur can be neither learnt nor tested: leave the label out, or add images.",
                )
                found.append(Finding(severity="error", kind="one_class", text=text, todo=todo))
            elif patients < config.min_class_patients:
                text = f"Only {patients} patient{'s have' if patients > 1 else ' has'} {name}; expected at least {config.min_class_patients} (audit.min_class_patients)."
                todo = (
                    "Sensitivity and AUROC of so small a class have very wide intervals: gather more, join classes, or leave the class out."
                )
                images = tuple(manifest.loc[y[:, column] == value, "image_id"])
                found.append(
                    Finding(severity="error" if patients < 2 else "warning", kind="small_class", text=text, todo=todo, image_ids=images)
                )
    return found


def _classes_by_part(manifest: pd.DataFrame, labels: Sequence[str], y: np.ndarray) -> list[Finding]:
    """Classes that lack in some of the given parts; an error for one that stands in a single part."""
    parts = manifest["given_part"] if "given_part" in manifest else pd.Series(None, index=manifest.index, dtype=object)
    known = [part for part in KEPT_FIRST if (parts == part).any()]
    if len(known) < 2:
        return []
    one_hot = y.shape[1] > 1 and infer_task(y) == "multiclass"
    lacking: dict[bool, list[str]] = {True: [], False: []}
    for column, label in enumerate(labels):
        for value in (1,) if one_hot else (0, 1):
            where = [part for part in known if (y[(parts == part).to_numpy(), column] == value).any()]
            if 0 < len(where) < len(known):
                absent = " and ".join(part for part in known if part not in where)
                lacking[len(where) == 1].append(
                    f"{label if one_hot else f'{label} = {value}'} is in {' and '.join(where)}, not in {absent}"
                )
    todo = (
        "What is not in train cannot be learnt, what is not in test cannot be tested, and a class in one part only makes the parts "
        "different tasks. Deal the parts anew (split.scheme: holdout or kfold), or leave the class out."
    )
    return [
        Finding(
            severity="error" if alone else "warning", kind="class_lacks_in_part", text=f"By the given parts, {'; '.join(words)}.", todo=todo
        )
        for alone, words in lacking.items()
        if words
    ]


def _patients_in_two_classes(manifest: pd.DataFrame, y: np.ndarray) -> list[Finding]:
    if infer_task(y) == "multilabel":
        return []
    classes = pd.Series(y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1), index=manifest.index)
    n_classes = classes.groupby(manifest["patient_id"]).nunique()
    patients = sorted(n_classes.index[n_classes > 1])
    if not patients:
        return []
    return [
        Finding(
            severity="info",
            kind="patient_in_two_classes",
            text=f"{len(patients)} of {len(n_classes)} patients have images of more than one class, first {first_of(patients)}.",
            todo="No error, if disease came or went between the images; check that it is not one finding read twice.",
            image_ids=tuple(manifest.loc[manifest["patient_id"].isin(patients), "image_id"]),
        )
    ]
