"""A plan is arithmetic over a measurement: the arithmetic by hand, the measurement on a training that is really run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from terrazzo import planning, probing
from terrazzo.cli import main
from terrazzo.cli.parsing import time_span
from terrazzo.errors import MemoryShortageError, UsageError
from terrazzo.planned_reads import Reads
from terrazzo.planning import Plan
from terrazzo.probing import Probe
from terrazzo.recipe import Recipe, load

PROBE = Probe(start_seconds=5.0, step_seconds=0.5, waited_seconds=0.0, image_seconds=0.1, pictures_seconds=1.0,
              save_seconds=2.0, memory_bytes=1 << 30)  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return load("segformer-b0-scratch").with_overrides(overrides)


HUNDRED = Reads(np.ones(100))


def plan_of(
    chosen: Recipe, *, probe: Probe = PROBE, budget: float | None = None, reads: Reads = HUNDRED
) -> Plan:
    return Plan(chosen, probe, reads, looked_at=30, device="cpu", precision="f32", budget=budget)


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


def test_images_that_are_kept_are_decoded_once_however_long_the_training_is() -> None:
    probe = replace(PROBE, decoding_seconds=0.2)
    words = ("train.batch_size=4", "eval.every=5000", "train.save_every=5000")
    for steps in (1000, 2000):  # 100 images: 25 steps
        made, plain = (plan_of(recipe(f"train.steps={steps}", *words), probe=one) for one in (probe, PROBE))
        assert made.seconds - plain.seconds == pytest.approx(25 * 0.2)
    assert "0.500 s, 0 % of the time waiting for data; 0.700 s where images are decoded, 25 of them" in str(
        made
    )
    short, plain = (plan_of(recipe("train.steps=10", *words), probe=one) for one in (probe, PROBE))
    assert short.seconds - plain.seconds == pytest.approx(10 * 0.2)


def test_waiting_is_that_of_all_steps_those_that_decode_too() -> None:
    probe = replace(PROBE, decoding_seconds=0.5, decoding_waited_seconds=0.5)
    words = ("train.batch_size=4",)
    assert plan_of(recipe("train.steps=25", *words), probe=probe).waiting == pytest.approx(0.5)
    assert plan_of(recipe("train.steps=100", *words), probe=probe).waiting == pytest.approx(12.5 / 62.5)


@pytest.mark.parametrize("first", [0.0, 0.4, 10.0])
@pytest.mark.parametrize("budget", [300.0, 3600.0, 36_000.0])
def test_a_budget_is_kept_and_used(budget: float, first: float) -> None:
    probe = replace(PROBE, decoding_seconds=first)
    made = planning._within(
        plan_of(recipe(), probe=probe, budget=budget), lambda *more: probe, ["data.crop_hw=256x320"]
    )
    assert 0.9 * budget <= made.seconds <= budget
    more = replace(made, recipe=made.recipe.with_overrides([f"train.steps={made.steps + 1 + made.looks}"]))
    assert more.stepping(more.steps) > made.stepping(made.steps)
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


def test_a_budget_pays_for_the_measuring_where_the_training_follows_at_once() -> None:
    typed = ["data.crop_hw=256x320"]
    chosen = plan_of(recipe("train.batch_size=4"), budget=300)
    made = planning._within(chosen, lambda *more: PROBE, typed, lambda: 100.0)
    assert 0.9 * 200 - 15 <= made.seconds <= 0.95 * 300 - 100
    assert "1:40 of it for measuring" in str(made) and made.to_json()["measuring"] == 100.0
    with pytest.raises(UsageError, match="measuring took 4:50"):
        planning._within(chosen, lambda *more: PROBE, typed, lambda: 290.0)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="The budget is over"):
        planning._within(plan_of(recipe(), budget=5), lambda *more: PROBE, ["data.crop_hw=256x320"])


def test_waiting_for_data_is_answered_with_what_was_measured_to_help() -> None:
    slow = replace(PROBE, waited_seconds=0.3)
    found = {"data.workers": replace(slow, step_seconds=0.49), "data.cache": replace(slow, step_seconds=0.25)}

    def measured(*more: str) -> Probe:
        return found[more[-1].partition("=")[0]]

    made = planning._fed(plan_of(recipe("train.steps=1000"), probe=slow), measured, lambda one: HUNDRED, [])
    assert made.overrides == ("data.cache=memory",)  # twice the threads were not worth it
    assert made.probe.step_seconds == 0.25 and "0.250 s a step instead of 0.500" in made.said[0]
    assert planning._fed(plan_of(recipe()), measured, lambda one: HUNDRED, []).overrides == ()


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
    monkeypatch.setattr(probing, "WARM", 1)
    monkeypatch.setattr(probing, "FRESH", 1)
    monkeypatch.setattr(probing, "EVERY", 1)

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
        "of the time waiting for data",
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
    monkeypatch.setattr(planning, "warm_up", lambda *words, **more: None)
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
