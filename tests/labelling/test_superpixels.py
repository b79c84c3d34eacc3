"""The laws of superpixels: levels nest, cells hang together, equal images give equal cells, packed is what was."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from terrazzo.data.scenes import scene
from terrazzo.errors import UnreadableFileError, UsageError
from terrazzo.labelling import merging, slic
from terrazzo.labelling.superpixels import Superpixels, key_of, pack, spread_places, superpixels, unpack

STREET = scene(11, size_hw=(180, 240))
ENGINES = [
    pytest.param("opencv", id="opencv"),
    pytest.param("skimage", id="skimage"),
    pytest.param("numpy", id="numpy"),
]


@pytest.fixture(scope="module", params=ENGINES)
def street(request: pytest.FixtureRequest) -> Superpixels:
    """The cells of a street, by every engine that is installed."""
    pytest.importorskip({"opencv": "cv2", "skimage": "skimage", "numpy": "numpy"}[request.param])
    return superpixels(STREET.image, engine=request.param, levels=(400, 180, 80, 30))


def test_every_cell_of_a_level_is_a_union_of_cells_of_the_finer_one(street: Superpixels) -> None:
    for level in range(1, len(street.levels)):
        pairs = np.unique(np.stack([street.cells(level - 1).ravel(), street.cells(level).ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]  # no finer cell lies in two coarser ones


def test_the_cells_of_every_level_are_numbered_without_gaps_and_fall_to_what_was_asked(
    street: Superpixels,
) -> None:
    assert street.counts == (400, 180, 80, 30)
    for level, count in enumerate(street.counts):
        assert np.array_equal(np.unique(street.cells(level)), np.arange(count))
    assert np.array_equal(street.levels[0], np.arange(400))


def test_every_cell_of_every_level_hangs_together_by_edges(street: Superpixels) -> None:
    measure = pytest.importorskip("skimage.measure")
    for level, count in enumerate(street.counts):
        pieces = measure.label(street.cells(level) + 1, connectivity=1, background=0)
        assert pieces.max() == count


def test_equal_images_give_equal_cells(street: Superpixels) -> None:
    again = superpixels(STREET.image, engine=street.engine, levels=(400, 180, 80, 30))
    assert pack(again) == pack(street)


def test_boundaries_follow_what_is_drawn(street: Superpixels) -> None:
    """The best class per cell is right nearly everywhere, and far better than in squares of as many cells."""
    assert STREET.mask is not None
    h, w = STREET.mask.shape
    for level, least in ((0, 0.96), (2, 0.93)):
        side = round((h * w / street.counts[level]) ** 0.5)
        squares = np.arange(h)[:, None] // side * (w // side + 1) + np.arange(w) // side
        assert right_at_best(street.cells(level), STREET.mask) > least
        assert right_at_best(street.cells(level), STREET.mask) > right_at_best(squares, STREET.mask) + 0.02


def right_at_best(cells: np.ndarray, mask: np.ndarray) -> float:
    """The share of pixels whose class is the most frequent one of their cell."""
    counts = np.zeros((int(cells.max()) + 1, int(mask.max()) + 1), int)
    np.add.at(counts, (cells.ravel(), mask.ravel()), 1)
    return float(counts.max(1).sum() / mask.size)


def test_packed_cells_come_back_exactly(street: Superpixels) -> None:
    back = unpack(pack(street))
    assert (back.image_hw, back.box, back.engine) == ((180, 240), (0, 0, 240, 180), street.engine)
    assert np.array_equal(back.fine, street.fine) and back.fine.dtype == np.uint16
    assert all(np.array_equal(one, other) for one, other in zip(back.levels, street.levels, strict=True))


def test_the_packed_form_is_what_its_page_says() -> None:
    """Read as another program would, by the words of `pack` alone."""
    cells = Superpixels((4, 6), (0, 0, 6, 4), np.array([[0, 1, 2], [0, 1, 2]], np.uint16),
                        (np.array([0, 1, 2], np.uint16), np.array([0, 1, 1], np.uint16)), "numpy")  # fmt: skip
    data, parts = pack(cells), []
    while data:
        (length,) = struct.unpack("<I", data[:4])
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    assert json.loads(parts[0]) == {
        "format": "terrazzo superpixels", "version": 1, "width": 6, "height": 4, "box": [0, 0, 6, 4],
        "map_width": 3, "map_height": 2, "bits": 16, "counts": [3, 2], "engine": "numpy",
    }  # fmt: skip
    assert zlib.decompress(parts[1]) == bytes([0, 0, 1, 0, 2, 0] * 2)
    assert zlib.decompress(parts[2]) == bytes([0, 0, 1, 0, 2, 0, 0, 0, 1, 0, 1, 0])
    assert cells.spread(1).tolist() == [[0, 0, 1, 1, 1, 1]] * 4


@pytest.mark.parametrize("damage", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff{}", "cut", "flip", "count", "bomb"])
def test_damaged_bytes_are_refused(damage: bytes | str) -> None:
    good = pack(superpixels(STREET.image[:40, :40]))
    if damage == "cut":
        damage = good[:-1]
    elif damage == "flip":
        damage = good[:-9] + bytes([good[-9] ^ 255]) + good[-8:]
    elif damage == "count":
        damage = good.replace(b'"counts":[', b'"counts":[1,')
        damage = struct.pack("<I", struct.unpack("<I", good[:4])[0] + 2) + damage[4:]
    elif damage == "bomb":
        (length,) = struct.unpack("<I", good[:4])
        head = json.loads(good[4 : 4 + length]) | {"map_width": 1 << 20, "map_height": 1 << 20}
        told = json.dumps(head).encode()
        damage = struct.pack("<I", len(told)) + told + good[4 + length :]
    assert isinstance(damage, bytes)
    with pytest.raises(UnreadableFileError, match="Kept superpixels cannot be read"):
        unpack(damage)


@given(st.integers(1, 400), st.integers(1, 400))
def test_each_pixel_lies_where_its_middle_does(size: int, cells: int) -> None:
    places = spread_places(size, cells)
    middles = [(2 * x + 1) * cells / (2 * size) for x in range(size)]
    assert places.tolist() == [min(cells - 1, int(middle + 1e-12)) for middle in middles]
    if size >= cells:
        assert np.array_equal(np.unique(places), np.arange(cells))  # every pixel of the map is seen


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 2)))
def test_pieces_are_those_of_an_independent_flood(cells: np.ndarray) -> None:
    found = slic.connected(cells)
    truth = np.full(cells.shape, -1)
    number = 0
    for start in np.ndindex(cells.shape):
        if truth[start] < 0:
            todo = [start]
            while todo:
                y, x = todo.pop()
                if truth[y, x] < 0 and cells[y, x] == cells[start]:
                    truth[y, x] = number
                    near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                    todo += [(v, u) for v, u in near if 0 <= v < cells.shape[0] and 0 <= u < cells.shape[1]]
            number += 1
    assert np.array_equal(found, truth)


def test_neighbours_that_differ_least_are_joined_first() -> None:
    """Four squares of grey, 50 50 | 60 90: the equal ones join, then the nearest, by hand."""
    cells = np.repeat(np.arange(4, dtype=np.int32), 4)[None].repeat(4, 0)
    lab = np.zeros((4, 16, 3), np.float32)
    lab[..., 0] = np.repeat([50, 50, 60, 90], 4)
    graph = merging.graph_of(cells, lab)
    assert graph.pairs.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert (graph.length.tolist(), graph.step.tolist()) == ([4, 4, 4], [0, 40, 120])
    tables = merging.levels(graph, (4, 3, 2, 1))
    assert [table.tolist() for table in tables] == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_colours_are_the_published_ones() -> None:
    color = pytest.importorskip("skimage.color")
    rgb = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), -1).reshape(1, -1, 3).astype(np.uint8)
    assert np.abs(slic.as_lab(rgb) - color.rgb2lab(rgb)).max() < 0.8  # the worst is a nearly black blue
    assert np.abs(slic.as_lab(rgb) - color.rgb2lab(rgb)).mean() < 0.05


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (3, 2), (16, 16), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_small_images_and_other_channels_have_cells(size_hw: tuple[int, int], channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size_hw, channels), dtype=np.uint8)
    cells = superpixels(image)
    assert cells.fine.shape == size_hw and list(cells.counts) == sorted(set(cells.counts), reverse=True)
    assert np.array_equal(unpack(pack(cells)).spread(0), cells.fine)


def test_a_large_image_is_made_smaller_and_a_part_of_it_is_not() -> None:
    image = np.kron(
        np.random.default_rng(1).integers(0, 255, (20, 30, 1), dtype=np.uint8),
        np.ones((100, 100, 1), np.uint8),
    )
    whole = superpixels(image)
    assert whole.fine.size <= 1_500_000 < 1.01 * whole.fine.size
    assert whole.spread(0).shape == (2000, 3000)
    part = superpixels(image, box=(150, 250, 650, 750))
    assert part.fine.shape == (500, 500) and part.box == (150, 250, 650, 750)
    truth = np.arange(250, 750)[:, None] // 100 * 30 + np.arange(150, 650) // 100
    assert right_at_best(part.cells(0), truth) > 0.99


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 241, 5), (5, 0, 4, 9), (0, 9, 5, 181)])
def test_a_box_outside_the_image_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="does not lie in the image"):
        superpixels(STREET.image, box=box)


def test_a_box_of_more_than_a_million_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too large.*\n.*1001 x 1000"):
        superpixels(np.zeros((1000, 1001, 3), np.uint8), box=(0, 0, 1001, 1000))


def test_a_report_that_raises_ends_the_work() -> None:
    class Enough(Exception):
        pass

    def stop(share: float, says: str) -> None:
        raise Enough(says)

    with pytest.raises(Enough, match="cutting into cells"):
        superpixels(STREET.image, report=stop)


def test_the_key_tells_images_and_boxes_apart() -> None:
    keys = {key_of("a"), key_of("b"), key_of("a", (0, 0, 9, 9)), key_of("a", (0, 0, 9, 8))}
    assert len(keys) == 4 and key_of("a") == key_of("a")
