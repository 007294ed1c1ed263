"""The config's sections on the data: where images and labels are, and what the audit may let pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medcnn.section import Positive, Section


class DataConfig(Section):
    """Where the images and their labels are."""

    source: Literal["folder", "table", "npz", "dicom", "phantom"] = Field(
        description="folder: one folder per class; table: a CSV or Parquet with a row per image; npz: MedMNIST; dicom: a tree of DICOM files; phantom: made-up images for trying things out"
    )
    path: Path | None = Field(
        None,
        description="The folder, table or NPZ file; a relative path starts at the config file's folder. For npz it may be blank: then dataset is looked up",
    )
    dataset: str | None = Field(
        None, description="npz: name of a MedMNIST set, looked for as $MEDMNIST_ROOT/NAME.npz, then downloaded by the medmnist package"
    )
    image_root: Path | None = Field(None, description="table: folder that the image column is relative to (default: the table's folder)")
    label_table: Path | None = Field(None, description="dicom: CSV or Parquet with the labels")
    image_column: str = Field(
        "image",
        description="table: column with the image's path. dicom: column of label_table with the file's path, StudyInstanceUID or PatientID (see join)",
    )
    join: Literal["file", "study", "patient"] = Field(
        "file", description="dicom: what image_column of label_table holds: the file's path in the tree, StudyInstanceUID or PatientID"
    )
    label_column: str | None = Field(None, description="One column that holds the class name of each image (binary or multi-class)")
    label_columns: tuple[str, ...] = Field(
        (), description="Several columns, one per finding: 1, 0, blank for missing, -1 for uncertain (multi-label, or binary when one)"
    )
    classes: tuple[str, ...] = Field(
        (), description="Class names to keep, in this order; blank: all that occur, sorted. Binary: the negative class first"
    )
    positive: str | None = Field(None, description="Binary: the class that counts as positive (default: the last of classes)")
    uncertain: Literal["ignore", "ones", "zeros"] = Field("ignore", description="What an uncertain label (-1) becomes: blank, 1 or 0")
    patient_column: str | None = Field(
        None,
        description="Column that names the patient (or whatever must not be torn apart: a slide, an eye's owner); blank: every image is its own patient",
    )
    study_column: str | None = Field(None, description="Column that names the study, for study-level evaluation")
    site_column: str | None = Field(None, description="Column that names the hospital, scanner or source")
    part_column: str | None = Field(None, description="Column with a given split: train, val (or valid, validation), test")
    fold_column: str | None = Field(None, description="Column with given fold numbers from 0")
    covariates: tuple[str, ...] = Field((), description="Columns to keep for subgroups: sex, age, view, scanner, ...")
    patient_pattern: str | None = Field(
        None, description="folder: regular expression with a group (?P<patient>...) applied to the file's relative path"
    )
    frames: Literal["first", "middle", "all"] = Field("middle", description="dicom: which frames of a multi-frame object come in")
    n_images: Positive = Field(600, description="phantom: number of images")
    phantom_labels: Literal["binary", "multiclass", "multilabel"] = Field("binary", description="phantom: kind of labels")

    @model_validator(mode="after")
    def _check_combination(self) -> "DataConfig":
        if self.source == "npz" and self.path is None and self.dataset is None:
            raise ValueError("source npz needs path (a file) or dataset (a MedMNIST name)")
        if self.source in {"folder", "table", "dicom"} and self.path is None:
            raise ValueError(f"source {self.source} needs path")
        if self.source == "table" and self.label_column is None and not self.label_columns:
            raise ValueError("source table needs label_column (class names) or label_columns (one 0/1 column per finding)")
        if self.label_column and self.label_columns:
            raise ValueError("give label_column or label_columns, not both")
        if self.positive is not None and self.classes and self.positive not in self.classes:
            raise ValueError(f"positive {self.positive!r} is not among classes {list(self.classes)}")
        return self


class AuditConfig(Section):
    """What the audit may let pass, and what leaves the cohort. Each entry is `kind: the reason, in words`."""

    accept: Mapping[str, str] = Field({}, description="Findings of severity error that do not stop the run, each with a reason")
    exclude: Mapping[str, str] = Field(
        {},
        description="Kinds of finding whose images leave the cohort, each with a reason: label_conflict, duplicate, duplicate_across_parts",
    )
    min_class_patients: Positive = Field(10, description="A class with fewer patients than this is reported as too small to evaluate")
