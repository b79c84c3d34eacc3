"""Models, checkpoints, runs and recipes, made whole and small, and the law of what reading them gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mutation.law import BrokenError


def _tiny_segformer() -> Any:
    import torch

    from terrazzo.nn.segformer import SegFormer, Size

    torch.manual_seed(0)
    size = Size(
        depths=(1, 1, 1, 1), hidden_sizes=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), decoder_hidden_size=8
    )
    return SegFormer(size, 3, mean=(0.5,) * 3, std=(0.25,) * 3)


def warm() -> None:
    """Do once what the first network of a process takes a second for; compute nothing, which would start threads."""
    import torch

    with torch.device("meta"):
        _tiny_segformer().to_empty(device="cpu")


def write_model(folder: Path) -> None:
    from terrazzo import recipe
    from terrazzo.classes import Classes
    from terrazzo.nn.weights import save_model

    (folder / "model").mkdir()
    made = recipe.load("quickstart").to_json()
    save_model(
        folder / "model",
        _tiny_segformer(),
        classes=Classes(("field", "box", "sky")),
        preprocessing={"resize": "exact", "resize_hw": (32, 32), "dtype": "uint8"},
        terrazzo={
            "recipe": made,
            "licenses": {"weights": "mine"},
            "remap": {"0": 0, "1": 1, "2": 2, "255": None},
        },
    )


def write_theirs(folder: Path) -> None:
    """The same as transformers saves it: no terrazzo.json, the weights in shards."""
    from safetensors.torch import load_file, save_file

    write_model(folder)
    model = folder / "model"
    (model / "terrazzo.json").unlink()
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, model / shard)
    table = {name: shard for shard, members in shards.items() for name in members}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


RESNET = {
    "kind": "resnet",
    "depth": 18,
    "variant": "v1c",
    "stem_channels": 4,
    "base_channels": 4,
    "output_stride": 16,
}
SPEC = {
    "architecture": "fcn",
    "backbone": RESNET,
    "head": {"channels": 4, "in_index": 3, "num_convs": 1, "concat_input": False},
    "auxiliary": None,
    "dropout": 0.1,
    "align_corners": False,
}
CONFIG = """base = 4
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (64, 64)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', bgr_to_rgb=True, mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4]),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=base, strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2), norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_index=3, num_convs=1, concat_input=False, num_classes=3,
        dropout_ratio=0.1, align_corners=False),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(42, 42)))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='PackSegInputs')]
test_dataloader = dict(dataset=dict(type='ADE20KDataset', reduce_zero_label=True, pipeline=test_pipeline))
work_dir = f'./work_dirs/{base}' + '/x' * 2
model['test_cfg']['mode'] = 'slide'
"""


def _tiny_segmenter() -> Any:
    import torch

    from terrazzo.nn.segmenter import assemble

    torch.manual_seed(0)
    return assemble(SPEC, num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def write_segmenter(folder: Path) -> None:
    """A network of backbone and head, as terrazzo saves it."""
    from terrazzo.classes import Classes
    from terrazzo.nn.weights import save_model

    (folder / "model").mkdir()
    looks = {"resize": "original", "resize_hw": (32, 32)}
    save_model(
        folder / "model", _tiny_segmenter(), classes=Classes(("field", "box", "sky")), preprocessing=looks
    )


def write_openmmlab(folder: Path) -> None:
    """The same as MMSegmentation saves it: names of its own, and the config's text beside."""
    import torch

    tensors = _tiny_segmenter().state_dict()
    theirs = {
        name.replace("head.", "decode_head.").replace(".classifier.", ".conv_seg."): t
        for name, t in tensors.items()
    }
    meta = {
        "cfg": CONFIG,
        "dataset_meta": {"classes": ("field", "box", "sky"), "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]},
    }
    torch.save({"meta": meta, "state_dict": theirs}, folder / "model.pth")


def load_model(folder: Path, out: Path) -> None:
    """Load it; the network answers with a score for each class."""
    import torch

    from terrazzo.inference import load

    predictor = load(folder / "model", backend="torch")
    channels = predictor.channels
    with torch.no_grad():
        logits = predictor.network(torch.zeros(1, channels, 32, 32)).logits
    if logits.shape[1] != len(predictor.classes) or logits.dtype != torch.float32:
        raise BrokenError(f"{tuple(logits.shape)} {logits.dtype} for {len(predictor.classes)} classes")


def start(folder: Path, out: Path) -> None:
    from terrazzo.nn.weights import read_source

    found = read_source(folder / "model")
    if not found.tensors:
        raise BrokenError("no tensors, and no error")
    found.known_classes()


def write_torch_files(folder: Path) -> None:
    """State dicts in both containers of torch's, with what lies around them in MMSegmentation's."""
    import torch

    tensors = {
        "backbone.conv1.weight": torch.rand(2, 3, 3, 3),
        "a": torch.arange(6)[1:4],
        "h": torch.rand(2).half(),
    }
    value = {
        "state_dict": tensors,
        "meta": {"CLASSES": ("a", "b"), "PALETTE": [[1, 2, 3], [4, 5, 6]], "iter": 7},
    }
    value["numpy"] = np.arange(3.0)  # type: ignore[assignment]
    torch.save(value, folder / "new.pth")
    torch.save(value, folder / "old.pth", _use_new_zipfile_serialization=False)


def read_torch_files(folder: Path, out: Path) -> None:
    """Read the tensors: none is larger than its file, and every value is there."""
    import torch

    from terrazzo.nn.files import read_tensors

    path = next(iter(sorted(folder.iterdir())), folder / "gone.pth")
    for tensor in read_tensors(path).values():
        if tensor.numel() * tensor.element_size() > 2 * path.stat().st_size + 4096:
            raise BrokenError(f"a tensor of {tuple(tensor.shape)} in {path.stat().st_size:,} bytes")
        torch.clone(tensor)


def read_openmmlab(folder: Path, out: Path) -> None:
    import torch

    from terrazzo.inference import load

    predictor = load(folder / "model.pth", backend="torch")
    with torch.no_grad():
        logits = predictor.network(torch.zeros(1, predictor.channels, 64, 64)).logits
    if logits.shape[1] != len(predictor.classes):
        raise BrokenError(f"{tuple(logits.shape)} for {len(predictor.classes)} classes")


def write_config(folder: Path) -> None:
    (folder / "config.py").write_text(CONFIG)


def read_config(folder: Path, out: Path) -> None:
    from terrazzo.errors import MissingPathError
    from terrazzo.nn.config_text import read_config_text, shown

    path = folder / "config.py"
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.")
    for value in read_config_text(
        path.read_text(encoding="utf-8", errors="replace"), where="config.py"
    ).values():
        shown(value)


def write_recipe(folder: Path) -> None:
    from terrazzo import recipe

    (folder / "recipe.json").write_text(json.dumps(recipe.load("quickstart").to_json()))
    (folder / "overrides.txt").write_text(
        "train.steps=20\nmodel.name=segformer-b0\ndata.crop_hw=64x64\noptim.lr=0.001\neval.scales=0.5,1.0"
    )


def read_recipe(folder: Path, out: Path) -> None:
    """Read it with overrides; what was read is written and read again as itself."""
    from terrazzo import recipe

    lines = []
    if (folder / "overrides.txt").is_file():
        lines = (folder / "overrides.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    read = recipe.load(folder / "recipe.json", lines)
    if recipe.Recipe.from_json(json.loads(json.dumps(read.to_json()))) != read:
        raise BrokenError("a recipe that does not come back")
    recipe.describe(read)


def write_run(folder: Path) -> None:
    """A run with two checkpoints, its log, its splits and a report, as a training leaves it."""
    import torch
    from safetensors.torch import save_file

    from terrazzo import recipe
    from terrazzo.run import Run

    made = recipe.load("quickstart")
    run = Run.create(
        folder / "run",
        made,
        data={"source": "x", "fingerprint": "0" * 64, "classes": []},
        env={"python": "3"},
    )
    run.log("train", 1, {"loss": 1.0})
    run.log("eval", 2, {"miou": 0.5})
    (folder / "model").mkdir()
    for step in (1, 2):

        def write(beside: Path) -> None:
            shutil.rmtree(folder / "model", ignore_errors=True)
            write_model(folder)
            for path in (folder / "model").iterdir():
                shutil.copyfile(path, beside / path.name)
            save_file(
                {"decode_head.classifier.weight/exp_avg": torch.zeros(3, 8, 1, 1)},
                beside / "optimizer.safetensors",
            )

        run.save(step, write, state={"loss_scale": None, "score": 0.5})
    run.keep_best(2, 0.5)
    shutil.rmtree(folder / "model")


def read_run(folder: Path, out: Path) -> None:
    """Everything that `train --resume`, `predict` and a notebook ask of a run."""
    from terrazzo.run import Run, read_state, step_of

    run = Run.open(folder / "run")
    run.best, run.step, run.history("eval"), run._repr_html_()
    best = run.best_folder()
    read_state(best)
    if step_of(best) not in (1, 2):
        raise BrokenError(f"the best is {best}")


def stamp(folder: Path) -> None:
    """Make the digests in the newest checkpoint's state.json right again: somebody made it so on purpose."""
    from terrazzo.run import _stamp

    newest = folder / "run" / "checkpoints" / "step-00000002"
    state = newest / "state.json"
    try:
        value = json.loads(state.read_text())
        value["files"] = {
            path.name: _stamp(path) for path in newest.iterdir() if path.is_file() and path != state
        }
        state.write_text(json.dumps(value))
    except (OSError, ValueError, TypeError, RecursionError):  # it is no list any more
        return


def read_checkpoint(folder: Path, out: Path) -> None:
    """What `train --resume` does with a checkpoint."""
    import torch

    from terrazzo.checkpoint import read_training_state
    from terrazzo.nn.weights import model_tensors, read_model
    from terrazzo.run import Run, read_state

    best = Run.open(folder / "run").best_folder()
    read_state(best)
    network = read_model(best).network
    optimizer = torch.optim.AdamW(network.parameters())
    read_training_state(best, network, optimizer, None, model_tensors(best, network))
