"""Masks and edges without weights, on pictures whose truth is known; and every input that a page may get wrong."""

import base64
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from terrazzo.errors import UsageError
from terrazzo.labelling.grabcut import grabcut
from terrazzo.labelling.prompts import Box, Prompt, Proposal, as_point, as_prompt
from terrazzo.labelling.scissors import Scissors

pytest.importorskip("cv2", reason="OpenCV, of the extra label, is not installed")


def disc(size_hw: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Pixels whose middle lies in a circle."""
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


def noisy(
    mask: np.ndarray, inside: tuple[int, int, int], outside: tuple[int, int, int], seed: int = 0
) -> np.ndarray:
    """A picture of two colours, with a camera's noise and a soft light."""
    light = np.linspace(-15, 15, mask.shape[1])[None, :, None]
    picture = np.where(mask[..., None], inside, outside) + light
    noise = np.random.default_rng(seed).normal(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def whole(proposal: Proposal, size_hw: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    h, w = proposal.mask.shape
    mask[proposal.y : proposal.y + h, proposal.x : proposal.x + w] = proposal.mask
    return mask


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(("size_hw", "radius", "least"), [((120, 160), 30, 0.97), ((1500, 2000), 500, 0.99)])
def test_a_box_around_a_thing_gives_the_thing(size_hw: tuple[int, int], radius: float, least: float) -> None:
    x, y = size_hw[1] * 0.55, size_hw[0] * 0.5
    truth = disc(size_hw, x, y, radius)
    image = noisy(truth, (170, 60, 50), (90, 110, 100))
    box = (int(x - radius - 4), int(y - radius - 4), int(x + radius + 4), int(y + radius + 4))
    found = grabcut(image, Prompt(box, (), ()))
    assert found.engine == "GrabCut"
    assert iou(whole(found, size_hw), truth) > least


def test_the_edge_of_a_large_thing_is_that_of_the_full_image() -> None:
    """GrabCut sees one pixel of five a side; the edge it answers is better than the truth of such pixels, stretched."""
    truth = disc((1500, 1500), 750, 750, 500) & ~disc((1500, 1500), 750, 250, 80)
    image = noisy(truth, (170, 60, 50), (90, 110, 100))
    found = whole(grabcut(image, Prompt((245, 245, 1255, 1255), (), ())), truth.shape)
    wrong = np.count_nonzero(found != truth) / np.count_nonzero(truth[1:] != truth[:-1])
    assert wrong < 1.0  # pixels off, on average, at either end of a column

    stretched = np.kron(truth[2::5, 2::5], np.ones((5, 5), bool))
    assert np.count_nonzero(found != truth) < np.count_nonzero(stretched != truth)


def test_points_say_what_a_box_does_not() -> None:
    """Two discs of one colour in one box, nothing in its middle: both without what is between, or the first alone."""
    one, other = disc((160, 240), 70, 80, 35), disc((160, 240), 170, 80, 35)
    image = noisy(one | other, (170, 60, 50), (90, 110, 100))
    box = (25, 35, 215, 125)
    between = Prompt(box, ((70, 80), (170, 80)), ((120, 80), (120, 50), (120, 110)))
    assert iou(whole(grabcut(image, between), one.shape), one | other) > 0.93
    first = grabcut(image, Prompt(box, ((70, 80),), ((170, 80), (150, 70), (190, 90), (170, 105), (170, 55))))
    assert not whole(first, one.shape)[80, 170] and whole(first, one.shape)[80, 70]


def test_a_dark_thing_before_a_dark_wall_does_not_vanish() -> None:
    """What GrabCut alone loses: the thing has the wall's colours, but for a rim of light and two bright panes."""
    truth = np.zeros((120, 160), bool)
    truth[40:100, 40:130] = True
    image = noisy(truth, (44, 46, 50), (38, 40, 42), seed=3)
    image[38:40, 40:130] = 90
    image[46:60, 60:80] = image[46:60, 90:110] = 150
    found = whole(grabcut(image, Prompt((38, 36, 132, 102), (), ())), truth.shape)
    assert iou(found, truth) > 0.4  # 0.1 without the middle held


def test_equal_questions_have_equal_answers() -> None:
    truth = disc((200, 200), 100, 100, 50)
    image = noisy(truth, (140, 90, 90), (90, 110, 100))
    one, other = (grabcut(image, Prompt((40, 40, 160, 160), (), ())) for _ in range(2))
    assert np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize("box", [(0, 0, 60, 50), (0, 0, 4, 4), (20, 0, 60, 50)])
def test_boxes_at_the_rim_and_flat_images_are_answered(box: Box) -> None:
    flat = np.full((50, 60, 3), 127, np.uint8)
    for prompt in (Prompt(box, (), ()), Prompt(box, ((2, 2),), ()), Prompt(box, (), ((2, 2),))):
        found = grabcut(flat, prompt)
        assert found.x + found.mask.shape[1] <= 60 and found.y + found.mask.shape[0] <= 50


def test_a_box_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too small.*\n.*3 x 40 pixels"):
        grabcut(np.zeros((50, 60, 3), np.uint8), Prompt((5, 5, 8, 45), (), ()))


# what a page may send ---------------------------------------------------------------------------------------------


def test_a_prompt_is_read_as_it_was_sent() -> None:
    told = {"box": [1.2, 2, 30.1, 40], "positive": [[3, 4.5]], "negative": []}
    assert as_prompt(told, (50, 60)) == Prompt((1, 2, 31, 40), ((3.0, 4.5),), ())


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([], "This is no prompt"),
        ({"box": [0, 0, 9, 9], "extra": 1}, "This is no prompt"),
        ({}, "needs a box"),
        ({"negative": [[1, 1]]}, "needs a box"),
        ({"box": [0, 0, 61, 9]}, "box does not lie in the image"),
        ({"box": [-0.5, 0, 9, 9]}, "box does not lie in the image"),
        ({"box": [9, 0, 9, 9]}, "box does not lie in the image"),
        ({"box": [0, 0, float("nan"), 9]}, "box is four numbers"),
        ({"box": [0, 0, float("inf"), 9]}, "box is four numbers"),
        ({"box": "0099"}, "box is four numbers"),
        ({"box": [0, 0, True, 9]}, "box is four numbers"),
        ({"box": [0, 0, 9]}, "box is four numbers"),
        ({"box": [0, 0, 9, 9], "positive": [[60, 1]]}, "point does not lie in the image"),
        ({"box": [0, 0, 9, 9], "negative": [[1, -1]]}, "point does not lie in the image"),
        ({"box": [0, 0, 9, 9], "positive": [[1]]}, "point is two numbers"),
        ({"box": [0, 0, 9, 9], "positive": "[]"}, "Points are a list"),
        ({"box": [0, 0, 9, 9], "positive": [[1, 1]] * 65}, "Too many points"),
    ],
)
def test_prompts_that_cannot_be_are_refused(told: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        as_prompt(told, (50, 60))


def test_grabcut_needs_a_box() -> None:
    with pytest.raises(UsageError, match=r"needs a box\."):
        as_prompt({"positive": [[1, 1]]}, (50, 60), needs_box=True)


@given(
    arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(0, 50), st.integers(0, 50)
)
def test_a_proposal_keeps_every_pixel_on_its_way(mask: np.ndarray, x: int, y: int) -> None:
    told = Proposal.of(mask, "by hand", x=x, y=y).to_json()
    data = np.frombuffer(zlib.decompress(base64.b64decode(told["data"])), np.uint8)
    back = np.zeros((70, 70), np.uint8)
    back[told["y"] : told["y"] + told["height"], told["x"] : told["x"] + told["width"]] = data.reshape(
        told["height"], told["width"]
    )
    truth = np.zeros((70, 70), np.uint8)
    truth[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    assert np.array_equal(back, truth)
    assert data.size == 0 or data.reshape(told["height"], told["width"]).any(1)[[0, -1]].all()  # cut tightly


# scissors ---------------------------------------------------------------------------------------------------------


class Picture:
    """An image that counts how often it is read."""

    def __init__(self, image: np.ndarray) -> None:
        self.image, self.reads = image, 0

    def __call__(self, box: Box) -> np.ndarray:
        self.reads += 1
        return self.image[box[1] : box[3], box[0] : box[2]]


ROUND = disc((300, 400), 200, 150, 100)
CIRCLE = noisy(ROUND, (170, 60, 50), (90, 110, 100))


@pytest.mark.parametrize("view", [(0, 0, 400, 300), (60, 20, 340, 280)])
def test_scissors_follow_a_known_edge_within_two_pixels(view: Box) -> None:
    """A quarter of a circle, from its left to its top."""
    path = Scissors().path("circle", Picture(CIRCLE), view, (100, 150), (200, 50))
    away = [abs(np.hypot(x - 200, y - 150) - 100) for x, y in path]
    assert max(away) <= 2.0
    assert len(path) > 100 and np.hypot(path[0][0] - 100, path[0][1] - 150) < 1.5
    assert np.hypot(path[-1][0] - 200, path[-1][1] - 50) < 1.5
    steps = np.abs(np.diff(np.array(path), axis=0)).max(1)
    assert steps.max() <= 1.01  # without gaps


def test_a_large_view_is_searched_smaller_and_answered_in_the_images_pixels() -> None:
    large = np.kron(ROUND, np.ones((6, 6), bool))
    image = noisy(large, (170, 60, 50), (90, 110, 100))
    path = Scissors().path("large", Picture(image), (0, 0, 2400, 1800), (600, 900), (1200, 300))
    away = [abs(np.hypot(x - 1200, y - 900) - 600) for x, y in path]
    assert max(away) <= 2 * 2.4  # two of the pixels that were searched: 2400 x 1800 in 0.75 million


def test_a_view_is_read_once_and_only_the_last_few_are_kept() -> None:
    scissors, picture = Scissors(), Picture(CIRCLE)
    for target in ((200, 50), (190, 55), (180, 55)):
        scissors.path("a", picture, (0, 0, 400, 300), (100, 150), target)
    assert picture.reads == 1
    for number in range(4):
        scissors.path(f"other {number}", picture, (0, 0, 400, 300), (100, 150), (200, 50))
    scissors.path("a", picture, (0, 0, 400, 300), (100, 150), (200, 50))
    assert picture.reads == 6


def test_anchors_of_two_threads_do_not_mix() -> None:
    scissors, picture, wrong = Scissors(), Picture(CIRCLE), []

    def ask(anchor: tuple[int, int]) -> None:
        for _ in range(5):
            path = scissors.path("a", picture, (0, 0, 400, 300), anchor, (200, 50))
            if np.hypot(path[0][0] - anchor[0], path[0][1] - anchor[1]) > 1.5:
                wrong.append((anchor, path[0]))

    threads = [threading.Thread(target=ask, args=(anchor,)) for anchor in ((100, 150), (300, 150))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_points_outside_the_view_are_refused() -> None:
    for anchor, target, name in (((5, 5), (99, 99), "target"), ((60, 5), (20, 20), "anchor")):
        with pytest.raises(UsageError, match=f"The {name} does not lie in the view"):
            Scissors().path("a", Picture(CIRCLE), (0, 0, 50, 50), anchor, target)
    with pytest.raises(UsageError, match="does not lie in the image"):
        as_point([400, 0], (300, 400))
