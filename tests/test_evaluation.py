"""Scores of a split: counted by hand, the same however the images are cut, stacked or shared out, and told in words."""

import json
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.data import Dataset, open_dataset
from terrazzo.data.dataset import Split
from terrazzo.data.transforms import DataConfig
from terrazzo.errors import (
    DatasetFormatError,
    ExistingOutputError,
    UnknownNameError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.evaluation import evaluate, measure
from terrazzo.images import write_image, write_mask
from terrazzo.inference import Predictor
from terrazzo.nn.losses import LossConfig, SegmentationLoss
from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.weights import save_model
from terrazzo.recipe import EvalConfig, Recipe
from terrazzo.report import Report
from terrazzo.run import Run
from terrazzo.sample import Sample

THREE = Classes(("low", "middle", "high"))
WINDOWS = EvalConfig(inference="windows", window_hw=(8, 8), stride_hw=(5, 6))


class Thresholds(nn.Module):
    """Class 0, 1 or 2 by which of 0, 0.5 and 1 the first channel is nearest to."""

    channels = 3

    def forward(self, image_BCHW: Tensor) -> Output:
        return Output(
            torch.cat([-(((image_BCHW[:, :1] - level) * 8) ** 2) for level in (0.0, 0.5, 1.0)], dim=1)
        )


def predictor(classes: Classes = THREE, **how: Any) -> Predictor:
    return Predictor(Thresholds(), classes, device="cpu", name="thresholds", **how)


def make_folder(
    root: Path, samples: dict[str, tuple[Any, Any]], names: Sequence[str] = THREE.names, split: str = "val"
) -> Path:
    """Write a data set in our folder form; samples: name -> (grey levels (H, W), ids (H, W) or None)."""
    for name, (grey, ids) in samples.items():
        for kind, array in (("images", grey), ("masks", ids)):
            if array is not None:
                path = root / split / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                array = np.asarray(array, np.uint8)
                write_mask(path, array) if kind == "masks" else write_image(
                    path, array[:, :, None].repeat(3, axis=2)
                )
    about = {"format_version": 1, "name": "levels", "classes": [{"name": name} for name in names]}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def random_samples(
    count: int, size_hw: tuple[int, int] = (12, 17), ignore: int = 255
) -> dict[str, tuple[Any, Any]]:
    rng = np.random.default_rng(3)
    return {
        f"sample{i}": (
            rng.integers(0, 256, size_hw),
            rng.choice([0, 1, 2, ignore], size_hw, p=[0.5, 0.2, 0.2, 0.1]),
        )
        for i in range(count)
    }


def counted_plainly(samples: dict[str, tuple[Any, Any]]) -> np.ndarray:
    """Rows truth, columns prediction, of Thresholds; one pixel after the other."""
    counts = np.zeros((3, 3), int)
    for grey, ids in samples.values():
        for level, truth in zip(np.ravel(grey), np.ravel(ids), strict=True):
            if truth != 255:
                counts[truth, 0 if level < 64 else 1 if level < 192 else 2] += 1
    return counts


@pytest.fixture
def levels(tmp_path: Path) -> Dataset:
    """Two images counted by hand: six pixels each, one ignored."""
    first = ([[0, 0, 128], [255, 255, 0]], [[0, 1, 1], [2, 2, 255]])
    second = ([[128, 128, 0], [0, 0, 0]], [[1, 2, 0], [0, 0, 1]])
    return open_dataset(make_folder(tmp_path / "levels", {"first": first, "sub/second": second}))


# scores -----------------------------------------------------------------------------------------------------


def test_every_pixel_is_counted_once_and_ignored_pixels_never(levels: Dataset) -> None:
    report = evaluate(predictor(), data=levels, quiet=True)
    assert report.counts.tolist() == [[4, 0, 0], [2, 2, 0], [0, 1, 2]]
    assert report.num_images == 2
    low, middle, high = report.per_class.values()
    assert (low.iou, low.accuracy, low.dice, low.pixels) == (4 / 6, 1.0, 8 / 10, 4)
    assert (middle.iou, middle.accuracy, middle.dice, middle.pixels) == (2 / 5, 2 / 4, 4 / 7, 4)
    assert (high.iou, high.accuracy, high.dice, high.pixels) == (2 / 3, 2 / 3, 4 / 5, 3)
    assert report.miou == pytest.approx((4 / 6 + 2 / 5 + 2 / 3) / 3)
    assert report.mean_accuracy == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert report.pixel_accuracy == pytest.approx(8 / 11)
    assert report.frequency_weighted_iou == pytest.approx((4 * 4 / 6 + 4 * 2 / 5 + 3 * 2 / 3) / 11)


@pytest.mark.parametrize(
    "eval", [EvalConfig(), EvalConfig(batch_size=3), WINDOWS], ids=["whole", "batches", "windows"]
)
def test_counts_are_those_of_a_plain_walk_over_the_pixels(eval: EvalConfig, tmp_path: Path) -> None:
    samples = random_samples(4) | {"small": random_samples(1, (5, 3))["sample0"]}
    report = evaluate(predictor(eval=eval), data=make_folder(tmp_path, samples), quiet=True)
    assert (report.counts == counted_plainly(samples)).all()


def test_scores_are_taken_at_the_masks_own_size_whatever_the_network_sees(tmp_path: Path) -> None:
    samples = random_samples(2, (30, 20))
    whole = predictor(data=DataConfig(resize="exact", resize_hw=(40, 40)))
    report = evaluate(whole, data=make_folder(tmp_path, samples), quiet=True)
    expected = np.zeros((3, 3), int)
    for grey, ids in samples.values():
        pred = whole(np.asarray(grey, np.uint8)[:, :, None].repeat(3, axis=2)).mask
        np.add.at(expected, (ids[ids != 255], pred[ids != 255]), 1)
    assert (report.counts == expected).all()
    assert report.counts.sum() == sum((ids != 255).sum() for _, ids in samples.values())


def test_a_class_that_does_not_occur_has_no_score_and_is_in_no_mean(tmp_path: Path) -> None:
    data = make_folder(tmp_path, {"one": ([[0, 128, 255]], [[0, 1, 1]])})
    report = evaluate(predictor(), data=data, quiet=True)
    assert np.isnan(report.per_class["high"].iou)
    assert report.miou == pytest.approx((1 + 1 / 2) / 2)
    assert report.to_json()["per_class"]["high"] == {"iou": None, "accuracy": None, "dice": None, "pixels": 0}
    assert "iou/high" not in report.scalars()


def test_processes_that_share_the_images_get_the_report_of_all(tmp_path: Path) -> None:
    data = open_dataset(make_folder(tmp_path, random_samples(5)))
    loss, own = (
        SegmentationLoss(LossConfig(), None, 255),
        {"share": lambda pred, mask: float((pred == mask).mean())},
    )
    alone = measure(predictor(), data["val"], loss=loss, metrics=own)
    sent: list[list[Tensor]] = [[], []]
    for rank in (0, 1):  # what each process would send

        def note(tensor: Tensor, rank: int = rank) -> Tensor:
            sent[rank].append(tensor)
            return tensor

        measure(predictor(), data["val"], loss=loss, metrics=own, rank=rank, world=2, reduce=note)
    replies = [first + second for first, second in zip(*sent, strict=True)]
    shared = measure(
        predictor(), data["val"], loss=loss, metrics=own, rank=1, world=2, reduce=lambda _: replies.pop(0)
    )
    assert (shared.counts == alone.counts).all()
    assert shared.num_images == 5
    assert shared.loss == pytest.approx(alone.loss)
    assert shared.metrics == pytest.approx(alone.metrics)


@pytest.mark.parametrize("eval", [EvalConfig(), WINDOWS], ids=["whole", "windows"])
def test_the_loss_is_the_mean_over_the_labelled_pixels_of_the_split(eval: EvalConfig, tmp_path: Path) -> None:
    samples = random_samples(3) | {"unlabelled": ([[0, 0]], [[255, 255]])}
    data = open_dataset(make_folder(tmp_path, samples))
    weights = torch.tensor([1.0, 2.0, 0.5])
    report = measure(predictor(eval=eval), data["val"], loss=SegmentationLoss(LossConfig(), weights, 255))
    total, weight = 0.0, 0.0
    for grey, ids in samples.values():
        image = torch.from_numpy(np.asarray(grey, np.float32) / 255)[None, None].repeat(1, 3, 1, 1)
        target = torch.from_numpy(np.asarray(ids, np.int64))[None]
        logits = Thresholds()(image).logits
        total += nn.functional.cross_entropy(
            logits, target, weights, ignore_index=255, reduction="sum"
        ).item()
        weight += weights[target[target != 255]].sum().item()
    assert report.loss == pytest.approx(total / weight, rel=1e-4)
    assert measure(predictor(), data["val"]).loss is None


def test_ones_own_metrics_are_averaged_over_the_images_where_they_are_a_number(tmp_path: Path) -> None:
    samples = {"a": ([[0, 0]], [[0, 0]]), "b": ([[255, 0]], [[2, 2]]), "c": ([[0]], [[255]])}

    def right(pred: np.ndarray, mask: np.ndarray) -> float:
        return float((pred == mask)[mask != 255].mean()) if (mask != 255).any() else float("nan")

    report = evaluate(predictor(), data=make_folder(tmp_path, samples), metrics={"right": right}, quiet=True)
    assert report.metrics == {"right": (1 + 0.5) / 2}
    assert report.scalars()["right"] == 0.75


def test_a_metric_that_returns_no_number_is_named(levels: Dataset) -> None:
    with pytest.raises(UsageError, match="The metric 'mine' did not return a number.\n  found: NoneType"):
        evaluate(predictor(), data=levels, metrics={"mine": lambda pred, mask: None}, quiet=True)  # type: ignore[dict-item]


def test_the_worst_images_are_named_lowest_first(levels: Dataset) -> None:
    report = evaluate(predictor(), data=levels, quiet=True)
    (worst, low), (best, high) = report.worst
    assert (worst, best) == ("sub/second", "first")
    assert low == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)  # one 1 seen as 0, one 2 as 1
    assert high == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_a_bent_ruler_is_noticed_before_anything_is_scored(
    levels: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrazzo.metrics.confusion", lambda pred, mask, k, ignore: np.eye(k, dtype=np.int64))
    with pytest.raises(AssertionError, match="Scores cannot be trusted"):
        evaluate(predictor(), data=levels, quiet=True)


# how the split is walked ------------------------------------------------------------------------------------


def test_no_image_outlives_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(make_folder(tmp_path, random_samples(30, (4, 4))))
    living: weakref.WeakSet[Sample] = weakref.WeakSet()
    most = 0

    def watched(self: Sample) -> None:
        nonlocal most
        living.add(self)
        most = max(most, len(living))

    monkeypatch.setattr(Sample, "__post_init__", watched)
    assert measure(predictor(eval=EvalConfig(batch_size=2)), data["val"]).num_images == 30
    assert 4 <= most <= 10  # read ahead and in work: by the batch, not by the split


def test_a_limit_spreads_evenly_over_the_split(tmp_path: Path) -> None:
    data = open_dataset(make_folder(tmp_path, random_samples(9)))
    shown: list[str] = []
    report = measure(predictor(), data["val"], limit=3, show=lambda name, picture: shown.append(name))
    assert shown == ["sample0", "sample4", "sample8"]
    assert (report.num_images, report.settings["limit"]) == (3, 3)


def test_the_model_itself_may_be_asked_for_other_windows(levels: Dataset) -> None:
    report = evaluate(
        predictor(),
        data=levels,
        inference="windows",
        window_hw=(2, 2),
        stride_hw=(1, 1),
        flip=True,
        quiet=True,
    )
    assert report.counts.tolist() == [[4, 0, 0], [2, 2, 0], [0, 1, 2]]
    how = {
        "inference": "windows",
        "flip": True,
        "resize": "original",
        "window_hw": [2, 2],
        "stride_hw": [1, 1],
        "blend": "uniform",
    }
    assert report.settings == how


def test_a_report_says_how_images_were_resized_where_it_is_not_the_default(
    levels: Dataset,
) -> None:
    sized = {"inference": "whole", "flip": False, "resize": "exact", "resize_hw": [40, 40]}
    data = DataConfig(resize="exact", resize_hw=(40, 40))
    assert evaluate(predictor(data=data), data=levels, quiet=True).settings == sized
    other = replace(data, interpolation="bicubic", rounding="torchvision")
    said = {"interpolation": "bicubic", "rounding": "torchvision"}
    assert evaluate(predictor(data=other), data=levels, quiet=True).settings == sized | said


# what does not fit ------------------------------------------------------------------------------------------


def test_classes_in_another_order_are_matched_by_name_and_it_is_said(levels: Dataset, tmp_path: Path) -> None:
    names = ("high", "low", "middle")
    swap = np.array([1, 2, 0, *range(3, 255), 255], np.uint8)  # old id -> new id
    samples = {s.name: (s.image[:, :, 0], swap[s.mask]) for s in levels["val"] if s.mask is not None}
    other = open_dataset(make_folder(tmp_path / "other", samples, names))
    loss = SegmentationLoss(LossConfig(), None, 255)
    straight, matched = (
        measure(predictor(), levels["val"], loss=loss),
        measure(predictor(), other["val"], loss=loss),
    )
    assert matched.names == names
    assert {n: matched.per_class[n] for n in names} == {n: straight.per_class[n] for n in names}
    assert matched.loss == pytest.approx(straight.loss)
    assert matched.notes == (
        "3 classes have other ids in the model than in the data set; they were matched by name.",
    )
    assert matched.notes[0] in matched.table()


def test_other_classes_are_refused_with_the_differences_listed(levels: Dataset) -> None:
    class Two(nn.Module):
        def forward(self, image_BCHW: Tensor) -> Tensor:
            return image_BCHW[:, :2]

    model = Predictor(Two(), Classes(("low", "tall")), device="cpu")
    with pytest.raises(UsageError) as caught:
        evaluate(model, data=levels, quiet=True)
    assert str(caught.value).startswith(
        "The model and the data set do not have the same classes.\n"
        "  found: model: 2 classes, of which the data set lacks tall\n"
        "  expected: 3 classes, of which the model lacks middle, high\n"
    )


def test_a_model_of_void_classes_is_told_how_to_open_the_data(levels: Dataset) -> None:
    model = Predictor(nn.Conv2d(3, 4, 1), Classes((*THREE.names, "void-static")), device="cpu")
    with pytest.raises(
        UsageError, match="lacks void-static\n(.*\n)*.*open_dataset\\(DATA, keep_void=True\\)"
    ):
        evaluate(model, data=levels, quiet=True)


def test_what_a_user_should_hear_about_a_model_stands_in_its_report(levels: Dataset) -> None:
    report = evaluate(predictor(notes=("It has no processor.",)), data=levels, quiet=True)
    assert report.notes == ("It has no processor.",)
    assert report.table().endswith("It has no processor.")


def test_other_channels_are_refused(levels: Dataset) -> None:
    model = Predictor(nn.Conv2d(5, 3, 1), THREE, channels=5, device="cpu")
    with pytest.raises(
        UsageError, match="found: images of 3 channels\n  expected: 5, as the network was built for"
    ):
        evaluate(model, data=levels, quiet=True)


def test_an_unknown_split_gets_its_nearest(levels: Dataset) -> None:
    with pytest.raises(
        UnknownNameError, match="There is no split in 'levels' called 'vall'.\n.*\n  Did you mean 'val'"
    ):
        evaluate(predictor(), data=levels, split="vall", quiet=True)


def test_a_split_without_masks_is_told_to_predict(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": ([[0, 1]], [[0, 1]])})
    make_folder(tmp_path, {"b": ([[0, 1]], None)}, split="test")
    with pytest.raises(DatasetFormatError, match="The split 'test' has no masks to compare with.") as caught:
        evaluate(predictor(), data=tmp_path, split="test", quiet=True)
    assert "terrazzo predict MODEL SOURCE --out DIR" in str(caught.value)


# pictures ---------------------------------------------------------------------------------------------------


def test_pictures_and_report_stand_in_the_show_dir(levels: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    report = evaluate(predictor(), data=levels, show_dir=folder, quiet=True)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png")) == [
        "first.png",
        "sub/second.png",
    ]
    assert (Report.open(folder / "report.json").counts == report.counts).all()
    with Image.open(folder / "first.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}  # type: ignore[union-attr]
    assert set(THREE.colors) <= colors
    evaluate(predictor(), data=levels, show_dir=folder, quiet=True)  # its own folder may be written again


def test_pictures_are_never_written_into_anybody_elses_folder(levels: Dataset, tmp_path: Path) -> None:
    images = tmp_path / "levels" / "val" / "images"
    before = (images / "first.png").read_bytes()
    with pytest.raises(ExistingOutputError, match="is not empty, and no evaluation wrote it"):
        evaluate(predictor(), data=levels, show_dir=images, quiet=True)
    assert (images / "first.png").read_bytes() == before


# a run, from its folder -------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run whose data had no val split, so that one was made and stored: not the one that would be made today."""
    make_folder(tmp_path / "data", random_samples(6, (16, 16)), split="train")
    stored = {"splits": {"train": [f"sample{i}" for i in (0, 1, 2, 3)], "val": ["sample4", "sample5"]},
              "of": "train", "fraction": 0.3, "seed": 9, "groups": None, "format_version": 1}  # fmt: skip
    data = {"split_manifest": stored, "splits": stored["splits"], "source": "data", "fingerprint": ""}
    recipe = Recipe(name="tiny", summary="For tests.")
    run = Run.create(tmp_path / "run", recipe, data=data, env={})
    torch.manual_seed(0)
    size = Size((1, 1, 1, 1), (8, 8, 8, 8), 8, num_heads=(1, 1, 2, 2))
    network = SegFormer(size, 3, mean=(0.5,) * 3, std=(0.25,) * 3)

    def write(folder: Path) -> None:
        save_model(folder, network, classes=THREE, preprocessing={}, terrazzo={"recipe": recipe.to_json()})

    run.save(7, write, state={})
    return run.path


@pytest.mark.parametrize("part", ["", "checkpoints/step-00000007"])
def test_the_split_that_a_run_made_is_used_again(run_folder: Path, part: str, tmp_path: Path) -> None:
    report = evaluate(run_folder / part, data=tmp_path / "data", device="cpu", quiet=True)
    assert sorted(name for name, _ in report.worst) == ["sample4", "sample5"]
    assert report.model == str(run_folder / part)
    assert report.fingerprint == open_dataset(tmp_path / "data").fingerprint


# the report -------------------------------------------------------------------------------------------------


@pytest.fixture
def report() -> Report:
    return Report(
        names=("road", "<b>sky</b>", "tram"),
        counts=np.array([[30, 10, 0], [0, 60, 0], [0, 0, 0]]),
        num_images=2,
        loss=0.5,
        metrics={"mine": 0.25},
        worst=(("a", 0.1),),
        data="camvid",
        fingerprint="abc",
        split="val",
        model="runs/demo",
        seconds=61,
        settings={"inference": "whole"},
        notes=("Something to know.",),
    )


def test_the_table_has_a_line_for_each_class_and_the_means_below(report: Report) -> None:
    assert report.table() == "\n".join(
        [
            "+------------+-------+--------+-------+--------+",
            "| Class      |   IoU |    Acc |  Dice | Pixels |",
            "+------------+-------+--------+-------+--------+",
            "| road       | 75.00 |  75.00 | 85.71 |     40 |",
            "| <b>sky</b> | 85.71 | 100.00 | 92.31 |     60 |",
            "| tram       |   n/a |    n/a |   n/a |      0 |",
            "+------------+-------+--------+-------+--------+",
            "mIoU 80.36  mAcc 87.50  mDice 89.01  aAcc 90.00  fwIoU 81.43  loss 0.5000  mine 0.2500",
            "2 images, split val of camvid, 1:01",
            "1 of 3 classes do not occur and are left out of the means: tram",
            "Something to know.",
        ]
    )


def test_a_report_comes_back_from_json_whole(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    back = Report.open(tmp_path / "report.json")
    assert back.to_json() == report.to_json()
    assert back.table() == report.table()
    assert json.loads((tmp_path / "report.json").read_text())["per_class"]["tram"]["iou"] is None


@pytest.mark.parametrize("value", [{}, {"format_version": 99}, {"unfinished": {}}, []])
def test_what_is_no_report_is_refused(value: Any) -> None:
    with pytest.raises(UnreadableFileError, match="no report that this version of terrazzo wrote"):
        Report.from_json(value)


@pytest.mark.parametrize("counts", [[[1], [2]], [[1, 2, 3]], [], [[1e400] * 3] * 3, "x"])
def test_a_report_whose_counts_do_not_fit_its_classes_is_refused(report: Report, counts: Any) -> None:
    with pytest.raises(UnreadableFileError, match="no report that this version of terrazzo wrote"):
        Report.from_json(report.to_json() | {"counts": counts})


def test_names_cannot_write_html(report: Report) -> None:
    page = report._repr_html_()
    assert "&lt;b&gt;sky&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "n/a" in page


def test_an_evaluation_of_nothing_has_no_score() -> None:
    empty = Report(names=("a", "b"), counts=np.zeros((2, 2), np.int64), num_images=0)
    assert np.isnan(empty.miou)
    assert "mIoU n/a" in empty.table()
    assert Report.from_json(empty.to_json()).to_json() == empty.to_json()


class Meeting:
    """Notes what happens in which order, and waits for what others do: with a limit, after which it is false."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.changed = threading.Condition()

    def note(self, what: str) -> None:
        with self.changed:
            self.seen.append(what)
            self.changed.notify_all()

    def waits_for(self, what: str, seconds: float = 10.0) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: what in self.seen, seconds)


def test_the_next_image_is_decoded_and_the_last_one_counted_while_the_network_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage waits for the other two to be entered: in turn, none would get further than the limit."""
    data = open_dataset(make_folder(tmp_path, random_samples(6, (4, 4))))
    meeting, met, passes = Meeting(), [], iter(range(6))
    read = Split.__getitem__

    def reading(self: Split, index: int) -> Sample:
        meeting.note(f"decode {index}")
        return read(self, index)

    class Waiting(Thresholds):
        def forward(self, image_BCHW: Tensor) -> Output:
            index = next(passes)
            meeting.note(f"infer {index}")
            met.append(meeting.waits_for(f"decode {min(index + 1, 5)}"))
            met.append(index == 0 or meeting.waits_for(f"count {index - 1}"))
            return super().forward(image_BCHW)

    def counting(pred: np.ndarray, mask: np.ndarray) -> float:
        index = sum(one.startswith("count") for one in meeting.seen)
        meeting.note(f"count {index}")
        met.append(index == 5 or meeting.waits_for(f"infer {index + 1}"))
        return float(index)

    monkeypatch.setattr(Split, "__getitem__", reading)
    look = Predictor(Waiting(), THREE, device="cpu", name="waiting")
    report = measure(look, data["val"], metrics={"order": counting})
    assert met == [True] * 18 and report.metrics == {"order": 2.5}


def test_predictions_wait_to_be_counted_two_at_a_time(tmp_path: Path) -> None:
    data = open_dataset(make_folder(tmp_path, random_samples(8, (4, 4))))
    predicted, ahead = 0, []
    may_count = threading.Event()

    class Counted(Thresholds):
        def forward(self, image_BCHW: Tensor) -> Output:
            nonlocal predicted
            predicted += 1
            if predicted == 2:
                may_count.set()  # a third would have to wait for the first to be counted
            return super().forward(image_BCHW)

    def slow(pred: np.ndarray, mask: np.ndarray) -> float:
        assert may_count.wait(10)
        ahead.append(predicted - len(ahead))
        return 0.0

    measure(Predictor(Counted(), THREE, device="cpu", name="counted"), data["val"], metrics={"slow": slow})
    assert len(ahead) == 8 and max(ahead) <= 3  # the one counted, one that waits, one at work
