import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from textsam.pictures import draw
from textsam.values.rle import encode_mask, encode_masks

GREY = np.full((60, 80, 3), 128, np.uint8)

# Machado, Oliveira and Fernandes 2009, table 1, severity 1; linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def disk(height, width, y, x, radius):
    ys, xs = np.mgrid[:height, :width] + 0.5
    return encode_mask((ys - y) ** 2 + (xs - x) ** 2 < radius**2)


def lab(linear):
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
    t = linear @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


@pytest.mark.parametrize("sight", SIGHT)
def test_palette_can_be_told_apart(sight):
    s = np.array(draw.PALETTE) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.transpose(SIGHT[sight]), 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e3 * np.eye(len(seen))
    assert apart.min() > 18


def test_colors_follow_labels_or_masks():
    assert len({draw.palette_color(i) for i in range(40)}) == 40
    by_label = draw.mask_colors(["a", "b", "a"])
    assert by_label[0] == by_label[2] != by_label[1]
    assert len(set(draw.mask_colors(["a"] * 3))) == 3
    assert draw.mask_colors([]) == []


def test_overlay_tints_inside_dims_outside_and_keeps_the_photo():
    photo = GREY.copy()
    picture = np.asarray(draw.overlay(photo, [disk(60, 80, 30, 40, 15)], dim=0.25))
    assert picture.shape == photo.shape
    np.testing.assert_array_equal(photo, GREY)
    assert (picture[0, 0] == 96).all()
    blue = np.array(draw.PALETTE[0])
    np.testing.assert_allclose(picture[30, 40], 0.55 * 128 + 0.45 * blue, atol=1)
    np.testing.assert_array_equal(picture[30, 55 - 1], blue)  # the outline, on the rim


def test_overlay_of_nothing_is_the_photo():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(draw.overlay(photo, [])), photo)
    empty = encode_mask(np.zeros((20, 30), bool))
    np.testing.assert_array_equal(np.asarray(draw.overlay(photo, [empty], dim=0)), photo)


def test_a_mask_at_the_border_of_the_photo_has_no_outline_there():
    mask = np.zeros((60, 80), bool)
    mask[:, :40] = True
    picture = np.asarray(draw.overlay(GREY, [encode_mask(mask)], alpha=0, dim=0))
    assert (picture[:, :30] == 128).all()
    assert (picture[10, 36:44] != 128).any()
    whole = encode_mask(np.ones((60, 80), bool))
    assert (np.asarray(draw.overlay(GREY, [whole], alpha=0)) == 128).all()


def test_outline_is_as_wide_for_the_size_of_the_photo():
    shares = []
    for size in (100, 400, 1600):
        photo = np.full((size, size, 3), 128, np.uint8)
        rle = disk(size, size, size / 2, size / 2, size / 3)
        line = np.asarray(draw.overlay(photo, [rle], alpha=0, dim=0)) != 128
        shares.append(line.any(-1).sum() / size**2 / (2 * np.pi / 3))
    assert shares[2] == pytest.approx(shares[1], rel=0.25)
    assert shares[0] < 0.06  # never thinner than a pixel, never a blot


def test_small_masks_stay_visible_under_large_ones():
    big = encode_mask(np.ones((60, 80), bool))
    small = disk(60, 80, 30, 40, 8)
    red, blue = (200, 0, 0), (0, 0, 200)
    pictures = [
        draw.overlay(GREY, [big, small], colors=[red, blue], alpha=1),
        draw.overlay(GREY, [small, big], colors=[blue, red], alpha=1),
    ]
    for picture in pictures:
        assert picture.getpixel((40, 30)) == blue
        assert picture.getpixel((2, 2)) == red


def test_chips_are_inside_and_off_the_masks():
    photo = np.full((300, 400, 3), 128, np.uint8)
    for y, x in ((20, 20), (20, 380), (280, 20), (280, 380), (150, 200)):
        rle = disk(300, 400, y, x, 19)
        plain = np.asarray(draw.overlay(photo, [rle]))
        chips = np.asarray(draw.overlay(photo, [rle], texts=["wheel 0.95"]))
        changed = (plain != chips).any(-1)
        assert 300 < changed.sum() < 3000
        ys, xs = np.nonzero(changed)
        assert not changed[max(y - 19, 0) : y + 19, max(x - 10, 0) : x + 10].any()
        assert abs(ys.mean() - y) < 60
        assert abs(xs.mean() - x) < 90


def test_chips_that_do_not_fit_are_left_out():
    rle = disk(20, 30, 10, 15, 5)
    photo = GREY[:20, :30]
    plain = draw.overlay(photo, [rle])
    assert draw.overlay(photo, [rle], texts=["a long label"]).tobytes() == plain.tobytes()
    # Hundreds of one label: a few chips, not a wall of them.
    big = np.full((300, 400, 3), 128, np.uint8)
    many = [disk(300, 400, y, x, 4) for y in range(10, 300, 20) for x in range(10, 400, 20)]
    color = [draw.PALETTE[4]] * len(many)
    bare = np.asarray(draw.overlay(big, many, colors=color))
    walled = np.asarray(draw.overlay(big, many, colors=color, texts=["wheel"] * len(many)))
    assert 0 < (bare != walled).any(-1).mean() < 0.13


@pytest.mark.parametrize("text", ["Rad", "колесо", "車輪", "\N{RADIOACTIVE SIGN}", "a\nb", " "])
def test_any_text_can_be_drawn(text):
    draw.overlay(GREY, [disk(60, 80, 30, 40, 9)], texts=[text])


@pytest.mark.parametrize(
    ("photo", "options", "message"),
    [
        (GREY[..., 0], {}, r"wanted uint8 \(H, W, 3\)"),
        (GREY / 255, {}, "wanted uint8"),
        (GREY[:50], {}, "masks of 60x80 on a photo of 50x80"),
        (GREY, {"alpha": 1.5}, "alpha=1.5"),
        (GREY, {"dim": -1}, "dim=-1"),
        (GREY, {"texts": ["a", "b"]}, "1 masks, 2 texts"),
    ],
)
def test_wrong_arguments_raise(photo, options, message):
    with pytest.raises(ValueError, match=message):
        draw.overlay(photo, [disk(60, 80, 30, 40, 9)], **options)


def test_cutout_hides_and_crops():
    rng = np.random.default_rng(0)
    photo = rng.integers(1, 256, (20, 30, 3), dtype=np.uint8)
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 10, 20] = True
    whole = draw.cutout(photo, encode_masks(masks))
    assert (whole.mode, whole.size) == ("RGBA", (30, 20))
    array = np.asarray(whole)
    assert not array[~masks.any(0)].any()  # nothing of the hidden pixels is left in the file
    np.testing.assert_array_equal(array[2:5, 3:9, :3], photo[2:5, 3:9])
    cropped = np.asarray(draw.cutout(photo, encode_masks(masks), crop=True))
    np.testing.assert_array_equal(cropped, array[2:11, 3:21])
    assert draw.cutout(photo, [], crop=True).size == (30, 20)


@pytest.mark.parametrize("highest", [1, 255, 256, 65535])
def test_label_map_pictures_keep_their_numbers(highest):
    numbers = np.zeros((5, 7), np.int32)
    numbers[2, 3] = highest
    with Image.open(io.BytesIO(draw.encode_picture(draw.indexed_picture(numbers), ".png"))) as png:
        np.testing.assert_array_equal(np.asarray(png), numbers)
        assert png.mode == ("P" if highest < 256 else "I;16")
        if highest == 1:
            assert png.convert("RGB").getpixel((3, 2)) == draw.PALETTE[0]


def test_label_map_pictures_refuse_other_numbers():
    for numbers in (np.full((2, 2), -1), np.full((2, 2), 65536), np.zeros(4, int)):
        with pytest.raises(ValueError, match="wanted"):
            draw.indexed_picture(numbers)


def test_side_by_side():
    a, b = Image.new("RGB", (30, 20), "red"), Image.new("RGBA", (10, 40), "blue")
    row = draw.side_by_side([a, b], gap=4)
    assert row.size == (30 + 4 + 5, 20)
    assert row.getpixel((0, 0)) == (255, 0, 0)
    assert row.getpixel((32, 3)) == (255, 255, 255)
    assert row.getpixel((36, 10)) == (0, 0, 255)
    with pytest.raises(ValueError, match="no picture"):
        draw.side_by_side([])


def test_outline_follows_the_shape_smoothly():
    """The border of the line is antialiased: many shades between line and photo."""
    picture = Image.new("1", (800, 800))
    ImageDraw.Draw(picture).polygon([(80, 80), (720, 240), (360, 720)], fill=1)
    photo = np.zeros((800, 800, 3), np.uint8)
    drawn = np.asarray(draw.overlay(photo, [encode_mask(np.asarray(picture))], alpha=0, dim=0))
    assert len(np.unique(drawn[..., 0])) > 5  # a hard line has three: photo, halo, line
