"""The card of a model: what it is, how good on what, how it came to be, how to use it, what it may not be used for.

Everything comes from the folder: terrazzo.json (recipe, classes, data, training, licences), evaluation.json (the
validation of these very weights), config.json (whether transformers opens it), and the pictures that lie in it.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from terrazzo.cards import licensing
from terrazzo.cards.pictures import EXAMPLE, FOLDER, PREDICTIONS
from terrazzo.cards.text import counted, front_matter, line, linked, percent, shown, swatch, table
from terrazzo.classes import Classes
from terrazzo.licences import Ledger, ledger_of, public
from terrazzo.report import EVALUATION, Report
from terrazzo.storage import read_json

METRICS = (  # field of a report -> (type in model-index, how it is called)
    ("miou", "mean_iou", "mean IoU"),
    ("mean_accuracy", "mean_accuracy", "mean accuracy"),
    ("pixel_accuracy", "accuracy", "pixel accuracy"),
    ("mean_dice", "mean_dice", "mean Dice"),
    ("frequency_weighted_iou", "frequency_weighted_iou", "frequency-weighted IoU"),
)
NOT_TOLD = (  # among the fields that differ: said elsewhere, or of no consequence to what is learned
    *("name", "summary", "default_data", "made_for", "model.pretrained", "model.init"),
    *("train.log_every", "train.save_every", "train.keep", "train.pictures", "train.loggers"),
    *("data.workers", "data.cache", "data.on_unreadable"),
)
LOWEST = 3  # classes that are named among the limits
LISTED = 12  # names that a sentence lists


def model_card(folder: "str | os.PathLike[str]", *, repo_id: str, license: str | None = None) -> str:
    """Return the README.md of a model folder that is to be shared as `repo_id`, "user/name".

    license: what whoever shares it says of the weights; by default what the weights they come from say, and "unknown"
    where they come from none. Raises MissingPathError and UnreadableFileError for a folder that cannot be read.
    """
    model = _Model(Path(folder), repo_id, license)
    parts = [_head(model), _scores(model), _use(model), _training(model), _intended(model), _limits(model)]
    body = [part for part in (*parts, licensing.section(model.ledger, license)) if part]
    return front_matter(_metadata(model)) + "\n" + "\n\n".join(body) + "\n"


@dataclass(frozen=True)
class _Model:
    """What lies in the folder."""

    folder: Path
    repo_id: str
    license: str | None

    @cached_property
    def about(self) -> dict[str, Any]:
        """terrazzo.json; {} for a model that transformers saved."""
        return self._json("terrazzo.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; {} where transformers does not open it."""
        return self._json("config.json")

    @cached_property
    def report(self) -> Report | None:
        """The validation of these weights."""
        file = self.folder / EVALUATION
        return Report.open(file) if file.is_file() else None

    @property
    def ledger(self) -> Ledger:
        return ledger_of(self.about)

    @property
    def classes(self) -> Classes | None:
        if "classes" in self.about:
            return Classes.from_json(self.about["classes"])
        names = self.config.get("id2label")
        return Classes(tuple(str(names[key]) for key in sorted(names, key=int))) if names else None

    @property
    def name(self) -> str:
        return self.repo_id.split("/")[-1]

    @property
    def network(self) -> str | None:
        """The architecture in words."""
        recipe = self.part("recipe", "model")
        name = recipe.get("name")
        if name == "huggingface" or name is None:
            return next(iter(self.config.get("architectures") or ()), None)
        backbone = recipe.get("backbone")
        return f"{name} on {backbone}" if backbone else str(name)

    @property
    def auto_class(self) -> str | None:
        """The class of transformers that opens it; None where none does."""
        named = str(next(iter(self.config.get("architectures") or ()), ""))
        kinds = ("SemanticSegmentation", "UniversalSegmentation")
        return next((f"AutoModelFor{kind}" for kind in kinds if named.endswith(f"For{kind}")), None)

    @property
    def pictures(self) -> list[str]:
        """The pictures in the folder, as the card names them."""
        names = [PREDICTIONS, *(f"{FOLDER}/{EXAMPLE.format(number)}" for number in range(1, 10))]
        return [name for name in names if (self.folder / name).is_file()]

    def part(self, *path: str) -> dict[str, Any]:
        """An object inside terrazzo.json; {} where it is not there."""
        value: Any = self.about
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, dict) else {}

    def _json(self, name: str) -> dict[str, Any]:
        value = read_json(self.folder / name) if (self.folder / name).is_file() else {}
        return value if isinstance(value, dict) else {}


# the metadata ------------------------------------------------------------------------------------------


def _metadata(model: _Model) -> dict[str, Any]:
    hub = model.part("data", "hub")
    family = str(model.config.get("model_type") or model.part("recipe", "model").get("name") or "")
    bases = [one.name for one in model.ledger.weights if re.fullmatch(r"[\w.-]+/[\w.-]+", one.name)]
    values: dict[str, Any] = {
        "pipeline_tag": "image-segmentation",
        "library_name": "transformers" if model.auto_class else "terrazzo",
        **licensing.metadata(licensing.of_weights(model.ledger, model.license)),
        "base_model": bases[0] if bases and not bases[0].startswith("openmmlab/") else None,
        "datasets": [hub["id"]] if "id" in hub else None,
        "tags": ["semantic-segmentation", "vision", "terrazzo", *([family] if family else [])],
        "widget": [
            {"src": f"https://huggingface.co/{model.repo_id}/resolve/main/{name}", "example_title": f"Validation {n}"}
            for n, name in enumerate((one for one in model.pictures if one != PREDICTIONS), start=1)
        ],
        "model-index": _model_index(model),
    }  # fmt: skip
    return {name: value for name, value in values.items() if value not in (None, [])}


def _model_index(model: _Model) -> list[dict[str, Any]] | None:
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


# the parts of the text ---------------------------------------------------------------------------------


def _head(model: _Model) -> str:
    classes, data = model.classes, model.part("data")
    many = counted(len(classes), "class", "es") if classes else "an unknown number of classes"
    on = f" on {shown(data['name'])}" if data.get("name") else ""
    network = shown(model.network) if model.network else "A network"
    text = [
        f"# {shown(model.name)}",
        f"{network} that gives every pixel of an image one of {many}; trained{on} with terrazzo.",
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


def _scores(model: _Model) -> str:
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
    looked = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in report.settings.items())
    text = [
        "## Scores",
        f"Measured with terrazzo on {counted(report.num_images, 'image')}: split {shown(report.split or 'not named')} "
        f"of {shown(report.data or 'a data set without a name')}, fingerprint "
        f"`{line(report.fingerprint or 'not known')}`. Pixels are counted at the masks' own size over the whole split; "
        "ignored ones are not; a class that does not occur is n/a and left out of the means. Images are seen so: "
        f"{shown(looked) if looked else 'not known'}.",
        table(("mean", "%"), means, right=(1,)),
        table(("id", "class", "colour", "IoU %", "accuracy %", "Dice %", "pixels"), rows, right=(0, 3, 4, 5, 6)),
        *(shown(note) for note in report.notes),
    ]  # fmt: skip
    return "\n\n".join(text)


def _use(model: _Model) -> str:
    repo = json.dumps(model.repo_id)
    text = [
        "## How to use it",
        "With terrazzo:",
        f"""```python
import terrazzo as tz

model = tz.load({repo})
prediction = model("street.jpg")           # a path, a PIL image, an array (height, width, channels), or a list
prediction.mask                            # (height, width) class ids at the image's own size
prediction.overlay().save("overlay.png")
```""",
    ]
    if model.auto_class is None:
        return "\n\n".join([*text, "transformers has no class that opens this network."])
    if (
        int(model.about.get("channels", 3)) != 3
        or model.part("preprocessing").get("dtype", "uint8") != "uint8"
    ):
        return "\n\n".join(
            [*text, "transformers opens it too; its image processors are made for 8-bit RGB alone."]
        )
    text += [
        "With transformers:",
        f"""```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, {model.auto_class}

image = Image.open("street.jpg").convert("RGB")
processor = AutoImageProcessor.from_pretrained({repo})
model = {model.auto_class}.from_pretrained({repo})
with torch.no_grad():
    outputs = model(**processor(images=image, return_tensors="pt"))
size = [(image.height, image.width)]
mask = processor.post_process_semantic_segmentation(outputs, target_sizes=size)[0]
```""",
        "Or as a pipeline:",
        f"""```python
from transformers import pipeline

segments = pipeline("image-segmentation", model={repo})("street.jpg")   # [{{"label": …, "mask": …}}, …]
```""",
    ]  # fmt: skip
    if model.part("recipe", "eval").get("inference") == "windows":
        text.append(
            "The scores above were measured in windows over the image; transformers sees the whole image at once, "
            "which gives other masks."
        )
    return "\n\n".join(text)


def _training(model: _Model) -> str:
    recipe, training, data = model.part("recipe"), model.part("training"), model.part("data")
    if not recipe:
        return "## How it was trained\n\nNot known: terrazzo did not train it, or did not say so in terrazzo.json."
    train = recipe.get("train", {})
    name, changed = _changed(recipe)
    versions = training.get("versions", {})
    made = data.get("made") or {}
    images = data.get("images", {})
    rows = [
        ("recipe", f"{shown(name)}: {shown(recipe.get('summary') or 'no summary')}"),
        ("steps", _steps(training)),
        ("batch", f"{counted(int(train.get('batch_size', 0)), 'image')} a step"),
        ("seed", str(train.get("seed", "not known"))),
        ("hardware", _hardware(training)),
        ("versions", shown(", ".join(f"{one} {v}" for one, v in versions.items())) or "not known"),
        ("started from", _started(model)),
        ("data", f"{shown(data.get('name') or 'not known')}; source: {linked(_public(data.get('source')))}"),
        ("images", shown(", ".join(f"{split} {n:,}" for split, n in images.items())) or "not known"),
        ("fingerprint of the data", f"`{line(data.get('fingerprint') or 'not known')}`"),
    ]
    if made:
        rows.append(("split", shown(_how_split(made))))
    text = ["## How it was trained", table(("what", "here"), rows)]
    if changed is None:
        text.append("The recipe is not one of terrazzo's own; every field of it is in `terrazzo.json`.")
    elif changed:
        text.append("Fields that differ from the recipe of that name (all of them are in `terrazzo.json`):")
        text.append(table(("field", "here", "there"), [tuple(map(shown, row)) for row in changed]))
    else:
        text.append("Every field is as in the recipe of that name; all of them are in `terrazzo.json`.")
    return "\n\n".join(text)


def _intended(model: _Model) -> str:
    data = model.part("data").get("name")
    like = f"like those of {shown(data)}" if data else "like those it was trained on"
    return (
        f"## Intended use\n\nSemantic segmentation of images {like}: a class for every pixel, among the classes above. "
        "It has been measured for nothing else. On images of another camera, place, season or scale its scores are not "
        "known, and it gives one of its classes to whatever it sees, also to what is none of them."
    )


def _limits(model: _Model) -> str:
    report, data, training = model.report, model.part("data"), model.part("training")
    lines = []
    images = data.get("images", {}).get("train")
    if images is not None:
        lines.append(f"It learned from {counted(int(images), 'image')}.")
    if training.get("overfit"):
        lines.append("It was made to learn a handful of images by heart, and was scored on the same ones.")
    if report is not None:
        absent = [name for name, score in report.per_class.items() if score.pixels == 0]
        seen = {name: score.iou for name, score in report.per_class.items() if score.pixels}
        if absent:
            verb = "does" if len(absent) == 1 else "do"
            lines.append(
                f"{_listed(absent)} {verb} not occur in the validation: how well it finds them is not known."
            )
        lowest = sorted(seen, key=lambda name: seen[name])[:LOWEST] if len(seen) > LOWEST else []
        if lowest:
            found = ", ".join(f"{shown(name)} {percent(seen[name], digits=1)} %" for name in lowest)
            lines.append(f"It is worst at these classes, by IoU: {found}.")
        if training:
            lines.append(
                "The checkpoint was chosen by its score on that split, which flatters the score a little."
            )
    else:
        lines.append("It has not been evaluated, as far as its folder says.")
    lines += _sizes(model)
    if training:
        lines.append("It is one training with one seed; how far others would come out is not known.")
    return "## Limits\n\n" + "\n".join(f"- {one}" for one in lines)


# their sentences ---------------------------------------------------------------------------------------


def _changed(recipe: Mapping[str, Any]) -> tuple[str, list[tuple[str, str, str]] | None]:
    """Return the recipe's name, and its fields that differ from the catalogue's; None where it is not in it."""
    from terrazzo import fields as leaf
    from terrazzo.errors import TerrazzoError
    from terrazzo.recipe import Recipe, load, names
    from terrazzo.recipes import openmmlab

    name = str(recipe.get("name", "not named"))
    try:
        mine = Recipe.from_json(dict(recipe))
        theirs = load(name) if name in names() or openmmlab.is_name(name) else None
    except TerrazzoError:
        return name, None
    if theirs is None:
        return name, None
    pairs = [(path, leaf.get(mine, path), leaf.get(theirs, path)) for path in leaf.leaves(Recipe)]
    return name, [(p, _plain(a), _plain(b)) for p, a, b in pairs if a != b and p not in NOT_TOLD]


def _steps(training: Mapping[str, Any]) -> str:
    if "step" not in training:
        return "not known"
    step, steps = int(training["step"]), int(training.get("steps", training["step"]))
    return f"{step:,} of {steps:,}" if step != steps else f"{steps:,}"


def _hardware(training: Mapping[str, Any]) -> str:
    if not training.get("device"):
        return "not known"
    processes = int(training.get("processes", 1))
    return shown(training["device"]) + (f", {processes} processes" if processes > 1 else "")


def _started(model: _Model) -> str:
    if "licenses" not in model.about:
        return "not known"
    weights = model.ledger.weights
    return ", before that ".join(shown(one.name) for one in weights) if weights else "random weights"


def _how_split(made: Mapping[str, Any]) -> str:
    if made.get("fold"):
        number, count = made["fold"]
        return f"fold {number} of {count}, cut by name"
    kept = f"; images whose names agree in {made['groups']!r} stay together" if made.get("groups") else ""
    return (
        f"made by terrazzo, by name, seed {made.get('seed')}: {100 * float(made.get('fraction', 0)):.0f} % for "
        f"validation{kept}"
    )


def _sizes(model: _Model) -> list[str]:
    data, sizes = model.part("recipe", "data"), model.part("data").get("sizes") or []
    lines = []
    if sizes:
        hw = sorted({(int(height), int(width)) for height, width in sizes})
        span = (
            f"{hw[0][0]}x{hw[0][1]}" if len(hw) == 1 else f"{hw[0][0]}x{hw[0][1]} to {hw[-1][0]}x{hw[-1][1]}"
        )
        lines.append(
            f"Images are {span} (height x width), by {len(sizes)} of those it was trained on; objects much larger or "
            "smaller in the image than there were not measured."
        )
    if data.get("resize", "original") != "original":
        height, width = data["resize_hw"]
        lines.append(
            f"It sees images resized ({data['resize']}, {height}x{width}), so what is small there is lost."
        )
    return lines


def _public(words: Any) -> str | None:
    """Words that may be passed on; older runs wrote where the data lay."""
    return str(words) if words and public(str(words)) else None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more


def _plain(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return (",".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
