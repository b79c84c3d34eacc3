"""How a model is used and for what, for its card: code that runs, what it is meant for, and where it ends."""

import json

from terrazzo.cards.model_folder import ModelFolder
from terrazzo.cards.text import counted, percent, shown

LOWEST = 3  # classes that are named among the limits
LISTED = 12  # names that a sentence lists


def use(model: ModelFolder) -> str:
    """Return the part of the card on how to use it; the code runs."""
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
    differs = _seen_otherwise(model)
    if differs:
        text.append(
            f"The scores above were measured with terrazzo, which {' and '.join(differs)}; transformers does not, and "
            "gives other masks."
        )
    return "\n\n".join(text)


def _seen_otherwise(model: ModelFolder) -> list[str]:
    """What terrazzo does with an image before or after the network that transformers is not told to do."""
    look, resize = model.part("recipe", "eval"), model.part("recipe", "data").get("resize", "original")
    differs = []
    if resize not in ("original", "exact"):
        differs.append(f"resizes images first ({shown(resize)})")
    if look.get("inference") == "windows":
        differs.append("looks at them in windows")
    if look.get("flip") or list(look.get("scales") or [1.0]) != [1.0]:
        differs.append("averages several looks")
    return differs


def intended(model: ModelFolder) -> str:
    """Return the part of the card on what it is for."""
    data = model.part("data").get("name")
    like = f"like those of {shown(data)}" if data else "like those it was trained on"
    return (
        f"## Intended use\n\nSemantic segmentation of images {like}: a class for every pixel, among the classes above. "
        "It has been measured for nothing else. On images of another camera, place, season or scale its scores are not "
        "known, and it gives one of its classes to whatever it sees, also to what is none of them."
    )


def limits(model: ModelFolder) -> str:
    """Return the part of the card on its limits, each from a fact in the folder."""
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
        never = [name for name, iou in seen.items() if iou == 0]
        rest = sorted((name for name in seen if seen[name] > 0), key=lambda name: seen[name])
        if never:
            lines.append(f"It found no pixel of these classes, which do occur there: {_listed(never)}.")
        if len(rest) > LOWEST:
            found = ", ".join(f"{shown(name)} {percent(seen[name], digits=1)} %" for name in rest[:LOWEST])
            lines.append(
                f"It is worst at these classes{', of the others' if never else ''}, by IoU: {found}."
            )
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


def _sizes(model: ModelFolder) -> list[str]:
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
        height, width = map(int, data["resize_hw"])
        lines.append(
            f"It sees images resized ({shown(data['resize'])}, {height}x{width}), so what is small there is lost."
        )
    return lines


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more
