"""scripts/bench: every bench is in the list, what one prints is filed as it was printed, and gaps are told."""

import importlib.util
import json
import shlex
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def benches() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benches", PROJECT / "scripts" / "benches.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_bench_is_in_the_list(benches: ModuleType) -> None:
    listed = {shlex.split(run.words)[0] for run in benches.RUNS.values()}
    assert listed == {path.name for path in (PROJECT / "bench").glob("*.py")}


def write_bench(folder: Path, name: str, *, code: int, last: str) -> None:
    (folder / "bench").mkdir(exist_ok=True)
    (folder / "bench" / f"{name}.py").write_text(
        f"print('a card')\nprint({last!r})\nraise SystemExit({code})\n"
    )


def test_what_is_printed_is_filed_and_gaps_are_told(
    benches: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"good": (0, '{"ratio": 2}'), "short": (1, '{"ratio": 1}'), "broken": (1, "Traceback")}
    for name, (code, last) in runs.items():
        write_bench(tmp_path, name, code=code, last=last)
    results = tmp_path / "bench" / "results"
    results.mkdir()
    monkeypatch.setattr(benches, "PROJECT", tmp_path)
    monkeypatch.setattr(benches, "RUNS", {name: benches.Run(f"About {name}", f"{name}.py") for name in runs})
    monkeypatch.setattr(benches.filed, "__kwdefaults__", {"folder": results})
    monkeypatch.setattr("sys.argv", ["bench", "--file"])
    assert benches.main() == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split() for line in told[-3:]] == [
        ["good", "reached"],
        ["short", "missed"],
        ["broken", "failed"],
    ]
    files = {path.name.partition("_")[0]: path.read_text() for path in results.iterdir()}
    assert set(files) == {"good", "short"}  # what broke measured nothing
    assert files["good"].startswith("# About good\n") and "python bench/good.py" in files["good"]
    assert json.loads(files["short"].strip().splitlines()[-2]) == {"ratio": 1}


def test_a_name_that_is_none_is_answered_with_those_there_are(
    benches: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "predikt"])
    assert benches.main() == 2
    assert "predict_folder" in capsys.readouterr().err


def test_sections_written_by_hand_stay_when_a_bench_is_filed_again(
    benches: ModuleType, tmp_path: Path
) -> None:
    run = benches.Run("About it", "it.py")
    path = benches.filed("it", run, 'first\n{"ratio": 1}', folder=tmp_path)
    path.write_text(path.read_text() + "\n## Where the time goes\n\nInto it.\n\n## What was tried\n\nMuch.\n")
    benches.filed("it", run, 'second\n{"ratio": 2}', folder=tmp_path)
    text = path.read_text()
    assert "first" not in text and '{"ratio": 2}' in text
    assert text.endswith("```\n\n## Where the time goes\n\nInto it.\n\n## What was tried\n\nMuch.\n")
