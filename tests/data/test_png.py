"""PNG with its samples stored: the same picture for OpenCV; whatever is odd or damaged is left to the decoder."""

import importlib.util
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from medcnn.data import png
from medcnn.data.formats import UnreadableImage, decode_file
from medcnn.data.png import stored_png

needs_libdeflate = pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is None, reason="needs imagecodecs, which is absent here")


def samples(*shape: int, dtype=np.uint8) -> np.ndarray:
    smooth = cv2.GaussianBlur(np.random.default_rng(0).normal(size=shape[:2]), (0, 0), 5)
    grey = ((smooth - smooth.min()) / np.ptp(smooth) * np.iinfo(dtype).max).astype(dtype)
    return grey if len(shape) == 2 else np.dstack([np.roll(grey, 7 * k, axis=0) for k in range(shape[2])])


def encoded(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


CASES = {
    "grey": encoded(samples(301, 403)),
    "colour": encoded(samples(301, 403, 3)),
    "alpha": encoded(samples(301, 403, 4)),
    "grey_alpha": encoded(samples(301, 403, 2)),
    "deep": encoded(samples(301, 403, dtype=np.uint16)),
    "text_behind": encoded(samples(301, 403), pnginfo=None, dpi=(72, 72)),
    "many_chunks": cv2.imencode(".png", samples(301, 403, 3))[1].tobytes(),  # 8 KB each
}


@needs_libdeflate
@pytest.mark.parametrize("name", CASES)
def test_stored_samples_are_the_same_picture(name: str) -> None:
    stored = bytes(stored_png(CASES[name]))
    assert stored != CASES[name]
    assert len(stored) > 301 * 403
    for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR):
        decoded = [cv2.imdecode(np.frombuffer(some, np.uint8), flag) for some in (CASES[name], stored)]
        np.testing.assert_array_equal(*decoded)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), np.asarray(Image.open(io.BytesIO(CASES[name]))))


@pytest.mark.parametrize("name", CASES)
def test_pixels_do_not_depend_on_what_is_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, _ = decode_file(CASES[name], 0, "x")
    monkeypatch.setattr(png, "_inflate", lambda packed, samples: False)
    assert stored_png(CASES[name]) is CASES[name]
    np.testing.assert_array_equal(decode_file(CASES[name], 0, "x")[0], fast)


def _changed(data: bytes, at: int, value: bytes, *, mend_check: bool) -> bytes:
    changed = data[:at] + value + data[at + len(value) :]
    name, start, end = next(place for place in png.png_chunks(changed) if place[1] <= at < place[2])
    assert name == b"IDAT"
    check = struct.pack(">I", zlib.crc32(changed[start + 4 : end - 4]))
    return changed[: end - 4] + check + changed[end:] if mend_check else changed


@pytest.mark.parametrize("mend_check", [True, False])
@pytest.mark.parametrize("where", [0.01, 0.5, 0.99])
def test_damage_is_refused_with_and_without_libdeflate(where: float, mend_check: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CASES["grey"]
    damaged = _changed(data, int(len(data) * where) + 60 * (where < 0.1) - 40 * (where > 0.9), b"\x5a\xa5\x5a", mend_check=mend_check)
    assert stored_png(damaged) is damaged
    with pytest.raises(UnreadableImage):
        decode_file(damaged, 0, "x")


def test_what_is_odd_is_left_as_it_is() -> None:
    whole = CASES["grey"]
    small = encoded(samples(20, 20))
    interlaced = whole[:28] + b"\1" + whole[29:]
    torn = whole.replace(b"IEND", b"acTL")
    for data in (small, interlaced, torn):
        assert stored_png(data) is data


@needs_libdeflate
def test_threads_and_sizes_do_not_mix() -> None:
    pictures = [samples(200 + 37 * k, 300 + 11 * (k % 3)) for k in range(8)]
    files = [encoded(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(lambda number: decode_file(files[number % 8], 0, "x")[0], range(64)))
    for number, found in enumerate(decoded):
        np.testing.assert_array_equal(found, pictures[number % 8])


@pytest.mark.parametrize("rows", [300, 302])
def test_a_height_that_does_not_fit_the_samples_is_left_to_the_decoder(rows: int) -> None:
    data = CASES["grey"]
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    lying = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    assert stored_png(lying) is lying
