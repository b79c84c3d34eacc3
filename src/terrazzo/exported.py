"""An exported model on disk: a graph, and all that makes it a model.

    exported/
      terrazzo.json       the model's own (classes, recipe, data, licences), and "export": what was written and proven
      network.onnx        or network.xml with network.bin: image in, logits out
      end_to_end.onnx     or .xml with .bin, where asked for: uint8 RGB in, class ids out

The same JSON, but for hashes and proof, is in the metadata of each graph, so that a file that was carried away alone
still opens. A graph without it is somebody else's: it names no classes and does not say how it sees images.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.errors import MissingPathError, UsageError, WeightsError
from terrazzo.graphs import needs, openvino_core
from terrazzo.runtimes import GraphBackend, GraphInfo, OnnxBackend, OpenVINOBackend
from terrazzo.storage import read_json

OURS = "terrazzo.json"
KEY = "terrazzo"  # under which the JSON stands in a graph's metadata
FORMAT_VERSION = 1  # of "export" in that JSON
FORMATS = ("onnx", "openvino")
NEEDED = ("format_version", "format", "precision", "channels", "align_corners")
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}


@dataclass(frozen=True)
class Exported:
    """An exported model, found and checked, not yet running."""

    graph: Path
    """The file of the network's graph."""
    terrazzo: dict[str, Any]
    """terrazzo.json whole, "export" with it."""

    @property
    def export(self) -> dict[str, Any]:
        """What was exported: format, precision, size_hw, channels, align_corners, proof …"""
        value: dict[str, Any] = self.terrazzo["export"]
        return value

    def backend(self, asked: str = "auto", precision: str = "f32") -> GraphBackend:
        """Return the graph running. Raises UsageError where another runtime or precision is asked for than it has."""
        export = self.export
        if asked not in ("auto", export["format"]):
            raise UsageError(
                f"{self.graph} is a graph of the format {export['format']!r}.",
                found=f"--backend {asked}",
                expected=f"auto or {export['format']}",
                hint="Export the model in the other format, or use the model it was made from.",
            )
        if precision not in ("f32", export["precision"]):
            raise UsageError(
                f"{self.graph} was exported as {export['precision']}.",
                found=f"--precision {precision}",
                hint="An exported model computes as it was proven. For another precision export it again:",
                command=f"terrazzo export MODEL --format {export['format']} --precision {precision} --out DIR",
            )
        size = export.get("size_hw")
        info = GraphInfo(
            int(export["channels"]), bool(export["align_corners"]), (size[0], size[1]) if size else None
        )
        kind = OnnxBackend if export["format"] == "onnx" else OpenVINOBackend
        return kind(self.graph, info, precision=export["precision"])


def find_exported(source: Path) -> Exported | None:
    """Return the exported model at `source`, a folder or a graph's file; None where it is neither.

    Raises WeightsError for a graph that terrazzo did not write, one that is not what was proven, and one of a newer
    terrazzo.
    """
    if source.is_file() and source.suffix in SUFFIXES:
        beside = source.parent / OURS
        about = read_json(beside) if beside.is_file() else {}
        if about.get("export", {}).get("file") == source.name:
            return _checked(source.parent, about)
        return Exported(source, _known(_metadata(source), source))
    if (source / OURS).is_file():
        about = read_json(source / OURS)
        if isinstance(about, dict) and "export" in about:
            return _checked(source, about)
    return None


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(folder: Path, about: dict[str, Any]) -> Exported:
    """The exported model of a folder, its graph's files being those that were proven."""
    _known(about, folder / OURS)
    name = str(about["export"].get("file", ""))
    if not name or Path(name).name != name or Path(name).suffix not in SUFFIXES:
        raise WeightsError(f"{folder / OURS} names no graph.", found=f"file {name!r}")
    for file, told in about["export"].get("sha256", {}).items():
        path = folder / Path(file).name
        if not path.is_file():
            raise MissingPathError(
                f"{folder} is not whole: {file} is missing.", hint="Copy the folder whole, or export again."
            )
        if sha256(path) != told:
            raise WeightsError(
                f"{path} is not the file that was exported and proven.",
                found="other bytes than its hash in terrazzo.json",
                hint="It was changed or damaged. Copy the folder again, or export again.",
            )
    return Exported(folder / name, about)


def _known(about: Any, where: Path) -> dict[str, Any]:
    given = about.get("export") if isinstance(about, dict) else None
    export: dict[str, Any] = given if isinstance(given, dict) else {}
    lacking = [name for name in NEEDED if name not in export]
    if lacking or "classes" not in about or export["format"] not in FORMATS:
        raise WeightsError(
            f"{where} is no description of an exported model.",
            found=f"no {', '.join(lacking)}" if lacking else f"format {export['format']!r}",
            hint="It was edited, or written by something else. Export the model again.",
        )
    version = export["format_version"]
    if version > FORMAT_VERSION:
        raise WeightsError(
            f"{where} was exported by a newer terrazzo.",
            found=f"format_version {version}",
            expected=f"{FORMAT_VERSION} or less",
            command="pip install --upgrade terrazzo",
        )
    known: dict[str, Any] = about
    return known


def _metadata(graph: Path) -> Any:
    """What terrazzo wrote into a graph's own metadata."""
    read = _onnx_metadata if graph.suffix == ".onnx" else _openvino_metadata
    try:
        text = read(graph)
        return json.loads(text)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{graph} was not exported by terrazzo.",
            found="a graph that names no classes and does not say how it sees images",
            expected=f"metadata under the key {KEY!r}, as terrazzo export writes it",
            hint="Export the model that it was made from:",
            command=f"terrazzo export MODEL --format {SUFFIXES[graph.suffix]} --out DIR",
        ) from error


def _onnx_metadata(graph: Path) -> str:
    needs("onnxruntime", what="A graph of the format ONNX")
    backend = OnnxBackend(graph, GraphInfo(0))
    return backend.metadata()[KEY]


def _openvino_metadata(graph: Path) -> str:
    needs("openvino", what="A graph of the format OpenVINO")
    try:
        model = openvino_core().read_model(str(graph))
    except RuntimeError as error:
        raise WeightsError(
            f"{graph} cannot be opened.",
            found=next(iter(str(error).strip().splitlines()), None),
            expected=f"an .xml of OpenVINO with {graph.with_suffix('.bin').name} beside it",
        ) from error
    if not model.has_rt_info([KEY]):
        raise KeyError(KEY)
    return str(model.get_rt_info([KEY]).astype(str))
