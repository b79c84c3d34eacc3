"""Where the time of a prediction goes: every stage of every backend, told in numbers and drawn to scale."""

import json
from pathlib import Path

import numpy as np
import pytest

from terrazzo import converted
from terrazzo.cli import main
from terrazzo.errors import MissingExtraError, UsageError
from terrazzo.profiling import COLORS, Profile, Stages, profile


@pytest.fixture(autouse=True)
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing graphs is tested elsewhere."""

    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("The backend needs what is not installed.")

    monkeypatch.setattr(converted, "converted", missing)


def test_every_stage_is_told_and_backends_that_did_not_run_are_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "time.png"
    words = ["profile", str(tiny_model), "--size", "64x48", "--repeats", "3", "--out", str(picture)]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{tiny_model}, images of 64x48, ")
    assert said[2].startswith("PyTorch ")
    assert said[3].split() == ["p50", "p90", "p99"]
    stages = ["decode", "resize", "network", "argmax", "write", "together"]
    assert [line.split()[0] for line in said[4:10]] == stages
    assert said[-2:] == [
        "openvino left out: The backend needs what is not installed.",
        "onnx left out: The backend needs what is not installed.",
    ]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert main([*words[:-2], "--json"]) == 0
    (numbers,) = json.loads(capsys.readouterr().out)["backends"].values()
    assert set(numbers) == set(stages)
    assert all(one["p50"] <= one["p90"] <= one["p99"] for one in numbers.values())


def test_bars_are_as_long_as_their_times() -> None:
    slow = Stages("slow", {"network": [30.0, 30.0], "argmax": [10.0, 10.0]}, 0)
    fast = Stages("fast", {"network": [10.0, 10.0], "argmax": [10.0, 10.0]}, 0)
    picture = np.asarray(Profile("m", (48, 64), 1, (slow, fast), ()).picture())

    def pixels(row: int, name: str) -> int:
        color = [int(COLORS[name][i : i + 2], 16) for i in (1, 3, 5)]
        return int((picture[row] == color).all(-1).sum())

    first, second = 84 + 26, 84 + 78 + 26  # near the top edge of the bars, above their numbers
    whole = picture.shape[1] - 48
    assert pixels(first, "network") == pytest.approx(0.75 * whole, abs=2)
    assert pixels(first, "argmax") == pytest.approx(0.25 * whole, abs=2)
    assert pixels(second, "network") == pytest.approx(0.25 * whole, abs=2)


def test_percentiles_are_those_of_the_repetitions() -> None:
    made = Profile("m", (48, 64), 1, (Stages("b", {"network": list(map(float, range(101)))}, 2**21),), ())
    assert made.to_json()["backends"]["b"]["network"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert "20.0 images/s one after the other; at most 2 MiB held" in made.table()


def test_a_model_that_looks_in_windows_has_no_resize_of_its_own(tiny_model: Path) -> None:
    from terrazzo import inference, profiling

    whole = inference.load(tiny_model)
    windows = whole.with_eval(
        inference.EvalConfig(inference="windows", window_hw=(32, 32), stride_hw=(24, 24))
    )
    (image,) = profiling.made_up([(48, 64)], channels=3, dtype="uint8")
    assert list(profiling._measured(windows, image, 1).ms) == ["decode", "network", "argmax", "write"]


def test_the_picture_is_a_png(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a PNG"):
        profile(tiny_model, out=tmp_path / "time.jpg")
