"""How a model came to be, for its card: recipe and what differs from it, steps, seed, machine, data and their split."""

import json
from collections.abc import Mapping
from typing import Any

from terrazzo.cards.model_folder import ModelFolder
from terrazzo.cards.text import counted, fingerprint, linked, shown, table
from terrazzo.licences import public

NOT_TOLD = (  # among the fields that differ: said elsewhere, or of no consequence to what is learned
    *("name", "summary", "default_data", "made_for", "model.pretrained", "model.init"),
    *("train.log_every", "train.save_every", "train.keep", "train.pictures", "train.loggers"),
    *("data.workers", "data.cache", "data.on_unreadable"),
)


def training(model: ModelFolder) -> str:
    """Return the part of the card on the training."""
    recipe, trained, data = model.part("recipe"), model.part("training"), model.part("data")
    if not recipe:
        return "## How it was trained\n\nNot known: terrazzo did not train it, or did not say so in terrazzo.json."
    train = recipe.get("train", {})
    name, changed = _changed(recipe)
    versions = trained.get("versions", {})
    made = data.get("made") or {}
    images = data.get("images", {})
    rows = [
        ("recipe", f"{shown(name)}: {shown(recipe.get('summary') or 'no summary')}"),
        ("steps", _steps(trained)),
        ("batch", f"{counted(int(train.get('batch_size', 0)), 'image')} a step"),
        ("seed", shown(train.get("seed", "not known"))),
        ("hardware", _hardware(trained)),
        ("versions", shown(", ".join(f"{one} {v}" for one, v in versions.items())) or "not known"),
        ("started from", _started(model)),
        ("data", f"{shown(data.get('name') or 'not known')}; source: {linked(_public(data.get('source')))}"),
        ("images", shown(", ".join(f"{split} {n:,}" for split, n in images.items())) or "not known"),
        ("fingerprint of the data", fingerprint(data.get("fingerprint"))),
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
    return name, [(p, plain(a), plain(b)) for p, a, b in pairs if a != b and p not in NOT_TOLD]


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


def _started(model: ModelFolder) -> str:
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


def _public(words: Any) -> str | None:
    """Words that may be passed on; older runs wrote where the data lay."""
    return str(words) if words and public(str(words)) else None


def plain(value: Any) -> str:
    """Return a value as one would type it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return (",".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
