"""What a run folder holds is believed where it is whole, and told where it is not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from terrazzo import recipe
from terrazzo.errors import CheckpointError, RunError
from terrazzo.run import Run, damage


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two checkpoints of one tensor each."""
    run = Run.create(tmp_path / "run", recipe.load("quickstart"), data={}, env={})
    for step in (1, 2):
        run.save(
            step, lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors"), state={}
        )
    return run


@pytest.mark.parametrize(
    "files",
    [None, [], {"model.safetensors": None}, {"model.safetensors": {"size": 1}}, {"model.safetensors": {"sha256": ""}},
     {"model.safetensors": {"size": float("inf"), "sha256": ""}}, {"../../data.json": {"size": 2, "sha256": ""}}],
)  # fmt: skip
def test_a_checkpoint_whose_list_of_files_is_none_is_passed_over(run: Run, files: object) -> None:
    newest = run.checkpoints[-1]
    state = json.loads((newest / "state.json").read_text()) | {"files": files}
    (newest / "state.json").write_text(json.dumps(state))
    assert damage(newest) is not None
    assert run.newest() == run.checkpoints[0]


def test_a_best_that_names_no_step_is_told(run: Run) -> None:
    for value in ("[]", "{}", '{"step": 1}', '{"step": "1", "miou": 0.5}', '{"step": 1, "miou": null}'):
        (run.path / "best.json").write_text(value)
        with pytest.raises(RunError, match="does not say which checkpoint is the best"):
            run.best_folder()


def test_a_score_that_is_no_number_is_never_the_best(run: Run) -> None:
    """Nothing was scored where every pixel of val is ignored."""
    assert not run.keep_best(1, float("nan"))
    assert run.best is None
    assert run.keep_best(2, 0.25)
    assert not run.keep_best(2, float("nan"))
    assert run.best == {"step": 2, "miou": 0.25}


def test_lines_that_are_no_entries_are_left_out_of_the_history(run: Run) -> None:
    run.log("train", 1, {"loss": 1.0})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'[]\n{"kind": "eval"}\n{"step": "x"}\n' + b"[" * 100_000 + b"\n\xff\n")
    run.log("train", 2, {"loss": 0.5})
    assert [entry["step"] for entry in run.history()] == [1, 2]


def test_an_optimiser_state_that_does_not_fit_is_told(run: Run, tmp_path: Path) -> None:
    from terrazzo.checkpoint import read_training_state

    network = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    tensors = network.state_dict()
    file = tmp_path / "optimizer.safetensors"
    for content in (b"", b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="optimizer.safetensors cannot be read"):
            read_training_state(tmp_path, network, optimizer, None, tensors)
    save_file({"weight/exp_avg": torch.zeros(3, 7)}, file)
    with pytest.raises(CheckpointError, match="does not fit its network.\n  found: weight/exp_avg"):
        read_training_state(tmp_path, network, optimizer, None, tensors)
