"""What slides cost: tiles per CPU second of ingest (mask, decoding, measures) and cache, against OpenSlide's read_region of the same tiles.

    python -m benchmarks.slides FOLDER [--repeats 3]

FOLDER: the real slides (shared/data/wsi). Both ways run in turn in one process; CPU seconds of all its threads are compared,
since wall clocks depend on what else runs. Prints Markdown tables: the files, throughput, and cost by the number of slides.
"""

import argparse
import functools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pandas as pd
import tifffile

from medcnn.config_data import DataConfig
from medcnn.data import traits
from medcnn.data.cache import build_cache
from medcnn.data.formats import UnreadableImage
from medcnn.data.ingest import ingest, reading_of
from medcnn.data.prepared import prepare_row
from medcnn.data.slide_readers import import_openslide
from medcnn.data.slide_tiles import SlideJob, cut_slide
from medcnn.data.slides import SLIDE_ENDINGS, forget_slides, open_slide
from medcnn.data.tile_places import tile_place
from medcnn.plan import ImagePlan

ASSUMED = {"assume_mpp": 0.5, "assume_reason": "not known; said to measure time"}
# slide, settings: JPEG and JPEG 2000 at the resolution that is stored, a resolution between two levels, fluorescence
CASES = (
    ("CMU-1-Small-Region.svs", {"tile_px": 256, "mpp": 0.5}),
    ("mosaic", {"tile_px": 256, "mpp": 0.5}),
    ("mosaic", {"tile_px": 256, "mpp": 0.9}),
    ("TCGA-CR-7395-01A-01-TS1.svs", {"tile_px": 256, "mpp": 0.5, **ASSUMED}),
    ("TCGA-CR-7395-01A-01-TS1.svs", {"tile_px": 256, "mpp": 0.8, **ASSUMED}),
    ("slideio_test3_DAPI.ndpi", {"tile_px": 256, "mpp": 0.25}),
)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def config_of(folder: Path, settings: dict[str, object]) -> DataConfig:
    """A folder of slides as a source."""
    return DataConfig.model_validate({"source": "slides", "path": folder, "slides": settings})


def ours(config: DataConfig) -> tuple[pd.DataFrame, dict[str, float]]:
    """Ingest and cache; the manifest, and the CPU seconds of each."""
    forget_slides()  # what an earlier run decoded
    plan = ImagePlan(size_px=config.slides.tile_px, channels=3, fit="stretch")
    with tempfile.TemporaryDirectory() as place:
        ingested, cached = Path(place) / "ingest", Path(place) / "cache"
        ingested.mkdir()
        cached.mkdir()
        started = time.process_time()
        manifest, _ = ingest(config, folder=ingested)
        between = time.process_time()
        prepare = functools.partial(prepare_row, reading=reading_of(config, ingested))
        build_cache(manifest, plan, cached, prepare=prepare)
        return manifest, {"ingest": between - started, "cache": time.process_time() - between}


def plain(root: Path, manifest: pd.DataFrame) -> None:
    """Every tile by read_region, as RGB: what a loop over OpenSlide does, without a mask, a resize or a place to keep it."""
    openslide = import_openslide()
    slides: dict[str, object] = {}
    for path in manifest["path"]:
        place = tile_place(path)
        slide = slides.get(place.file) or slides.setdefault(place.file, openslide.OpenSlide(root / place.file))
        np.asarray(slide.read_region((place.x, place.y), place.level, (place.side, place.side)).convert("RGB"))


def put_slide(name: str, folder: Path, place: Path) -> None:
    """A copy of the slide; mosaic: 4 x 4 times CMU-1-Small-Region with three levels, as large slides have."""
    if name != "mosaic":
        shutil.copy(folder / name, place)
        return
    piece = open_slide(folder / "CMU-1-Small-Region.svs").read(0, 0, 0, 2220, 2967)
    picture = np.tile(piece, (4, 4, 1))
    options = {"photometric": "rgb", "tile": (240, 240), "compression": "jpeg", "compressionargs": {"level": 75}, "metadata": None}
    with tifffile.TiffWriter(place / "mosaic.tif") as file:
        for step in (1, 4, 16):
            level = picture if step == 1 else cv2.resize(picture, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
            per_cm = 1e4 / 0.499 / step
            file.write(level, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", subfiletype=int(step > 1), **options)


# ---------------------------------------------------------------- tables


def show_files(folder: Path) -> None:
    """Each file of the folder: how it is read, or why not."""
    print("| file | reader | levels | um/px in the file | tiles of 256 px at .5 um/px, or why none |\n|---|---|---|---|---|")
    slides = config_of(folder, {}).slides
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SLIDE_ENDINGS)
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            facts = open_slide(file, where=name).facts
            levels = ", ".join(f"{level.width} x {level.height}" for level in facts.levels[:2]) + (
                f", {len(facts.levels)} in all" if len(facts.levels) > 2 else ""
            )
            about = f"{facts.reader.split(':')[0]} | {levels} | {f'{facts.mpp[0]:.6g}' if facts.mpp else f'none ({facts.power:g}x)' if facts.power else 'none'}"
        except UnreadableImage:
            about = "none | |"
        cut = cut_slide(SlideJob(file, name, slides))
        result = (
            f"refused, {cut.problem[0]}: {cut.problem[1].split('; give it')[0]}" if cut.problem else f"{len(cut.tiles)} of {cut.n_grid}"
        )
        print(f"| {name} | {about} | {result} |")


def show_throughput(folder: Path, repeats: int) -> None:
    """Tiles per CPU second of both ways, in turn."""
    print(
        "\n| slide | tiles | plain, tiles/s | ours, tiles/s | ratio | without traits, ratio | ours, ms a tile: ingest, cache |\n|---|---|---|---|---|---|---|"
    )
    measures = traits.MEASURES
    for name, settings in CASES:
        with tempfile.TemporaryDirectory() as place:
            put_slide(name, folder, Path(place))
            config = config_of(Path(place), settings)
            manifest, _ = ours(config)  # the first is for imports and the file cache
            rows = []
            for _ in range(repeats):
                base = cpu_seconds(functools.partial(plain, Path(place), manifest))
                _, full = ours(config)
                traits.MEASURES = ()
                _, lean = ours(config)
                traits.MEASURES = measures
                rows.append((base, sum(full.values()), sum(lean.values()), full["ingest"], full["cache"]))
            base, full_cpu, lean_cpu, of_ingest, of_cache = (median(column) for column in zip(*rows, strict=True))
            n = len(manifest)
            said = f"{settings['tile_px']} px, {settings['mpp']} um/px" + (", half overlapping" if settings.get("overlap") else "")
            print(
                f"| {name}, {said} | {n} | {n / base:.0f} | {n / full_cpu:.0f} | {base / full_cpu:.2f} | {base / lean_cpu:.2f} | "
                f"{1e3 * of_ingest / n:.2f}, {1e3 * of_cache / n:.2f} |",
                flush=True,
            )


def show_growth(folder: Path, repeats: int) -> None:
    """CPU seconds by the number of slides: copies of one."""
    print("\n| slides | tiles | CPU s | ms a tile |\n|---|---|---|---|")
    for n in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as place:
            for number in range(n):
                shutil.copy(folder / "CMU-1-Small-Region.svs", Path(place) / f"copy{number}.svs")
            runs = [ours(config_of(Path(place), {"tile_px": 256, "mpp": 0.5})) for _ in range(repeats)]
            spent = median(sum(cpu.values()) for _, cpu in runs)
            n_tiles = len(runs[0][0])
            print(f"| {n} | {n_tiles} | {spent:.2f} | {1e3 * spent / n_tiles:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    show_files(wanted.folder)
    show_throughput(wanted.folder, wanted.repeats)
    show_growth(wanted.folder, wanted.repeats)
