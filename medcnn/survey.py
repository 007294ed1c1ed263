"""A first look at somebody's folder: which source it is, and a commented config for it."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import yaml

from medcnn.config_data import DataConfig
from medcnn.config_file import build_config
from medcnn.errors import InputError
from medcnn.tables import read_table

IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
DICOM_ENDINGS = {".dcm", ".dicom", ".ima"}
TABLE_ENDINGS = {".csv", ".tsv", ".parquet"}
PART_FOLDERS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
MOST_FILES = 200_000
LEAST_SLIDE_BYTES = 1 << 20  # a smaller TIFF is not looked into: it may be a picture, and is no slide
WORDS = {
    "image_column": r"^(image|file|filename|file_name|path|image_path|img|image_id|dicom|name)$",
    "label_column": r"^(label|labels|class|diagnosis|dx|target|finding|category|y)$",
    "patient_column": r"^(patient_?id|patient|subject_?id|subject|pid|mrn|case_?id|slide_?id)$",
    "study_column": r"^(study_?id|study|exam_?id|accession)$",
    "site_column": r"^(site|hospital|cent(er|re)|source|institution)$",
    "part_column": r"^(split|part|partition|set|fold_name|subset)$",
}
COVARIATES = r"^(sex|gender|age|view|view_position|laterality|scanner|manufacturer|magnification|race|ethnicity|modality)$"


@dataclass(frozen=True)
class Survey:
    """What a folder seems to be. data: values of the config's data section; seen: lines to show; doubts: what a person must check."""

    data: dict[str, object]
    seen: list[str]
    doubts: list[str]


def write_commented_config(folder: Path, out: Path | None = None) -> tuple[Path, list[str]]:
    """Write a config for the folder; returns its path and what was seen. Raises InputError when nothing is recognised or the file exists."""
    found = survey(folder)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.resolve().name).strip("._-") or "cohort"
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise InputError(f"{path}: exists already; give --out another file")
    build_config({"name": name, "data": found.data}, source="the config that was about to be written")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_config_text(name, found), encoding="utf-8")
    return path, found.seen


def survey(folder: Path) -> Survey:
    """Recognise the source by its files: whole slides, NPZ, a table beside images, a DICOM tree, one folder per class."""
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; expected a folder with images, DICOM files, a table or an NPZ file")
    if folder.is_file():
        return _survey_file(folder)
    files = [path for path in islice(folder.rglob("*"), MOST_FILES) if path.is_file()]
    endings = Counter(path.suffix.lower() for path in files)
    n_images, n_dicom = sum(endings[e] for e in IMAGE_ENDINGS), sum(endings[e] for e in DICOM_ENDINGS)
    tables = [path for path in files if path.suffix.lower() in TABLE_ENDINGS]
    archives = [path for path in files if path.suffix.lower() == ".npz"]
    kinds = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in endings.most_common(5))
    seen = [f"{folder}: {len(files)} files: {kinds}"]
    if _holds_slides(files, n_dicom):
        return _survey_slides(folder, files, tables, seen)
    if tables and n_images:
        return _survey_table(_likely_table(tables), folder, seen)
    if n_dicom > n_images:
        return _survey_dicom(folder, tables, seen)
    if n_images:
        return _survey_class_folders(folder, files, seen)
    if archives:
        return _survey_file(archives[0])
    raise InputError(f"{seen[0]}; found no images (PNG, JPEG, TIFF, BMP, WebP, DICOM, NPZ) to write a config for")


def _survey_file(path: Path) -> Survey:
    if path.suffix.lower() == ".npz":
        return Survey({"source": "npz", "path": str(path.resolve())}, [f"{path}: a MedMNIST-like NPZ file"], [])
    if path.suffix.lower() in TABLE_ENDINGS:
        return _survey_table(path, path.parent, [f"{path}: a table"])
    raise InputError(f"{path}: expected a folder, a CSV, Parquet or NPZ file")


def _likely_table(tables: list[Path]) -> Path:
    return min(tables, key=lambda path: (len(path.parts), not re.search("manifest|label|train|meta", path.stem, re.I), path.name))


def _survey_table(path: Path, folder: Path, seen: list[str]) -> Survey:
    table = read_table(path)
    data: dict[str, object] = {"source": "table", "path": str(path.resolve())}
    for key, words in WORDS.items():
        match = next((str(column) for column in table.columns if re.match(words, str(column), re.I) and table[column].notna().any()), None)
        if match is not None:
            data[key] = match
    doubts = [f"no column looks like a {key.split('_')[0]} column: set data.{key}" for key in ("patient_column",) if key not in data]
    if "image_column" not in data:
        data["image_column"] = str(table.columns[0])
        doubts.append(f"no column is named like an image path; {table.columns[0]} was taken")
    first = str(table[data["image_column"]].iloc[0]) if len(table) else ""
    root = next((path.parent / below for below in ("", "images", "imgs", "data") if (path.parent / below / first).is_file()), None)
    if root is None:
        hits = list(islice(folder.rglob(Path(first).name), 1)) if first else []
        root = Path(str(hits[0]).removesuffix(first)) if hits and str(hits[0]).endswith(first) else None
    if root is not None and root.resolve() != path.parent.resolve():
        data["image_root"] = str(root.resolve())
    if root is None:
        doubts.append(f"the first image {first!r} was not found: set data.image_root")
    if "label_column" not in data:
        data["label_columns"] = _label_columns(table, set(map(str, data.values())))
        doubts.append("no column is named like a label; the 0/1 columns were taken")
    data["covariates"] = [str(column) for column in table.columns if re.match(COVARIATES, str(column), re.I)]
    seen.append(f"{path.name}: {len(table)} rows, columns {', '.join(map(str, table.columns[:12]))}")
    return Survey(data, seen, doubts)


def _label_columns(table: pd.DataFrame, taken: set[str]) -> list[str]:
    free = [str(column) for column in table.columns if str(column) not in taken]
    columns = [column for column in free if set(pd.to_numeric(table[column], errors="coerce").dropna().unique()) in ({0, 1}, {-1, 0, 1})]
    if not columns:
        raise InputError(f"no column looks like a label (class names or 0/1) among {list(table.columns)[:12]}; write the config by hand")
    return columns


def _survey_dicom(folder: Path, tables: list[Path], seen: list[str]) -> Survey:
    data: dict[str, object] = {"source": "dicom", "path": str(folder.resolve())}
    doubts = ["labels: set data.label_table, image_column, join and label_column; without them only `medcnn audit` works"]
    if tables:
        data["label_table"] = str(_likely_table(tables).resolve())
        doubts.append("a table was found and taken as label_table: check image_column, join and label_column")
    return Survey(data, seen, doubts)


def _holds_slides(files: list[Path], n_dicom: int) -> bool:
    """True when an ending is a scanner's own, or the first large TIFFs or DICOM files are whole slides by their header."""
    from medcnn.data.slides import SCANNER_ENDINGS

    if any(path.suffix.lower() in SCANNER_ENDINGS for path in files):
        return True
    from medcnn.data.slide_dicom import is_whole_slide
    from medcnn.data.slide_tiff import is_pyramid

    tiffs = [path for path in files if path.suffix.lower() in {".tif", ".tiff", ".btf"} and path.stat().st_size > LEAST_SLIDE_BYTES]
    dicoms = [path for path in files if path.suffix.lower() in DICOM_ENDINGS][:3] if n_dicom else []
    return any(map(is_pyramid, tiffs[:3])) or any(map(is_whole_slide, dicoms))


def _survey_slides(folder: Path, files: list[Path], tables: list[Path], seen: list[str]) -> Survey:
    """Outlines beside the slides label tiles; else a table that names the slides labels them."""
    data: dict[str, object] = {"source": "slides", "path": str(folder.resolve())}
    doubts = ["resolution and tiles: data.slides.mpp, tile_px and min_tissue are the defaults (0.5 um/px, 256 px, half tissue)"]
    names = {name for path in files for name in (path.name, path.stem, path.relative_to(folder).as_posix())}
    found = next(((path, column) for path in tables if (column := _column_naming(names, read_table(path)))), None)
    outlines = [path for path in files if path.suffix.lower() in {".geojson", ".xml"}]
    if outlines:
        data["slides"] = {"annotations": str(outlines[0].parent.resolve())}
        doubts.append(f"{len(outlines)} files with outlines were found, by which tiles are labelled: check data.slides.annotations")
    if found is not None:
        table, columns = read_table(found[0]), [str(column) for column in read_table(found[0]).columns]
        data |= {"label_table": str(found[0].resolve()), "image_column": found[1]}
        wanted = ("patient_column", "site_column") if outlines else ("label_column", "patient_column", "site_column")
        for key in wanted:
            match = next((column for column in columns if re.match(WORDS[key], column, re.I) and table[column].notna().any()), None)
            if match is not None and match != found[1]:
                data[key] = match
    if "label_column" not in data and not outlines:
        doubts.append(
            "labels: set data.label_table, image_column and label_column, or data.slides.annotations; without them only `medcnn audit` works"
        )
    if "patient_column" not in data:
        doubts.append("patients: every slide counts as its own patient; name the patient in label_table (data.patient_column)")
    return Survey(data, seen, doubts)


def _column_naming(names: set[str], table: pd.DataFrame) -> str | None:
    """The column most of whose values name a file of the folder, with or without ending."""
    hits = {str(column): float(table[column].astype(str).isin(names).mean()) for column in table.columns} if len(table) else {}
    best = max(hits, key=lambda column: hits[column], default=None)
    return best if best is not None and hits[best] >= 0.5 else None


def _survey_class_folders(folder: Path, files: list[Path], seen: list[str]) -> Survey:
    images = [path.relative_to(folder) for path in files if path.suffix.lower() in IMAGE_ENDINGS]
    depth = 1 if any(path.parts[0].lower() in PART_FOLDERS for path in images) else 0
    classes = Counter(path.parts[depth] for path in images if len(path.parts) > depth + 1)
    if len(classes) < 2:
        raise InputError(f"{folder}: expected one folder per class, or a CSV with labels; found images in {len(classes)} class folders")
    seen.append(f"classes: {', '.join(f'{name} ({n})' for name, n in classes.most_common(10))}")
    doubts = ["patients: if file names carry the patient, set data.patient_pattern, else images of one patient may stand in two parts"]
    return Survey({"source": "folder", "path": str(folder.resolve())}, seen, doubts)


def _config_text(name: str, found: Survey) -> str:
    lines = [f"# Written by `medcnn init`. Check the data section, then: medcnn audit {name}.yaml"]
    lines += [f"# CHECK: {doubt}" for doubt in found.doubts]
    lines += [
        f"name: {name}",
        f"modality: {'histology' if found.data['source'] == 'slides' else 'auto'}  # chest_xray, xray, histology, fundus, dermoscopy, ultrasound, generic: steers augmentation",
        "data:",
    ]
    for key, value in found.data.items():
        text = json.dumps(value) if isinstance(value, list | dict) else yaml.safe_dump(value, width=1000).removesuffix("\n...\n").strip()
        lines.append(f"  {key}: {text}  # {DataConfig.model_fields[key].description}")
    lines += [
        "# All other sections are decided by the plan; `medcnn plan` shows each decision and its reason. For instance:",
        "# image: {size_px: 224}",
        "# model: {name: resnet50, pretrained: true}",
        "# training: {epochs: 20}",
        "# evaluation: {by: [sex], thresholds: [{rule: sensitivity, value: 0.95}]}",
        "",
    ]
    return "\n".join(lines)
