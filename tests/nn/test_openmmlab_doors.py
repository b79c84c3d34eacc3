"""What takes a checkpoint of MMSegmentation: a training that starts from it, convert, evaluate, predict, load."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import terrazzo as tz
from mmseg_checkpoint import CLASSES, changed, checkpoint, config, network_of, spec
from terrazzo.classes import Classes
from terrazzo.errors import MissingPathError, UsageError, WeightsError
from terrazzo.nn.starting import load_pretrained

# starting from one ------------------------------------------------------------------------------------------


def test_a_training_starts_from_one_rows_matched_by_name(tmp_path: Path):
    theirs = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", theirs, config(spec()))
    network = network_of(spec(), 2, seed=1)
    before = copy.deepcopy(network.state_dict())
    report = load_pretrained(network, path, classes=Classes(("Sky", "tree")))
    assert torch.equal(network.head.classifier.weight[0], theirs.head.classifier.weight[2])
    assert torch.equal(network.head.classifier.weight[1], before["head.classifier.weight"][1])
    assert torch.equal(network.auxiliary.classifier.bias[0], theirs.auxiliary.classifier.bias[2])
    assert torch.equal(network.backbone.layer3[0].conv2.weight, theirs.backbone.layer3[0].conv2.weight)
    assert torch.equal(network.head.bottleneck.conv.weight, theirs.head.bottleneck.conv.weight)
    assert (
        report
        == f"{path}: loaded the backbone and head; 1 of 2 classes reused by name (Sky), from random weights: tree"
    )


def test_the_backbone_of_another_architecture_starts_a_training(tmp_path: Path):
    theirs = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", theirs, config(spec()))
    other = spec("fcn", {"channels": 6, "in_index": 3, "num_convs": 2, "concat_input": True}, auxiliary=None)
    network = network_of(other, 3, seed=1)
    head = copy.deepcopy(network.head.state_dict())
    report = load_pretrained(network, path, classes=Classes(CLASSES))
    assert (
        report
        == f"{path}: loaded the backbone; its head is of another kind, so the head starts from random weights"
    )
    assert all(torch.equal(tensor, head[name]) for name, tensor in network.head.state_dict().items())
    assert torch.equal(network.backbone.layer4[0].bn1.running_var, theirs.backbone.layer4[0].bn1.running_var)
    with pytest.raises(WeightsError, match="do not fit the network Segmenter"):
        load_pretrained(network_of(spec(depth=34)), path, classes=Classes(CLASSES))


# commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def boxes_checkpoint(tmp_path: Path) -> Path:
    return checkpoint(
        tmp_path / "boxes.pth", network_of(spec()), config(spec()), names=("field", "box", "sky")
    )


def test_convert_writes_what_predicts_the_same(
    boxes_checkpoint: Path, boxes: Path, tmp_path: Path, capsys: Any
):
    from terrazzo.cli import main

    out = tmp_path / "ours"
    assert main(["convert", str(boxes_checkpoint), "--out", str(out)]) == 0
    assert "Converted:" in capsys.readouterr().out
    image = next((boxes / "val" / "images").iterdir())
    theirs, ours = tz.load(boxes_checkpoint), tz.load(out)
    assert np.array_equal(theirs.logits(image), ours.logits(image))
    assert theirs.classes == ours.classes and theirs.eval == ours.eval and theirs.data == ours.data
    assert main(["convert", str(boxes_checkpoint), "--out", str(out)]) == 2  # nothing is overwritten
    assert "already there" in capsys.readouterr().err
    assert (
        main(
            [
                "convert",
                str(changed(boxes_checkpoint, decode_head__gamma=torch.ones(1))),
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 1
    )
    assert not (tmp_path / "b").exists()


def test_evaluate_and_predict_take_one(boxes_checkpoint: Path, boxes: Path, tmp_path: Path, capsys: Any):
    from terrazzo.cli import main

    assert main(["evaluate", str(boxes_checkpoint), "--data", str(boxes)]) == 0
    assert "box" in capsys.readouterr().out
    assert (
        main(["predict", str(boxes_checkpoint), str(boxes / "val" / "images"), "--out", str(tmp_path / "p")])
        == 0
    )
    capsys.readouterr()
    value = torch.load(boxes_checkpoint, weights_only=True)
    del value["meta"]["dataset_meta"], value["meta"]["cfg"]
    torch.save(value, boxes_checkpoint)
    (tmp_path / "c.py").write_text(config(spec()))
    call = ["evaluate", str(boxes_checkpoint), "--data", str(boxes)]
    assert main(call) == 1
    assert "Pass the config it was trained with" in capsys.readouterr().err
    assert main([*call, "--config", str(tmp_path / "c.py")]) == 0
    assert "unnamed; they were taken in the order of the data set's" in capsys.readouterr().out


def test_bad_files_get_a_sentence_and_an_exit_code(boxes_checkpoint: Path, boxes: Path, capsys: Any):
    from terrazzo.cli import main

    whole = boxes_checkpoint.read_bytes()
    for content, said in (
        (whole[: len(whole) // 2], "it is cut short"),
        (b"<html>not found</html>", "perhaps the page of a download that failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ):
        boxes_checkpoint.write_bytes(content)
        assert main(["evaluate", str(boxes_checkpoint), "--data", str(boxes)]) == 1
        assert re.search(said, capsys.readouterr().err), said


def test_another_count_of_classes_than_the_data_sets_is_told(boxes: Path, tmp_path: Path):
    path = checkpoint(tmp_path / "a.pth", network_of(spec(), 5), config(spec(), 5), names="abcde")
    with pytest.raises(UsageError, match="do not have the same classes") as caught:
        tz.evaluate(path, data=boxes, quiet=True)
    assert "model: 5 classes" in str(caught.value) and "3 classes" in str(caught.value)


def test_a_file_that_is_not_there_gets_its_nearest_and_is_not_looked_for_on_the_hub(boxes_checkpoint: Path):
    with pytest.raises(MissingPathError, match="There is no weights file .*boxs.pth") as caught:
        tz.load(boxes_checkpoint.with_name("boxs.pth"))
    assert f"Did you mean {boxes_checkpoint}?" in str(caught.value)
    with pytest.raises(MissingPathError, match="There is no weights file runs/best.pth"):
        load_pretrained(network_of(spec()), "runs/best.pth", classes=Classes(CLASSES))
