"""The words that commands share about a model: which one, how it looks at images, what runs it, and what is printed."""

from typing import Protocol

from terrazzo.cli.parsing import Parser, one_of

MODEL = (
    "a run (its best checkpoint), a model folder, an exported one, a Hub id such as user/name, or a .pth of "
    "MMSegmentation's"
)
DEVICE = "auto (the default: CUDA, then Apple's MPS, then the CPU), cpu, cuda, cuda:1, mps"


class Result(Protocol):
    """What a command found."""

    def table(self) -> str:
        """For people."""

    def to_json(self) -> object:
        """For programs."""


def show(result: Result, *, as_json: bool) -> None:
    """Print what a command found."""
    if as_json:
        import json

        print(json.dumps(result.to_json(), indent=1))
    else:
        print(result.table())


def window_arguments(parser: Parser, text: str) -> None:
    """Add --windows and --whole; `text` says instead of what."""
    look = parser.add_mutually_exclusive_group()
    look.add_argument(
        "--windows",
        dest="inference",
        action="store_const",
        const="windows",
        help=f"in overlapping windows, {text}",
    )
    look.add_argument(
        "--whole",
        dest="inference",
        action="store_const",
        const="whole",
        help=f"the whole image at once, {text}",
    )


def device_arguments(parser: Parser) -> None:
    """Add --device and --precision."""
    parser.add_argument("--device", metavar="DEVICE", default="auto", help=DEVICE)
    parser.add_argument(
        "--precision",
        metavar="f32|bf16|f16",
        type=one_of("precision", "f32", "bf16", "f16"),
        default="f32",
        help="f32 by default; the others are faster where the device knows them, and differ in the last digits",
    )


def backend_argument(parser: Parser) -> None:
    """Add --backend."""
    parser.add_argument(
        "--backend",
        metavar="auto|torch|openvino|onnx",
        type=one_of("backend", "auto", "torch", "openvino", "onnx"),
        default="auto",
        help="what runs the network; auto (the default): the fastest for the device that is installed",
    )


def config_argument(parser: Parser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        metavar="FILE.py",
        help="of a .pth that does not hold its config's text; it is read, never run",
    )
