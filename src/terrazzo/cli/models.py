"""quickstart, train, evaluate, predict, convert: a network and what it is worth."""

import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from terrazzo.cli.looking import (
    DEVICE,
    MODEL,
    backend_argument,
    config_argument,
    device_arguments,
    show,
    window_arguments,
)
from terrazzo.cli.parsing import (
    Command,
    Parser,
    count,
    duration,
    field_instead,
    fold,
    one_of,
    recipe_and_overrides,
    time_span,
    whole_number,
)
from terrazzo.errors import UsageError, quoted

if TYPE_CHECKING:
    from terrazzo.planning import Plan


def _train_arguments(parser: Parser) -> None:
    parser.elsewhere = field_instead
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RECIPE key=value",
        help="a name of `terrazzo recipes`, or a recipe's .json or .py file; then fields to override, such as "
        "train.steps=2000 model.pretrained=null. Not needed with --resume",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="a folder, a saved data set, a Hub id user/name[@revision], or a URL; not needed where RECIPE names one",
    )
    parser.add_argument("--out", metavar="RUN", help="the run's folder, made here; runs/RECIPE by default")
    parser.add_argument(
        "--overfit",
        metavar="N",
        type=count,
        default=0,
        help="learn the first N images by heart, without augmentation; says that something is wrong when that fails",
    )
    parser.add_argument(
        "--fold",
        metavar="I/K",
        type=fold,
        help="2/5: validate on the second of five parts of train and val together, and train on the rest; they are "
        "cut by name, the same in every run, and evaluate finds them again",
    )
    parser.add_argument(
        "--resume", metavar="RUN", help="go on with a run that was stopped, with its recipe and data"
    )
    parser.add_argument("--device", metavar="DEVICE", default="auto", help=DEVICE)
    parser.add_argument("--seed", metavar="S", type=whole_number, help="instead of the recipe's train.seed")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="train a few steps in a folder that is thrown away, say what the whole training will take, and stop",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        type=time_span,
        help="such as 2h, 90m or 1h30m: measure a few steps, choose what ends within it (steps, validations, portions, "
        "crops where time is short), say so, and train; with --plan only say so",
    )
    parser.add_argument(
        "--push",
        metavar="user/name",
        help="share the best checkpoint on the Hugging Face Hub at the end, as `terrazzo push` does",
    )
    parser.add_argument(
        "--data-changed-ok",
        action="store_true",
        help="resume although the data set is not the one the run was trained on",
    )


def _train(arguments: Namespace) -> int:
    recipe, overrides = recipe_and_overrides(arguments.words)

    from terrazzo.launcher import place
    from terrazzo.training import train

    if arguments.push is not None:
        from terrazzo.hub import check_before_training

        check_before_training(arguments.push)

    planned = (
        _planned(arguments, recipe, overrides) if arguments.plan or arguments.budget is not None else None
    )
    if planned is not None:
        print(planned, flush=True)
        if arguments.plan:
            named = ["--data", arguments.data] if arguments.data is not None else []
            words = [str(recipe), *named, *planned.typed(overrides)]
            print(f"\nTo train so:\n  {shlex.join(['terrazzo', 'train', *words])}")
            return 0
        overrides = planned.typed(overrides)
    began = time.perf_counter()
    run = train(
        recipe,
        data=arguments.data,
        out=arguments.out,
        overrides=overrides,
        overfit=arguments.overfit,
        fold=arguments.fold,
        resume=arguments.resume,
        device=arguments.device,
        seed=arguments.seed,
        data_changed_ok=arguments.data_changed_ok,
    )
    if place().rank != 0:  # process 0 says it
        return 0 if run.stopped_by is None else 128 + run.stopped_by
    if run.stopped_by is not None:
        print(
            f"Stopped and saved at step {run.step}. To go on:\n  terrazzo train --resume {quoted(run.path)}"
        )
        return 128 + run.stopped_by
    best = "" if run.best is None else f", best mIoU {100 * run.best['miou']:.2f} at step {run.best['step']}"
    print(f"{run.path}: {run.step} steps{best}")
    if planned is not None:
        from terrazzo.storage import write_json

        took = time.perf_counter() - began
        write_json(run.path / "plan.json", {**planned.to_json(), "took_seconds": took})
        print(planned.compared(took))
    if arguments.push is not None:
        from terrazzo.hub import push

        try:
            print(f"Pushed: {push(run.path, arguments.push)}")
        except BaseException as error:
            error.add_note(
                f"The run is whole. To push it:\n  terrazzo push {quoted(run.path)} {arguments.push}"
            )
            raise
    return 0


def _planned(arguments: Namespace, recipe: str | None, overrides: Sequence[str]) -> "Plan":
    if arguments.resume is not None or arguments.overfit or recipe is None:
        raise UsageError(
            "A plan is made of a training that begins.",
            found="--resume" if arguments.resume else "--overfit" if arguments.overfit else "no recipe",
            hint="A run that goes on says in its log when it will end.",
        )
    from terrazzo.planning import plan

    return plan(
        recipe,
        data=arguments.data,
        overrides=overrides,
        budget=arguments.budget,
        is_measuring_paid=not arguments.plan,
        fold=arguments.fold,
        device=arguments.device,
        seed=arguments.seed,
    )


def _evaluate_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--data", metavar="DATA", required=True, help="a folder, a saved data set, or a Hub id"
    )
    parser.add_argument("--split", metavar="SPLIT", default="val", help="val by default")
    parser.add_argument(
        "--show-dir", metavar="DIR", help="also draw image | truth | prediction of every image there"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    parser.add_argument(
        "--stream",
        action="store_true",
        default=None,
        help="read parquet where it lies, without downloading it; as the model was trained by default",
    )
    parser.add_argument(
        "--limit", metavar="N", type=count, help="score N images only, spread evenly over the split"
    )
    _look_arguments(parser)


def _evaluate(arguments: Namespace) -> None:
    from terrazzo.evaluation import evaluate

    report = evaluate(
        arguments.model,
        data=arguments.data,
        split=arguments.split,
        show_dir=arguments.show_dir,
        inference=arguments.inference,
        **_looks(arguments),
        config=arguments.config,
        batch_size=arguments.batch,
        limit=arguments.limit,
        stream=arguments.stream,
        device=arguments.device,
        precision=arguments.precision,
        backend=arguments.backend,
    )
    show(report, as_json=arguments.json)


def _predict_arguments(parser: Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help='images, videos, folders, globs such as "day/**/*.jpg", URLs of them (s3://…, https://…), camera:0, or '
        "rtsp://…",
    )
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="masks, colours, overlays and shares go there"
    )
    parser.add_argument(
        "--ids",
        metavar="class|raw",
        type=one_of("kind of ids", "class", "raw"),
        default="class",
        help="class (the default): 0 … K-1; raw: the ids of the data set the model was trained on",
    )
    parser.add_argument(
        "--confidence", action="store_true", help="also write how sure the model is of every pixel"
    )
    parser.add_argument(
        "--write",
        metavar="masks,overlays,…",
        type=lambda text: tuple(filter(None, text.split(","))),
        help="which of masks, colors, overlays, polygons; the first three by default",
    )
    parser.add_argument(
        "--polygons", action="store_true", help="also write the areas of each class as GeoJSON polygons"
    )
    parser.add_argument(
        "--frames", action="store_true", help="of a video, write all that for every frame too"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=duration, help="look at the first N seconds of each video or camera"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in DIR that another hand or model wrote or changed",
    )
    _look_arguments(parser)


def _predict(arguments: Namespace) -> None:
    from terrazzo.predicting import predict
    from terrazzo.prediction import USUAL

    written = predict(
        arguments.model,
        arguments.sources,
        out=arguments.out,
        ids=arguments.ids,
        confidence=arguments.confidence,
        parts=(*(arguments.write or USUAL), *(["polygons"] if arguments.polygons else [])),
        frames=arguments.frames,
        seconds=arguments.seconds,
        inference=arguments.inference,
        **_looks(arguments),
        batch_size=arguments.batch,
        device=arguments.device,
        precision=arguments.precision,
        backend=arguments.backend,
        overwrite=arguments.overwrite,
        config=arguments.config,
    )
    videos = sum(path.suffix == ".mp4" for path in written)
    counts = [(len(written) - videos, "image"), (videos, "video")]
    told = " and ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count)
    print(f"{told or 'Nothing'} predicted: {arguments.out}")


def _look_arguments(parser: Parser) -> None:
    """Add what evaluating and predicting share: how the model looks at an image."""
    config_argument(parser)
    text = "instead of what the model's recipe says"
    window_arguments(parser, text)
    parser.add_argument(
        "--blend",
        metavar="uniform|smooth",
        type=one_of("blend", "uniform", "smooth"),
        help=f"where windows overlap: all alike, or the middle of a window more than its edge, {text}",
    )
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--tta",
        action="store_true",
        help="look at each image at six sizes (0.5 to 1.75), as it is and mirrored, and average: 17 times the work",
    )
    several.add_argument(
        "--flip", action="store_true", help="look at each image also mirrored, and average: twice the work"
    )
    parser.add_argument("--batch", metavar="N", type=count, help="images (or windows) per pass")
    device_arguments(parser)
    backend_argument(parser)


def _looks(arguments: Namespace) -> dict[str, Any]:
    """What --tta, --flip and --blend change in how the model looks at an image."""
    if arguments.tta:
        from terrazzo.recipe import TTA_SCALES

        return {"flip": True, "scales": TTA_SCALES, "blend": arguments.blend}
    return {"flip": True if arguments.flip else None, "blend": arguments.blend}


def _convert_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the model folder, made here, whole or not at all"
    )
    config_argument(parser)


def _convert(arguments: Namespace) -> None:
    from terrazzo.converting import convert

    for line in convert(arguments.source, arguments.out, config=arguments.config):
        print(line)
    print(f"Converted: {arguments.out}")


def _quickstart_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", default="quickstart", help="where everything goes; quickstart by default"
    )
    parser.add_argument("--device", metavar="DEVICE", default="auto", help=DEVICE)
    parser.add_argument(
        "--seed", metavar="S", type=whole_number, default=0, help="of scenes and training; 0 by default"
    )


def _quickstart(arguments: Namespace) -> int:
    from terrazzo.quickstart import quickstart

    report = quickstart(arguments.out, device=arguments.device, seed=arguments.seed)
    if report is None:
        print(f"Stopped and saved. To go on:\n  terrazzo train --resume {quoted(f'{arguments.out}/run')}")
        return 130
    return 0


COMMANDS = (
    Command(
        "quickstart",
        "[--out DIR]",
        "The whole loop on synthetic street scenes, on a CPU, in minutes.",
        "Draws scenes, checks them, trains a SegFormer from scratch, evaluates it on held-out scenes, predicts,\n"
        "and says what to type next for your own images.",
        _quickstart_arguments,
        _quickstart,
    ),
    Command(
        "train",
        "RECIPE --data DATA [key=value …] [--out RUN]",
        "Train a network on a data set.",
        "Every field of a recipe, with its value: terrazzo recipes NAME. What each means: docs/reference/recipe.md.\n"
        "Ctrl-C, SIGTERM and a closed terminal save a checkpoint first; --resume goes on from it.",
        _train_arguments,
        _train,
    ),
    Command(
        "evaluate",
        "MODEL --data DATA [--split val]",
        "Score a model on a split: IoU, accuracy and Dice per class, at the masks' original size.",
        "A class that the masks do not hold is n/a and in no mean.",
        _evaluate_arguments,
        _evaluate,
    ),
    Command(
        "predict",
        "MODEL SOURCE … --out DIR",
        "Write masks, colours, overlays and class shares of images, folders, globs and videos, here or at a URL.",
        "Masks have the size of their images. What cannot be read is named at the end, the others are predicted.\n"
        "A video gives an overlay to play and a table of shares. Under torchrun the processes share the work.",
        _predict_arguments,
        _predict,
    ),
    Command(
        "convert",
        "MODEL --out DIR [--config FILE.py]",
        "Write a model of others as a folder of ours.",
        "Checkpoints of MMSegmentation 0.x and 1.x, and SegFormers of transformers. Nothing in them is run.",
        _convert_arguments,
        _convert,
    ),
)
