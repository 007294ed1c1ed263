"""Any bytes at the doors for images, DICOM, NPZ and tables: pixels, or a refusal that names the file; in bounded time and memory."""

import io
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medcnn.config_data import DataConfig
from medcnn.data.formats import decode_file
from medcnn.data.images import UnreadableImage, decode_bytes
from medcnn.data.ingest import ingest
from medcnn.data.sources_table import table_candidates
from medcnn.errors import InputError

N_EXAMPLES = 400  # of each door
SECONDS, MEGABYTES = 30.0, 2500.0  # for one small file; a damaged size may claim 178 million pixels, of 3 bytes, in 4 copies at a time

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
fuzzed = settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (33, 29, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (31, 37), dtype=np.uint16)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def deep_tiff(**options: object) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, DEEP, **options)
    return stream.getvalue()


IMAGES = {
    "png": encoded(COLOUR, "PNG"),
    "png16": encoded(DEEP, "PNG"),
    "png_palette": encoded(COLOUR[..., 0], "PNG", bits=4),
    "png_alpha": encoded(np.dstack([COLOUR, COLOUR[..., 0]]), "PNG"),
    "jpeg": encoded(COLOUR, "JPEG"),
    "jpeg_progressive": encoded(
        COLOUR, "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "tiff": encoded(COLOUR, "TIFF"),
    "tiff_lzw": encoded(COLOUR, "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": encoded(COLOUR, "TIFF", compression="jpeg"),
    "tiff16": deep_tiff(),
    "tiff16_tiles": deep_tiff(tile=(16, 16), compression="zlib", predictor=True),
    "gif": encoded(COLOUR[..., 0], "GIF"),
    "bmp": encoded(COLOUR, "BMP"),
    "webp": encoded(COLOUR, "WEBP"),
    "ppm": encoded(COLOUR, "PPM"),
    "jpeg2000": encoded(COLOUR, "JPEG2000"),
    "sgi": encoded(COLOUR, "SGI"),
}


# ---------------------------------------------------------------- how bytes are broken

NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 8, 16, 32, 100, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
)


@st.composite
def broken(draw: st.DrawFn, whole: bytes, head: int = 600) -> bytes:
    """A valid file with a few changes, most of them among its first bytes, where its claims about itself stand."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        if not data:
            break
        last = min(len(data), head) if draw(st.booleans()) else len(data)
        at = draw(st.integers(0, last - 1))
        match draw(st.integers(0, 6)):
            case 0:
                data[at] = draw(st.integers(0, 255))
            case 1:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2 | 3:
                size, order = draw(st.sampled_from([2, 4])), draw(st.sampled_from(["little", "big"]))
                data[at : at + size] = (draw(NUMBERS) % 256**size).to_bytes(size, order)
            case 4:
                del data[at : at + draw(st.integers(1, 64))]
            case 5:
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                copied = draw(st.integers(0, last - 1))
                data[at:at] = data[copied : copied + draw(st.integers(1, 64))]
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 7)) == 0 else bytes(data)


def bounded(work: Callable[[], object]) -> None:
    """Run it; a refusal is fine, any other exception is not, nor more than SECONDS or MEGABYTES."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except InputError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
    assert time.process_time() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def decoded(data: bytes, keep_px: tuple[int, int] | None = None) -> None:
    pixels, header = decode_bytes(data, where="x") if keep_px is None else decode_file(data, 0, "x", keep_px=keep_px)
    assert pixels.dtype in (np.uint8, np.uint16)
    assert pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    assert pixels.size
    if keep_px is None:
        assert pixels.shape[:2] == (header.height, header.width)


# ---------------------------------------------------------------- doors


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str) -> None:
    decoded(IMAGES[kind])

    @fuzzed
    @given(broken(IMAGES[kind]))
    def examples(data: bytes) -> None:
        bounded(lambda: decoded(data))

    examples()


@fuzzed
@given(broken(IMAGES["jpeg"]))
def test_reduced_jpegs(data: bytes) -> None:
    bounded(lambda: decoded(data, keep_px=(4, 4)))


@fuzzed
@given(st.binary(max_size=300))
def test_bytes_without_sense(data: bytes) -> None:
    bounded(lambda: decoded(data))


def small_dicoms() -> list[Path]:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
    files = sorted((path for path in folder.rglob("*.dcm") if path.stat().st_size < 60_000), key=lambda path: path.stat().st_size)
    return files[:: max(1, len(files) // 24)]


@pytest.mark.parametrize("path", small_dicoms() or [None], ids=lambda path: path.stem if path else "none")
def test_dicom(path: Path | None, shared_data: Path) -> None:
    assert path is not None
    whole = path.read_bytes()

    @settings(fuzzed, max_examples=N_EXAMPLES // 4)
    @given(broken(whole, head=3000))
    def examples(data: bytes) -> None:
        bounded(lambda: decoded(data))

    examples()


def npz_bytes(*, packed: bool) -> bytes:
    stream = io.BytesIO()
    images, labels = RNG.integers(0, 256, (6, 8, 8), dtype=np.uint8), np.array([[0], [1], [0], [1], [1], [0]])
    (np.savez_compressed if packed else np.savez)(stream, images=images, labels=labels)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [True, False])
def test_npz(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "x.npz"
    config = DataConfig(source="npz", path=path)

    @settings(fuzzed, max_examples=N_EXAMPLES // 4)
    @given(broken(npz_bytes(packed=packed), head=300))
    def examples(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        bounded(lambda: ingest(config))

    examples()


CSV = 'image,label,patient,part\n"a b.png",sick,p1,train\nc.png,well,p2,test\nd.png,"si""ck",p3,val\n'.encode("utf-8-sig")


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pd.DataFrame({"image": ["a", "b"], "label": ["x", "y"], "patient": [1, 2], "part": ["train", None]}).to_parquet(stream)
    return stream.getvalue()


@pytest.mark.parametrize(("ending", "whole"), [(".csv", CSV), (".tsv", CSV.replace(b",", b"\t")), (".parquet", parquet_bytes())])
def test_tables(tmp_path: Path, ending: str, whole: bytes) -> None:
    path = tmp_path / f"t{ending}"
    config = DataConfig(source="table", path=path, label_column="label", patient_column="patient", part_column="part")

    @fuzzed
    @given(st.one_of(broken(whole), st.binary(max_size=200)))
    def examples(data: bytes) -> None:
        path.write_bytes(data)
        bounded(lambda: table_candidates(config, "auto"))

    examples()


@fuzzed
@given(st.text(max_size=60), st.sampled_from(["image", "label", "patient"]))
def test_any_text_in_a_table(tmp_path_factory: pytest.TempPathFactory, text: str, column: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = pd.DataFrame({"image": ["a.png", "b.png"], "label": ["x", "y"], "patient": ["1", "2"]}, dtype=object)
    rows.loc[1, column] = text
    try:
        rows.to_parquet(folder / "t.parquet")
    except (UnicodeEncodeError, ValueError):  # a lone surrogate: no table can hold it
        return
    config = DataConfig(source="table", path=folder / "t.parquet", label_column="label", patient_column="patient")

    def work() -> None:
        found = table_candidates(config, "auto")
        assert len(found.rows) + len(found.excluded) == 2
        assert not any(path.startswith(("/", "../")) or path == ".." for path in found.rows["path"])

    bounded(work)


def test_the_harness_sees_what_it_looks_for() -> None:
    def crash() -> None:
        raise IndexError

    def eat() -> np.ndarray:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return np.ones(int((peak_mb + 1.1 * MEGABYTES) * 2**20), np.uint8)

    with pytest.raises(IndexError):
        bounded(crash)
    bounded(lambda: decoded(b""))
    with pytest.raises(UnreadableImage):
        decoded(b"")
    with pytest.raises(AssertionError):
        bounded(eat)
