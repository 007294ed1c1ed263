"""The cache against a plain loop, kills, damage and size limits."""

import hashlib
import pickle
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medcnn.data import cache, shards
from medcnn.data.augment import AugmentedImages
from medcnn.data.cache import build_cache, cache_bytes, open_cache, prepare_image
from medcnn.data.shards import ShardedImages
from medcnn.errors import InputError, RunError
from medcnn.plan import ImagePlan


def image_plan(size_px=8, channels=1, fit="pad", **more):
    return ImagePlan(size_px=size_px, channels=channels, fit=fit, **more)


def preparing(read):
    return lambda path, frame, plan: prepare_image(read(path, frame), plan)


def noise(height, width, channels=None, dtype=np.uint8, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


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


@pytest.mark.parametrize("n_workers", [1, 3])
def test_cache_equals_a_plain_loop(tmp_path, cohort, n_workers):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read), n_workers=n_workers)
    cached = open_cache(tmp_path)
    np.testing.assert_array_equal(cached.images, expected_images(manifest, read))
    assert len(cached) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "index.parquet"]
    assert cached.index["sha256"][3] == hashlib.sha256(np.ascontiguousarray(cached.images[3]).tobytes()).hexdigest()


def test_bytes_on_disk_do_not_depend_on_workers(tmp_path, cohort):
    manifest, read, _ = cohort
    for name, n_workers in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        build_cache(manifest, image_plan(), tmp_path / name, prepare=preparing(read), n_workers=n_workers)
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
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(kill_at(read, frame_of_death)), n_workers=1)
    assert not (tmp_path / "index.parquet").exists()
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read), n_workers=1)
    assert set(reads) == set(range(frame_of_death // 7 * 7, 50))
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


def test_no_chunk_is_done_twice_when_several_were_under_way(tmp_path, cohort):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(kill_at(read, 16)), n_workers=3)
    finished = {int(file.name) for file in (tmp_path / "chunks").glob("0*")}
    assert 2 not in finished
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read), n_workers=3)
    assert set(reads) == {frame for frame in range(50) if frame // 7 not in finished}
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


@pytest.mark.parametrize("damage", ["half a note", "no images", "short images", "half a chunk"])
def test_restart_survives_what_a_kill_leaves(tmp_path, cohort, damage):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(kill_at(read, 30)), n_workers=1)
    images = tmp_path / "images.npy"
    if damage == "half a note":
        (tmp_path / "chunks" / ".0000004.aside").write_bytes(b'["1234')
    elif damage == "no images":
        images.unlink()
    elif damage == "short images":
        images.write_bytes(images.read_bytes()[:500])
    else:
        with images.open("r+b") as stream:
            stream.seek(128 + 28 * 64)
            stream.write(b"x" * 100)
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read), n_workers=2)
    assert min(reads) == (28 if damage in {"half a note", "half a chunk"} else 0)
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "index.parquet"]


def test_journal_of_another_plan_is_not_continued(tmp_path, cohort):
    manifest, read, reads = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(fit="crop"), tmp_path, prepare=preparing(kill_at(read, 30)), n_workers=1)
    reads.clear()
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    assert min(reads) == 0
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(manifest, read))


def test_journal_of_another_manifest_is_not_continued(tmp_path, cohort):
    manifest, read, _ = cohort
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(kill_at(read, 30)), n_workers=1)
    backwards = manifest.iloc[::-1].reset_index(drop=True)
    build_cache(backwards, image_plan(), tmp_path, prepare=preparing(read))
    np.testing.assert_array_equal(open_cache(tmp_path).images, expected_images(backwards, read))


def test_image_that_cannot_be_decoded_is_named(tmp_path, cohort):
    manifest, read, _ = cohort

    def broken(path, frame):
        if frame == 11:
            raise InputError("the file is cut short")
        return read(path, frame)

    with pytest.raises(InputError, match=r"i11: x can no longer be decoded \(the file is cut short\)"):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(broken))
    assert not (tmp_path / "index.parquet").exists()


def test_too_large_a_cache_says_how_large_and_what_to_set(tmp_path, cohort):
    manifest, read, _ = cohort
    plan = image_plan(size_px=1000, max_cache_gb=0.01)
    assert cache_bytes(50, plan) == 50_000_000
    with pytest.raises(InputError, match=r"50000000 bytes.*image\.max_cache_gb.*image\.size_px"):
        build_cache(manifest, plan, tmp_path, prepare=preparing(read))


def test_disk_too_small_is_refused_before_the_work(tmp_path, cohort, monkeypatch):
    manifest, read, reads = cohort
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="free space"):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    assert not reads


def test_full_disk_is_a_run_error(tmp_path, cohort):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system does not have")
    manifest, read, _ = cohort
    (tmp_path / "images.npy").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"No space left on device.*free some disk space"):
        build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    assert not (tmp_path / "index.parquet").exists()


def test_rows_follow_the_ids_asked_for(tmp_path, cohort):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    cached = open_cache(tmp_path)
    assert cached.rows(["i07", "i00", "i49", "i07"]).tolist() == [7, 0, 49, 7]
    assert cached.rows([]).tolist() == []
    with pytest.raises(InputError, match="2 images are not in the cache, first zz"):
        cached.rows(["i00", "zz", "yy"])


def test_large_cache_stays_on_disk(tmp_path, cohort, monkeypatch):
    manifest, read, _ = cohort
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    assert not isinstance(open_cache(tmp_path).images, np.memmap)
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 4 * 50 * 64 - 4)
    assert isinstance(open_cache(tmp_path).images, np.memmap)


# ---------------------------------------------------------------- shards


@pytest.fixture
def sharded(tmp_path, cohort, monkeypatch):
    """50 images in files of 14 (two chunks of 7)."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 20 * 64)
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 0)
    manifest, read, reads = cohort
    return tmp_path, manifest, read, reads


def test_a_large_cache_is_cut_into_shards_that_read_as_one_array(sharded):
    folder, manifest, read, _ = sharded
    build_cache(manifest, image_plan(), folder, prepare=preparing(read), n_workers=2)
    assert sorted(path.name for path in folder.iterdir()) == [*(f"images-{n:05d}.npy" for n in range(4)), "index.parquet"]
    assert [len(np.load(folder / f"images-{n:05d}.npy")) for n in range(4)] == [14, 14, 14, 8]
    images, expected = open_cache(folder).images, expected_images(manifest, read)
    assert isinstance(images, ShardedImages)
    assert (images.shape, len(images), images.nbytes, images.dtype) == (expected.shape, 50, expected.nbytes, np.uint8)
    rng = np.random.default_rng(0)
    keys = [
        rng.permutation(50), rng.integers(-50, 50, 90), np.array([], np.int64), np.arange(50) % 3 == 0, [3, 14, 13, 49], slice(None), slice(40, 5, -3),
        0, -1, np.int64(28), rng.integers(0, 50, (4, 5)), (slice(10, 20), slice(2, 5)), (17, slice(None), 3), (rng.integers(0, 50, 8), ..., 0),
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_array_equal(images[key], expected[key])
    np.testing.assert_array_equal(np.stack(list(images)), expected)
    np.testing.assert_array_equal(np.asarray(images), expected)
    for key in (50, -51, np.array([3, 50])):
        with pytest.raises(IndexError):
            images[key]


def test_sharded_images_travel_as_names_and_train_like_an_array(sharded):
    folder, manifest, read, _ = sharded
    build_cache(manifest, image_plan(), folder, prepare=preparing(read))
    images, rows = open_cache(folder).images, np.array([49, 3, 14, 3])
    first = images[rows]
    travelled = pickle.loads(pickle.dumps(AugmentedImages(images, None, 0)))  # noqa: S301
    assert len(pickle.dumps(images)) < 1000
    assert len(travelled) == 50
    np.testing.assert_array_equal(travelled.batch(rows, 1), first)
    first[:] = 0  # a copy
    assert images[rows].any()


def test_a_small_sharded_cache_is_read_into_memory(sharded, monkeypatch):
    folder, manifest, read, _ = sharded
    build_cache(manifest, image_plan(), folder, prepare=preparing(read))
    monkeypatch.setattr(cache, "free_memory_bytes", lambda: 10**9)
    images = open_cache(folder).images
    assert type(images) is np.ndarray
    np.testing.assert_array_equal(images, expected_images(manifest, read))


def test_a_lost_shard_is_made_again_and_only_that(sharded):
    folder, manifest, read, reads = sharded
    with pytest.raises(Killed):
        build_cache(manifest, image_plan(), folder, prepare=preparing(kill_at(read, 45)), n_workers=1)
    (folder / "images-00001.npy").unlink()
    reads.clear()
    build_cache(manifest, image_plan(), folder, prepare=preparing(read))
    assert set(reads) == {*range(14, 28), *range(42, 50)}
    np.testing.assert_array_equal(open_cache(folder).images[:], expected_images(manifest, read))


def test_damaged_shards_are_refused(sharded):
    folder, manifest, read, _ = sharded
    build_cache(manifest, image_plan(), folder, prepare=preparing(read))
    (folder / "images-00003.npy").unlink()
    with pytest.raises(RunError, match="lists 50; delete the folder"):
        open_cache(folder)
    np.save(folder / "images-00003.npy", np.zeros((8, 4, 4, 1), np.uint8))
    with pytest.raises(RunError, match="its shards have shapes"):
        open_cache(folder)
    (folder / "images-00003.npy").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="is damaged"):
        open_cache(folder)


def test_damaged_caches_are_refused(tmp_path, cohort):
    manifest, read, _ = cohort
    with pytest.raises(RunError, match="not a finished image cache"):
        open_cache(tmp_path)
    build_cache(manifest, image_plan(), tmp_path, prepare=preparing(read))
    whole = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(whole[:-1])
    with pytest.raises(RunError, match="is damaged"):
        open_cache(tmp_path)
    (tmp_path / "images.npy").write_bytes(whole)
    pd.read_parquet(tmp_path / "index.parquet").iloc[1:].to_parquet(tmp_path / "index.parquet")
    with pytest.raises(RunError, match="lists 49;"):
        open_cache(tmp_path)
