"""One slide to its tiles: resolution, cut, tissue, ink and folds, outlines; no tile is decoded here."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medcnn.config_data import SlidesConfig
from medcnn.data.annotations import read_outlines, tile_classes
from medcnn.data.formats import UnreadableImage
from medcnn.data.resolution import NoResolution, resolution_of
from medcnn.data.slides import Slide, opened
from medcnn.data.tiles import Cut, cut_of, grid_of, read_overview
from medcnn.data.tissue import TissueMap, mask_mpp, shares, tissue_map

# Why tiles of the grid did not come in, in the order in which they are asked.
DROPPED = {
    "little_tissue": "too little tissue (data.slides.min_tissue)",
    "ink": "too much ink (data.slides.max_ink)",
    "fold": "folded tissue (data.slides.max_fold)",
    "unannotated": "no outline covers enough (data.slides.min_annotation)",
    "not_drawn": "more tiles than data.slides.max_tiles",
}
_META = b"slide"


@dataclass(frozen=True)
class SlideJob:
    """A slide to be cut. file: where it is; shown: its name in every output; said_mpp: what the label table says."""

    file: Path
    shown: str
    config: SlidesConfig
    said_mpp: float | None = None
    annotation: Path | None = None


@dataclass(frozen=True)
class SlideTiles:
    """tiles: x, y (level-0 pixels), tissue, ink, fold (shares of the tile), and class, class_share where there are outlines.

    about: of the slide: level, side, spacing_mm, mpp_source, manufacturer, power, reader, field. n_grid: tiles of the grid;
    dropped: how many for which reason of DROPPED. problem: kind and reason, when the slide does not come in.
    """

    tiles: pd.DataFrame
    about: Mapping[str, Any]
    n_grid: int = 0
    dropped: Mapping[str, int] | None = None
    problem: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()


def cut_slides(jobs: list[SlideJob]) -> bytes:
    """The tiles of one slide as an Arrow file: what chunks.work_through keeps of it. jobs: a list of one."""
    (job,) = jobs
    cut = cut_slide(job)
    table = pa.Table.from_pandas(cut.tiles, preserve_index=False)
    meta = {"about": cut.about, "n_grid": cut.n_grid, "dropped": cut.dropped or {}, "problem": cut.problem, "notes": cut.notes}
    table = table.replace_schema_metadata({_META: json.dumps(meta).encode()})
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def read_cut(file: Path) -> SlideTiles:
    """What cut_slides wrote."""
    with file.open("rb") as stream:
        table = pa.ipc.open_file(stream.read()).read_all()
    meta = json.loads(table.schema.metadata[_META])
    problem = tuple(meta.pop("problem") or ())
    return SlideTiles(table.to_pandas(), **{**meta, "notes": tuple(meta["notes"]), "problem": problem or None})


def cut_slide(job: SlideJob) -> SlideTiles:
    """The tiles of a slide that are to come in. Raises InputError for an annotation file that cannot be read."""
    try:
        return _cut(opened(job.file, where=job.shown), job)  # kept open: its tiles may be read next
    except UnreadableImage as error:
        return _refused(error.kind, error.reason)


def _cut(slide: Slide, job: SlideJob) -> SlideTiles:
    config, facts = job.config, slide.facts
    resolution = resolution_of(facts, config, job.said_mpp)
    if isinstance(resolution, NoResolution):
        slide.read(0, 0, 0, 1, 1)  # a slide whose pixels cannot be read either is refused for that
        return _refused(resolution.kind, resolution.reason)
    cut = cut_of(facts, resolution.mpp, config)
    if isinstance(cut, str):
        slide.read(0, 0, 0, 1, 1)
        return _refused("no_tile_fits", cut)
    corners = grid_of(facts, cut)
    seen = _seen(slide, resolution.mpp, cut, config)
    tiles = pd.DataFrame(corners, columns=["x", "y"]).assign(**_measured(seen, slide, corners, resolution.mpp, cut))
    notes = _annotate(tiles, job, cut) if job.annotation is not None else ()
    tiles, dropped = _kept(tiles, config)
    about = {
        "level": cut.level, "side": cut.side, "spacing_mm": cut.mpp / 1000, "mpp_source": resolution.source,
        "manufacturer": facts.vendor, "power": facts.power, "reader": facts.reader, "field": seen.field,
    }  # fmt: skip
    problem = None if len(tiles) else ("no_tiles", f"none of {len(corners)} tiles comes in ({_counted(dropped)})")
    return SlideTiles(tiles, about, len(corners), dropped, problem, notes)


def _seen(slide: Slide, mpp: float, cut: Cut, config: SlidesConfig) -> TissueMap:
    _, _, width, height = slide.facts.area
    wanted = mask_mpp(config.tile_px * cut.mpp, width * height * mpp**2)
    overview, exact = read_overview(slide, mpp, wanted)
    return tissue_map(overview, exact, find_ink=config.find_ink)


def _measured(seen: TissueMap, slide: Slide, corners: np.ndarray, mpp: float, cut: Cut) -> dict[str, np.ndarray]:
    """Shares of each tile, in mask pixels from the corner of the scanned area."""
    left, top, _, _ = slide.facts.area
    to_mask = mpp / np.array([seen.mpp[1], seen.mpp[0]])
    size = np.broadcast_to(cut.side * cut.downsample * to_mask, corners.shape)
    boxes = np.concatenate([(corners - [left, top]) * to_mask, size], axis=1)
    return {name: shares(getattr(seen, name), boxes).round(4) for name in ("tissue", "ink", "fold")}


def _annotate(tiles: pd.DataFrame, job: SlideJob, cut: Cut) -> tuple[str, ...]:
    """Add class and class_share to the tiles."""
    outlines = read_outlines(Path(str(job.annotation)), cut_out=job.config.cut_out)
    width = cut.side * cut.downsample
    boxes = np.concatenate([tiles[["x", "y"]].to_numpy(float), np.full((len(tiles), 2), width)], axis=1)
    names, share = tile_classes(outlines, boxes, least=job.config.min_annotation)
    tiles["class"] = [job.config.outside if name is None else name for name in names]
    tiles["class_share"] = share.round(4)
    return outlines.notes


def _kept(tiles: pd.DataFrame, config: SlidesConfig) -> tuple[pd.DataFrame, dict[str, int]]:
    """The tiles that come in, and how many do not, by the first reason that applies."""
    unfit = {
        "little_tissue": tiles["tissue"] < config.min_tissue,
        "ink": tiles["ink"] > config.max_ink,
        "fold": tiles["fold"] > config.max_fold,
        "unannotated": tiles["class"].isna() if "class" in tiles else pd.Series(False, index=tiles.index),
    }
    dropped = {}
    for reason, rows in unfit.items():
        rows = rows.loc[tiles.index]
        dropped[reason] = int(rows.sum())
        tiles = tiles[~rows]
    if config.max_tiles is not None and len(tiles) > config.max_tiles:
        dropped["not_drawn"] = len(tiles) - config.max_tiles
        tiles = tiles.iloc[np.linspace(0, len(tiles) - 1, config.max_tiles).round().astype(int)]
    return tiles.reset_index(drop=True), {reason: n for reason, n in dropped.items() if n}


def _counted(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{n}: {DROPPED[reason]}" for reason, n in dropped.items())


def _refused(kind: str, reason: str) -> SlideTiles:
    return SlideTiles(pd.DataFrame({"x": [], "y": []}), {}, problem=(kind, reason))
