"""A model leaves the laboratory: its network as a graph for ONNX Runtime, OpenVINO or TensorRT, proven first.

    read the model -> write the graph (f32) -> another precision -> into a folder beside `out`
    -> open that folder as anyone would -> the same images through both -> only then it takes its place

What `evaluate` and `predict` need lies in the folder (`exported.py` says what), so they take it like any model. Where
the proof fails nothing is written, and what was there stays. The other pages of this verb: `proof`, `quantising`
(int8), `endtoend` (image in, classes out).
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrazzo import __version__, endtoend, quantising
from terrazzo import proof as proofs
from terrazzo.data import Dataset, open_dataset
from terrazzo.data.transforms import resized_hw
from terrazzo.errors import UsageError, unknown_name
from terrazzo.evaluation import measure
from terrazzo.exported import FORMAT_VERSION, FORMATS, KEY, OURS, sha256
from terrazzo.graphs import (
    LEAST_SIDE,
    WRITERS,
    folded,
    needs,
    onnx_graph,
    openvino_core,
    openvino_graph,
    written,
)
from terrazzo.inference import Predictor, load
from terrazzo.licences import ledger_of
from terrazzo.nn.segformer_graph import graph_form
from terrazzo.proof import AGREEMENT, SIZES, Proof
from terrazzo.storage import refuse_existing, replace_folder, write_json

Image = NDArray[Any]
PRECISIONS = {"onnx": ("f32", "f16", "int8"), "openvino": ("f32", "f16", "bf16", "int8")}
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
NETWORK, END_TO_END = "network", "end_to_end"  # the files' names
PROOF_IMAGES = 20  # of a split, through both
END_TO_END_AGREEMENT = 0.999  # of f32: the runtime's own resize and argmax round in other places


@dataclass(frozen=True)
class Export:
    """What was exported, and the proof of it."""

    path: Path
    """The folder."""
    precision: str
    proof: Proof
    """Of the network's graph."""
    end_to_end: Proof | None
    """Of the graph from image to classes, where there is one."""
    notes: tuple[str, ...] = ()
    """What a user should hear, one line each."""

    def __str__(self) -> str:
        files = [file for file in sorted(self.path.iterdir()) if file.name != OURS]
        lines = [f"{file.name:18} {file.stat().st_size / 2**20:8.1f} MiB" for file in files]
        lines += self.proof.lines()
        if self.end_to_end is not None:
            lines += [f"end to end: {line}" for line in self.end_to_end.lines()]
        return "\n".join([*lines, *self.notes])


def export(
    model: "str | os.PathLike[str]",
    out: "str | os.PathLike[str]",
    *,
    format: Literal["onnx", "openvino"] = "onnx",
    precision: str = "f32",
    size_hw: tuple[int, int] | None = None,
    end_to_end: bool = False,
    data: "str | os.PathLike[str] | Dataset | None" = None,
    split: str = "val",
    calibration_split: str = "train",
    agreement: float | None = None,
    limit: int | None = None,
    network: nn.Module | None = None,
    config: "str | os.PathLike[str] | None" = None,
    quiet: bool = False,
) -> Export:
    """Write a model as a graph into the new folder `out`, prove it, and return the proof.

    precision: "f32"; "f16" (half-size weights; arithmetic where the device has it); "bf16" (OpenVINO); "int8", which
    needs data with `calibration_split`. size_hw: of the images, where they are all alike: the graph then takes that
    size alone; end_to_end needs it. data, split: whose images are compared, and scored by both; at most `limit` of them
    are scored. agreement: least share of equal labels, instead of `proof.AGREEMENT`. network, config: as `load` takes
    them. Raises ExistingOutputError, MissingExtraError, UsageError before any work; ExportError where the proof fails:
    `out` is then as it was.
    """
    out = Path(out)
    _check(format, precision, size_hw, end_to_end, data)
    refuse_existing(out)
    least = AGREEMENT[precision] if agreement is None else agreement
    predictor = load(model, backend="torch", device="cpu", network=network, config=config)
    about = _about(model, predictor)
    if predictor.channels is None:
        raise UsageError("The network does not say how many channels its images have.")
    if end_to_end:
        endtoend.refuse_unfit(predictor.data, predictor.eval, about["preprocessing"].get("dtype", "uint8"))
    dataset = None if data is None else _open(data, predictor)
    seen_hw = None if size_hw is None else _seen_hw(size_hw, predictor)
    form = graph_form(predictor.network) if format == "openvino" else predictor.network
    graph = folded(onnx_graph(form, channels=predictor.channels, size_hw=seen_hw))
    notes: list[str] = [*predictor.notes, *ledger_of(about).notices()]
    inputs: list[Image] = []
    if precision == "int8":
        assert dataset is not None
        inputs, said = _calibration(dataset, calibration_split, predictor, size_hw, quiet)
        notes += said
    images, pictures = _images(dataset, split, predictor, size_hw, about)
    export: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "format": format,
        "file": NETWORK + SUFFIX[format],
        "precision": precision,
        "size_hw": seen_hw,
        "image_hw": size_hw,
        "channels": predictor.channels,
        "align_corners": predictor.eye.align_corners,
        "made_by": {"terrazzo": __version__, "torch": torch.__version__},
        "made_of": Path(model).name
        if Path(model).exists()
        else str(model),  # a Hub id; never a place of ours
    }
    if inputs:
        export["calibration"] = {"split": calibration_split, "images": len(inputs)}
    about["export"] = export
    with replace_folder(out) as folder:
        _write(graph, folder / export["file"], precision, inputs, about)
        if end_to_end:
            assert size_hw is not None
            whole = _end_to_end_graph(predictor, form, size_hw)
            _write(whole, folder / (END_TO_END + SUFFIX[format]), precision, inputs, about, is_network=False)
            export["end_to_end"] = {"file": END_TO_END + SUFFIX[format], "size_hw": size_hw}
        export["sha256"] = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        write_json(folder / OURS, about)
        proof = _prove(predictor, folder, images, pictures, least, dataset, split, limit, quiet, precision)
        export["proof"] = proof.to_json()
        second = None
        if end_to_end:
            run = _runner(folder / export["end_to_end"]["file"], precision)
            least = min(least, END_TO_END_AGREEMENT)
            second = proofs.compare_masks(predictor, run, images, pictures=pictures, least=least)
            proofs.refuse_failed(second, what="The end-to-end graph", precision=precision)
            export["end_to_end"]["proof"] = second.to_json()
        write_json(folder / OURS, about)
    return Export(out, precision, proof, second, tuple(notes))


def _check(
    format: str, precision: str, size_hw: tuple[int, int] | None, end_to_end: bool, data: object
) -> None:
    """Refuse what cannot be done before anything is read."""
    if format not in FORMATS:
        raise unknown_name("format of export", format, FORMATS)
    if precision not in {one for known in PRECISIONS.values() for one in known}:
        raise unknown_name("precision", precision, PRECISIONS[format])
    if precision not in PRECISIONS[format]:
        raise UsageError(
            f"A graph of the format {format!r} has no precision {precision!r}.",
            found="ONNX Runtime has no bf16 for most operations on a CPU",
            expected=", ".join(PRECISIONS[format]),
            hint="OpenVINO has it:",
            command="terrazzo export MODEL --format openvino --precision bf16 --out DIR",
        )
    if end_to_end and size_hw is None:
        raise UsageError(
            "An end-to-end graph is for images of one size.",
            expected="the size of the camera's images",
            command=f"terrazzo export MODEL --format {format} --end-to-end --size 1920x1080 --out DIR",
        )
    if precision == "int8" and data is None:
        raise UsageError(
            "int8 needs images to calibrate on.",
            expected="the data set the model was trained on",
            command=f"terrazzo export MODEL --format {format} --precision int8 --data DATA --out DIR",
        )
    needs(*WRITERS, "onnxruntime", what="Exporting")
    if format == "openvino":
        needs("openvino", *(("nncf",) if precision == "int8" else ()), what="Exporting for OpenVINO")


def _about(model: "str | os.PathLike[str]", predictor: Predictor) -> dict[str, Any]:
    """terrazzo.json of the model, or as much of it as the predictor knows."""
    return {
        **predictor.about,
        "classes": predictor.classes.to_json(),
        "preprocessing": predictor.about.get("preprocessing", {}),
    }


def _open(data: "str | os.PathLike[str] | Dataset", predictor: Predictor) -> Dataset:
    source = data if isinstance(data, Dataset) else os.fspath(data)
    dataset = open_dataset(source, keep_void=predictor.data.keep_void)
    if dataset.classes.names != predictor.classes.names:
        dataset = dataset.merged(predictor.data.merge)
    return dataset


def _seen_hw(size_hw: tuple[int, int], predictor: Predictor) -> tuple[int, int]:
    """The size at which the network gets images of `size_hw`: resized, and cut into windows where it looks so."""
    height, width = resized_hw(size_hw, predictor.data)
    if predictor.eval.inference == "windows":
        height, width = min(height, predictor.eval.window_hw[0]), min(width, predictor.eval.window_hw[1])
    if tuple(predictor.eval.scales) != (1.0,):
        raise UsageError(
            "A graph of one size cannot look at an image at several.",
            found=f"scales {', '.join(map(str, predictor.eval.scales))} in the model's recipe",
            hint="Without --size the graph takes any size.",
        )
    return height, width


def _calibration(
    dataset: Dataset, split: str, predictor: Predictor, size_hw: tuple[int, int] | None, quiet: bool
) -> tuple[list[Image], list[str]]:
    """What the network gets of images that show every class, and what a user should hear of them."""
    chosen = dataset[split]
    places, lacking = quantising.calibration_places(chosen, location=dataset.location, quiet=quiet)
    others = [dataset[name] for name in dataset.splits if name != chosen.name]
    quantising.refuse_lacking(lacking, chosen, others, location=dataset.location)
    images = [chosen[place].image for place in places]
    fitting = [image for image in images if size_hw is None or image.shape[:2] == size_hw]
    if not fitting:
        raise UsageError(
            f"No image of the split {chosen.name!r} has the size that is exported.",
            found=f"{images[0].shape[0]}x{images[0].shape[1]} (height x width), for one",
            expected=f"{size_hw}",
            hint="Without --size the graph takes any size.",
        )
    said = [f"Calibrated on {len(fitting)} images of {chosen.name}."]
    if lacking:
        said.append(f"No image of the data set shows {', '.join(lacking)}: int8 was calibrated without.")
    return [predictor.eye.input(image) for image in fitting], said


def _images(
    dataset: Dataset | None,
    split: str,
    predictor: Predictor,
    size_hw: tuple[int, int] | None,
    about: dict[str, Any],
) -> tuple[list[Image], str]:
    """The images that go through both, and how they are called."""
    if dataset is not None:
        chosen = dataset[split]
        count = min(PROOF_IMAGES, len(chosen))
        places = [round(place) for place in np.linspace(0, len(chosen) - 1, count).tolist()] if count else []
        images = [chosen[place].image for place in places]
        fitting = [image for image in images if size_hw is None or image.shape[:2] == size_hw]
        if fitting:
            return fitting, f"{chosen.name}'s images"
    sizes = SIZES if size_hw is None else (size_hw,) * 3
    dtype = str(about["preprocessing"].get("dtype", "uint8"))
    assert predictor.channels is not None
    smallest = [(max(h, LEAST_SIDE), max(w, LEAST_SIDE)) for h, w in sizes]
    return proofs.made_up(smallest, channels=predictor.channels, dtype=dtype), "made-up images"


def _write(
    graph: Any,
    path: Path,
    precision: str,
    inputs: Sequence[Image],
    about: dict[str, Any],
    *,
    is_network: bool = True,
) -> None:
    """Write a graph in its format and precision, its description inside.

    An end-to-end graph of int8 stays f32 around the network: its ranges are those of whole images.
    """
    described = json.dumps({**about, "export": {**about["export"], "file": path.name}}, ensure_ascii=False)
    title = "network: image (B, C, H, W) float32 in [0, 1] -> logits" if is_network else "image -> class ids"
    if path.suffix == ".onnx":
        if precision == "f16":
            graph = _halved(graph)
        if precision == "int8" and is_network:
            graph = quantising.quantised_onnx(graph, inputs)
        _save_onnx(graph, path, {KEY: described, "title": title, **_plain_facts(about)})
        return
    import openvino

    model = openvino_graph(graph)
    if precision == "int8" and is_network:
        is_transformer = any(node.op_type == "Softmax" for node in graph.graph.node)
        model = quantising.quantised_openvino(model, inputs, is_transformer=is_transformer)
    model.set_rt_info(described, [KEY])
    for name, text in {"title": title, **_plain_facts(about)}.items():
        model.set_rt_info(text, [f"{KEY}_{name}"])
    openvino.save_model(model, str(path), compress_to_fp16=precision in ("f16", "bf16"))


def _halved(graph: Any) -> Any:
    """Half-size weights and arithmetic; what goes in and comes out stays float32."""
    import warnings

    import onnx_ir
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that half precision cannot tell from 0
        half = onnx_ir.from_proto(convert_float_to_float16(graph, keep_io_types=True))
    half.graph.sort()  # the converter appends what it adds
    return onnx_ir.to_proto(half)


def _save_onnx(graph: Any, path: Path, metadata: dict[str, str]) -> None:
    import onnx

    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _plain_facts(about: dict[str, Any]) -> dict[str, str]:
    """What people look for in a file's metadata, in plain words beside the JSON."""
    licenses = about.get("licenses") or {}
    return {
        "classes": ", ".join(one["name"] for one in about["classes"]["classes"])
        if isinstance(about["classes"], dict) and "classes" in about["classes"]
        else json.dumps(about["classes"], ensure_ascii=False),
        "license": json.dumps(licenses, ensure_ascii=False) if licenses else "not said",
    }


def _end_to_end_graph(predictor: Predictor, form: nn.Module, size_hw: tuple[int, int]) -> Any:
    module = endtoend.EndToEnd(
        form, size_hw=size_hw, data=predictor.data, align_corners=predictor.eye.align_corners
    )
    example = torch.zeros(1, *size_hw, predictor.channels or 3, dtype=torch.uint8)
    graph = written(
        module, (example,), None, inputs=[endtoend.IMAGE], outputs=[endtoend.MASK], name="end_to_end"
    )
    return folded(graph)


def _prove(
    predictor: Predictor,
    folder: Path,
    images: Sequence[Image],
    pictures: str,
    least: float,
    dataset: Dataset | None,
    split: str,
    limit: int | None,
    quiet: bool,
    precision: str,
) -> Proof:
    """Open the folder as anyone would, and look through both; ExportError where they differ."""
    opened = load(folder)
    if predictor.eval.inference == "windows":  # pictures are compared in one look, scores as the model looks
        plain = replace(predictor.eval, inference="whole", flip=False, scales=(1.0,))
        images = [image[: predictor.eval.window_hw[0], : predictor.eval.window_hw[1]] for image in images]
        proof = proofs.compare(
            predictor.with_eval(plain), opened.with_eval(plain), images, pictures=pictures, least=least
        )
    else:
        proof = proofs.compare(predictor, opened, images, pictures=pictures, least=least)
    what = f"The {opened.backend} graph"
    proofs.refuse_failed(proof, what=what, precision=precision)
    if "made-up" not in pictures and opened.about["export"]["size_hw"] is None:
        proofs.refuse_one_size(opened, dtype=str(opened.about["preprocessing"].get("dtype", "uint8")))
    if dataset is not None and dataset[split].has_masks:
        if not quiet:
            print(f"Scoring {split} with both.", file=sys.stderr)
        scores = [measure(one, dataset[split], limit=limit, quiet=quiet).miou for one in (predictor, opened)]
        proof = replace(proof, miou=float(scores[0]), miou_exported=float(scores[1]))
        proofs.refuse_failed(proof, what=what, precision=precision)
    return proof


def _runner(path: Path, precision: str) -> Any:
    """Return a function from an image (H, W, C) uint8 to class ids (H, W), computed by an end-to-end graph."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {endtoend.IMAGE: np.ascontiguousarray(image)[None]})[0][0]
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda image: compiled([np.ascontiguousarray(image)[None]])[0][0]
