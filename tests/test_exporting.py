"""Exported models: proven against their model, opened like any, refused in words where they are not what they say."""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import terrazzo as tz
from conftest import write_boxes
from terrazzo import exporting
from terrazzo.cli import main
from terrazzo.data.transforms import DataConfig, resize_image
from terrazzo.endtoend import EndToEnd
from terrazzo.errors import (
    ExistingOutputError,
    ExportError,
    MissingPathError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from terrazzo.exporting import Export, export
from terrazzo.licences import NVIDIA_SEGFORMER, Ledger, Origin
from terrazzo.nn.segformer import SegFormer


@pytest.fixture(scope="module", autouse=True)
def once(tiny_graph: Any) -> Iterator[None]:
    """The network is the same in every test here: its graph is written once for each size and form."""
    made = {(SegFormer, None): tiny_graph}
    plain = exporting.onnx_graph

    def write(network: Any, *, channels: int, size_hw: Any = None) -> Any:
        key = type(network), size_hw
        if key not in made:
            made[key] = plain(network, channels=channels, size_hw=size_hw)
        return copy.deepcopy(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "onnx_graph", write)
        yield


@pytest.fixture(scope="module")
def onnx_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    export(tiny_model, out, format="onnx", quiet=True)
    return out


@pytest.fixture(scope="module")
def int8_for_openvino(tiny_model: Path, boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The robot of the tutorial."""
    out = tmp_path_factory.mktemp("exported") / "robot"
    return export(tiny_model, out, format="openvino", precision="int8", data=boxes, quiet=True)


def street(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def test_the_proof_is_told_and_stands_in_the_folder(
    tiny_model: Path, boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "robot"
    words = ["export", tiny_model, "--format", "openvino", "--data", boxes, "--out", out]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("network.bin")
    assert said[2].startswith("labels    100.0000% equal on 3 of val's images (at least 99.99%)")
    assert said[-1] == f"Exported and proven: {out}"
    about = json.loads((out / "terrazzo.json").read_text())
    proof = about["export"]["proof"]
    truth = tz.evaluate(tiny_model, data=boxes, quiet=True).miou
    assert proof["miou"] == pytest.approx(truth, abs=1e-12)
    assert proof["miou_exported"] == pytest.approx(truth, abs=1e-3)
    assert proof["difference"] < 1e-4 * proof["deviation"]
    assert about["licenses"] == {"weights": "CC0-1.0"}
    assert about["data"]["fingerprint"]


def test_an_exported_folder_evaluates_and_predicts_like_its_model(
    onnx_folder: Path, tiny_model: Path, boxes: Path, tmp_path: Path
) -> None:
    report = tz.evaluate(onnx_folder, data=boxes, quiet=True)
    truth = tz.evaluate(tiny_model, data=boxes, quiet=True)
    assert np.abs(report.counts - truth.counts).sum() <= 0.0002 * truth.counts.sum()
    Image.fromarray(street(45, 70)).save(tmp_path / "street.png")
    assert (
        main(["predict", str(onnx_folder), str(tmp_path / "street.png"), "--out", str(tmp_path / "out")]) == 0
    )
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "street.png"))
    assert np.array_equal(mask, tz.load(tiny_model)(tmp_path / "street.png").mask)
    windows = {"inference": "windows", "window_hw": (40, 40), "stride_hw": (24, 24), "flip": True}
    other = tz.evaluate(
        onnx_folder, data=boxes, quiet=True, **windows
    )  # what surrounds the network is shared
    assert other.miou == pytest.approx(
        tz.evaluate(tiny_model, data=boxes, quiet=True, **windows).miou, abs=1e-3
    )


def test_a_graph_carried_away_alone_still_knows_its_classes(onnx_folder: Path, tmp_path: Path) -> None:
    import onnx

    alone = shutil.copy(onnx_folder / "network.onnx", tmp_path / "robot.onnx")
    assert tz.load(alone).classes.names == ("field", "box", "sky")
    facts = {one.key: one.value for one in onnx.load(alone).metadata_props}
    assert "box" in facts["classes"]
    assert facts["license"] == '{"weights": "CC0-1.0"}'
    assert json.loads(facts["terrazzo"])["export"]["format"] == "onnx"


def test_int8_is_a_quarter_of_the_file_and_loses_little(
    tiny_model: Path, boxes: Path, tmp_path: Path, int8_for_openvino: Export
) -> None:
    words = {"precision": "int8", "data": boxes, "quiet": True}
    for done in (export(tiny_model, tmp_path / "onnx", format="onnx", **words), int8_for_openvino):
        assert done.precision == "int8"
        assert done.proof.miou is not None
        assert done.proof.miou_exported is not None
        assert done.proof.miou - done.proof.miou_exported <= 0.01
        assert done.notes == ("Calibrated on 8 images of train.",)
        small = tz.load(done.path)
        assert small.backend.endswith(", int8")
        for size in ((45, 70), (66, 40)):  # other rows and columns than it was calibrated on
            image = np.asarray(Image.open(boxes / "val" / "images" / "000.png").resize(size[::-1]))
            assert (small(image).mask == tz.load(tiny_model)(image).mask).mean() > 0.95
    import onnx

    kinds = [one.data_type for one in onnx.load(tmp_path / "onnx" / "network.onnx").graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) >= 20  # the weights of its convolutions and linear layers


def test_half_size_weights_halve_the_file_and_licences_are_repeated(
    tiny_model: Path, tmp_path: Path, onnx_folder: Path
) -> None:
    import onnx

    bound = tmp_path / "bound"
    shutil.copytree(tiny_model, bound)
    about = json.loads((bound / "terrazzo.json").read_text())
    ledger = Ledger((Origin("nvidia/mit-b0", NVIDIA_SEGFORMER),)).after("boxes", "CC0-1.0")
    (bound / "terrazzo.json").write_text(json.dumps(about | {"licenses": ledger.to_json()}))
    exported = export(bound, tmp_path / "half", format="onnx", precision="f16", quiet=True)
    assert exported.notes[-1:] == ledger.notices()
    assert "not for commercial use: its weights come from nvidia/mit-b0" in str(exported)
    there = (tmp_path / "half" / "terrazzo.json").read_text()
    assert json.loads(there)["licenses"] == ledger.to_json()
    assert str(tmp_path) not in there
    whole, half = (onnx.load(folder / "network.onnx") for folder in (onnx_folder, tmp_path / "half"))
    sizes = [sum(len(one.raw_data) for one in graph.graph.initializer) for graph in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_end_to_end_graph_takes_a_camera_image_and_gives_classes(
    tiny_model: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "robot"
    done = export(tiny_model, out, format=format, end_to_end=True, size_hw=(45, 67), quiet=True)
    assert done.end_to_end is not None
    image = street(45, 67)
    expected = tz.load(tiny_model)(image).mask
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(
            str(out / "end_to_end.onnx"), providers=["CPUExecutionProvider"]
        )
        (mask,) = session.run(None, {"image": image[None]})
    else:
        import openvino

        exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would choose bf16
        mask = openvino.Core().compile_model(str(out / "end_to_end.xml"), "CPU", exact)([image[None]])[0]
    assert mask.dtype == np.uint8
    assert mask.shape == (1, 45, 67)
    assert (mask[0] == expected).mean() > 0.999
    with pytest.raises(tz.TerrazzoError, match="exported for images of one size"):
        tz.load(out)(street(40, 67))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("rounding", ["pillow", "torchvision"])
@pytest.mark.parametrize("seen_hw", [(30, 40), (90, 51)])
def test_an_end_to_end_graph_resizes_as_its_model_does(
    seen_hw: tuple[int, int], rounding: Any, interpolation: Any
) -> None:
    data = DataConfig(resize="exact", resize_hw=seen_hw, interpolation=interpolation, rounding=rounding)
    graph = EndToEnd(torch.nn.Identity(), size_hw=(45, 67), data=data, align_corners=False)
    image = np.random.default_rng(3).integers(0, 2, (45, 67, 3), dtype=np.uint8) * np.uint8(255)
    assert graph.across is not None
    assert graph.down is not None
    found = graph.down(graph.across(torch.from_numpy(image)[None].float(), 2), 1)[0].numpy()
    differ = np.abs(found - resize_image(image, seen_hw, data))
    assert differ.max() <= (
        1 if rounding == "pillow" else 0
    )  # 16 bits times 8 are exact in float32, 22 are not
    assert differ.mean() < 0.01


def test_a_failed_proof_writes_nothing_and_leaves_what_was_there(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = exporting.onnx_graph

    def other(network: Any, **words: Any) -> Any:
        import onnx

        graph = write(network, **words)
        last = next(node for node in graph.graph.node if "logits" in node.output)
        last.output[0] = "right"
        graph.graph.node.append(onnx.helper.make_node("Neg", ["right"], ["logits"]))
        return graph

    monkeypatch.setattr(exporting, "onnx_graph", other)
    out = tmp_path / "robot"
    out.mkdir()
    words = ["export", str(tiny_model), "--format", "onnx", "--out", str(out)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "ExportError: The ONNX Runtime" in said
    assert "expected: at least 99.99%" in said
    assert list(tmp_path.iterdir()) == [out]
    assert not any(out.iterdir())
    (out / "precious.txt").write_text("mine")
    assert main(words) == 2
    assert [file.name for file in out.iterdir()] == ["precious.txt"]


def test_a_full_disk_leaves_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_folder: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "robot" / "x"))

    monkeypatch.setattr(exporting, "_save_onnx", full)
    with pytest.raises(tz.TerrazzoError, match="The disk is full"):
        export(tiny_model, tmp_path / "robot", quiet=True)
    assert not any(tmp_path.iterdir())


def test_a_strangers_graph_is_told_from_ours(tmp_path: Path, onnx_folder: Path) -> None:
    import onnx
    import openvino

    graph = onnx.load(onnx_folder / "network.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "theirs.onnx")
    openvino.save_model(openvino.Core().read_model(tmp_path / "theirs.onnx"), tmp_path / "theirs.xml")
    for name in ("theirs.onnx", "theirs.xml"):
        with pytest.raises(WeightsError, match=f"{name} was not exported by terrazzo") as caught:
            tz.load(tmp_path / name)
        assert "names no classes" in str(caught.value)
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    (tmp_path / "broken.xml").write_bytes(b"<net></net>")
    for name in ("broken.onnx", "broken.xml"):
        with pytest.raises(WeightsError, match=f"{name} cannot be opened"):
            tz.load(tmp_path / name)


def test_a_folder_that_is_not_what_was_proven_is_refused(onnx_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(onnx_folder, folder)
    graph, about = folder / "network.onnx", folder / "terrazzo.json"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(WeightsError, match="is not the file that was exported and proven"):
        tz.load(folder)
    graph.unlink()
    with pytest.raises(MissingPathError, match="network.onnx is missing"):
        tz.load(folder)
    told = json.loads(about.read_text())
    for change, sentence in (
        ({"file": "../../secret.onnx"}, "names no graph"),
        ({"format": "tflite"}, "no description of an exported model"),
        ({"format_version": 9}, "exported by a newer terrazzo"),
    ):
        about.write_text(json.dumps({**told, "export": {**told["export"], **change}}))
        with pytest.raises(WeightsError, match=sentence):
            tz.load(folder)


def test_calibration_images_show_every_class_or_the_user_hears_which_are_missing(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = write_boxes(tmp_path / "boxes", train=4, val=2)
    for file in (data / "train" / "masks").iterdir():
        mask = np.array(Image.open(file))
        mask[mask == 1] = 0
        Image.fromarray(mask).save(file)
    with pytest.raises(
        UsageError, match="'train' cannot calibrate: it lacks classes.\n.*no pixel of box"
    ) as caught:
        export(tiny_model, tmp_path / "robot", precision="int8", data=data, quiet=True)
    assert "--calibration-split val" in str(caught.value)
    shutil.rmtree(data / "train" / "masks")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "onnx", "--precision", "bf16"], "has no precision 'bf16'"),
        (["--format", "onnx", "--end-to-end"], "is for images of one size"),
        (["--format", "onnx", "--precision", "int8"], "int8 needs images to calibrate on"),
        (["--format", "onxx"], "Did you mean 'onnx'"),
        (["--format", "onnx", "--size", "1920"], "no size such as 1920x1080"),
        (["--format", "onnx", "--agreement", "99"], "no share between 0 and 1"),
        (["--format", "onnx", "--end-to-end", "--size", "64x48", "--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_exported_is_said_first(
    tiny_model: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_model), "--out", str(tmp_path / "robot"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_an_exported_model_keeps_its_format_and_precision(onnx_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a graph of the format 'onnx'"):
        tz.load(onnx_folder, backend="torch")
    with pytest.raises(UsageError, match="was exported as f32"):
        tz.load(onnx_folder, precision="bf16")
    with pytest.raises(UsageError, match="holds a graph, and no torch module"):
        _ = tz.load(onnx_folder).network
    with pytest.raises(UnknownNameError):
        export(onnx_folder, tmp_path / "again", format="tflite")
    with pytest.raises(ExistingOutputError):
        export(onnx_folder, onnx_folder)
    with pytest.raises(tz.TerrazzoError):
        export(onnx_folder, tmp_path / "again")


def test_agreement_is_a_number_that_can_fail(tiny_model: Path) -> None:
    from dataclasses import replace

    from terrazzo.proof import Proof, refuse_failed

    proof = Proof(1, "made-up images", 0.9998, 0.9999)
    with pytest.raises(ExportError, match="found: 99.9800% of the labels are equal"):
        refuse_failed(proof, what="The graph", precision="f32")
    fine = replace(proof, agreement=1.0, miou=0.5, miou_exported=0.4996)
    refuse_failed(fine, what="The graph", precision="f32")
    with pytest.raises(
        ExportError, match="scores worse than its model.\n.*found: mIoU 0.4900, in PyTorch 0.5000"
    ):
        refuse_failed(replace(fine, miou_exported=0.49), what="The graph", precision="f32")
    with pytest.raises(ExportError):  # NaN is no agreement
        refuse_failed(replace(proof, agreement=float("nan")), what="The graph", precision="int8")


def test_the_tutorials_robot_serves_its_graph_and_is_asked_over_http(
    int8_for_openvino: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from served import served
    from terrazzo.serving.line import Model

    page = (Path(__file__).parent.parent / "docs" / "tutorial" / "onto-the-robot.md").read_text(
        encoding="utf-8"
    )
    asked = re.findall(r"<!-- not run: tests/test_exporting.py asks[^\n]*\n```sh\n(.*?)```", page, re.DOTALL)
    assert len(asked) == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(street(48, 64)).save("photos/street.png")
    Path("photos/street.png").rename("photos/street.jpg")  # read by what it holds, not by its name
    with served() as server:
        robot = tz.load(int8_for_openvino.path)
        server.service.models["robot"] = Model("robot", robot)
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        code = asked[0].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("curl ", "curl -fsS ")
        told = subprocess.run(
            ["bash", "-e", "-c", code], check=True, timeout=60, capture_output=True, text=True
        )
    assert np.array_equal(np.asarray(Image.open("map.png")), robot("photos/street.jpg").mask)
    assert '"box"' in told.stdout
