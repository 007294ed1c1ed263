"""The config's sections on the data: where images and labels are, and what the audit may let pass."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medcnn.section import Fraction, Positive, Section

# Which window turns deep grey values into what is seen: see DataConfig.window.
WindowChoice = Literal["first", "last", "widest", "narrowest", "percentiles"] | tuple[float, Annotated[float, Field(ge=1)]]
# What a DICOM object is, by its header alone: see data/dicom_kinds.py.
ObjectKind = Literal[
    "projection",
    "raw_projection",
    "slice",
    "localizer",
    "ultrasound",
    "photograph",
    "microscopy",
    "nuclear",
    "derived",
    "capture",
    "unknown",
]


class SlidesConfig(Section):
    """Whole slides: where their tiles are cut, and which of them come in."""

    tile_px: Annotated[int, Field(ge=16, le=2048)] = Field(
        256, description="Side of a tile in pixels, as it comes in; image.size_px is what the model sees"
    )
    mpp: Annotated[float, Field(gt=0, le=50)] = Field(
        0.5, description="Microns per pixel of a tile; the coarsest level that is fine enough is read and averaged down to it"
    )
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Share of a tile's side that its neighbour shares")
    min_tissue: Fraction = Field(0.5, description="Share of a tile that the tissue mask must cover")
    max_ink: Fraction = Field(0.1, description="Share of a tile that may be a marker pen's ink")
    max_fold: Fraction = Field(
        1.0,
        description="Share of a tile that may be folded tissue; 1: it is measured (column fold) and none is left out, since dense tissue can look like it",
    )
    min_sharpness: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Variance of the Laplacian at 1 um/px below which a tile counts as blurred; 0: it is measured (column sharpness) and none is left out",
    )
    find_ink: bool = Field(True, description="False where green and blue are stains (trichrome), not a marker pen")
    max_tiles: Positive | None = Field(None, description="At most so many tiles of a slide, drawn evenly from all that pass; blank: all")
    mpp_column: str | None = Field(
        None,
        description="Column of label_table with a slide's microns per pixel at its finest level, where the file's own is missing or wrong",
    )
    assume_mpp: Annotated[float, Field(ge=0.05, le=10)] | None = Field(
        None, description="Microns per pixel of the finest level for slides that name none, or an impossible one; needs assume_reason"
    )
    assume_reason: str = Field("", description="How assume_mpp is known, in words")
    by_power: bool = Field(
        True, description="A slide without microns per pixel is taken at 10 / objective power (40x: 0.25); False: it is refused"
    )
    max_enlargement: Annotated[float, Field(ge=1)] = Field(
        1.1, description="A slide whose finest level is coarser than mpp by more than this factor is refused"
    )
    annotations: Path | None = Field(
        None, description="Folder with outlines by which tiles are labelled: SLIDE.geojson (QuPath) or SLIDE.xml (ASAP), in level-0 pixels"
    )
    min_annotation: Fraction = Field(
        0.5, description="Share of a tile that outlines of one class must cover to give it that class; the largest share wins"
    )
    cut_out: tuple[str, ...] = Field((), description="Classes of outlines that are holes in all others and no label (ASAP: Exclusion, _2)")
    outside: str | None = Field(
        None, description="Class of tiles of an annotated slide that no class covers enough; blank: they are left out"
    )
    pseudonyms: bool = Field(False, description="Slides and patients are named by pseudonyms (medcnn.data.pseudonyms), file names masked")
    keep_tiles: bool = Field(
        True,
        description="Keep the pixels that ingest decoded beside the manifest, so that no slide is decoded again: 3 * tile_px**2 bytes a tile",
    )

    @model_validator(mode="after")
    def _check_reason(self) -> "SlidesConfig":
        if self.assume_mpp is not None and not self.assume_reason.strip():
            raise ValueError("assume_mpp needs assume_reason: say how the resolution is known")
        return self


class DataConfig(Section):
    """Where the images and their labels are."""

    source: Literal["folder", "table", "npz", "dicom", "slides", "phantom"] = Field(
        description="folder: one folder per class; table: a CSV or Parquet with a row per image; npz: MedMNIST; dicom: a tree of DICOM files; slides: a tree of whole slides, cut into tiles; phantom: made-up images for trying things out"
    )
    path: Path | None = Field(
        None,
        description="The folder, table or NPZ file; a relative path starts at the config file's folder. For npz it may be blank: then dataset is looked up",
    )
    dataset: str | None = Field(
        None, description="npz: name of a MedMNIST set, looked for as $MEDMNIST_ROOT/NAME.npz, then downloaded by the medmnist package"
    )
    image_root: Path | None = Field(None, description="table: folder that the image column is relative to (default: the table's folder)")
    label_table: Path | None = Field(None, description="dicom, slides: CSV or Parquet with the labels")
    image_column: str = Field(
        "image",
        description="table: column with the image's path. dicom: column of label_table with the file's path, StudyInstanceUID or PatientID (see join). slides: column of label_table with the slide's path in the tree, with or without its ending",
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
    window: WindowChoice = Field(
        "first",
        description="dicom: which of a file's VOI lookup tables or windows shows its grey values: first, last, widest or narrowest (a window before a table); percentiles: none, each image from its 0.5th to its 99.5th percentile; [centre, width]: this one for all, in modality values (CT: Hounsfield units)",
    )
    objects: Literal["fitting", "all"] | tuple[ObjectKind, ...] = Field(
        "fitting",
        description="dicom: which objects come in. fitting: those that can be of the config's modality (chest_xray: no slices, captures of a screen, raw detector images, ...), all when that is auto or generic; all: every picture; or the kinds themselves",
    )
    dates: Literal["shift", "year", "drop"] = Field(
        "shift",
        description="dicom: what becomes of acquisition dates. shift: each patient's by one secret number of days, up to a year back (intervals stay); year: the year alone; drop: nothing",
    )
    file_names: Literal["masked", "shown"] = Field(
        "masked",
        description="dicom: masked: every folder and file name below path is replaced by a pseudonym in all outputs (medcnn.data.pseudonyms.find_file finds the file); shown: only names that hold a UID or an identity",
    )
    slides: SlidesConfig = Field(SlidesConfig(), description="slides: where their tiles are cut, and which of them come in")
    find_text: bool = Field(
        False,
        description="Read every image with OCR (extra ocr, about half a CPU-second each) and warn of text in the pixels; how much there is is kept, never what it says",
    )
    n_images: Positive = Field(600, description="phantom: number of images")
    phantom_labels: Literal["binary", "multiclass", "multilabel"] = Field("binary", description="phantom: kind of labels")

    @model_validator(mode="after")
    def _check_combination(self) -> "DataConfig":
        if self.source == "npz" and self.path is None and self.dataset is None:
            raise ValueError("source npz needs path (a file) or dataset (a MedMNIST name)")
        if self.source in {"folder", "table", "dicom", "slides"} and self.path is None:
            raise ValueError(f"source {self.source} needs path")
        if self.source == "table" and self.label_column is None and not self.label_columns:
            raise ValueError("source table needs label_column (class names) or label_columns (one 0/1 column per finding)")
        if self.label_column and self.label_columns:
            raise ValueError("give label_column or label_columns, not both")
        if self.source == "slides" and self.slides.annotations is not None and (self.label_column or self.label_columns):
            raise ValueError("slides.annotations labels tiles, label_column of label_table labels slides; give one of them")
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
    merge_patients: str | None = Field(
        None,
        pattern=r"\S",
        description="The reason why patients who share a picture are one person: they then count as one (finding patient_under_two_ids)",
    )
    min_class_patients: Positive = Field(10, description="A class with fewer patients than this is reported as too small to evaluate")
