"""Decoding against Pillow, tifffile and hand-made samples; each way in which a file can be bad."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from medcnn.data.images import UnreadableImage, decode_image, decode_row, probe_image, read_row, to_uint8
from medcnn.errors import InputError

GREY = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
DEEP = GREY.astype(np.uint16) * 257
DEEP_COLOUR = COLOUR.astype(np.uint16) * 257


def saved(folder: Path, pixels: np.ndarray, name: str, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(folder / name, **options)
    return folder / name


def failure(path: Path, frame: int = 0) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode_image(path, frame)
    return caught.value


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_formats_give_back_the_samples(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    decoded = decode_image(saved(tmp_path, pixels, f"a.{suffix}", **options))
    expected = COLOUR if pixels is COLOUR else np.dstack([GREY] * 3) if suffix == "webp" else GREY  # WebP knows no grey
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_agrees_with_pillow(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path, COLOUR, "a.jpg", mode, quality=95)
    expected = np.array(Image.open(path).convert("L" if mode == "L" else "RGB")).astype(int)
    assert np.abs(decode_image(path) - expected).max() <= 2  # decoders may round differently


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif"])
def test_modes_agree_with_pillow(tmp_path: Path, mode: str, suffix: str) -> None:
    path = saved(tmp_path, COLOUR, f"a.{suffix}", mode)
    image = Image.open(path)
    np.testing.assert_array_equal(decode_image(path), np.array(image.convert("L" if image.mode in {"1", "L"} else "RGB")))


def test_one_bit_becomes_0_and_255(tmp_path: Path) -> None:
    path = saved(tmp_path, np.array([[0, 255, 0, 255]], np.uint8), "a.png", "1")
    assert decode_image(path).tolist() == [[0, 255, 0, 255]]


@pytest.mark.parametrize("pixels", [DEEP, DEEP_COLOUR], ids=["grey", "colour"])
def test_16_bit_png_keeps_its_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    decoded = decode_image(tmp_path / "a.png")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, pixels)
    assert probe_image(tmp_path / "a.png").bit_depth == 16


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_tiff(tmp_path: Path, compression: str | None, planar: str) -> None:
    stored = DEEP_COLOUR if planar == "contig" else np.moveaxis(DEEP_COLOUR, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), DEEP_COLOUR)


def test_16_bit_lzw_tiff_is_read_although_tifffile_lacks_the_codec(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), DEEP)
    cv2.imwrite(str(tmp_path / "b.tif"), DEEP_COLOUR[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(decode_image(tmp_path / "b.tif"), DEEP_COLOUR)


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8", "16"])
def test_a_tiff_in_which_white_is_zero_is_inverted(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.iinfo(pixels.dtype).max - pixels, photometric="miniswhite")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8", "16"])
def test_pages_of_a_tiff_are_frames(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([pixels, pixels[::-1]]), photometric="minisblack")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif", 1), pixels[::-1])
    assert probe_image(tmp_path / "a.tif").n_frames == 2
    assert failure(tmp_path / "a.tif", 2).kind == "no_such_frame"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_composited_over_black(tmp_path: Path, dtype: type, suffix: str) -> None:
    top = np.iinfo(dtype).max
    rgba = np.full((2, 3, 4), top, dtype)
    rgba[..., 3] = [[0, top // 2, top]] * 2
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])
    else:
        cv2.imwrite(str(path), rgba[..., [2, 1, 0, 3]])
    decoded = decode_image(path)
    assert decoded.shape == (2, 3, 3)
    assert decoded[0, :, 0].tolist() == [0, top // 2, top]


def test_grey_with_alpha_and_transparent_palettes(tmp_path: Path) -> None:
    pixels = np.dstack([np.full((2, 2), 200, np.uint8), np.array([[0, 255], [255, 0]], np.uint8)])
    Image.fromarray(pixels, "LA").save(tmp_path / "la.png")
    assert decode_image(tmp_path / "la.png").tolist() == [[0, 200], [200, 0]]
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "p.png", transparency=0)
    assert decode_image(tmp_path / "p.png").tolist() == [[[0, 0, 0], [40, 50, 60]]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}")))
    decoded = decode_image(tmp_path / f"a.{suffix}")
    assert np.abs(decoded.astype(int) - expected).max() <= 2
    header = probe_image(tmp_path / f"a.{suffix}")
    assert (header.height, header.width) == decoded.shape[:2] == ((56, 40) if orientation >= 5 else (40, 56))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_16_bit_tiff(tmp_path: Path, orientation: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
    exif = Image.Exif()
    exif[274] = orientation
    eight = Image.fromarray(GREY)
    eight.info["exif"] = exif.tobytes()
    expected = np.array(ImageOps.exif_transpose(eight)).astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), expected)
    header = probe_image(tmp_path / "a.tif")
    assert (header.height, header.width) == expected.shape


def test_the_content_decides_and_not_the_ending(tmp_path: Path) -> None:
    saved(tmp_path, GREY, "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.jpg"), GREY)
    assert probe_image(tmp_path / "a.jpg").format == "PNG"


# ---------------------------------------------------------------- what does not come in


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("patient list")
    assert failure(tmp_path / "nowhere.png").kind == "missing_file"
    assert failure(tmp_path / "empty.png").kind == "empty_file"
    assert failure(tmp_path / "text.png").kind == "not_an_image"
    assert failure(tmp_path).kind == "unreadable_file"


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    data = saved(tmp_path, np.tile(COLOUR, (3, 3, 1)), f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: int(share * len(data))])
    assert failure(tmp_path / f"a.{suffix}").kind in {"truncated", "damaged", "not_an_image"}


def test_the_end_marker_of_a_preview_does_not_hide_the_cut(tmp_path: Path) -> None:
    preview = io.BytesIO()
    Image.fromarray(GREY).save(preview, "JPEG")
    data = saved(tmp_path, COLOUR, "a.jpg").read_bytes()
    segment = b"\xff\xe5" + struct.pack(">H", len(preview.getvalue()) + 2) + preview.getvalue()
    with_preview = data[:2] + segment + data[2:]
    (tmp_path / "whole.jpg").write_bytes(with_preview)
    assert decode_image(tmp_path / "whole.jpg").shape == COLOUR.shape
    (tmp_path / "cut.jpg").write_bytes(with_preview[:-200])
    assert failure(tmp_path / "cut.jpg").kind == "truncated"


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path, COLOUR, "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    assert failure(tmp_path / "a.png").kind == "damaged"


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    assert failure(tmp_path / "bomb.png").kind == "too_large"


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint32])
def test_samples_without_a_declared_range_are_refused(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (GREY.astype(np.int64) * 70_000 - 5).astype(dtype), photometric="minisblack")
    assert failure(tmp_path / "a.tif").kind == "unsupported_pixels"


def test_the_message_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png: the file has no bytes"):
        decode_image(tmp_path / "a.png")


# ---------------------------------------------------------------- rows of a manifest


def test_a_row_is_relative_to_the_root(tmp_path: Path) -> None:
    saved(tmp_path, GREY, "a.png")
    np.testing.assert_array_equal(decode_row("a.png", root=tmp_path), GREY)


def test_a_row_of_an_npz_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", train_images=np.stack([GREY, GREY[::-1]]), deep=DEEP[None, ..., None])
    np.testing.assert_array_equal(decode_row("set.npz#train_images", 1, root=tmp_path), GREY[::-1])
    assert decode_row("set.npz#deep", 0, root=tmp_path).shape == GREY.shape
    for path, frame, kind in [
        ("set.npz#train_images", 2, "no_such_frame"),
        ("set.npz#val", 0, "missing_member"),
        ("x.npz#a", 0, "missing_file"),
    ]:
        with pytest.raises(UnreadableImage) as caught:
            decode_row(path, frame, root=tmp_path)
        assert caught.value.kind == kind


def test_a_changed_npz_file_is_read_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=GREY[None])
    assert decode_row("set.npz#images", root=tmp_path)[0, 1] == GREY[0, 1]
    np.savez(tmp_path / "set.npz", images=np.stack([GREY, GREY]) + 1)
    assert decode_row("set.npz#images", root=tmp_path)[0, 1] == GREY[0, 1] + 1


# ---------------------------------------------------------------- 16 bits to 8


def test_uint8_is_left_alone() -> None:
    assert to_uint8(GREY) is GREY


def test_a_declared_depth_is_taken_at_its_word() -> None:
    pixels = np.array([[0, 2048, 4095, 5000]], np.uint16)
    assert to_uint8(pixels, 12).tolist() == [[0, round(2048 / 4095 * 255), 255, 255]]


def test_12_bits_in_a_16_bit_container_use_the_whole_range() -> None:
    pixels = np.tile(np.arange(4096, dtype=np.uint16), (10, 1))
    low, high = np.percentile(pixels.astype(int), [0.5, 99.5], method="inverted_cdf")
    shown = to_uint8(pixels)
    np.testing.assert_array_equal(shown, np.round(np.clip((pixels.astype(int) - low) / (high - low), 0, 1) * 255))
    assert (shown.min(), shown.max()) == (0, 255)


def test_one_window_for_all_channels_keeps_the_hue() -> None:
    pixels = np.dstack([DEEP, DEEP // 2, DEEP // 4])
    shown = to_uint8(pixels).astype(float)
    inside = (shown[..., 0] > 60) & (shown[..., 0] < 250)
    assert np.abs(shown[inside, 0] - 2 * shown[inside, 1]).max() <= 5  # the window's low end is not quite 0
    assert np.abs(to_uint8(DEEP // 2).astype(float) - to_uint8(DEEP)).max() <= 1  # alone, each channel would fill the range


def test_a_constant_deep_image_is_black_and_float_is_refused() -> None:
    assert to_uint8(np.full((3, 3), 700, np.uint16)).max() == 0
    with pytest.raises(InputError, match="expected uint8 or uint16"):
        to_uint8(np.zeros((2, 2), np.float32))


def test_read_row_takes_the_depth_of_the_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), DEEP)
    np.testing.assert_array_equal(read_row("a.png", root=tmp_path), to_uint8(DEEP, 16))
