"""The card of a model: what it is, how good on what, how it came to be, how to use it, what it may not be used for.

Everything comes from the folder: terrazzo.json (recipe, classes, data, training, licences), evaluation.json (the
validation of these very weights), config.json (whether transformers opens it), and the pictures that lie in it.
"""

import math
import os
import re
from pathlib import Path
from typing import Any

from terrazzo.cards import licensing
from terrazzo.cards.model_folder import ModelFolder
from terrazzo.cards.model_training import plain, training
from terrazzo.cards.model_use import intended, limits, use
from terrazzo.cards.pictures import PREDICTIONS
from terrazzo.cards.text import counted, fingerprint, front_matter, line, percent, shown, swatch, table
from terrazzo.errors import UnreadableFileError
from terrazzo.licences import read

METRICS = (  # field of a report -> (type in model-index, how it is called)
    ("miou", "mean_iou", "mean IoU"),
    ("mean_accuracy", "mean_accuracy", "mean accuracy"),
    ("pixel_accuracy", "accuracy", "pixel accuracy"),
    ("mean_dice", "mean_dice", "mean Dice"),
    ("frequency_weighted_iou", "frequency_weighted_iou", "frequency-weighted IoU"),
)


def model_card(folder: "str | os.PathLike[str]", *, repo_id: str) -> str:
    """Return the README.md of a model folder that is to be shared as `repo_id`, "user/name".

    The weights' licence is the one that was chosen for them, else what they inherit, and "unknown" where they come from
    nobody's. Raises MissingPathError and UnreadableFileError for a folder that cannot be read.
    """
    model = ModelFolder(Path(folder), repo_id)
    try:
        head = front_matter(_metadata(model))
        parts = [_head(model), _scores(model), use(model), training(model), intended(model), limits(model)]
        return head + "\n" + "\n\n".join([*parts, licensing.section(model.ledger)]) + "\n"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of another shape
        raise UnreadableFileError(
            f"What {folder} says of its model cannot be told on a card.",
            found=f"{type(error).__name__}: {line(error)}",
            expected="terrazzo.json, config.json and evaluation.json as terrazzo or transformers write them",
        ) from error


def _metadata(model: ModelFolder) -> dict[str, Any]:
    hub = model.part("data", "hub")
    family = str(model.config.get("model_type") or model.part("recipe", "model").get("name") or "")
    bases = [one.name.partition("@")[0] for one in model.ledger.weights]
    on_hub = [one for one in bases if re.fullmatch(r"(?!openmmlab/)[\w.-]+/[\w.-]+", one)]
    values: dict[str, Any] = {
        "pipeline_tag": "image-segmentation",
        "library_name": "transformers" if model.auto_class else "terrazzo",
        **licensing.metadata(read(model.ledger.of_weights)),
        "base_model": on_hub[0] if on_hub else None,
        "datasets": [hub["id"]] if "id" in hub else None,
        "tags": ["semantic-segmentation", "vision", "terrazzo", *([family] if family else [])],
        "widget": [
            {"src": f"https://huggingface.co/{model.repo_id}/resolve/main/{name}", "example_title": f"Validation {n}"}
            for n, name in enumerate((one for one in model.pictures if one != PREDICTIONS), start=1)
        ],
        "model-index": _model_index(model),
    }  # fmt: skip
    return {name: value for name, value in values.items() if value not in (None, [])}


def _model_index(model: ModelFolder) -> list[dict[str, Any]] | None:
    report = model.report
    if report is None:
        return None
    hub = model.part("data", "hub")
    metrics = [
        {"type": kind, "name": name, "value": getattr(report, score)}
        for score, kind, name in METRICS
        if math.isfinite(getattr(report, score))
    ]
    if not metrics:
        return None
    slug = re.sub(r"[^\w.-]+", "-", line(report.data)).strip("-").lower() or "unnamed"
    dataset = {
        "type": hub.get("id", slug),
        "name": line(report.data or "not named"),
        "split": report.split or None,
        "revision": hub.get("revision"),
        "args": {"fingerprint": report.fingerprint} if report.fingerprint else None,
    }
    task = {"type": "image-segmentation", "name": "Semantic segmentation"}
    kept = {name: value for name, value in dataset.items() if value is not None}
    return [{"name": model.name, "results": [{"task": task, "dataset": kept, "metrics": metrics}]}]


def _head(model: ModelFolder) -> str:
    classes, data = model.classes, model.part("data")
    many = counted(len(classes), "class", "es") if classes else "an unknown number of classes"
    on = f" on {shown(data['name'])}" if data.get("name") else ""
    trained = f"; trained{on} with terrazzo" if model.part("training") else ""
    network = shown(model.network) if model.network else "A network"
    text = [
        f"# {shown(model.name)}",
        f"{network} that gives every pixel of an image one of {many}{trained}.",
    ]
    report = model.report
    if report is not None:
        text.append(
            f"**{percent(report.miou)} % mean IoU** on {counted(report.num_images, 'image')} of the split "
            f"{shown(report.split or 'not named')}."
        )
    if PREDICTIONS in model.pictures:
        text.append(f"![Images, their masks and the model's predictions]({PREDICTIONS})")
        text.append("Images of the validation: image | truth | prediction.")
    elif any(one.licence.redistribution == "no" for one in model.ledger.data):
        text.append("No images are shown: the licence of the data does not allow passing them on.")
    return "\n\n".join(text)


def _scores(model: ModelFolder) -> str:
    report, classes = model.report, model.classes
    if report is None:
        return "## Scores\n\nNo evaluation of these weights lies with them: how good they are is not known."
    means = [(name, percent(getattr(report, score))) for score, _, name in METRICS]
    means += [(shown(name), f"{value:.4f}") for name, value in report.metrics.items()]
    rows = []
    for number, (name, score) in enumerate(report.per_class.items()):
        is_same = classes is not None and classes.names == report.names
        color = [swatch(classes.colors[number])] if classes is not None and is_same else ["n/a"]
        scores = [percent(score.iou), percent(score.accuracy), percent(score.dice), f"{score.pixels:,}"]
        rows.append([str(number), shown(name), *color, *scores])
    looked = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in report.settings.items())
    text = [
        "## Scores",
        f"Measured with terrazzo on {counted(report.num_images, 'image')}: split {shown(report.split or 'not named')} "
        f"of {shown(report.data or 'a data set without a name')}, fingerprint "
        f"{fingerprint(report.fingerprint)}. Pixels are counted at the masks' own size over the whole split; "
        "ignored ones are not; a class that does not occur is n/a and left out of the means. Images are seen so: "
        f"{shown(looked) if looked else 'not known'}.",
        table(("mean", "%"), means, right=(1,)),
        table(("id", "class", "colour", "IoU %", "accuracy %", "Dice %", "pixels"), rows, right=(0, 3, 4, 5, 6)),
        *(shown(note) for note in report.notes),
    ]  # fmt: skip
    return "\n\n".join(text)
