"""prepare_image against box averages and exact copies; the cache against a plain loop, kills, damage and size limits."""

import hashlib
import threading
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medcnn.data import cache
from medcnn.data.cache import build_cache, cache_bytes, open_cache, prepare_image
from medcnn.errors import InputError, RunError
from medcnn.plan import ImagePlan


def image_plan(size_px=8, channels=1, fit="pad", **more):
    return ImagePlan(size_px=size_px, channels=channels, fit=fit, **more)


def noise(height, width, channels=None, dtype=np.uint8, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


# ---------------------------------------------------------------- one image


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_the_right_size_is_copied_bit_for_bit(fit, channels):
    pixels = noise(8, 8, 3 if channels == 3 else None)
    prepared = prepare_image(pixels, image_plan(channels=channels, fit=fit))
    np.testing.assert_array_equal(prepared, pixels.reshape(8, 8, channels))


@pytest.mark.parametrize("factor", [2, 5, 13])
def test_shrinking_is_the_mean_of_each_block(factor):
    pixels = noise(8 * factor, 8 * factor)
    blocks = pixels.reshape(8, factor, 8, factor).astype(float).mean(axis=(1, 3))
    prepared = prepare_image(pixels, image_plan())[:, :, 0]
    assert np.abs(prepared - blocks).max() <= 0.51


def test_shrinking_by_a_broken_factor_equals_pillows_box_filter():
    pixels = noise(100, 100)
    expected = np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BOX, reducing_gap=None), float)
    smooth = np.asarray(Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 4)).resize((28, 28), Image.Resampling.BOX), float)
    prepared = prepare_image(cv2.GaussianBlur(pixels, (0, 0), 4), image_plan(size_px=28))[:, :, 0]
    assert np.abs(prepared - smooth).mean() < 0.5 < np.abs(prepared - expected).mean()


def test_enlarging_keeps_a_ramp_a_ramp():
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    prepared = prepare_image(ramp, image_plan(size_px=64))[:, :, 0].astype(float)
    centres = (np.arange(64) + 0.5) / 4 - 0.5  # where the 64 new columns lie among the 16 old ones
    inside = (centres > 1) & (centres < 14)
    np.testing.assert_allclose(prepared[32, inside], 10 * centres[inside], atol=0.8)  # OpenCV's cubic (a = -0.75) overshoots a ramp by 3%


def test_one_axis_shrinks_while_the_other_grows():
    pixels = np.repeat(noise(4, 1), 64, axis=1)  # 4 rows, 64 equal columns
    prepared = prepare_image(pixels, image_plan(size_px=16, fit="stretch"))[:, :, 0]
    assert (prepared == prepared[:, :1]).all()
    rows = prepare_image(pixels[:, :16].copy(), image_plan(size_px=16, fit="stretch"))[:, :, 0]
    np.testing.assert_array_equal(prepared, rows)


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (41, 13)])
def test_pad_keeps_everything_and_the_aspect(height, width):
    prepared = prepare_image(np.full((height, width), 200, np.uint8), image_plan(size_px=20))[:, :, 0]
    filled = prepared == 200
    assert set(np.unique(prepared)) == {0, 200}
    rows, columns = filled.any(axis=1).sum(), filled.any(axis=0).sum()
    assert max(rows, columns) == 20
    assert rows / columns == pytest.approx(height / width, rel=0.1)
    top, bottom = np.flatnonzero(filled.any(axis=1))[[0, -1]]
    assert abs(top - (19 - bottom)) <= 1  # centred


def test_crop_keeps_the_centre():
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = noise(10, 10)
    for wide_or_tall in (pixels, pixels.T):
        prepared = prepare_image(wide_or_tall, image_plan(size_px=10, fit="crop"))[:, :, 0]
        np.testing.assert_array_equal(prepared, wide_or_tall[wide_or_tall.any(axis=1)][:, wide_or_tall.any(axis=0)])


def test_grey_and_colour():
    grey, colour = noise(8, 8), noise(8, 8, 3)
    np.testing.assert_array_equal(prepare_image(grey, image_plan(channels=3)), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(prepare_image(grey[:, :, None], image_plan(channels=3)), np.stack([grey] * 3, axis=2))
    luma = np.asarray(Image.fromarray(colour).convert("L"), int)
    assert np.abs(prepare_image(colour, image_plan())[:, :, 0].astype(int) - luma).max() <= 1


def test_sixteen_bits_come_down_to_eight_by_their_depth():
    pixels = np.linspace(0, 2000, 64, dtype=np.uint16).reshape(8, 8)
    np.testing.assert_array_equal(prepare_image(pixels, image_plan(), bit_depth=12)[:, :, 0], np.round(pixels / 4095 * 255))


def test_a_strip_one_pixel_thin_is_still_an_image():
    assert (prepare_image(np.full((1, 500), 9, np.uint8), image_plan()) == 9).sum() == 8


@pytest.mark.parametrize("pixels", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8), np.zeros(8, np.uint8)])
def test_what_is_no_image_is_refused(pixels):
    with pytest.raises(InputError, match="expected"):
        prepare_image(pixels, image_plan())


# ---------------------------------------------------------------- all images


@pytest.fixture
def cohort(monkeypatch):
    """A manifest of 50 rows, a reader that counts what it reads, chunks of 7 images."""
    monkeypatch.setattr(cache, "CHUNK_BYTES", 7 * 64)
    manifest = pd.DataFrame({"image_id": [f"i{n:02d}" for n in range(50)], "path": "x", "frame": range(50)})
    reads: Counter[int] = Counter()
    lock = threading.Lock()

    def read(path, frame):
        with lock:
            reads[frame] += 1
        return noise(20 + frame, 30, seed=frame)

    return manifest, read, reads


def expected_images(manifest, read):
    return np.stack([prepare_image(read("x", frame), image_plan()) for frame in manifest["frame"]])


@pytest.mark.parametrize("n_threads", [1, 3])
def test_cache_equals_a_plain_loop(tmp_path, cohort, n_threads):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, read=read, n_threads=n_threads)
    cached = open_cache(tmp_path)
    np.testing.assert_array_equal(cached.images, expected_images(manifest, read))
    assert len(cached) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "index.parquet"]
    assert cached.index["sha256"][3] == hashlib.sha256(np.ascontiguousarray(cached.images[3]).tobytes()).hexdigest()


def test_bytes_on_disk_do_not_depend_on_threads(tmp_path, cohort):
    manifest, read, _ = cohort
    for name, n_threads in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        build_cache(manifest, image_plan(), tmp_path / name, read=read, n_threads=n_threads)
    assert (tmp_path / "one/images.npy").read_bytes() == (tmp_path / "three/images.npy").read_bytes()
    assert (tmp_path / "one/index.parquet").read_bytes() == (tmp_path / "three/index.parquet").read_bytes()


class Killed(BaseException):
    """Not an Exception, like the end of a process."""


def kill_at(read, frame_of_death):
    def dying(path, frame):
        if frame == frame_of_death:
            raise Killed
        return read(path, frame)

    return dying


@pytest.mark.parametrize("frame_of_death", [0, 6, 7, 30, 49])
def test_restart_after_a_kill_keeps_finished_chunks(tmp_path, cohort, frame_of_death):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, read=kill_at(read, frame_of_death), n_threads=2)
    assert not (tmp_path / "index.parquet").exists()
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, read=read, n_threads=2)
    assert set(reads) == set(range(frame_of_death // 7 * 7, 50))
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


@pytest.mark.parametrize("damage", ["half a line", "no images", "short images", "tail of an unfinished chunk"])
def test_restart_survives_what_a_kill_leaves(tmp_path, cohort, damage):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, read=kill_at(read, 30), n_threads=1)
    images, journal = tmp_path / "images.npy", tmp_path / "journal.jsonl"
    if damage == "half a line":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif damage == "no images":
        images.unlink()
    elif damage == "short images":
        images.write_bytes(images.read_bytes()[:500])
    else:
        images.write_bytes(images.read_bytes() + b"x" * 100)
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, read=read, n_threads=2)
    first = {"half a line": 21, "tail of an unfinished chunk": 28}.get(damage, 0)
    assert min(reads) == first
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


def test_journal_of_another_plan_is_not_continued(tmp_path, cohort):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(fit="crop"), tmp_path, read=kill_at(read, 30), n_threads=1)
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, read=read)
    assert min(reads) == 0
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


def test_journal_of_another_manifest_is_not_continued(tmp_path, cohort):
    manifest, read, _ = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, read=kill_at(read, 30), n_threads=1)
    backwards = manifest.iloc[::-1].reset_index(drop=True)
    build_cache(backwards, image_plan(), tmp_path, read=read)
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(backwards, read))


def test_image_that_cannot_be_decoded_is_named(tmp_path, cohort):
    manifest, read, _ = cohort

    def broken(path, frame):
        if frame == 11:
            raise InputError("the file is cut short")
        return read(path, frame)

    with pytest.raises(InputError, match=r"i11: x can no longer be decoded \(the file is cut short\)"):
        build_cache(manifest, image_plan(), tmp_path, read=broken)
    assert not (tmp_path / "index.parquet").exists()


def test_threads_never_run_far_ahead(tmp_path, cohort, monkeypatch):
    manifest, read, reads = cohort
    seen = []

    def watching(items, title, total=None):
        for n_done, item in enumerate(items):
            seen.append(sum(reads.values()) - n_done)
            yield item

    build_cache(manifest, image_plan(), tmp_path, read=read, n_threads=2, progress=watching)
    assert max(seen) <= 4 * 2
    assert len(seen) == 50


def test_too_large_a_cache_says_how_large_and_what_to_set(tmp_path, cohort):
    manifest, read, _ = cohort
    plan = image_plan(size_px=1000, max_cache_gb=0.01)
    assert cache_bytes(50, plan) == 50_000_000
    with pytest.raises(InputError, match=r"50000000 bytes.*image\.max_cache_gb.*image\.size_px"):
        build_cache(manifest, plan, tmp_path, read=read)


def test_disk_too_small_is_refused_before_the_work(tmp_path, cohort, monkeypatch):
    manifest, read, reads = cohort
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="free space"):
        build_cache(manifest, image_plan(), tmp_path, read=read)
    assert not reads


def test_full_disk_is_a_run_error(tmp_path, cohort):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system does not have")
    manifest, read, _ = cohort
    (tmp_path / "images.npy").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"No space left on device.*free some disk space"):
        build_cache(manifest, image_plan(), tmp_path, read=read)
    assert not (tmp_path / "index.parquet").exists()


def test_rows_follow_the_ids_asked_for(tmp_path, cohort):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, read=read)
    cached = open_cache(tmp_path)
    assert cached.rows(["i07", "i00", "i49", "i07"]).tolist() == [7, 0, 49, 7]
    assert cached.rows([]).tolist() == []
    with pytest.raises(InputError, match="2 images are not in the cache, first zz"):
        cached.rows(["i00", "zz", "yy"])


def test_large_cache_stays_on_disk(tmp_path, cohort, monkeypatch):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, read=read)
    assert not isinstance(open_cache(tmp_path).images, np.memmap)
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 4 * 50 * 64 - 4)
    assert isinstance(open_cache(tmp_path).images, np.memmap)


def test_damaged_caches_are_refused(tmp_path, cohort):
    manifest, read, _ = cohort
    with pytest.raises(RunError, match="not a finished image cache"):
        open_cache(tmp_path)
    build_cache(manifest, image_plan(), tmp_path, read=read)
    whole = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(whole[:-1])
    with pytest.raises(RunError, match="is damaged"):
        open_cache(tmp_path)
    (tmp_path / "images.npy").write_bytes(whole)
    pd.read_parquet(tmp_path / "index.parquet").iloc[1:].to_parquet(tmp_path / "index.parquet")
    with pytest.raises(RunError, match="lists 49 images"):
        open_cache(tmp_path)
