"""A plan is arithmetic over a measurement: the arithmetic by hand, the measurement on a training that is really run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from terrazzo import planning, probing
from terrazzo.cli import main
from terrazzo.cli.parsing import time_span
from terrazzo.data import open_dataset
from terrazzo.errors import MemoryShortageError, UsageError
from terrazzo.planning import Plan
from terrazzo.probing import Probe
from terrazzo.recipe import Recipe, load

PROBE = Probe(start_seconds=5.0, step_seconds=0.5, waited_seconds=0.0, image_seconds=0.1, pictures_seconds=1.0,
              save_seconds=2.0, memory_bytes=1 << 30)  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return load("segformer-b0-scratch").with_overrides(overrides)


def plan_of(chosen: Recipe, *, probe: Probe = PROBE, budget: float | None = None) -> Plan:
    return Plan(chosen, probe, images=100, looked_at=30, device="cpu", precision="f32", budget=budget)


@pytest.mark.parametrize(
    ("steps", "every", "save_every", "looks", "saves"),
    [
        (1000, 250, 250, 4, 4),  # 250, 500, 750, 1000
        (1000, 300, 300, 4, 4),  # 300, 600, 900, and the last
        (1000, 400, 250, 3, 6),  # looks at 400, 800, 1000; saves besides at 250, 500, 750
        (1000, 5000, 400, 1, 3),  # 400, 800, and the last
        (7, 2, 3, 4, 5),  # 2 4 6 7, and 3
    ],
)
def test_validations_and_checkpoints_are_counted_as_the_loop_makes_them(
    steps: int, every: int, save_every: int, looks: int, saves: int
) -> None:
    made = plan_of(recipe(f"train.steps={steps}", f"eval.every={every}", f"train.save_every={save_every}"))
    assert (made.looks, made.saves) == (looks, saves)
    loop_looks = {done for done in range(1, steps + 1) if done % every == 0 or done == steps}
    loop_saves = {done for done in range(1, steps + 1) if done % save_every == 0} | loop_looks
    assert (made.looks, made.saves) == (len(loop_looks), len(loop_saves))


def test_the_time_is_the_sum_of_its_parts() -> None:
    made = plan_of(recipe("train.steps=1000", "eval.every=250", "train.save_every=250"))
    assert made.look_seconds == pytest.approx(30 * 0.1 + 1.0)
    assert made.seconds == pytest.approx(5 + 1000 * 0.5 + 4 * 4.0 + 4 * 2.0)
    assert made.compared(made.seconds * 1.1).endswith("(+10 %)")


def test_steps_of_the_first_pass_take_longer() -> None:
    probe = replace(PROBE, first_seconds=0.2)
    words = ("train.batch_size=4", "eval.every=5000", "train.save_every=5000")
    made, plain = (
        plan_of(recipe("train.steps=1000", *words), probe=one) for one in (probe, PROBE)
    )  # 100 images
    assert made.seconds - plain.seconds == pytest.approx(25 * 0.2)
    assert "0.500 s, 0 % of it waiting for data; 0.700 s in the first pass" in str(made)
    short, plain = (plan_of(recipe("train.steps=10", *words), probe=one) for one in (probe, PROBE))
    assert short.seconds - plain.seconds == pytest.approx(10 * 0.2)


@pytest.mark.parametrize("first", [0.0, 0.4, 10.0])
@pytest.mark.parametrize("budget", [300.0, 3600.0, 36_000.0])
def test_a_budget_is_kept_and_used(budget: float, first: float) -> None:
    probe = replace(PROBE, first_seconds=first)
    made = planning._within(
        plan_of(recipe(), probe=probe, budget=budget), lambda *more: probe, ["data.crop_hw=256x320"]
    )
    assert 0.9 * budget <= made.seconds <= budget
    looking = made.looks * (made.look_seconds + PROBE.save_seconds)
    assert looking <= 0.12 * made.seconds and made.looks >= 1
    assert made.recipe == recipe().with_overrides(made.overrides)
    assert len(made.said) == len(made.overrides)


def test_too_few_passes_over_the_images_are_answered_with_smaller_crops() -> None:
    quick = replace(PROBE, step_seconds=0.2)
    asked: list[tuple[str, ...]] = []

    def measured(*more: str) -> Probe:
        asked.append(more)
        return quick

    chosen = recipe("data.crop_hw=256x320", "train.batch_size=8")
    made = planning._within(plan_of(chosen, budget=90), measured, [])
    assert asked == [("data.crop_hw=160x224",)]  # 256 and 320 times the root of a half, in 32s
    assert made.recipe.data.crop_hw == (160, 224) and made.seconds <= 90
    typed = planning._within(plan_of(chosen, budget=90), measured, ["data.crop_hw=256x320"])
    assert typed.recipe.data.crop_hw == (256, 320)  # what somebody typed stays


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="The budget is over"):
        planning._within(plan_of(recipe(), budget=5), lambda *more: PROBE, ["data.crop_hw=256x320"])


def test_waiting_for_data_is_answered_with_what_was_measured_to_help() -> None:
    slow = replace(PROBE, waited_seconds=0.3)
    found = {"data.workers": replace(slow, step_seconds=0.49), "data.cache": replace(slow, step_seconds=0.25)}

    def measured(*more: str) -> Probe:
        return found[more[-1].partition("=")[0]]

    made = planning._fed(plan_of(recipe("train.steps=1000"), probe=slow), measured, [])
    assert made.overrides == ("data.cache=memory",)  # twice the threads were not worth it
    assert made.probe.step_seconds == 0.25 and "0.250 s a step instead of 0.500" in made.said[0]
    assert planning._fed(plan_of(recipe()), measured, []).overrides == ()


def test_what_does_not_fit_the_memory_is_cut_into_smaller_portions() -> None:
    def measured(*more: str) -> Probe:
        if more not in (("train.micro_batch=3",), ("train.micro_batch=1",)):
            raise MemoryShortageError("cpu ran out of memory.")
        return PROBE

    probe, kept, said = planning._fitting(measured, recipe("train.batch_size=12"))
    assert probe == PROBE and kept == ["train.micro_batch=3"] and "the result is the same" in said[0]


def test_what_the_plan_sets_takes_the_place_of_what_was_typed() -> None:
    made = replace(plan_of(recipe()), overrides=("train.steps=10", "eval.every=5"))
    asked = ["train.epochs=3", "eval.every=100", "optim.lr=0.1"]
    assert made.typed(asked) == ["optim.lr=0.1", "train.steps=10", "eval.every=5"]


def test_a_probe_is_read_without_what_warming_up_took() -> None:
    times = {4: 9.0, 8: 2.0, 12: 1.0, 16: 1.2, 20: 1.1, 24: 1.0, 28: 5.0}
    rows = [
        {"step": step, "seconds_per_step": seconds, "data_seconds": 0.1, "memory_bytes": step}
        for step, seconds in times.items()
    ]
    looks = [
        {"seconds": 8.0, "images": 8, "drawing_seconds": 1.0},
        {"seconds": 4.0, "images": 8, "drawing_seconds": 0.5},
    ]
    probe = probing.read(rows, looks, [{"seconds": 1.0}], total=100.0)
    assert probe.step_seconds == 1.1 and probe.image_seconds == 0.5 and probe.pictures_seconds == 0.5
    assert probe.start_seconds == pytest.approx(100 - 28 * 1.1 - 2 * 4.5 - 1.0)
    assert probe.memory_bytes == 28


@pytest.mark.parametrize(("share", "step", "more"), [(1.0, 1.0, 1.0), (0.25, 1.75, 0.25), (0.0, 2.0, 0.0)])
def test_what_is_decoded_for_the_first_time_is_told_apart(share: float, step: float, more: float) -> None:
    """Steps 9 to 16 take 2 s, later ones, whose images were seen, 1 s; `share` of all images will be kept."""
    rows = [
        {"step": at, "seconds_per_step": 1.0 if at > 16 else 2.0, "data_seconds": 0.1, "memory_bytes": 1}
        for at in range(4, 33, 4)
    ]
    probe = probing.read(rows, [], [], total=60.0, first_pass=16, share=share)
    assert (probe.step_seconds, probe.first_seconds) == (pytest.approx(step), pytest.approx(more))
    assert probe.start_seconds == pytest.approx(60 - 16 * 2 - 16 * 1)


def test_a_probe_sees_its_few_images_again_where_they_are_kept(
    boxes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "WARM", 2)
    monkeypatch.setattr(probing, "FRESH", 3)
    data, few = open_dataset(boxes), 5  # of its 8
    chosen = recipe("train.batch_size=1")
    seen, first_pass, share = probing._seen_again(data, chosen)
    assert (len(seen["train"]), first_pass, share) == (few, few, 1.0)
    assert probing.WARM < first_pass < probing.WARM + probing.STEPS
    for override in ("data.cache=none", "data.cache=disk", "data.rare_crops=0.5"):
        seen, first_pass, _ = probing._seen_again(data, chosen.with_overrides([override]))
        assert seen is data and first_pass == probing.WARM + probing.STEPS


def test_of_images_that_do_not_fit_the_memory_a_share_is_kept(
    boxes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(boxes)
    height, width = data["train"].size_hw(0)
    monkeypatch.setattr(probing, "cache_budget", lambda kind: len(data["train"]) * height * width * 4 / 3)
    assert probing._seen_again(data, recipe("train.batch_size=1"))[2] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90m", 5400),
        ("90min", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("600", 600),
        ("1.5h", 5400),
    ],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert time_span(text) == seconds


TINY = (
    "data.crop_hw=32x32",
    "train.batch_size=2",
    "data.workers=0",
    "train.precision=f32",
    "train.loggers=[]",
)


@pytest.fixture
def words(boxes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setattr(probing, "STEPS", 4)
    monkeypatch.setattr(probing, "WARM", 4)

    def words(*more: str) -> list[str]:
        return ["train", "segformer-b0-scratch", "--data", str(boxes), "--device", "cpu", *TINY, *more]

    return words


def test_plan_says_what_a_training_will_be_and_leaves_nothing(
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words("--plan", "train.steps=500")) == 0
    told = capsys.readouterr().out
    for part in (
        "steps       500, ",
        "of it waiting for data",
        "validation  ",
        "time        ",
        "terrazzo train segformer-b0-scratch",
    ):
        assert part in told
    assert not list(tmp_path.iterdir())


def test_a_budget_trains_what_was_planned_and_compares(
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow = replace(PROBE, start_seconds=0.0, step_seconds=1.5, image_seconds=0.1, pictures_seconds=0.0)
    monkeypatch.setattr(planning, "probed", lambda *words, **more: slow)  # a training of few steps
    assert main(words("--budget", "20s", "--out", str(tmp_path / "run"), "train.steps=5000")) == 0
    told = capsys.readouterr().out
    assert "budget      20 s" in told and "planned " in told and ", took " in told
    chosen = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert chosen["train"]["steps"] != 5000 and f"train.steps={chosen['train']['steps']}" in told
    kept = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (kept["budget"], kept["steps"]) == (20.0, chosen["train"]["steps"]) and kept["took_seconds"] > 0
    took = planning.duration(kept["took_seconds"])
    off = 100 * (kept["took_seconds"] / kept["seconds"] - 1)
    assert f"planned {planning.duration(kept['seconds'])}, took {took} ({off:+.0f} %)" in told
    step = max(
        json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    )
    assert step == chosen["train"]["steps"]


@pytest.mark.parametrize("more", [("--overfit", "2"), ("--resume", "nowhere")])
def test_a_plan_is_of_a_training_that_begins(
    words: Callable[..., list[str]], more: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("--plan", *more)) == 2
    assert "A plan is made of a training that begins" in capsys.readouterr().err
