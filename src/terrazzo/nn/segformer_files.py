"""The Hugging Face form of a SegFormer: config.json, preprocessor_config.json and the names in the weights
file.

Facts alone, as dicts: nothing here opens a file, and transformers is never imported. Checked against
transformers 5.23 (tests/parity). Its modules were renamed in version 5, yet it goes on writing the old names;
`stored_name` takes both.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from terrazzo.classes import Classes
from terrazzo.errors import WeightsError
from terrazzo.nn import IMAGENET_MEAN, IMAGENET_STD
from terrazzo.nn.segformer import SegFormer, Size

FAST = "Fast"  # the end of an image_processor_type of version 4: torchvision's resize
ENCODER_ONLY = ("SegformerModel", "SegformerForImageClassification")  # no head

# config.json key -> field of Size; one entry per stage
STAGE_LISTS = {
    "depths": "depths",
    "hidden_sizes": "hidden_sizes",
    "num_attention_heads": "num_heads",
    "sr_ratios": "reductions",
    "mlp_ratios": "mlp_ratios",
    "patch_sizes": "patch_sizes",
    "strides": "strides",
}

# far beyond any that was published: what a file claims is built before its tensors are compared with it
MOST = {"stages": 16, "depths": 512, "patch_sizes": 256, "strides": 256, "mlp_ratios": 256, "sr_ratios": 256}

# what version 5 calls its modules in memory -> what lies in files
RENAMED = (
    (r"\bstages\.(\d+)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"\bstages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"\bstages\.(\d+)\.layer_norm\b", r"encoder.layer_norm.\1"),
    (r"\battention\.q_proj\b", "attention.self.query"),
    (r"\battention\.k_proj\b", "attention.self.key"),
    (r"\battention\.v_proj\b", "attention.self.value"),
    (r"\battention\.o_proj\b", "attention.output.dense"),
    (r"\battention\.sequence_reduction\.sequence_reduction\b", "attention.self.sr"),
    (r"\battention\.sequence_reduction\.layer_norm\b", "attention.self.layer_norm"),
    (r"\bmlp\.fc1\b", "mlp.dense1"),
    (r"\bmlp\.fc2\b", "mlp.dense2"),
    (r"\blayernorm_before\b", "layer_norm_1"),
    (r"\blayernorm_after\b", "layer_norm_2"),
    (r"\blinear_projections\b", "linear_c"),
)


def stored_name(name: str) -> str:
    """Return a tensor's name in our state dict, from either form of transformers', with or without prefix."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return "segformer." + name if name.startswith("encoder.") else name


def model_config(network: SegFormer, classes: Classes) -> dict[str, Any]:
    """Return config.json of `network`, which SegformerForSemanticSegmentation.from_pretrained reads."""
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": network.dropout,
        "decoder_hidden_size": network.size.decoder_hidden_size,
        "drop_path_rate": network.drop_path,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "id2label": {str(class_id): name for class_id, name in enumerate(classes.names)},
        "initializer_range": 0.02,
        "label2id": {name: class_id for class_id, name in enumerate(classes.names)},
        "layer_norm_eps": 1e-06,
        "model_type": "segformer",
        "num_channels": network.channels,
        "num_encoder_blocks": len(network.size.depths),
        "reshape_last_stage": True,
        "semantic_loss_ignore_index": classes.ignore,
        "torch_dtype": "float32",  # the name of "dtype" in version 4
        **{key: list(getattr(network.size, field)) for key, field in STAGE_LISTS.items()},
    }


def size_of(config: Mapping[str, Any], *, where: str) -> Size:
    """Return the sizes in a config.json; raises WeightsError when it is not a SegFormer's."""
    kind = config.get("model_type")
    if kind != "segformer":
        raise WeightsError(
            f"{where} holds a network that terrazzo does not build.",
            found=f"model_type {kind!r} in config.json",
            expected="'segformer'",
            hint="Build the network yourself and pass it: terrazzo.load(..., network=my_network).",
        )
    missing = sorted({*STAGE_LISTS, "decoder_hidden_size"} - set(config))
    lengths = {
        len(config[key]) if isinstance(config[key], list) else 0 for key in STAGE_LISTS if key in config
    }
    if missing or len(lengths) != 1 or not 0 < max(lengths) <= MOST["stages"]:
        raise WeightsError(
            f"config.json of {where} does not describe a SegFormer.",
            found=f"no {', '.join(missing)}" if missing else "lists of different lengths",
            expected="decoder_hidden_size, and one number per stage in each of " + ", ".join(STAGE_LISTS),
        )
    if config.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(
            f"{where} uses an activation that terrazzo's SegFormer does not have.",
            found=f"hidden_act {config['hidden_act']!r}",
            expected="'gelu', as in every published SegFormer",
        )
    strange = [
        f"{key} {config[key]!r:.60}"
        for key in ("decoder_hidden_size", *STAGE_LISTS)
        for number in (config[key] if key in STAGE_LISTS else [config[key]])
        if not isinstance(number, int | float)
        or not 1 <= number <= MOST.get(key, 1 << 16)
        or number != int(number)
    ]
    if strange:
        raise WeightsError(
            f"config.json of {where} has numbers that no SegFormer has.",
            found=", ".join(dict.fromkeys(strange)),
            expected="whole numbers from 1",
        )
    lists = {field: tuple(int(number) for number in config[key]) for key, field in STAGE_LISTS.items()}
    return Size(decoder_hidden_size=int(config["decoder_hidden_size"]), **lists)


def classes_of(config: Mapping[str, Any], num_classes: int, *, where: str) -> Classes:
    """Return the classes that `id2label` names for a head of `num_classes` rows; LABEL_0 … where it names none.

    A name that stands there twice gets " (2)", " (3)" …, since a class is known by its name here. Blanks around a name
    are dropped: networks of ADE20K call the bed "bed ".
    """
    table = {int(key): str(name).strip() for key, name in config.get("id2label", {}).items()}
    if not table:
        table = {
            class_id: f"LABEL_{class_id}" for class_id in range(num_classes)
        }  # transformers' own default
    if sorted(table) != list(range(num_classes)):
        raise WeightsError(
            f"id2label in config.json of {where} does not fit its weights.",
            found=f"{len(table)} names, ids {min(table)} to {max(table)}",
            expected=f"{num_classes} names, ids 0 to {num_classes - 1}: one per row of the classifier",
        )
    names: list[str] = []
    for class_id in range(num_classes):
        name, copies = table[class_id], 1
        while name in names:
            copies += 1
            name = f"{table[class_id]} ({copies})"
        names.append(name)
    return Classes(tuple(names))


def has_real_names(classes: Classes) -> bool:
    """False for the names transformers makes up when nobody gave any."""
    return any(name != f"LABEL_{class_id}" for class_id, name in enumerate(classes.names))


def processor_config(
    mean: Sequence[float], std: Sequence[float], preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """Return preprocessor_config.json, from which transformers' AutoImageProcessor makes the network's input.

    It can express "original" (no resizing) and "exact" (to one size). For "short" and "fit" there is no word
    in it: it then says do_resize false, and terrazzo.json says what ours is. torchvision's rounding is said by the
    ending "Fast" (see `rounding_of`).
    """
    height, width = preprocessing.get("resize_hw", (512, 512))
    top = {"uint8": 255, "uint16": 65535}.get(
        str(preprocessing.get("dtype", "uint8"))
    )  # float32: [0, 1] already
    return {
        "do_normalize": True,
        "do_reduce_labels": False,  # ids are class ids here, always
        "do_rescale": top is not None,
        "do_resize": preprocessing.get("resize", "original") == "exact",
        "image_mean": list(mean),
        "image_processor_type": processor_type(
            "SegformerImageProcessor", preprocessing.get("rounding", "pillow")
        ),
        "image_std": list(std),
        "resample": 3 if preprocessing.get("interpolation") == "bicubic" else 2,  # PIL's numbers
        "rescale_factor": 1 / (top or 255),
        "size": {"height": int(height), "width": int(width)},
    }


def preprocessing_of(
    config: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], dict[str, Any]]:
    """Return (mean, std, preprocessing) from a preprocessor_config.json; mean and std for images in [0, 1].

    An empty config means ImageNet's normalisation and no resizing. "interpolation" and "rounding" are there where they
    are not what they are by default; bicubic is the only one of PIL's that is taken for itself, others are bilinear.
    """
    is_rgb = channels == 3
    mean = list(config.get("image_mean") or (IMAGENET_MEAN if is_rgb else (0.0,) * channels))
    std = list(config.get("image_std") or (IMAGENET_STD if is_rgb else (1.0,) * channels))
    if not config.get("do_normalize", True):
        mean, std = [0.0] * channels, [1.0] * channels
    # the processor computes (255 x * factor - mean) / std of our x in [0, 1]
    factor = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    factor = 1.0 if abs(factor - 1.0) < 1e-9 else factor
    preprocessing: dict[str, Any] = {"resize": "original"}
    if config and config.get("do_resize", True):
        size = config.get("size", 512)
        if isinstance(size, Mapping) and "shortest_edge" in size:
            preprocessing = {"resize": "short", "resize_hw": (int(size["shortest_edge"]),) * 2}
        elif isinstance(size, Mapping):
            preprocessing = {"resize": "exact", "resize_hw": (int(size["height"]), int(size["width"]))}
        else:  # configs of the first years: one number, a square
            preprocessing = {"resize": "exact", "resize_hw": (int(size), int(size))}
    if preprocessing["resize"] != "original":
        preprocessing |= how_resized(config)
    return tuple(m / factor for m in mean), tuple(s / factor for s in std), preprocessing


def how_resized(config: Mapping[str, Any]) -> dict[str, str]:
    """Return "interpolation" and "rounding" of a preprocessor_config.json, without those that are as by default."""
    found = {} if config.get("resample") != 3 else {"interpolation": "bicubic"}
    return found if rounding_of(config) == "pillow" else {**found, "rounding": "torchvision"}


def rounding_of(config: Mapping[str, Any]) -> str:
    """Return whose arithmetic resizes images, "pillow" or "torchvision", as a preprocessor_config.json says it.

    A type that ends in "Fast" was written by version 4's processor on torchvision. Every other name says nothing for
    certain: version 4 wrote it for Pillow, version 5 for either of its backends, and `AutoImageProcessor` of version 5
    takes torchvision where that is installed, whatever the name. Those are "pillow" here, as they always were; a recipe
    says data.rounding=torchvision, and so does the name with "Fast" at its end.
    """
    return "torchvision" if str(config.get("image_processor_type", "")).endswith(FAST) else "pillow"


def processor_type(name: str, rounding: str) -> str:
    """Return an image_processor_type from which `rounding_of` reads `rounding`; transformers 4 and 5 know it."""
    return name.removesuffix(FAST) + (FAST if rounding == "torchvision" else "")


def saved_over(found: Mapping[str, Any], saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return preprocessing as terrazzo.json has it, over what was `found` beside it; None: it has none.

    Where it is silent on how images are resized it is from before there was a choice.
    """
    if saved is None:
        return dict(found)
    return {key: found[key] for key in found if key not in ("interpolation", "rounding")} | dict(saved)


def plain_numbers(values: Iterable[float]) -> list[float]:
    """Return float32 values as the shortest decimals that read back the same: 0.485, not 0.48500001."""
    return [float(str(np.float32(value))) for value in values]
