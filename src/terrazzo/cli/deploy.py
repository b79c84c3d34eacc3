"""export, profile: a model leaves the laboratory."""

from argparse import ArgumentTypeError, Namespace

from terrazzo.cli.looking import (
    MODEL,
    config_argument,
    device_arguments,
    show,
)
from terrazzo.cli.parsing import Command, Parser, count, one_of


def size(text: str) -> tuple[int, int]:
    """Read 1920x1080, width first as cameras say it, as (height, width)."""
    width, cross, height = text.lower().partition("x")
    if not cross or not (width.isdigit() and height.isdigit()) or not int(width) or not int(height):
        raise ArgumentTypeError(f"{text!r} is no size such as 1920x1080 (width x height)")
    return int(height), int(width)


def share(text: str) -> float:
    """Read a share between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is no share between 0 and 1")
    return value


def _export_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--format",
        metavar="onnx|openvino",
        type=one_of("format of export", "onnx", "openvino"),
        required=True,
        help="onnx: for ONNX Runtime, TensorRT and most others; openvino: the fastest on CPUs",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the folder, made here, whole or not at all"
    )
    parser.add_argument(
        "--precision",
        metavar="f32|f16|bf16|int8",
        type=one_of("precision", "f32", "f16", "bf16", "int8"),
        default="f32",
        help="f32 by default; f16: half the file; bf16 (openvino): computed so; int8: a quarter, calibrated on --data",
    )
    parser.add_argument(
        "--size",
        metavar="WIDTHxHEIGHT",
        type=size,
        help="of the images, such as 1920x1080, where they are all alike; any size by default",
    )
    parser.add_argument(
        "--end-to-end",
        action="store_true",
        help="also a graph with everything inside: uint8 RGB image in, class ids out; needs --size",
    )
    parser.add_argument(
        "--data", metavar="DATA", help="the data set: its images prove the graph, and both are scored on it"
    )
    parser.add_argument("--split", metavar="SPLIT", default="val", help="that proves; val by default")
    parser.add_argument(
        "--calibration-split", metavar="SPLIT", default="train", help="for int8; train by default"
    )
    parser.add_argument("--limit", metavar="N", type=count, help="score N images only")
    parser.add_argument(
        "--agreement",
        metavar="SHARE",
        type=share,
        help="least share of equal labels, instead of 0.9999 (f32), 0.995 (f16), 0.98 (bf16), 0.95 (int8)",
    )
    config_argument(parser)


def _export(arguments: Namespace) -> None:
    from terrazzo.exporting import export

    done = export(
        arguments.model,
        arguments.out,
        format=arguments.format,
        precision=arguments.precision,
        size_hw=arguments.size,
        end_to_end=arguments.end_to_end,
        data=arguments.data,
        split=arguments.split,
        calibration_split=arguments.calibration_split,
        agreement=arguments.agreement,
        limit=arguments.limit,
        config=arguments.config,
    )
    print(done)
    print(f"Exported and proven: {done.path}")


def _profile_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--size",
        metavar="WIDTHxHEIGHT",
        type=size,
        default=(1080, 1920),
        help="of the images; 1920x1080 by default",
    )
    parser.add_argument("--out", metavar="FILE.png", help="the picture of it")
    parser.add_argument("--repeats", metavar="N", type=count, default=20, help="20 by default")
    parser.add_argument("--json", action="store_true", help="print percentiles as JSON instead of a table")
    device_arguments(parser)
    config_argument(parser)


def _profile(arguments: Namespace) -> None:
    from terrazzo.profiling import profile

    measured = profile(
        arguments.model,
        size_hw=arguments.size,
        precision=arguments.precision,
        device=arguments.device,
        repeats=arguments.repeats,
        config=arguments.config,
        out=arguments.out,
    )
    show(measured, as_json=arguments.json)


COMMANDS = (
    Command(
        "export",
        "MODEL --format onnx|openvino --out DIR",
        "Write a model as a graph for ONNX Runtime, OpenVINO or TensorRT, and prove that it does the same.",
        "The same images go through PyTorch and through the graph: where their labels differ, or with --data their\n"
        "mIoU, nothing is written. `terrazzo evaluate DIR` and `terrazzo predict DIR` then take it like any model.",
        _export_arguments,
        _export,
    ),
    Command(
        "profile",
        "MODEL [--size 1920x1080] [--out FILE.png]",
        "Say where the time of a prediction goes: decode, resize, network, argmax, write, in every backend here.",
        "Percentiles of repeated runs on a made-up image, after two that do not count.",
        _profile_arguments,
        _profile,
    ),
)
