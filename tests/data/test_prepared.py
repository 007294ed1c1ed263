"""prepare_image against box averages and exact copies; what a reduced decode must leave."""

import cv2
import numpy as np
import pytest
from PIL import Image

from medcnn.data.formats import ImageHeader, decode_file, reduction
from medcnn.data.images import Reading
from medcnn.data.prepared import KEPT, kept_px, prepare_image, prepare_row
from medcnn.errors import InputError
from medcnn.plan import ImagePlan


def image_plan(size_px=8, channels=1, fit="pad", **more):
    return ImagePlan(size_px=size_px, channels=channels, fit=fit, **more)


def noise(height, width, channels=None, dtype=np.uint8, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


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


@pytest.mark.parametrize(("height", "width"), [(300, 200), (61, 500), (90, 90)])
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_a_grey_image_in_colour_is_its_grey_self_three_times(height, width, fit):
    pixels = cv2.GaussianBlur(noise(height, width), (0, 0), 3)
    grey = prepare_image(pixels, image_plan(size_px=100, fit=fit))
    colour = prepare_image(pixels, image_plan(size_px=100, fit=fit, channels=3))
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=2))
    of_copies = prepare_image(np.dstack([pixels] * 3), image_plan(size_px=100, fit=fit, channels=3))
    assert np.abs(colour.astype(int) - of_copies).max() <= 1  # OpenCV rounds otherwise for three channels


# ---------------------------------------------------------------- reduced decoding


def header(height, width, kind="JPEG"):
    return ImageHeader(format=kind, height=height, width=width, bit_depth=8, channels=1)


@pytest.mark.parametrize(
    ("height", "width", "fit", "part"),
    [
        (447, 447, "pad", 1), (448, 300, "pad", 1), (896, 600, "pad", 2), (895, 600, "pad", 1), (1791, 900, "pad", 2), (1792, 10, "pad", 4),
        (3584, 3584, "pad", 8), (20000, 20000, "pad", 8), (896, 895, "crop", 1), (896, 896, "crop", 2), (1792, 5000, "stretch", 4),
    ],
)  # fmt: skip
def test_a_reduced_decode_leaves_twice_what_is_wanted(height, width, fit, part):
    keep = kept_px(image_plan(size_px=224, fit=fit, decode="reduced"))
    assert reduction(header(height, width), keep) == reduction(header(width, height), keep) == part
    kept = max(height, width) if fit == "pad" else min(height, width)
    assert part == 1 or kept / part >= KEPT * 224


def test_nothing_is_reduced_unless_the_plan_says_so_and_the_format_can():
    assert kept_px(image_plan(size_px=8)) is None
    assert reduction(header(4000, 4000), None) == 1
    assert reduction(header(4000, 4000, "PNG"), kept_px(image_plan(decode="reduced"))) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_reduced_jpeg_is_prepared_almost_as_a_full_one(channels):
    rng = np.random.default_rng(0)
    blurred = [cv2.GaussianBlur(rng.normal(size=(900, 1201, channels)), (0, 0), sigma) * sigma for sigma in (40, 10, 4)]
    scene = np.sum(blurred, axis=0).reshape(900, 1201, channels)
    scene = np.clip(128 + 40 * scene / scene.std() + rng.normal(size=scene.shape) * 3, 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    plan = image_plan(size_px=128, channels=channels, decode="reduced")
    full, reduced = (decode_file(data, 0, "x", keep_px=keep)[0] for keep in (None, kept_px(plan)))
    assert (full.shape[:2], reduced.shape[:2]) == ((900, 1201), (225, 300))
    error = prepare_image(reduced, plan, whole_px=(900, 1201)).astype(int) - prepare_image(full, plan)
    assert 0 < np.abs(error).mean() < 1.8
    assert np.abs(error).max() <= 16


def test_a_turned_jpeg_is_turned_after_a_reduced_decode(tmp_path):
    scene = np.zeros((400, 800), np.uint8)
    scene[:, :100] = 255
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene).save(tmp_path / "x.jpg", exif=exif)
    pixels, said = decode_file((tmp_path / "x.jpg").read_bytes(), 0, "x", keep_px=(1, 200))
    assert (said.height, said.width, pixels.shape) == (800, 400, (200, 100))
    assert pixels[:20].mean() > 250 > 5 > pixels[30:].mean()


@pytest.mark.parametrize("decode", ["full", "reduced"])
def test_a_row_is_prepared_as_the_plan_says(tmp_path, decode):
    scene = cv2.GaussianBlur(noise(301, 403, 3), (0, 0), 4)
    cv2.imwrite(str(tmp_path / "x.jpg"), scene)
    data = (tmp_path / "x.jpg").read_bytes()
    plan = image_plan(size_px=40, channels=3, decode=decode)
    pixels, _ = decode_file(data, 0, "x", keep_px=(1, 80) if decode == "reduced" else None)
    assert pixels.shape == ((75, 101, 3) if decode == "reduced" else (301, 403, 3))
    expected = prepare_image(pixels, plan, whole_px=(301, 403))
    np.testing.assert_array_equal(prepare_row("x.jpg", 0, plan, reading=Reading(tmp_path)), expected)


def test_a_deep_image_is_prepared_by_its_own_depth(tmp_path):
    pixels = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(prepare_row("x.png", 0, image_plan(), reading=Reading(tmp_path)), prepare_image(pixels, image_plan()))
