"""Slides are opened by the right reader, read the same pixels as OpenSlide, or are refused with the reason."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import tifffile

from medcnn.data.formats import UnreadableImage
from medcnn.data.slide_readers import OpenSlideSlide, over_white
from medcnn.data.slide_tiff import TiffSlide
from medcnn.data.slides import open_slide, opened
from tests.data.made_slides import aperio, tissue_picture, write_slide

openslide = pytest.importorskip("openslide", reason="needs the extra wsi")

# Of each real file: the reader and the size of level 0, or the kind of refusal and a word of its reason.
REAL = {
    "CMU-1-Small-Region.svs": ("openslide+tifffile", (2220, 2967), 1),
    "TCGA-CR-7395-01A-01-TS1.svs": ("openslide+tifffile", (4443, 3567), 2),
    "pyslide_CropBreastSlide.tiff": ("openslide+tifffile", (2033, 1525), 6),
    "pyslide_CropBreastSlide_region.tif": ("tifffile", (2033, 1525), 1),
    "kidney_48_5.tif": ("tifffile", (1493, 901), 1),
    "slideio_test3_DAPI.ndpi": ("openslide", (3968, 4864), 7),
    "slideio_test3_TRITC.ndpi": ("openslide", (3968, 4864), 7),
    "openslide_boxes_dicom/boxes_0.dcm": ("openslide", (16, 16), 1),
    "openslide_boxes_dicom/boxes_1.dcm": ("openslide", (16, 16), 1),
    "openslide_boxes.tiff": ("openslide+tifffile", (300, 250), 4),
    "openslide_small.svs": ("openslide+tifffile", (16, 16), 1),
    "largeimage_yb10kx5k.zstd.tiff": ("openslide+tifffile", (10000, 5000), 5),
    "largeimage_grey10kx5k.tif": ("tifffile", (10000, 5000), 1),
    "highdicom_sm_image.dcm": ("openslide", (50, 50), 1),
    "highdicom_sm_image_jpegls.dcm": ("pydicom", (50, 50), 1),
}
REFUSED = {
    "broken.svs": ("not_an_image", "no such slide format"),
    "pathml_small_dicom.dcm": ("damaged", "does not say where its frames lie"),
    "pathml_smalltif.tif": ("unsupported_pixels", "uint16"),
    "openslide_unopenable.tiff": ("unsupported_pixels", "compression 52479"),
    "openslide_unreadable.svs": ("damaged", "Bogus marker length"),
    "largeimage_zero_gi.tif": ("no_pixels", "2 x 0"),
    "highdicom_sm_image_grayscale.dcm": ("unsupported_pixels", "16-bit"),
}


@pytest.fixture
def wsi(shared_data: Path) -> Path:
    return shared_data / "wsi"


def test_every_real_file_is_in_one_of_the_lists(wsi: Path) -> None:
    files = {path.relative_to(wsi).as_posix() for path in wsi.rglob("*") if path.is_file() and path.suffix not in {".md", ".csv"}}
    assert files == set(REAL) | set(REFUSED)
    assert len(files) == 22


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_is_opened_by_its_reader(wsi: Path, name: str) -> None:
    facts = open_slide(wsi / name).facts
    reader, size, n_levels = REAL[name]
    assert (facts.reader.split(",")[0], (facts.levels[0].width, facts.levels[0].height), len(facts.levels)) == (reader, size, n_levels)


@pytest.mark.parametrize("name", REFUSED)
def test_a_real_file_is_refused_with_its_reason(wsi: Path, name: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        open_slide(wsi / name, where="the slide").read(0, 0, 0, 8, 8)
    kind, word = REFUSED[name]
    assert (caught.value.kind, word in caught.value.reason, name in str(caught.value)) == (kind, True, False)


@pytest.mark.parametrize("name", [name for name, (reader, _, _) in REAL.items() if reader.startswith("openslide")])
def test_pixels_are_those_of_openslide(wsi: Path, name: str) -> None:
    """On each level three rectangles: inside, across the right edge, across the top left corner."""
    slide, oracle = open_slide(wsi / name), openslide.OpenSlide(wsi / name)
    for number, level in enumerate(slide.facts.levels):
        for x, y in [(level.width // 3, level.height // 3), (level.width - 20, level.height // 2), (-9, -5)]:
            corner = round(x * level.downsample), round(y * level.downsample)
            if number and (x * level.downsample) % 1:
                continue  # OpenSlide would interpolate between pixels of this level
            wanted = over_white(np.asarray(oracle.read_region(corner, number, (70, 60))))
            assert np.array_equal(slide.read(number, x, y, 70, 60), wanted), (number, x, y)


@pytest.mark.parametrize(
    ("name", "pages"), [("kidney_48_5.tif", 0), ("pyslide_CropBreastSlide_region.tif", 0), ("largeimage_grey10kx5k.tif", 0)]
)
def test_flat_tiffs_are_read_as_the_whole_picture_is(wsi: Path, name: str, pages: int) -> None:
    whole = tifffile.imread(wsi / name, key=pages)
    whole = whole if whole.ndim == 3 else np.repeat(whole[..., None], 3, axis=2)
    assert np.array_equal(open_slide(wsi / name).read(0, 301, 403, 512, 300), whole[403:703, 301:813])


def test_jpeg_ls_frames_lie_where_openslide_puts_the_same_ones_uncompressed(wsi: Path) -> None:
    lossless, plain = (open_slide(wsi / f"highdicom_sm_image{name}.dcm").read(0, -3, 4, 60, 50) for name in ("_jpegls", ""))
    assert np.array_equal(lossless, plain)


def test_the_thumbnail_is_of_the_slide_and_never_the_label(wsi: Path) -> None:
    slide = open_slide(wsi / "CMU-1-Small-Region.svs")
    thumbnail = slide.thumbnail()
    assert thumbnail is not None
    assert thumbnail.shape == (768, 574, 3)
    level = cv2.resize(slide.read(0, 0, 0, 2220, 2967), (574, 768), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(level.ravel(), thumbnail.ravel())[0, 1] > 0.97  # shrunk and compressed by the scanner


def test_a_file_cut_short_is_refused_and_never_filled(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_picture(600, 500), compression="jpeg")
    whole = open_slide(path).read(0, 0, 0, 500, 600)
    assert abs(float(whole.mean()) - tissue_picture(600, 500).mean()) < 2
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[7] + file.pages[0].databytecounts[7] // 2
    (tmp_path / "b.tif").write_bytes(data[:offset])
    with pytest.raises(UnreadableImage):
        open_slide(tmp_path / "b.tif").read(0, 0, 0, 500, 600)


def test_a_damaged_block_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_picture(600, 500))
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].dataoffsets[0] + 20
    data = bytearray(path.read_bytes())
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    slide = open_slide(path)
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        slide.read(0, 0, 0, 10, 10)
    assert slide.read(0, 400, 400, 10, 10).shape == (10, 10, 3)


def test_min_is_white_and_alpha_and_strips(tmp_path: Path) -> None:
    grey = np.arange(200 * 300, dtype=np.uint32).reshape(200, 300).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite", rowsperstrip=16)
    assert np.array_equal(open_slide(tmp_path / "a.tif").read(0, 5, 7, 20, 30)[..., 0], 255 - grey[7:37, 5:25])
    clear = np.zeros((40, 40, 4), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", clear, photometric="rgb", extrasamples=["unassalpha"], rowsperstrip=40)
    assert open_slide(tmp_path / "b.tif").read(0, 0, 0, 40, 40).min() == 255


def test_over_white_blends_by_alpha() -> None:
    pixel = np.array([[[10, 100, 200, 51]]], np.uint8)  # a fifth of it, on four fifths of white
    assert over_white(pixel).tolist() == [[[206, 224, 244]]]


def test_a_series_in_several_files_is_one_slide_and_needs_places(wsi: Path, tmp_path: Path) -> None:
    source = pydicom.dcmread(wsi / "highdicom_sm_image_jpegls.dcm")
    source.save_as(tmp_path / "one.dcm")
    half = pydicom.dcmread(wsi / "highdicom_sm_image_jpegls.dcm")
    half.SOPInstanceUID += ".1"
    half.TotalPixelMatrixColumns = half.TotalPixelMatrixRows = 25
    half.NumberOfFrames = 9
    half.PixelData = pydicom.encaps.encapsulate(list(pydicom.encaps.generate_frames(source.PixelData, number_of_frames=25))[:9])
    half.save_as(tmp_path / "two.dcm")
    shutil.copy(wsi / "broken.svs", tmp_path)
    facts = open_slide(tmp_path / "two.dcm").facts
    assert [(level.width, level.downsample) for level in facts.levels] == [(50, 1.0), (25, 2.0)]
    for path in (tmp_path / "one.dcm", tmp_path / "two.dcm"):
        path.unlink()
    del source.DimensionOrganizationType
    source.save_as(tmp_path / "three.dcm")
    with pytest.raises(UnreadableImage, match="where its frames lie"):
        open_slide(tmp_path / "three.dcm")


def test_a_frame_that_claims_another_size_is_refused_and_not_decoded(wsi: Path, tmp_path: Path) -> None:
    data = bytearray((wsi / "highdicom_sm_image_jpegls.dcm").read_bytes())
    at = data.index(b"\xff\xf7")  # the first frame's header: length, bits, height, width
    assert data[at + 5 : at + 9] == bytes([0, 10, 0, 10])
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.dcm").write_bytes(bytes(data))
    slide = open_slide(tmp_path / "a.dcm")
    with pytest.raises(UnreadableImage, match="65535 x 65535 pixels, the file 10 x 10"):
        slide.read(0, 0, 0, 10, 10)
    assert slide.read(0, 20, 20, 10, 10).shape == (10, 10, 3)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused_by_name_or_read(tmp_path: Path, seed: int) -> None:
    """Bytes changed, cut and put in at random: whatever comes is pixels or UnreadableImage."""
    rng = np.random.default_rng(seed)
    write_slide(tmp_path / "a.tif", tissue_picture(150, 150))
    tifffile.imwrite(tmp_path / "b.tif", tissue_picture(60, 70), photometric="rgb", rowsperstrip=16)
    sources = [(tmp_path / name).read_bytes() for name in ("a.tif", "b.tif")]
    n_read = n_refused = 0
    for number in range(120 if seed == 0 else 2000):
        data = bytearray(sources[number % 2])
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(min(len(data), (600, len(data))[rng.integers(2)]))] = rng.integers(256)
        if rng.random() < 0.2:
            del data[rng.integers(1, len(data)) :]
        (tmp_path / "c.tif").write_bytes(bytes(data))
        try:
            slide = open_slide(tmp_path / "c.tif")
            assert slide.read(0, 0, 0, 64, 64).shape == (64, 64, 3)
            n_read += 1
        except UnreadableImage:
            n_refused += 1
    assert min(n_read, n_refused) > 15


def test_what_an_aperio_description_says_of_people_stays_in_it(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", tissue_picture(300, 400), description=aperio(400, 300, User="Musterfrau", Date="01/02/19"))
    slide = open_slide(path)
    assert (slide.facts.vendor, slide.facts.mpp, slide.facts.power) == ("aperio", (0.5, 0.5), 20.0)
    assert "Musterfrau" not in repr(slide.facts)


@pytest.mark.parametrize(("content", "kind"), [(b"", "empty_file"), (b"II*\0" + b"\xff" * 60, "damaged"), (b"hello", "not_an_image")])
def test_bad_files(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        open_slide(tmp_path / "a.svs")
    assert caught.value.kind == kind


def test_a_missing_file_a_huge_rectangle_and_a_huge_block(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        open_slide(tmp_path / "a.svs")
    path = write_slide(tmp_path / "a.tif", tissue_picture(300, 400))
    for slide in (open_slide(path), OpenSlideSlide(path, path)):
        with pytest.raises(UnreadableImage, match="at most"):
            slide.read(0, 0, 0, 100_000, 100_000)


def test_opened_keeps_a_slide_until_its_file_changes(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_picture(300, 400))
    first = opened(path)
    assert opened(path) is first
    write_slide(path, tissue_picture(200, 400))
    assert opened(path).facts.levels[0].height == 200


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_threads_read_what_one_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """A defect that was: threads moved each other's place in the file, and blocks of other places came back."""
    monkeypatch.setattr("medcnn.data.slide_tiff.CACHE_BYTES", 1)
    path = write_slide(tmp_path / "a.tif", tissue_picture(900, 900), compression=compression)
    corners = [(x, y) for x in range(0, 768, 128) for y in range(0, 768, 128)] * 6
    alone = open_slide(path)
    wanted = {corner: alone.read(0, *corner, 128, 128) for corner in corners[:36]}
    shared = open_slide(path)
    with ThreadPoolExecutor(8) as pool:
        for corner, pixels in zip(corners, pool.map(lambda corner: shared.read(0, *corner, 128, 128), corners), strict=True):
            assert np.array_equal(pixels, wanted[corner]), corner


def test_blocks_are_kept_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tissue_picture(600, 500)
    path = write_slide(tmp_path / "a.tif", picture)
    monkeypatch.setattr("medcnn.data.slide_tiff.CACHE_BYTES", 3 * 128 * 128 * 3)
    slide = open_slide(path)
    assert isinstance(slide, TiffSlide)
    assert np.array_equal(slide.read(0, 0, 0, 500, 600), picture)
    assert slide._held <= 3 * 128 * 128 * 3
