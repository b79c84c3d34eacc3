"""In which order one labels: every score against one worked by hand."""

import math

import numpy as np
import pytest

from terrazzo.project import orders
from terrazzo.project.measures import Area, Measure, disagreements, measure


def test_uncertainty_is_the_mean_doubt_of_the_least_certain_tenth() -> None:
    confidence = np.full((4, 5), 255, np.uint8)
    confidence[1, 2], confidence[3, 4] = 0, 51  # a tenth of 20 pixels is these two: doubts 1 and 0.8
    assert orders.uncertainty(confidence) == pytest.approx((1 + 0.8) / 2)
    confidence[0, 0] = 102  # a third doubtful pixel changes nothing
    assert orders.uncertainty(confidence) == pytest.approx(0.9)


def test_a_tenth_is_rounded_up_and_levels_that_many_pixels_share_are_taken_in_part() -> None:
    assert orders.uncertainty(np.array([[0, 255, 255]], np.uint8)) == 1.0  # one of three
    confidence = np.full(21, 204, np.uint8).reshape(3, 7)  # three of 21, all at 0.2
    assert orders.uncertainty(confidence) == pytest.approx(0.2)
    slow = np.random.default_rng(0).integers(0, 256, (37, 41), dtype=np.uint8)
    least = np.sort(slow.ravel())[: math.ceil(slow.size / 10)]
    assert orders.uncertainty(slow) == pytest.approx(float((1 - least / 255).mean()))


def test_rare_gain_is_the_share_that_an_image_would_bring_of_each_category() -> None:
    # 100 pixels, so 1 counts as labelled of each: road 60 / (539 + 60 + 1), rider 3 / (0 + 3 + 1), sky nothing
    score, most = orders.rare_gain({1: 60, 2: 3}, {1: 539, 2: 0, 3: 7}, size=100)
    assert (score, most) == (pytest.approx((0.1 + 0.75 + 0) / 3), 2)


def test_a_stray_pixel_of_what_nobody_labelled_is_no_find() -> None:
    stray, _ = orders.rare_gain({2: 1}, {2: 0}, size=100_000)
    found, _ = orders.rare_gain({2: 1000}, {2: 0}, size=100_000)
    assert stray < 0.001 and found == pytest.approx(0.5)
    assert orders.rare_gain({}, {2: 5}, size=10) == (0.0, None) and orders.rare_gain({}, {}, size=10) == (
        0.0,
        None,
    )


def test_disagreement_is_the_share_of_pixels_said_differently() -> None:
    pairs = {(1, 1): 70, (1, 2): 6, (2, 1): 4, (2, 2): 20}
    assert orders.disagreement(pairs) == (0.1, (1, 2))
    assert orders.disagreement({(1, 1): 5}) == (0.0, None)
    assert orders.disagreement({}) == (None, None)


def test_k_center_goes_where_nothing_is_covered() -> None:
    # directions on a circle, in degrees: 0 is labelled; 90 is farthest, then 45 and 10 by what is left
    angles = np.radians([0.0, 10.0, 45.0, 90.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[5.0], [1.0], [2.0], [0.1]]
    order = orders.k_center(features, np.array([True, False, False, False]))
    assert [(row, nearest) for row, _, nearest in order] == [(3, 0), (2, 0), (1, 0)]
    assert [round(distance, 4) for _, distance, _ in order] == [
        1.0, round(1 - math.cos(math.radians(45)), 4), round(1 - math.cos(math.radians(10)), 4)
    ]  # fmt: skip


def test_k_center_without_labels_begins_far_from_the_mean_and_covers() -> None:
    angles = np.radians([0.0, 2.0, 4.0, 80.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    order = orders.k_center(features, np.zeros(4, bool))
    assert [row for row, _, _ in order] == [3, 0, 2, 1] and order[0][2] == -1 and order[1][2] == 3


def test_k_center_after_the_most_that_are_put_in_order_goes_on_by_distance() -> None:
    features = np.random.default_rng(1).normal(size=(40, 8))
    covered = np.arange(40) < 5
    full, short = orders.k_center(features, covered), orders.k_center(features, covered, most=7)
    assert short[:7] == full[:7] and sorted(row for row, _, _ in short) == list(range(5, 40))
    distances = [distance for _, distance, _ in short[7:]]
    assert distances == sorted(distances, reverse=True)


def test_every_tenth_place_is_drawn_at_random_whatever_the_scores() -> None:
    names = [f"{number:04d}.jpg" for number in range(400)]
    scores = [float(number) for number in range(400)]
    queue = orders.placed(scores, names)
    assert sorted(index for index, _ in queue) == list(range(400))
    lucky = [index for index, is_random in queue if is_random]
    assert lucky == sorted(
        (i for i in range(400) if orders.drawn(names[i], 0) < 0.1), key=lambda i: orders.drawn(names[i], 0)
    )
    assert [place % 10 for place, (_, is_random) in enumerate(queue[:300]) if is_random] == [9] * 30
    by_score = [index for index, is_random in queue if not is_random]
    assert by_score == sorted(by_score, reverse=True)
    other = orders.placed([-one for one in scores], names)
    assert [index for index, is_random in other if is_random] == lucky, "who is drawn depends on no score"
    assert [index for index, is_random in orders.placed(scores, names, seed=1) if is_random] != lucky


def test_samples_without_a_score_are_in_no_queue() -> None:
    assert {index for index, _ in orders.placed([0.5, None, 0.7], ["a", "b", "c"])} == {0, 2}


def test_a_measure_counts_what_is_seen_doubted_and_contradicted() -> None:
    mask = np.array([[1, 1, 2], [2, 0, 3]], np.uint16)
    confidence = np.array([[255, 0, 255], [51, 9, 255]], np.uint8)
    label = np.array([[1, 2, 2], [0, 1, 3]], np.uint16)
    one = measure(mask, confidence, label, ignored={3})
    assert one.seen == {1: (2, pytest.approx(1.0)), 2: (2, pytest.approx(0.8)), 3: (1, pytest.approx(0.0))}
    assert one.pairs == {
        (1, 1): 1,
        (2, 1): 1,
        (2, 2): 1,
    }  # 0 on either side, and what is ignored, is not compared
    assert one.uncertainty == 1.0 and one.size == 6
    assert Measure.from_json(one.to_json()) == Measure(6, 1.0, one.seen, one.pairs)


def test_confident_disagreements_are_areas_by_weight() -> None:
    label = np.ones((20, 30), np.uint16)
    mask = label.copy()
    confidence = np.full((20, 30), 230, np.uint8)
    mask[2:6, 3:8] = 2  # 20 pixels of one area
    mask[10:20, 20:30] = 3  # 100 of another, but for the corner of which the model is not sure
    confidence[10:12, 20:22] = 100
    mask[0, 29] = 2  # a speck
    found = disagreements(mask, confidence, label)
    assert found == (
        Area(22, 10, 20, 10, 10, 96, 1, 3, pytest.approx(230 / 255)),
        Area(3, 2, 3, 5, 4, 20, 1, 2, pytest.approx(230 / 255)),
    )
    assert all(mask[one.y, one.x] == one.predicted for one in found), "the place is in the area"
    assert disagreements(mask, confidence, np.zeros_like(label)) == (), (
        "where nobody drew nothing is contradicted"
    )


def test_pairs_are_counted_as_by_sorting() -> None:
    rng = np.random.default_rng(3)
    mask, label = (rng.choice([0, 1, 7, 300, 65535], (40, 50)).astype(np.uint16) for _ in range(2))
    found = measure(mask, np.full(mask.shape, 9, np.uint8), label).pairs
    slow: dict[tuple[int, int], int] = {}
    for pair in zip(label.ravel().tolist(), mask.ravel().tolist(), strict=True):
        if all(pair):
            slow[pair] = slow.get(pair, 0) + 1
    assert found == slow


def test_large_images_are_looked_at_every_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "terrazzo.project.measures.FINE", 300
    )  # 40 x 60 is eight times that: every third pixel
    label = np.ones((40, 60), np.uint16)
    mask = label.copy()
    mask[12:33, 21:45] = 2
    (found,) = disagreements(mask, np.full(mask.shape, 255, np.uint8), label)
    assert found == Area(21, 12, 21, 24, 21, 24 * 21, 1, 2, 1.0)
