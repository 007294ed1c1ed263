"""Copies in the real cohorts beside the repository: the known ones, planted ones, pairs that are none; and what looking for them costs.

    python -m benchmarks.copies planted [--cohorts histology] [--copies 400]     recall of each change and every other pair that is found, for each cohort
    python -m benchmarks.copies known                      the findings on the cohorts as they are
    python -m benchmarks.copies cost 10000 100000          look_alikes on made-up X-rays: CPU seconds, memory, pairs compared
    python -m benchmarks.copies search 1000000             the search for candidates alone, from likenesses
    python -m benchmarks.copies forest 10000 1000000       the forest alone, on made-up signatures
    python -m benchmarks.copies decode                     ms of a likeness beside those of decoding
Prints tables in Markdown. Made-up X-rays have the covariance of PneumoniaMNIST's thumbnails, so they are as alike as real ones.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medcnn.config_file import read_config
from medcnn.data.copies import SURE, copy_findings
from medcnn.data.digests import pixel_digest
from medcnn.data.images import decode_bytes
from medcnn.data.ingest import ingest, row_reader
from medcnn.data.lookalikes import _candidates, look_alikes
from medcnn.data.neighbours import close_pairs
from medcnn.data.resemblance import SAME_PICTURE, SIDE, likeness_of
from medcnn.data.signatures import learn_basis, sign_thumbnails
from medcnn.evaluation.intervals import wilson

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COHORTS = ("covid_cxr", "histology", "pneumoniamnist")
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


# ---------------------------------------------------------------- what a copy goes through


def compress(pixels: np.ndarray, quality: int = 30) -> np.ndarray:
    """JPEG of this quality, read again."""
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def crop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of 95% of the height and of the width, anywhere."""
    height, width = pixels.shape[:2]
    lost = [max(1, round(0.05 * length)) for length in (height, width)]
    top, left = (int(rng.integers(0, n + 1)) for n in lost)
    return pixels[top : height - lost[0] + top, left : width - lost[1] + left]


def crop_all_round(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """5% less at each of the four borders: 81% of the area stays."""
    height, width = pixels.shape[:2]
    up, side = round(0.05 * height), round(0.05 * width)
    return pixels[up : height - up, side : width - side]


def resize(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """To 0.4 to 2 times the size; 28 px images to no less than 0.75 of it."""
    factor = float(np.exp(rng.uniform(np.log(0.75 if min(pixels.shape[:2]) < 64 else 0.4), np.log(2))))
    size = [max(8, round(factor * length)) for length in (pixels.shape[1], pixels.shape[0])]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def brighten(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All values times 1.2 or 0.8, or 20% of the scale added or taken away; clipped."""
    values = pixels.astype(np.float32)
    changed = (values * 1.2, values * 0.8, values + 51, values - 51)[rng.integers(4)]
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def mirror(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Left to right."""
    return pixels[:, ::-1]


def through(*changes: Change) -> Change:
    """One change after another."""

    def changed(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for change in changes:
            pixels = np.ascontiguousarray(change(pixels, rng))
        return pixels

    return changed


def jpeg(pixels: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """JPEG of quality 30."""
    return compress(np.ascontiguousarray(pixels))


CHANGES: dict[str, Change] = {
    "mirrored left-right": mirror,
    "mirrored top-bottom": lambda pixels, _: pixels[::-1],
    "turned by a quarter": lambda pixels, _: np.rot90(pixels),
    "cropped by 5%": crop,
    "cropped by 5% at each border": crop_all_round,
    "resized": resize,
    "brightness +-20%": brighten,
    "JPEG 30": jpeg,
    "mirrored, cropped": through(mirror, crop),
    "cropped, JPEG": through(crop, jpeg),
    "resized, brightness, JPEG": through(resize, brighten, jpeg),
    "cropped, mirrored, brightness, JPEG": through(crop, mirror, brighten, jpeg),
    "cropped at each border, resized, JPEG": through(crop_all_round, resize, jpeg),
    "cropped, mirrored, turned, resized, brightness, JPEG": through(
        crop, mirror, lambda pixels, _: np.rot90(pixels), resize, brighten, jpeg
    ),
}


# ---------------------------------------------------------------- real cohorts


def likeness(pixels: np.ndarray) -> bytes | None:
    """As ingest has it."""
    return likeness_of(np.ascontiguousarray(pixels), 8)["likeness"]


def cohort(name: str) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The manifest, sorted by image_id, and the pixels of its images."""
    config = read_config(CONFIGS / f"{name}.yaml").data
    with tempfile.TemporaryDirectory() as folder:
        manifest, _ = ingest(config, folder=Path(folder))
    read = row_reader(config)
    return manifest, [read(Path(path), int(frame)) for path, frame in zip(manifest["path"], manifest["frame"], strict=True)]


def known() -> None:
    """Findings on the cohorts as they are."""
    for name in COHORTS:
        manifest, images = cohort(name)
        traits = pd.DataFrame({"image_id": manifest["image_id"], "likeness": [likeness(pixels) for pixels in images]})
        print(f"\n**{name}**, {len(manifest):,} images\n")
        for finding in copy_findings(manifest, None, traits):
            print(f"- {finding.severity}, {finding.kind}: {finding.text}")
        found = look_alikes(list(traits["likeness"]))
        digests, patients = manifest["pixel_sha256"].to_numpy(), manifest["patient_id"].to_numpy()
        print("\n| pair | score | patients |\n|---|---|---|")
        for (first, second), score in zip(found.pairs, found.scores, strict=True):
            if digests[first] != digests[second]:
                one = "one patient" if patients[first] == patients[second] else "two patients"
                print(f"| {manifest['image_id'][first]} = {manifest['image_id'][second]} | {score:.2f} | {one} |")


def planted(names: list[str], n_copies: int) -> None:
    """Each change of each cohort in turn: recall, and what else is found."""
    print("| cohort | change | recall (95% interval) | other pairs of two patients | of one patient | per 10,000 images |")
    print("|---|---|---|---|---|---|")
    others: set[str] = set()
    for name in names:
        manifest, images = cohort(name)
        n, patients = len(images), manifest["patient_id"].to_numpy()
        plain = [likeness(pixels) for pixels in images]
        found = look_alikes(plain)
        there = {tuple(pair) for pair in found.pairs.tolist()}
        for number, (change, apply) in enumerate(CHANGES.items()):
            rng = np.random.default_rng([7, number])
            rows = np.sort(rng.choice(n, min(n_copies, n), replace=False))
            every = [*plain, *(likeness(apply(images[row], rng)) for row in rows)]
            origin = np.concatenate([np.arange(n), rows])
            found = look_alikes(every)
            origins = np.sort(origin[found.pairs], axis=1)
            is_copy = origins[:, 0] == origins[:, 1]
            is_new = np.array([tuple(pair) not in there for pair in origins.tolist()], bool) & ~is_copy
            of_one = patients[origins[:, 0]] == patients[origins[:, 1]]
            apart = is_new & ~of_one
            hits = len({int(row) for row in found.pairs[is_copy].max(1)})
            low, high = wilson(hits, len(rows))
            others |= {
                f"{name}: {manifest['image_id'][i]} = {manifest['image_id'][j]} ({score:.2f}, {change})"
                for (i, j), score in zip(origins[is_new], found.scores[is_new], strict=True)
            }
            counted = len(np.unique(origins[apart], axis=0))
            print(
                f"| {name} | {change} | {hits / len(rows):.3f} ({low:.3f} to {high:.3f}) | {counted} | "
                f"{len(np.unique(origins[is_new & of_one], axis=0))} | {1e4 * counted / len(every):.1f} |",
                flush=True,
            )
    print("\nOther pairs:\n", *[f"- {other}" for other in sorted(others)], sep="\n")


# ---------------------------------------------------------------- cost


def made_up(n: int) -> list[bytes | None]:
    """Likenesses of images that never were, with the mean and the covariance of PneumoniaMNIST's."""
    _, images = cohort("pneumoniamnist")
    real = np.stack([np.frombuffer(likeness(pixels) or bytes(SIDE**2), np.uint8) for pixels in images]).astype(np.float32)
    mean = real.mean(0)
    _, values, directions = np.linalg.svd(real - mean, full_matrices=False)
    rng = np.random.default_rng(0)
    scale = (values[:200, None] * directions[:200] / np.sqrt(len(real))).astype(np.float32)
    chunks = (rng.standard_normal((min(4096, n - start), len(scale)), np.float32) @ scale + mean for start in range(0, n, 4096))
    return [row.tobytes() for chunk in chunks for row in np.clip(np.rint(chunk), 0, 255).astype(np.uint8)]


def cost(sizes: list[int], *, whole: bool) -> None:
    """CPU seconds and peak memory, smallest first: the peak is that of the process so far."""
    print("| images | CPU s | peak MiB | pairs compared | per image | pairs found |\n|---|---|---|---|---|---|")
    before = 0.0
    for n in sorted(sizes):
        values = made_up(n)
        start = time.process_time()
        if whole:
            found = look_alikes(values)
            n_compared, n_found = found.n_compared, str(len(found.pairs))
        else:
            pictures = np.frombuffer(b"".join(value or b"" for value in values), np.uint8).reshape(-1, SIDE, SIDE)
            n_compared, n_found = len(_candidates(pictures, 0)[0]), "not looked at"
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        growth = f" (exponent {np.log(seconds / before) / np.log(10):.2f})" if before else ""
        print(f"| {n:,} | {seconds:.0f}{growth} | {peak:.0f} | {n_compared:,} | {n_compared / n:.2f} | {n_found} |", flush=True)
        before = seconds


def forest(sizes: list[int]) -> None:
    """The forest on vectors that have the covariance of PneumoniaMNIST's signatures, 3 for 2 images as there."""
    _, images = cohort("pneumoniamnist")
    real = np.stack([np.frombuffer(likeness(pixels) or bytes(SIDE**2), np.uint8).reshape(SIDE, SIDE) for pixels in images])
    basis = learn_basis(real)
    factor = np.linalg.cholesky(np.cov(sign_thumbnails(real, basis).vectors, rowvar=False)).T.astype(np.float32)
    print("| images | vectors | CPU s | peak MiB | pairs within reach | per image |\n|---|---|---|---|---|---|")
    before = 0.0
    for n in sorted(sizes):
        vectors = np.random.default_rng(0).standard_normal((3 * n // 2, len(factor)), np.float32) @ factor
        start = time.process_time()
        pairs, _ = close_pairs(vectors, basis.reach)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        growth = f" (exponent {np.log(seconds / before) / np.log(10):.2f})" if before else ""
        print(f"| {n:,} | {len(vectors):,} | {seconds:.1f}{growth} | {peak:.0f} | {len(pairs):,} | {len(pairs) / n:.2f} |", flush=True)
        before = seconds


def decode() -> None:
    """Milliseconds of CPU for an image: decoding, pixel digest, likeness."""
    print("| image | decode ms | digest ms | likeness ms |\n|---|---|---|---|")
    rng = np.random.default_rng(0)
    for side, ending, channels in ((28, ".png", 1), (256, ".jpg", 1), (1024, ".png", 1), (1024, ".jpg", 3), (3000, ".png", 1)):
        noise = cv2.resize(
            rng.integers(0, 256, (side // 4, side // 4, channels), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
        )
        data = cv2.imencode(ending, noise)[1].tobytes()
        pixels, _ = decode_bytes(data, 0, where="made up")
        spent = []
        for work in (
            lambda data=data: decode_bytes(data, 0, where="made up"),
            lambda pixels=pixels: pixel_digest(pixels),
            lambda pixels=pixels: likeness_of(pixels, 8),
        ):
            start = time.process_time()
            for _ in range(10):
                work()
            spent.append((time.process_time() - start) * 100)
        print(
            f"| {side} px {ending[1:]}, {channels} channel{'s' if channels > 1 else ''} | " + " | ".join(f"{ms:.2f}" for ms in spent) + " |"
        )


def main() -> None:
    """Read the arguments."""
    cv2.setNumThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("known", "planted", "cost", "search", "forest", "decode"))
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--cohorts", nargs="+", choices=COHORTS, default=list(COHORTS))
    parser.add_argument("--copies", type=int, default=400)
    chosen = parser.parse_args()
    print(f"Scores from {SAME_PICTURE} count as copies, from {SURE} beyond doubt.\n")
    if chosen.what == "planted":
        planted(chosen.cohorts, chosen.copies)
    elif chosen.what in {"cost", "search"}:
        cost(chosen.sizes, whole=chosen.what == "cost")
    elif chosen.what == "forest":
        forest(chosen.sizes)
    else:
        {"known": known, "decode": decode}[chosen.what]()


if __name__ == "__main__":
    main()
