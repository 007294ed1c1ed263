"""Each kind of bad input at each door: a finding that names it or a clear error, in bounded memory, and nothing else is lost."""

import os
import resource
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medcnn.cohort import Flow
from medcnn.config_data import DataConfig
from medcnn.data import images, sources
from medcnn.data.images import UnreadableImage, decode_image
from medcnn.data.ingest import ingest
from medcnn.data.sources import walk_files
from medcnn.data.sources_table import table_candidates
from medcnn.errors import InputError
from medcnn.inference import find_images

MB = 1 << 20


@contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """The block raises the process's largest size by less than this."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < megabytes, f"{grown:.0f} MB more"


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8))


def cohort(root: Path, n: int = 3) -> Path:
    for name in ("sick", "well"):
        (root / name).mkdir(parents=True)
        for number in range(n):
            picture(number + 10 * (name == "sick")).save(root / name / f"{number}.png")
    return root


def png_of(width: int, height: int, *, body: bytes = b"") -> bytes:
    """A grey PNG that claims this size; body: its samples, packed."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_whose_chunk_claims(n_bytes: int) -> bytes:
    """A whole PNG but for the length of its pixel chunk: OpenCV would reserve what it claims."""
    whole = png_of(24, 24, body=zlib.compress(bytes(25 * 24)))
    at = whole.index(b"IDAT") - 4
    return whole[:at] + struct.pack(">I", n_bytes) + whole[at + 4 :]


def tiff_of(width: int, height: int, *, bits: int = 8) -> bytes:
    """A grey TIFF that claims this size, with a single strip of a few bytes."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, 4),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 12) + b"\1\2\3\4" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


BAD_FILES = {  # name -> (content, kind)
    "zero.png": (b"", "empty_file"),
    "words.jpg": (b"these are words, not pixels", "not_an_image"),
    "bomb.png": (png_of(60_000, 60_000, body=zlib.compress(bytes(1000))), "too_large"),
    "bomb.tif": (tiff_of(100_000, 100_000), "too_large"),
    "bomb16.tif": (tiff_of(100_000, 100_000, bits=16), "too_large"),
    "short.tif": (tiff_of(5000, 5000), "damaged"),
    "short16.tif": (tiff_of(5000, 5000, bits=16), "damaged"),
    "chunk.png": (png_whose_chunk_claims(4_000_000_000), "truncated"),
    "few_bytes.png": (png_of(12_000, 12_000, body=zlib.compress(bytes(1000))), "truncated"),
    "inner_bomb.png": (png_of(24, 24, body=zlib.compress(bytes(64 * MB), 9)), None),  # unpacks to more than it shows: libpng stops in time
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "not_an_image"),
}


@pytest.mark.parametrize("source", ["folder", "table"])
def test_bad_files_are_named_and_the_rest_comes_in(tmp_path: Path, source: str) -> None:
    root = cohort(tmp_path / "in")
    for name, (content, _) in BAD_FILES.items():
        (root / "sick" / name).write_bytes(content)
    whole = (root / "sick" / "0.png").read_bytes()
    (root / "sick" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "sick" / "really_a_png.jpg").write_bytes(whole)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    pd.DataFrame({"image": names, "label": [name.split("/")[0] for name in names]}).to_csv(tmp_path / "t.csv", index=False)
    table = DataConfig(source="table", path=tmp_path / "t.csv", image_root=root, label_column="label")
    with at_most(200):
        manifest, flow = ingest(DataConfig(source="folder", path=root) if source == "folder" else table)
    kinds = {f"sick/{name}": kind for name, (_, kind) in BAD_FILES.items() if kind}
    assert {item.where: item.kind for item in flow.excluded} == {**kinds, "sick/cut.png": "truncated"}
    assert set(manifest["path"]) == set(names) - set(kinds) - {"sick/cut.png"}
    assert len(manifest) + len(flow.excluded) == flow.n_found == len(names)


def test_a_file_of_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    path.write_bytes(tiff_of(40_000, 50_000))
    os.truncate(path, 2_000_000_100)  # sparse: it takes no room
    started = time.process_time()
    with at_most(50), pytest.raises(UnreadableImage, match=r"1\.9 GiB, more than the 1 that one image may have") as caught:
        decode_image(path)
    assert caught.value.kind == "too_large"
    assert time.process_time() - started < 0.5


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name, words in [("pipe.png", "no plain file|not a plain file"), ("zero.png", "not a plain file"), ("folder.png", "is a folder")]:
        with pytest.raises(UnreadableImage, match=words):
            decode_image(tmp_path / name)
    with pytest.raises(UnreadableImage, match="no file can have such a name"):
        decode_image(tmp_path / "a\0b.png")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    picture().save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="more than"):
        decode_image(tmp_path / "a.png")


# ---------------------------------------------------------------- folders


def test_links_that_lead_to_each_other(tmp_path: Path) -> None:
    root = cohort(tmp_path / "in")
    (root / "sick" / "itself").symlink_to("itself")
    (root / "sick" / "there").symlink_to("back")
    (root / "sick" / "back").symlink_to("there")
    (root / "sick" / "up").symlink_to(root, target_is_directory=True)
    (root / "sick" / "other").symlink_to(root / "well", target_is_directory=True)
    (root / "well" / "other").symlink_to(root / "sick", target_is_directory=True)
    files, excluded = walk_files(root)
    assert {item.kind for item in excluded} == {"link_loop"}
    assert {item.where for item in excluded} >= {f"sick/{name}" for name in ("itself", "there", "back", "up")}
    assert {file for file in files if file.count("/") == 1} == {f"{name}/{number}.png" for name in ("sick", "well") for number in range(3)}


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    names = [f"f{number:02d}" for number in range(12)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / other).symlink_to(tmp_path / other, target_is_directory=True)
    files, excluded = walk_files(tmp_path)  # 12! paths, were they all followed
    assert {f"{name}/a.png" for name in names} <= set(files)
    assert len(files) <= len(names) * (sources.MOST_VISITS + 1)
    assert any("was walked 8 times" in item.reason for item in excluded)


def test_a_folder_within_a_thousand_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    root.mkdir()
    monkeypatch.chdir(root)
    for _ in range(1200):  # one step at a time: more than Python's own recursion takes
        Path("d").mkdir()
        monkeypatch.chdir("d")
    Path("a.png").touch()
    monkeypatch.chdir(tmp_path)
    (root / "b.png").touch()
    files, excluded = walk_files(root)
    assert {file.rpartition("/")[2] for file in files} == {"a.png", "b.png"}
    assert not excluded
    subprocess.run(["rm", "-rf", str(root)], check=True)  # shutil.rmtree would not


def test_a_name_that_is_no_text_is_left_out_and_shown(tmp_path: Path) -> None:
    root = cohort(tmp_path)
    try:
        (root / "sick" / os.fsdecode(b"m\xfcller.png")).write_bytes((root / "sick" / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    manifest, flow = ingest(DataConfig(source="folder", path=root))
    assert len(manifest) == 6
    assert [(item.where, item.kind) for item in flow.excluded] == [(r"sick/m\xfcller.png", "unreadable_name")]


# ---------------------------------------------------------------- tables


def table_config(path: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "table", "path": path, "label_column": "label", **more})


def flow_of(tmp_path: Path, paths: list[str]) -> tuple[pd.DataFrame, Flow]:
    cohort(tmp_path / "root")
    rows = [("sick/0.png", "sick"), ("well/0.png", "well"), *((path, "sick") for path in paths)]
    pd.DataFrame(rows, columns=["image", "label"]).to_parquet(tmp_path / "t.parquet")
    return ingest(table_config(tmp_path / "t.parquet", image_root=tmp_path / "root"))


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png", "sick/../../secret.png", "../../../../../../etc/passwd", "/etc/passwd", "//server/share/a.png", "file:///etc/passwd",
        "file:secret.png", "FILE://x", "http://host/a.png", "s3://bucket/a.png", "C:\\data\\a.png", "c:/data/a.png", "..\\secret.png",
        "\\\\server\\share\\a.png", "phantom:binary:seed=1:size=96", "../secret.npz#images", "a\0b.png",
    ],
)  # fmt: skip
def test_a_table_names_no_file_outside_its_root(tmp_path: Path, path: str) -> None:
    picture(7).save(tmp_path / "secret.png")
    manifest, flow = flow_of(tmp_path, [path])
    assert manifest["path"].tolist() == ["sick/0.png", "well/0.png"]
    assert [item.kind for item in flow.excluded] == ["outside_root"]


def test_a_table_names_files_below_its_root_in_several_ways(tmp_path: Path) -> None:
    paths = ["sick\\1.png", str(tmp_path / "root" / "sick" / "2.png"), "./well/./1.png", "sick/../well/2.png"]
    manifest, flow = flow_of(tmp_path, paths)
    assert set(manifest["path"]) == {f"{name}/{number}.png" for name in ("sick", "well") for number in range(3)}
    assert not flow.excluded


MILLION = 1_000_000


@pytest.fixture(scope="module")
def million_rows(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A table of a million rows whose images are not there."""
    return b"image,label,age\n" + b"".join(
        b"a/%07d.png,%s,%d\n" % (row, b"sick" if row % 2 else b"well", row % 90) for row in range(MILLION)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"a/x.png,sick,1,2\n", "line 500002"),
        (b'a/x.png,"sick,1\n', "line|row 500001|EOF inside string"),
        (b"a/x.png,si\xffck,1\n", "in line 500002, is 0xff"),
        (b"a/x.png,si\0ck,1\n", "in line 500002, is 0x00"),
        (b"a/x.png,sick,forty\n", None),  # a covariate may be a word
        (b"a/x.png\n", None),  # its label is blank: a finding
    ],
)
def test_one_bad_row_in_a_million(tmp_path: Path, million_rows: bytes, bad: bytes, words: str | None) -> None:
    at = million_rows.index(b"a/0500000.png")
    (tmp_path / "t.csv").write_bytes(million_rows[:at] + bad + million_rows[at:])
    config = table_config(tmp_path / "t.csv", covariates=["age"])
    with at_most(1500):
        if words is None:
            found = table_candidates(config, "auto")
            assert len(found.rows) + len(found.excluded) == found.n_found == MILLION + 1
        else:
            with pytest.raises(InputError, match=words):
                table_candidates(config, "auto")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the table is empty"),
        (b"\n\n", "first line is blank"),
        (b",,\na,b,c\n", "first line is blank"),
        (b"image,label,,\na,x,,\n", "columns 3, 4 have no name"),
        (b"image,label,image\na,x,b\n", "two columns are called 'image'"),
        ("image,label\nä,x\n".encode("utf-16"), "UTF-16 text"),
        ("image,label\na,x\n".encode("utf-16-le"), r"0x00\); a NUL byte: UTF-16"),
        ("image,label\na,x\n".encode("utf-32"), "UTF-32 text"),
        ("image,label\nMüller.png,x\n".encode("cp1252"), r"byte 13, in line 2, is 0xfc"),
        ("image,label\nMü".encode()[:-1], "ends within a character"),
        (b"image,label\na\0,x\n", r"byte 13, in line 2, is 0x00"),
        (b"image,label\na,x,1\nb,y,1\n", "more values than its first line has names"),
        (b"image,label\na,x\nb,y,1\n", "line 3"),
        (b'image,label\na,"x\nb,y\nc,z"\nd,w\n', "label runs over several lines in row 2"),
        (b'image,label\na,"x\nb,y\n', "EOF inside string"),
        (b'"image,label\na,x\n', "cannot be read as a table|no column"),
        (b"x" * (2 * MB), "first line has more than"),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8"),
    ],
)
def test_a_broken_table_says_where(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=words):
        table_candidates(table_config(tmp_path / "t.csv"), "auto")


def test_a_bad_byte_behind_the_first_block_has_its_true_place(tmp_path: Path) -> None:
    lines = b"image,label\n" + b"\xc3\xa4,x\n" * 300_000  # blocks end within characters
    (tmp_path / "t.csv").write_bytes(lines + b"a,\xe4\n")
    with pytest.raises(InputError, match=rf"byte {len(lines) + 2}, in line 300002, is 0xe4"):
        table_candidates(table_config(tmp_path / "t.csv"), "auto")


def test_a_mark_one_nameless_column_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    cohort(tmp_path)
    (tmp_path / "t.csv").write_bytes("\ufeff,image,label\r\n0,sick/0.png,ä\r\n1,well/0.png,ö\r\n".encode())
    assert len(ingest(table_config(tmp_path / "t.csv"))[0]) == 2


def test_a_parquet_table_with_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], names=["image", "label", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="two columns are called 'label'"):
        table_candidates(table_config(tmp_path / "t.parquet"), "auto")


# ---------------------------------------------------------------- npz


def npz_with(path: Path, header: bytes, content: bytes = b"", **more: np.ndarray) -> Path:
    """An archive whose member `images` begins with this header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header + content)
        for name, array in {"labels": np.array([0, 1]), **more}.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)
    return path


def header_of(shape: str, descr: str = "'|u1'", version: bytes = b"\1\0") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("header", "content", "words"),
    [
        (header_of("(1000000, 1000, 1000)"), b"", "claims shape"),
        (header_of("(2, 9223372036854775807, 9)"), b"", "claims shape"),
        (header_of("(2, -4, 4)"), b"x" * 32, "damaged|cannot be read|expected uint8|no image"),
        (header_of("(2, 4, 4)", version=b"\7\0"), b"x" * 32, "format|version"),
        (header_of("(2, 4, 4"), b"x" * 32, "cannot be read as an NPZ"),
        (header_of("(2, 4, 4)", "'|O'"), b"x" * 256, "cannot be read as an NPZ"),
        (header_of("(2, 4, 4)", "[('a', '|u1')]"), b"x" * 32, "expected uint8"),
        (header_of("(0, 4, 4)"), b"", "no image in it"),
        (header_of("(2, 0, 4)"), b"", "no image in it"),
        (header_of("()"), b"x", "expected uint8"),
        (b"no header at all", b"", "cannot be read as an NPZ"),
    ],
)
def test_an_array_that_lies_about_itself(tmp_path: Path, header: bytes, content: bytes, words: str) -> None:
    path = npz_with(tmp_path / "x.npz", header, content)
    with at_most(100), pytest.raises(InputError, match=words):
        ingest(DataConfig(source="npz", path=path))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 1000
    path = npz_with(tmp_path / "x.npz", header_of(f"(40, {side}, {side})"), bytes(40 * side * side))
    assert path.stat().st_size < MB
    monkeypatch.setattr("medcnn.data.arrays.MAX_ARRAY_BYTES", 20 * MB)
    with at_most(50), pytest.raises(InputError, match=r"takes 0\.0 GiB unpacked"):
        ingest(DataConfig(source="npz", path=path))


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 0), int), np.array(3), np.array(["a", "b"]), np.array([0, 1 + 2j]), np.zeros((2, 1, 1), int)]
)
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray) -> None:
    path = npz_with(tmp_path / "x.npz", header_of("(2, 4, 4)"), b"x" * 32, labels=labels)
    with pytest.raises(InputError, match="labels"):
        ingest(DataConfig(source="npz", path=path))


def test_an_archive_with_a_password_or_a_foreign_packing(tmp_path: Path) -> None:
    path = npz_with(tmp_path / "x.npz", header_of("(2, 4, 4)"), b"x" * 32)
    whole = path.read_bytes()
    for at, value in ((6, 1), (8, 99)):  # flags: encrypted; method: unknown. In the local header and in the directory
        broken = bytearray(whole)
        entry = whole.index(b"PK\1\2")
        broken[at] = broken[entry + at + 2] = value
        path.write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read as an NPZ archive"):
            ingest(DataConfig(source="npz", path=path))
        with pytest.raises(InputError, match="cannot be read as an NPZ archive"):
            find_images([path])
