"""A tree of whole slides, cut into tiles; labels by slide from a table, or by tile from a pathologist's outlines."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from medcnn.artifact import digest
from medcnn.cohort import Exclusion
from medcnn.config_data import DataConfig
from medcnn.data.annotations import find_annotation
from medcnn.data.chunks import Chunks, forget, work_through
from medcnn.data.formats import UnreadableImage
from medcnn.data.images import is_dicom
from medcnn.data.labels import UNLABELLED, class_labels, is_blank, suggest
from medcnn.data.pseudonyms import masked_path, pseudonym
from medcnn.data.slide_dicom import slide_header
from medcnn.data.slide_tiles import DROPPED, SlideJob, SlideTiles, cut_slides, read_cut
from medcnn.data.slides import SLIDE_ENDINGS, head_of
from medcnn.data.sources import Candidates, require_folder, walk_files
from medcnn.data.sources_table import described_columns, rows_by_key, table_labels
from medcnn.data.text_tables import read_text_table
from medcnn.data.tile_places import TilePlace
from medcnn.errors import InputError
from medcnn.executors import Executor, n_cores, pool_for
from medcnn.progress import Progress, silent
from medcnn.section import Auto
from medcnn.tables import Task

COVARIATES = ("tissue", "ink", "fold", "class_share", "level", "mpp_source", "manufacturer", "power", "field")
_NOT_COUNTED = "other files are no slides by their ending (tables, outlines, companions): not looked at"


@dataclass(frozen=True)
class _Slide:
    """file: relative path; shown: its name in outputs; name: what its tiles and itself are called; row: of the label table, if there is one."""

    file: str
    shown: str
    name: str = ""
    row: int | None = None
    annotation: Path | None = None


def slides_candidates(
    config: DataConfig, task: Task | Auto, folder: Path, *, executor: Executor = "local", progress: Progress = silent
) -> Candidates:
    """Every tile that is to come in, of every slide below config.path.

    image_id: SLIDE/X_Y, the corner in level-0 pixels; study_id: the slide; patient_id: config.patient_column of the label
    table, else the slide; frame: the tile's number, by which ingest keeps its pixels; spacing_mm: of a tile pixel, exactly;
    covariates: x, y and COVARIATES. Tiles are told apart by tissue, ink and folds seen at low resolution; none is decoded.
    folder: where each slide's tiles wait until all are done: a kill costs the slides under way.
    Raises InputError: no such folder, no slides, a label table or an annotation that does not fit.
    """
    root = require_folder(Path(str(config.path)))
    names, excluded = walk_files(root)
    files = [name for name in names if PurePosixPath(name).suffix.lower() in SLIDE_ENDINGS]
    if not files:
        endings = ", ".join(sorted(SLIDE_ENDINGS))
        raise InputError(
            f"{root}: none of {len(names)} files is a slide by its ending ({endings}); set data.path to the folder with the slides"
        )
    notes = [f"{len(names) - len(files)} {_NOT_COUNTED}"] if len(names) > len(files) else []
    slides, left_out = _slides(root, files, config)
    excluded += left_out
    table = None if config.label_table is None else read_text_table(config.label_table)
    slides, left_out = _described(slides, table, config)
    excluded += left_out
    cuts = _cut_all(root, slides, table, config, folder, executor, progress)
    excluded += [Exclusion(where=slide.shown, kind=cut.problem[0], reason=cut.problem[1]) for slide, cut in cuts if cut.problem]
    notes += _notes(cuts, config)
    rows, unlabelled = _labelled(cuts, table, config, task)
    excluded += unlabelled
    return Candidates(rows=_numbered(rows), n_found=len(files), excluded=excluded, notes=notes, tiles=_counts(cuts))


# ---------------------------------------------------------------- which files are slides


def _slides(root: Path, files: Sequence[str], config: DataConfig) -> tuple[list[_Slide], list[Exclusion]]:
    """One slide a file, or a DICOM series; labels and overviews that stand alone are left out."""
    found: list[_Slide] = []
    excluded: list[Exclusion] = []
    leads: dict[tuple[str, str], tuple[int, str]] = {}
    for file in files:
        shown = _shown(file, config)
        try:
            if not is_dicom(head_of(root / file, shown)):
                found.append(_Slide(file, shown))
                continue
            header = slide_header(root / file, shown)
        except UnreadableImage as error:
            excluded.append(Exclusion(where=shown, kind=error.kind, reason=error.reason))
            continue
        series = (str(PurePosixPath(file).parent), header.series or file)
        if header.kind != "VOLUME":
            reason = f"its DICOM image type is {header.kind}: of its series the VOLUME files are read"
            excluded.append(Exclusion(where=shown, kind="no_volume", reason=reason))
        elif series not in leads or header.width > leads[series][0]:
            leads[series] = (header.width, file)
    found += [_Slide(file, _shown(file, config)) for _, file in leads.values()]
    return _distinct(sorted(found, key=lambda slide: slide.file)), excluded


def _shown(file: str, config: DataConfig) -> str:
    """The name in outputs: UIDs masked; every name, when pseudonyms are asked for."""
    return masked_path(file, PurePosixPath(file).parts if config.slides.pseudonyms else ())


def _distinct(slides: Sequence[_Slide]) -> list[_Slide]:
    """Named by the path without its ending; slides that differ in nothing else keep it."""
    bare = [str(PurePosixPath(slide.shown).with_suffix("")) for slide in slides]
    n_named = Counter(bare)
    return [replace(slide, name=name if n_named[name] == 1 else slide.shown) for slide, name in zip(slides, bare, strict=True)]


# ---------------------------------------------------------------- what is known of a slide


def _described(slides: Sequence[_Slide], table: pd.DataFrame | None, config: DataConfig) -> tuple[list[_Slide], list[Exclusion]]:
    """Slides with their row of the label table and their outlines; those that lack one are left out."""
    if table is None and (config.label_column or config.label_columns):
        raise InputError("data.label_column is set, but data.label_table is not; slides have their labels in a table")
    row_of = {} if table is None else rows_by_key(table, config, _slide_key, "slide")
    kept, excluded = [], []
    for slide in slides:
        row = None if table is None else _found_row(slide.file, row_of)
        annotation = None
        if config.slides.annotations is not None:
            annotation = find_annotation(require_folder(config.slides.annotations), str(PurePosixPath(slide.file).with_suffix("")))
        if table is not None and row is None:
            excluded.append(Exclusion(where=slide.shown, kind="not_in_label_table", reason="the label table has no row for this slide"))
        elif config.slides.annotations is not None and annotation is None:
            excluded.append(Exclusion(where=slide.shown, kind="not_annotated", reason="data.slides.annotations has no file for this slide"))
        else:
            kept.append(replace(slide, row=row, annotation=annotation))
    return kept, excluded


def _slide_key(cell: str) -> str:
    return str(PurePosixPath(cell.replace("\\", "/")))


def _found_row(file: str, row_of: dict[str, int]) -> int | None:
    """By the relative path, the same without its ending, the file's name, or that without its ending."""
    path = PurePosixPath(file)
    keys = (str(path), str(path.with_suffix("")), path.name, path.stem)
    return next((row_of[key] for key in keys if key in row_of), None)


def _said_mpp(slide: _Slide, table: pd.DataFrame | None, config: DataConfig) -> float | None:
    column = config.slides.mpp_column
    if column is None:
        return None
    if table is None or column not in table.columns:
        known = [] if table is None else list(table.columns)
        raise InputError(f"data.slides.mpp_column is {column!r}, which label_table does not have; {suggest(column, known)}")
    value = table[column].tolist()[slide.row or 0]
    if is_blank(value):
        return None
    try:
        return float(str(value).replace(",", "."))
    except ValueError:
        raise InputError(f"{config.label_table}: {column} is {value!r} in row {(slide.row or 0) + 2}; expected microns per pixel") from None


# ---------------------------------------------------------------- tiles


def _cut_all(
    root: Path,
    slides: Sequence[_Slide],
    table: pd.DataFrame | None,
    config: DataConfig,
    folder: Path,
    executor: Executor,
    progress: Progress,
) -> list[tuple[_Slide, SlideTiles]]:
    jobs = [SlideJob(root / slide.file, slide.shown, config.slides, _said_mpp(slide, table, config), slide.annotation) for slide in slides]
    facts = [(str(job.file), job.file.stat().st_mtime_ns, job.said_mpp, str(job.annotation)) for job in jobs]
    chunks = Chunks(folder / "cut_slides", len(jobs), 1, digest([facts, config.slides.model_dump(mode="json")]))
    workers = n_cores()
    work_through(
        cut_slides, lambda start, stop: jobs[start:stop], chunks,
        pool=pool_for(executor, workers), workers=workers, progress=progress, title="Looking for tissue",
    )  # fmt: skip
    cuts = [(slide, read_cut(file)) for slide, file in zip(slides, chunks.files(), strict=True)]
    forget(chunks)
    return cuts


def _labelled(
    cuts: Sequence[tuple[_Slide, SlideTiles]], table: pd.DataFrame | None, config: DataConfig, task: Task | Auto
) -> tuple[pd.DataFrame, list[Exclusion]]:
    """Rows of all tiles with their labels; slides that have none although a label is asked for."""
    good = [(slide, cut) for slide, cut in cuts if not cut.problem]
    rows = pd.concat([_rows(slide, cut, config) for slide, cut in good], ignore_index=True) if good else pd.DataFrame()
    if rows.empty:
        first = next(((slide, cut) for slide, cut in cuts if cut.problem), None)
        why = f"; the first: {first[0].shown}: {first[1].problem[1]}" if first and first[1].problem else ""
        raise InputError(f"{config.path}: no tile of {len(cuts)} slides came in{why}")
    said = pd.DataFrame(index=rows.index)
    if table is not None:
        said = _said(table, config).iloc[rows["slide_row"].to_numpy(int)].reset_index(drop=True)
    excluded: list[Exclusion] = []
    if config.slides.annotations is not None:
        labels = class_labels(rows["class"].tolist(), config, task, source=str(config.slides.annotations))
        y, keep = labels.y, ~rows.index.to_series().isin(list(labels.left_out))
    elif table is not None and (config.label_column or config.label_columns):
        labels = table_labels(table, config, task, source=str(config.label_table))
        y = labels.y.iloc[rows["slide_row"].to_numpy(int)].reset_index(drop=True)
        keep = ~rows["slide_row"].isin(list(labels.left_out))
        excluded = [_without_label(slide, labels.left_out[slide.row]) for slide, _ in good if slide.row in labels.left_out]
    else:
        y, keep = pd.DataFrame({f"y_{UNLABELLED}": np.full(len(rows), np.nan)}), pd.Series(True, index=rows.index)
    patient = said.pop("patient_id") if "patient_id" in said else pd.Series(None, index=rows.index, dtype=object)
    rows["patient_id"] = patient.where(patient.notna(), rows["study_id"])
    known = said.drop(columns=[column for column in ("study_id",) if column in said])
    rows = rows.drop(columns=["slide_row", "class"], errors="ignore")
    rows = pd.concat([rows.drop(columns=[column for column in known if column in rows]), known, y], axis=1)
    return rows[keep].reset_index(drop=True), excluded


def _without_label(slide: _Slide, problem: tuple[str, str]) -> Exclusion:
    return Exclusion(where=slide.shown, kind=problem[0], reason=problem[1])


def _said(table: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """What the label table says besides labels; persons and sites as pseudonyms when asked for."""
    said = described_columns(table, config, config.label_table)
    if config.slides.pseudonyms:
        for column, kind in (("patient_id", "patient"), ("site", "site")):
            if column in said:
                said[column] = [None if is_blank(value) else pseudonym(kind, str(value)) for value in said[column]]
    return said


def _rows(slide: _Slide, cut: SlideTiles, config: DataConfig) -> pd.DataFrame:
    """A row for each tile of one slide."""
    tiles, about = cut.tiles, cut.about
    corners = list(zip(tiles["x"].tolist(), tiles["y"].tolist(), strict=True))
    places = (TilePlace(slide.shown, x, y, about["level"], about["side"], config.slides.tile_px) for x, y in corners)
    rows = tiles.assign(
        image_id=[f"{slide.name}/{x:06d}_{y:06d}" for x, y in corners],
        study_id=slide.name,
        path=[str(place) for place in places],
        slide_row=-1 if slide.row is None else slide.row,
        spacing_mm=about["spacing_mm"],
    )
    known = {name: about[name] for name in COVARIATES if about.get(name) not in (None, "")}
    return rows.assign(**{name: value for name, value in known.items() if name not in rows})


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Sorted as the manifest will be; frame: the number of the tile, its place among the pixels that ingest keeps."""
    rows = rows.sort_values("image_id", kind="stable").reset_index(drop=True)
    blank = [column for column in COVARIATES if column in rows and rows[column].isna().all()]
    return rows.drop(columns=blank).assign(frame=np.arange(len(rows)))


# ---------------------------------------------------------------- what to say


def _counts(cuts: Sequence[tuple[_Slide, SlideTiles]]) -> dict[str, int]:
    """Tiles of all grids, and how many of them did not come in for which reason."""
    total = Counter({"grid": sum(cut.n_grid for _, cut in cuts)})
    for _, cut in cuts:
        total.update(cut.dropped or {})
    return dict(total)


def _notes(cuts: Sequence[tuple[_Slide, SlideTiles]], config: DataConfig) -> list[str]:
    counts = _counts(cuts)
    notes = [f"{counts.pop('grid')} tiles of {config.slides.tile_px} px lie on the grids of {len(cuts)} slides"]
    notes += [f"{n} tiles left out: {DROPPED[reason]}" for reason, n in counts.items()]
    sources = Counter(str(cut.about.get("mpp_source")) for _, cut in cuts if not cut.problem)
    if sources["config"]:
        notes.append(
            f"{sources['config']} slides were taken at {config.slides.assume_mpp:g} um/px (data.slides.assume_mpp): {config.slides.assume_reason}"
        )
    if sources["objective"]:
        notes.append(f"{sources['objective']} slides name no microns per pixel and were taken at 10 / objective power")
    if sources["table"]:
        notes.append(f"{sources['table']} slides were taken at the microns per pixel of column {config.slides.mpp_column}")
    return [*notes, *_of_outlines(cuts)]


def _of_outlines(cuts: Sequence[tuple[_Slide, SlideTiles]]) -> Iterator[str]:
    for slide, cut in cuts:
        yield from (f"{slide.shown}: {note}" for note in cut.notes)
