"""Pictures: every pixel has the colour it should, edges are sharp, and text fits where it stands."""

import numpy as np
import pytest
from PIL import Image

from terrazzo import rendering
from terrazzo.classes import Classes
from terrazzo.errors import MaskSizeError, UsageError

AB = Classes(("a", "b"), ((255, 0, 0), (0, 0, 255)))
MANY = Classes(tuple(f"class number {i} of a long list" for i in range(150)))


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture)


def colors_in(picture: Image.Image | np.ndarray) -> set[tuple[int, ...]]:
    """The distinct colours of a picture."""
    shown = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    return {color for _, color in shown.getcolors(1 << 24)}  # type: ignore[union-attr, misc]


# masks ------------------------------------------------------------------------------------------------------


def test_classes_have_their_colours_and_ignore_is_hatched_grey() -> None:
    mask = np.array([[0, 1], [255, 255]], np.uint8)
    drawn = pixels(rendering.color(mask, AB))
    assert drawn[0].tolist() == [[255, 0, 0], [0, 0, 255]]
    hatched = rendering.color(np.full((12, 12), 255, np.uint8), AB)
    assert colors_in(hatched) == {(224, 224, 224), (158, 158, 158)}


def test_sixteen_bit_masks_are_drawn_alike() -> None:
    classes = Classes(tuple(f"c{i}" for i in range(300)))
    mask = np.array([[299, 0], [7, 65535]], np.uint16)
    drawn = pixels(rendering.color(mask, classes))
    assert [tuple(color) for color in drawn.reshape(-1, 3)[:3].tolist()] == [
        classes.colors[i] for i in (299, 0, 7)
    ]
    assert drawn[1, 1, 0] == drawn[1, 1, 1] == drawn[1, 1, 2]


def test_an_overlay_mixes_inside_draws_edges_in_full_colour_and_leaves_ignored_pixels() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    mask[6:] = 255
    drawn = pixels(rendering.overlay(image, mask, AB, opacity=0.5))
    assert drawn[2, 1].tolist() == [178, 50, 50]  # half 100 and half (255, 0, 0), 177.5 rounded to even
    assert drawn[2, 3].tolist() == [255, 0, 0]  # both sides of the edge
    assert drawn[2, 4].tolist() == [0, 0, 255]
    assert (drawn[6:] == 100).all()
    assert (image == 100).all()


@pytest.mark.parametrize(("opacity", "inside"), [(0.0, [100, 100, 100]), (1.0, [255, 0, 0])])
def test_opacity_goes_from_the_image_to_the_colours(opacity: float, inside: list[int]) -> None:
    drawn = rendering.overlay(
        np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8), AB, opacity=opacity
    )
    assert pixels(drawn)[1, 1].tolist() == inside


def test_what_cannot_be_overlaid_is_refused() -> None:
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4), np.uint8)
    with pytest.raises(MaskSizeError, match="found: mask \\(6, 4\\)\n  expected: \\(4, 6\\)"):
        rendering.overlay(image, mask, AB)
    with pytest.raises(MaskSizeError):
        rendering.beside(image, {"truth": mask}, AB)
    with pytest.raises(UsageError, match="found: 50\n  expected: 0 to 1"):
        rendering.overlay(image, mask.T, AB, opacity=50)


def test_shares_add_up_and_name_what_is_ignored() -> None:
    mask = np.array([[0, 0, 0, 255]], np.uint8)
    assert rendering.shares(mask, AB) == {"a": 0.75, "b": 0.0, "ignored": 0.25}
    assert rendering.shares(np.ones((2, 2), np.uint8), AB) == {"a": 0.0, "b": 1.0}


# images -----------------------------------------------------------------------------------------------------


def test_eight_bit_images_are_shown_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert (pixels(rendering.display(image)) == image).all()
    assert (pixels(rendering.display(image[:, :, :1])) == image[:, :, :1]).all()
    assert (pixels(rendering.display(image[:, :, :2])) == image[:, :, :1]).all()
    five = np.concatenate([image, image[:, :, :2]], axis=2)
    assert (pixels(rendering.display(five)) == image).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deeper_images_are_stretched_between_their_percentiles(dtype: type) -> None:
    ramp = np.linspace(1000, 1100, 101)
    image = (ramp if dtype == np.uint16 else ramp / 65535).astype(dtype)[None, :, None]
    shown = pixels(rendering.display(image))[0, :, 0].astype(int)
    assert (shown[0], shown[1], shown[99], shown[100]) == (0, 0, 255, 255)  # the 1st and 99th percentile
    assert (np.diff(shown) >= 0).all()
    assert abs(shown[50] - 127.5) < 1.5


def test_stretching_keeps_the_hue_and_outliers_do_not_darken_the_rest() -> None:
    image = np.full((100, 100, 3), 300, np.uint16)
    image[:50] = (300, 600, 900)
    image[0, 0] = 65535
    shown = pixels(rendering.display(image))
    assert shown[10, 10].tolist() == [0, 128, 255]


def test_constant_images_and_holes_in_them_are_shown() -> None:
    image = np.full((3, 3, 1), 0.2, np.float32)
    image[0, 0] = np.nan
    shown = pixels(rendering.display(image))[:, :, 0]
    assert shown.tolist() == [[0, 128, 128], [128, 128, 128], [128, 128, 128]]
    ramp = np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3, 1)
    ramp[2, 2] = np.nan
    assert pixels(rendering.display(ramp))[2, 2].tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match="found: shape \\(3, 3\\)"):
        rendering.display(np.zeros((3, 3), np.uint8))


# composed pictures ------------------------------------------------------------------------------------------


def test_small_panels_are_enlarged_in_whole_steps_so_edges_stay_sharp() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 1
    drawn = pixels(rendering.beside(np.zeros((40, 60, 3), np.uint8), {"truth": mask}, AB, with_legend=False))
    height, width = 40 * 4, 60 * 4  # the longer side reaches 192 in four steps
    truth = drawn[-height:, -width:]
    assert (truth[:, : width // 2] == AB.colors[0]).all()
    assert (truth[:, width // 2 :] == AB.colors[1]).all()


def test_large_panels_are_shrunk_and_no_class_appears_at_their_edges() -> None:
    three = Classes(("a", "b", "c"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    mask = np.zeros((1000, 2000), np.uint8)
    mask[:, 1000:] = 2
    drawn = pixels(
        rendering.beside(np.zeros((1000, 2000, 3), np.uint8), {"truth": mask}, three, with_legend=False)
    )
    panel = drawn[-480:, -960:]
    assert colors_in(panel) == {(255, 0, 0), (0, 0, 255)}


def test_the_legend_of_a_row_lists_the_classes_of_all_masks() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    truth, pred = np.zeros((64, 64), np.uint8), np.ones((64, 64), np.uint8)
    with_b = pixels(rendering.beside(image, {"truth": truth, "prediction": pred}, AB))
    bottom = with_b[-20:].reshape(-1, 3).tolist()
    assert list(AB.colors[0]) in bottom
    assert list(AB.colors[1]) in bottom


def test_see_through_panels_leave_ignored_pixels_hatched() -> None:
    image = np.full((200, 200, 3), 100, np.uint8)
    mask = np.full((200, 200), 255, np.uint8)
    mask[:100] = 0
    drawn = pixels(rendering.beside(image, {"truth": mask}, AB, opacity=0.5, with_legend=False))[-200:, -200:]
    assert np.abs(drawn[50, 50].astype(int) - (178, 50, 50)).max() <= 1
    assert drawn[150, 150].tolist() in ([224] * 3, [158] * 3)


def test_a_legend_lists_shares_from_the_largest_and_leaves_out_what_is_absent() -> None:
    sheet = pixels(
        rendering.legend(MANY, {MANY.names[3]: 0.2, MANY.names[9]: 0.8, MANY.names[5]: 0.0}, size=14)
    )
    rows = [np.flatnonzero((sheet == MANY.colors[i]).all(axis=2).any(axis=1)) for i in (9, 3, 5)]
    assert len(rows[2]) == 0
    assert rows[0].max() < rows[1].min()
    assert sheet.shape[0] == 2 * 21 + 14  # two lines and the margins


@pytest.mark.parametrize("height", [None, 700, 200, 5])
def test_a_long_legend_breaks_into_columns_and_shows_every_class(height: int | None) -> None:
    sheet = rendering.legend(MANY, height=height)
    seen = colors_in(sheet)
    assert set(MANY.colors) <= seen
    if height is not None and height >= 200:
        assert sheet.height <= height


def test_entries_of_a_legend_do_not_touch() -> None:
    names = ("a" * 70, "b", "W" * 30, "Ääßç")
    sheet = pixels(rendering.legend(Classes(names), height=60))  # two columns of two
    blank = (sheet == 255).all(axis=(0, 2))
    gaps = np.flatnonzero(np.diff(blank.astype(int)))
    swatches = [
        np.flatnonzero((sheet == color).all(axis=2).any(axis=0)).min() for color in Classes(names).colors
    ]
    assert swatches[0] == swatches[1] < swatches[2] == swatches[3]
    assert blank[
        swatches[2] - 3 : swatches[2] - 1
    ].all()  # white between the longest name and the next column
    assert blank[-1]
    assert len(gaps) > 4


def test_a_contact_sheet_holds_pictures_of_any_size_in_a_grid() -> None:
    tall, wide = np.full((400, 100, 3), 10, np.uint8), np.full((20, 30, 3), 20, np.uint8)
    sheet = pixels(rendering.contact_sheet([tall, wide, Image.new("L", (5, 5), 30)], cell=200, columns=3))
    assert sheet.shape == (
        200,
        3 * 50 + 2 * 6,
        3,
    )  # shrunk to 200 x 50; the others stand centred in cells of that size
    assert (sheet[:, :50] == 10).all()
    assert (sheet[90:110, 66:96] == 20).all()
    assert rendering.contact_sheet([tall] * 5, cell=40).width == 3 * 10 + 2 * 6


def test_titles_fit_their_panels_and_a_sheet_needs_one_for_each() -> None:
    picture = np.zeros((50, 60, 3), np.uint8)
    sheet = pixels(
        rendering.contact_sheet([picture, picture], titles=["a very long title indeed", "b"], columns=2)
    )
    assert (sheet[:19, 60:66] == 255).all()  # the long one does not run into the gap
    with pytest.raises(UsageError, match="found: 1 pictures, 2 titles"):
        rendering.contact_sheet([picture], titles=["a", "b"])
    with pytest.raises(UsageError, match="found: 0 pictures, 0 titles"):
        rendering.contact_sheet([])


def test_an_overlay_with_a_legend_keeps_the_picture_and_adds_to_its_right() -> None:
    image, mask = np.full((300, 400, 3), 50, np.uint8), np.zeros((300, 400), np.uint8)
    plain = pixels(rendering.overlay(image, mask, AB))
    full = pixels(rendering.overlay(image, mask, AB, with_legend=True))
    assert (full[:300, :400] == plain).all()
    assert full.shape[1] > 400
    assert (full[:, 400:] == AB.colors[0]).all(axis=2).any()
    assert not (full[:, 400:] == AB.colors[1]).all(axis=2).any()
