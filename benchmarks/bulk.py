"""What ingest and cache cost for each image, and from that what ten million images would: CPU seconds, memory, bytes.

    OMP_NUM_THREADS=1 python -m benchmarks.bulk [--out benchmarks/results/bulk.md] [--data ../shared/data]

Rates are CPU seconds (of the thread, the fastest of several passes), which a busy machine disturbs least; ratios are taken
in one run, yardstick and ours in turn. Made-up images look like radiographs: smooth, with grain. Memory and kills are looked
at from outside, in processes of their own.
"""

import argparse
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medcnn.config_data import DataConfig
from medcnn.data import cache, shards
from medcnn.data.cache import build_cache, open_cache
from medcnn.data.formats import decode_file
from medcnn.data.images import Reading
from medcnn.data.ingest import ingest
from medcnn.data.inspection import Job, look
from medcnn.data.prepared import kept_px, prepare_row
from medcnn.plan import ImagePlan

PASSES, N_FILES, TARGET_PX = 4, 2, 224
TEN_MILLION = 10_000_000
MACHINE_CORES, HOURS_A_DAY = 32, 24


def scene(side: int, channels: int, seed: int) -> np.ndarray:
    """A made-up radiograph (or, of 3 channels, a stained section): structure at several scales and a little grain."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, channels))
    for sigma in (side / 10, side / 35, 8, 2):
        layer = cv2.GaussianBlur(rng.normal(size=(side // 2, side // 2, channels)), (0, 0), sigma / 2).reshape(
            side // 2, side // 2, channels
        )
        layer = cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, channels)
        total += np.sqrt(sigma) * layer / layer.std()
    total = (total - total.min()) / np.ptp(total) * 255 + rng.normal(size=total.shape) * 1.5
    pixels = np.clip(total, 0, 255).astype(np.uint8)
    return pixels if channels == 3 else pixels[..., 0]


def best_ms(*work: Callable[[], object]) -> list[float]:
    """CPU milliseconds of each piece of work: the fastest of PASSES, taken in turn."""
    found = [np.inf] * len(work)
    for _ in range(PASSES):
        for number, some in enumerate(work):
            started = time.thread_time()
            some()
            found[number] = min(found[number], time.thread_time() - started)
    return [1000 * value for value in found]


def as_table(rows: list[dict[str, object]]) -> str:
    """Rows as Markdown."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows)])


# ---------------------------------------------------------------- decoding


def made_files(folder: Path) -> dict[str, list[str]]:
    """PNG and JPEG (quality 90) of several sizes: names below the folder."""
    files: dict[str, list[str]] = {}
    for side, channels, ending in [
        (1024, 1, "png"),
        (1024, 3, "png"),
        *((side, channels, "jpg") for side in (1024, 2048, 3072) for channels in (1, 3)),
    ]:
        kind = f"{ending} {side} px {'grey' if channels == 1 else 'colour'}"
        for seed in range(N_FILES):
            name = f"{kind.replace(' ', '_')}_{seed}.{ending}"
            cv2.imwrite(str(folder / name), scene(side, channels, seed), [cv2.IMWRITE_JPEG_QUALITY, 90] if ending == "jpg" else [])
            files.setdefault(kind, []).append(name)
    return files


def first_pass(folder: Path, kind: str, names: list[str]) -> dict[str, object]:
    """Decode and resize to TARGET_PX, in full and reduced, beside OpenCV's bare decode; and all that ingest takes of an image."""
    data = [(folder / name).read_bytes() for name in names]
    full, reduced = (ImagePlan(size_px=TARGET_PX, channels=3, fit="pad", decode=decode) for decode in ("full", "reduced"))
    reading, flag = Reading(folder), cv2.IMREAD_COLOR if "colour" in kind else cv2.IMREAD_GRAYSCALE
    ms = best_ms(
        lambda: [cv2.imdecode(np.frombuffer(some, np.uint8), flag) for some in data],
        lambda: [decode_file(some, 0, "x", keep_px=kept_px(reduced)) for some in data],
        lambda: [prepare_row(name, 0, full, reading=reading) for name in names],
        lambda: [prepare_row(name, 0, reduced, reading=reading) for name in names],
        lambda: [look(Job(name, ((0, 0),)), reading) for name in names],
    )
    bare, smaller, whole, part, facts = (value / len(names) for value in ms)
    errors = [
        np.abs(prepare_row(name, 0, full, reading=reading).astype(int) - prepare_row(name, 0, reduced, reading=reading)) for name in names
    ]
    return {
        "image": kind,
        "KB": round(np.mean([len(some) for some in data]) / 1024),
        "bare decode, ms": f"{bare:.2f}",
        "decode + resize, ms": f"{whole:.2f}",
        "images a CPU second": round(1000 / whole),
        "reduced: decode, ms": f"{smaller:.2f}",
        "reduced: decode + resize, ms": f"{part:.2f}",
        "times as fast": f"{whole / part:.1f}",
        "its error, grey levels: mean (largest)": f"{np.mean(errors):.2f} ({np.max(errors)})",
        "ingest, ms": f"{facts:.2f}",
        "ingest, images a CPU second": round(1000 / facts),
    }


def real_files(name: str, folder: Path) -> dict[str, object]:
    """The same of real images, a hundred of a cohort."""
    names = sorted(path.name for path in folder.iterdir())[::10][:100]
    reading = Reading(folder)
    full, reduced = (ImagePlan(size_px=64, channels=3, fit="pad", decode=decode) for decode in ("full", "reduced"))
    ms = best_ms(
        lambda: [prepare_row(one, 0, full, reading=reading) for one in names],
        lambda: [prepare_row(one, 0, reduced, reading=reading) for one in names],
        lambda: [look(Job(one, ((0, 0),)), reading) for one in names],
    )
    whole, part, facts = (value / len(names) for value in ms)
    return {
        "cohort": name,
        "decode + resize to 64 px, ms": f"{whole:.2f}",
        "reduced, ms": f"{part:.2f}",
        "times as fast": f"{whole / part:.1f}",
        "ingest, ms": f"{facts:.2f}",
    }


# ---------------------------------------------------------------- reading the cache


def read_back(place: Path, name: str, shard_bytes: int, free_memory: int) -> dict[str, object]:
    """Batches of 64 shuffled images of 224 px, beside copies of as many images that lie side by side in memory."""
    n, side = 2000, TARGET_PX
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    manifest = pd.DataFrame({"image_id": [f"{row:06d}" for row in range(n)], "path": "x", "frame": range(n)})
    batches = np.array_split(np.random.default_rng(1).permutation(n), n // 64)
    place.mkdir()
    shards.SHARD_BYTES, cache.free_memory_bytes = shard_bytes, lambda: free_memory
    build_cache(manifest, ImagePlan(size_px=side, channels=3, fit="pad"), place, prepare=lambda *_: image)
    images = open_cache(place).images
    source = np.ones(images.shape, np.uint8)
    ours, bare = best_ms(
        lambda: [images[batch] for batch in batches],
        lambda: [source[start : start + 64].copy() for start in range(0, n, 64)],
    )
    rate = n * image.nbytes / ours / 1e6
    return {"cache": name, "ms an image": f"{ours / n:.4f}", "a plain copy, ms": f"{bare / n:.4f}", "GB a second": f"{rate:.1f}"}


CACHES = (("in memory", 1 << 40, 1 << 50), ("one file, mapped", 1 << 40, 0), ("shards of 50 MB, mapped", 50 << 20, 0))


# ---------------------------------------------------------------- memory, kills: from outside


def many_small(folder: Path, n: int) -> Path:
    """n links to a few small images, in two class folders."""
    for number in range(8):
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"seed{number}.png"), scene(64, 1, number))
    root = folder / f"of_{n}"
    for name in ("sick", "well"):
        (root / name).mkdir(parents=True)
    for number in range(n):
        os.link(folder / f"seed{number % 8}.png", root / ("sick" if number % 2 else "well") / f"{number:07d}.png")
    return root


def worker(task: str, root: Path, out: Path) -> None:
    """What a process of its own does: ingest, or cache; prints its peak memory in MB and CPU seconds."""
    config = DataConfig(source="folder", path=root)
    if task == "ingest":
        ingest(config, folder=out)
    else:
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        manifest = pd.DataFrame({"image_id": names, "path": names, "frame": 0})
        plan = ImagePlan(size_px=64, channels=1, fit="pad")
        build_cache(manifest, plan, out, prepare=functools.partial(prepare_row, reading=Reading(root)))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024, time.process_time())  # getrusage would begin with the parent's peak


def _start(task: str, root: Path, out: Path) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "benchmarks.bulk", "--worker", task, str(root), str(out)], stdout=subprocess.PIPE, text=True
    )


def memory(folder: Path, sizes: tuple[int, int]) -> list[dict[str, object]]:
    """Peak memory at two sizes of a cohort, and what each further image adds."""
    rows = []
    for task in ("ingest", "cache"):
        peaks = []
        for n in sizes:
            root = folder / f"of_{n}"
            process = _start(task, root if root.is_dir() else many_small(folder, n), folder / f"{task}_{n}")
            peak, seconds = map(float, process.communicate()[0].split())
            peaks.append((peak, seconds))
        added = (peaks[1][0] - peaks[0][0]) / (sizes[1] - sizes[0]) * 1024
        rows.append(
            {
                "stage": task,
                **{f"{n} images: peak MB": round(peak) for n, (peak, _) in zip(sizes, peaks, strict=True)},
                "KB for each further image": f"{added:.2f}",
                "CPU seconds of the larger": f"{peaks[1][1]:.0f}",
            }
        )
    return rows


def kills(folder: Path, n: int, times: int) -> list[dict[str, object]]:
    """Kill ingest and cache (SIGKILL) several times at random, then let them end; how much was done twice."""
    root, rng, rows = folder / f"of_{n}", random.Random(0), []
    for task in ("ingest", "cache"):
        out, lost = folder / f"{task}_killed", []
        killed, before = 0, 0
        while killed < times:
            process = _start(task, root, out)
            deadline = time.monotonic() + 120
            grown = before + rng.randrange(3, 12)
            while process.poll() is None and len(list((out / "chunks").glob("[0-9]*"))) < grown and time.monotonic() < deadline:
                time.sleep(0.01)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed, before = killed + 1, len(list((out / "chunks").glob("[0-9]*")))
            lost.append(before)
        text, _ = _start(task, root, out).communicate()
        rows.append(
            {
                "stage": task,
                "kills": killed,
                "chunks that were finished at each (of 63)": ", ".join(map(str, lost)),
                "finished in the end": "yes" if text.strip() else "no",
                "result as without kills": _same(task, out, folder / f"{task}_{n}"),
            }
        )
    return rows


def _same(task: str, out: Path, whole: Path) -> str:
    names = ("traits.parquet", "pixels.parquet") if task == "ingest" else ("images.npy", "index.parquet")
    return "yes, byte by byte" if all((out / name).read_bytes() == (whole / name).read_bytes() for name in names) else "NO"


# ---------------------------------------------------------------- on paper


def on_paper(passes: list[dict[str, object]], small: list[dict[str, object]]) -> list[dict[str, object]]:
    """Ten million images from the measured rates: bytes read and written, hours of a machine of MACHINE_CORES cores, machines for a day."""
    rows = []
    per_image_kb = float(str(small[0]["KB for each further image"]))
    for row in passes:
        if row["image"] not in {"png 1024 px grey", "jpg 1024 px colour", "jpg 2048 px grey", "jpg 3072 px grey"}:
            continue
        is_jpeg = str(row["image"]).startswith("jpg")
        ms_cache = float(str(row["reduced: decode + resize, ms"] if is_jpeg else row["decode + resize, ms"]))
        core_hours = [TEN_MILLION * ms / 3.6e6 for ms in (float(str(row["ingest, ms"])), ms_cache)]
        channels = 3 if "colour" in str(row["image"]) else 1
        rows.append(
            {
                "ten million of": row["image"],
                "read, TB (twice)": f"{TEN_MILLION * float(str(row['KB'])) * 1024 / 1e12:.1f}",
                "cache at 224 px, TB": f"{TEN_MILLION * TARGET_PX**2 * channels / 1e12:.2f}",
                "shards": -(-TEN_MILLION * TARGET_PX**2 * channels // (4 << 30)),
                "ingest, core hours": f"{core_hours[0]:.0f}",
                "cache, core hours": f"{core_hours[1]:.0f}",
                f"hours on {MACHINE_CORES} cores": f"{sum(core_hours) / MACHINE_CORES:.1f}",
                "machines to be done in an hour": -(-int(sum(core_hours)) // MACHINE_CORES),
                "MB/s read by one machine": f"{2 * TEN_MILLION * float(str(row['KB'])) * 1024 / (sum(core_hours) / MACHINE_CORES * 3600) / 1e6:.0f}",
                "memory of the tables, GB": f"{TEN_MILLION * per_image_kb / 1e6:.1f}",
            }
        )
    return rows


def report(data: Path) -> str:
    """All of it as Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        passes = [first_pass(folder / "images", kind, names) for kind, names in made_files(folder / "images").items()]
        real = [real_files(cohort, data / cohort / "images") for cohort in ("covid_cxr", "histology") if (data / cohort).is_dir()]
        back = [read_back(folder / f"cache{number}", *one) for number, one in enumerate(CACHES)]
        small = memory(folder / "many", (2000, 8000))
        killed = kills(folder / "many", 2000, 3)
    version = (
        f"OpenCV {cv2.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}; {os.cpu_count()} cores, busy with other work"
    )
    return (
        "\n\n".join(
            [
                "# Many images: what ingest and cache cost",
                f"Made by `python -m benchmarks.bulk`; do not edit. {version}. CPU milliseconds of one thread, fastest of {PASSES} passes; target {TARGET_PX} px, 3 channels.",
                "## First pass over made-up images",
                as_table(passes),
                "Reduced: `image.decode: reduced`; a JPEG is decoded at a half, a quarter or an eighth of its size as long as twice the target is left. "
                "Ingest decodes in full whatever the plan says, takes sha256 of file and pixels, quality and likeness. What decoding a part saves is the inverse DCT, the colours and the resize; the entropy coding of the whole file remains.",
                *(["## First pass over real images", as_table(real)] if real else []),
                "## The cache read back",
                as_table(back),
                "## Memory",
                as_table(small),
                "## Killed and continued",
                as_table(killed),
                "Two threads work on a chunk each, so a kill costs at most two chunks (one for each worker).",
                "## Ten million images, on paper",
                as_table(on_paper(passes, small)),
                f"From the rates above, one core of this machine taken for any core; JPEGs reduced in the cache. {MACHINE_CORES} cores of one machine work as processes, those of several through Ray on a shared file system, "
                "which must deliver what the second but last column says for each machine. The tables (manifest and index) are held in memory by one process; pixels never are.",
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bulk.md"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--worker", nargs=3, metavar=("TASK", "ROOT", "OUT"))
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], Path(arguments.worker[1]), Path(arguments.worker[2]))
        return
    text = report(arguments.data)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
