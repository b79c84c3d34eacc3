"""Tutorials and how-to pages do what they say: their commands and Python blocks are run, page by page, in order.

Every page gets a folder of its own with what it takes for granted: photographs, masks, a data set, a trained run, all
small scenes. Commands run in this process; those of pages that share, in a child of it, beside a small Hub on this
machine. Trainings are first read as the page has them, recipe and overrides and
all, and then run with `SHORT` in their place; nothing is fetched from the Hub: its names lead to stand-ins here.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from ade20k_tree import write_benchmark, write_full
from bdd100k_tree import write_bdd100k
from cityscapes_tree import labels, write_cityscapes, write_image, zip_up
from coco_tree import write_instances, write_panoptic, write_stuff
from folders_tree import write_cracks, write_drives, write_paintings
from segments_tree import write_release_of, write_segments
from terrazzo import recipe as recipes
from terrazzo import training
from terrazzo.cli import main
from terrazzo.data.importers import ade20k, bdd100k
from terrazzo.data.scenes import SCENE_CLASSES, scenes, write_scenes
from terrazzo.data.table import open_saved
from terrazzo.nn import specs
from terrazzo.nn.segformer import SIZES, Size
from terrazzo.video import new_video
from voc_tree import write_sbd, write_voc

PROJECT = Path(__file__).parent.parent
ON_THE_HUB = ("pizza-robot.md", "share.md")  # run in a process of their own, with a small Hub on this machine
THERE = "HF_ENDPOINT" in os.environ
PAGES = [
    page
    for page in (
        PROJECT / "README.md",
        *sorted((PROJECT / "docs" / "tutorial").glob("*.md")),
        *sorted((PROJECT / "docs" / "how-to").glob("*.md")),
        PROJECT / "docs" / "explanation" / "labels-and-ignore.md",
    )
    if (page.name in ON_THE_HUB) == THERE
]
SIZE_HW = (48, 64)
CITYSCAPES = {"train": 6, "val": 2, "test": 1}  # what is published, in miniature
SHORT = {
    "train.steps": "2",
    "train.batch_size": "2",
    "train.micro_batch": "0",
    "train.log_every": "1",
    "train.pictures": "1",
    "optim.warmup_steps": "0",
    "data.resize": "original",
    "data.crop_hw": "48x64",
    "data.workers": "0",
    "eval.every": "2",
    "eval.window_hw": "48x48",
    "eval.stride_hw": "32x32",
    "model.pretrained": "null",
    "train.loggers": "tensorboard",
}
SHORT = {key: value for key, value in SHORT.items() if key in {leaf.name for leaf in recipes.fields()}}
NOT_HERE = (
    "torchrun",
    "accelerate",
    "pip",
    "OMP_NUM_THREADS=",
)  # other processes, other installations: for reading
SIDEWALK = """
unlabeled flat-road flat-sidewalk flat-crosswalk flat-cyclinglane flat-parkingdriveway flat-railtrack flat-curb
human-person human-rider vehicle-car vehicle-truck vehicle-bus vehicle-tramtrain vehicle-motorcycle
vehicle-bicycle vehicle-caravan vehicle-cartrailer construction-building construction-door construction-wall
construction-fenceguardrail construction-bridge construction-tunnel construction-stairs object-pole
object-trafficsign object-trafficlight nature-vegetation nature-terrain sky void-ground void-dynamic void-static
void-unclear
"""  # the names of segments/sidewalk-semantic, by raw id
NARROW = Size(
    (1, 1, 1, 1), (8, 16, 24, 32), 32, num_heads=(1, 2, 3, 4)
)  # a SegFormer of a few thousand parameters
Train = training.train
BACKBONE_SPEC = specs.backbone_spec


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    is_run: bool


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page; one below `<!-- not run: reason -->` is for reading only."""
    for match in re.finditer(
        r"(<!-- not run: [^>]+ -->\n)?^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    ):
        line = page.count("\n", 0, match.start(3)) + 1
        is_script = match[3].startswith("#!")  # a file for another machine, such as Slurm's
        yield Block(match[2], match[3], line, match[1] is None and not is_script)


def short_train(recipe: Any = None, *, overrides: Sequence[str] = (), **words: Any) -> Any:
    """`train` as the page asks for it, in two small steps."""
    if words.get("resume") is not None:
        return Train(recipe, overrides=overrides, **{**words, "device": "cpu"})
    chosen = recipes.load(recipe, overrides)  # as it stands on the page
    short = SHORT | (
        {"model.backbone": "resnet18_v1c", "model.output_stride": "32"} if is_deep(chosen) else {}
    )
    return Train(
        chosen, overrides=[f"{key}={value}" for key, value in short.items()], **{**words, "device": "cpu"}
    )


def narrow(*words: Any) -> dict[str, Any]:
    """The backbone asked for, a ResNet with a quarter of its channels: a sixteenth of the work."""
    spec = BACKBONE_SPEC(*words)
    return spec | ({"stem_channels": 16, "base_channels": 16} if spec["kind"] == "resnet" else {})


def is_deep(recipe: Any) -> bool:
    """A ResNet of 50 or 101 layers, which takes its time on a CPU whatever the images' size."""
    return (recipe.model.backbone or "").startswith(("resnet50", "resnet101"))


@pytest.fixture(scope="module", autouse=True)
def narrow_segformers() -> Iterator[None]:
    """SegFormers of every name have the same four stages here, and a thousandth of the work."""
    with patch.dict(SIZES, dict.fromkeys(SIZES, NARROW)):
        yield


@pytest.fixture(scope="module")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages take for granted, made once: every page gets links to it."""
    import datasets

    folder = tmp_path_factory.mktemp("pantry")
    data = write_scenes(folder / "my-data", train=6, val=2, size_hw=SIZE_HW)
    Train("segformer-b0-scratch", data=data, out=folder / "runs" / "mine", quiet=True, device="cpu",
          overrides=[f"{key}={value}" for key, value in SHORT.items()])  # fmt: skip
    for number, sample in enumerate(scenes(6, size_hw=SIZE_HW, first=100), start=1):
        assert sample.mask is not None
        for name in ("photos", "labels", "new-photos", "large"):
            (folder / name).mkdir(exist_ok=True)
        Image.fromarray(sample.mask).save(folder / "labels" / f"{number:04d}.png")
        for name in ("photos", "new-photos"):
            Image.fromarray(sample.image).save(folder / name / f"{number:04d}.jpg", quality=95)
    write_their_checkpoint(folder / "fcn_r18-d8.pth")
    (folder / "photos" / "street.jpg").symlink_to("0001.jpg")
    with new_video(folder / "drive.mp4", rate=5) as writer:
        for sample in scenes(3, size_hw=SIZE_HW, first=300):
            writer.write(sample.image)
    (folder / "day").mkdir()
    (folder / "day" / "0007.jpg").symlink_to("../photos/0001.jpg")
    Image.fromarray(scenes(1, size_hw=(100, 150))[0].image).save(folder / "large" / "aerial.png")
    shutil.copytree(folder / "labels", folder / "hub-labels")
    rows = {
        "pixel_values": [str(path) for path in sorted((folder / "photos").glob("0*.jpg"))],
        "label": [str(path) for path in sorted((folder / "labels").glob("*.png"))],
    }
    table = datasets.Dataset.from_dict(rows)
    table = table.cast_column("pixel_values", datasets.Image()).cast_column("label", datasets.Image(mode="L"))
    table.save_to_disk(str(folder / "hub"))
    (folder / "hub" / "id2label.json").write_text(json.dumps(dict(enumerate(SIDEWALK.split()))))
    return folder


def write_their_checkpoint(path: Path) -> None:
    """A checkpoint as MMSegmentation 1.x writes them: an FCN on ResNet-18 for scenes, random weights, its names."""
    import torch

    from terrazzo.nn import ModelConfig, build

    with patch("terrazzo.nn.specs.backbone_spec", narrow):  # as the networks of the pages are
        network = build(ModelConfig("fcn", backbone="resnet18_v1c"), num_classes=len(SCENE_CLASSES))
    tensors = {}
    for name, tensor in network.state_dict().items():
        part, _, rest = name.replace("classifier", "conv_seg").partition(".")
        part = {"head": "decode_head", "auxiliary": "auxiliary_head"}.get(part, part)
        tensors[f"{part}.{rest}"] = tensor
    config = (
        "model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=18, strides=(1, 2, 1, 1),"
    )
    config += (
        " dilations=(1, 1, 2, 4), contract_dilation=True), decode_head=dict(type='FCNHead', in_index=3),"
    )
    config += " test_cfg=dict(mode='whole'))"
    about = {"classes": SCENE_CLASSES.names, "palette": [list(color) for color in SCENE_CLASSES.colors]}
    torch.save({"meta": {"cfg": config, "dataset_meta": about}, "state_dict": tensors}, path)


@pytest.fixture
def desk(pantry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a page is run in, with its hidden setup."""
    shutil.copytree(pantry, tmp_path, copy_function=link_or_copy, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("terrazzo.training.train", short_train)
    monkeypatch.setattr("terrazzo.probing.train", short_train)
    monkeypatch.setattr("terrazzo.preparation.OVERFIT_STEPS", 11)  # its warm-up has 10
    monkeypatch.setattr("terrazzo.keeping.OVERFIT_MIOU", 0.0)
    monkeypatch.setattr("terrazzo.nn.specs.backbone_spec", narrow)
    monkeypatch.setattr(
        "terrazzo.data.importers.cityscapes.COUNTS", {"fine": CITYSCAPES, "coarse": CITYSCAPES}
    )
    for page, kinds in (("ade20k", ade20k.ANNOTATIONS), ("bdd100k", bdd100k.ANNOTATIONS)):
        counts = {kind: {"train": 2, "val": 1} for kind in kinds}
        monkeypatch.setattr(f"terrazzo.data.importers.{page}.COUNTS", counts)
    if THERE:
        monkeypatch.setenv("HF_TOKEN", "hf_token_of_user")
    else:
        monkeypatch.setattr(
            "terrazzo.data.open._open_by_name", lambda source, **words: open_saved(pantry / "hub", **words)
        )
    return tmp_path


def link_or_copy(source: str, target: str) -> None:
    """Pages may rewrite a description in place; pictures and weights are only read."""
    copy = shutil.copy2 if source.endswith((".json", ".jsonl", ".txt")) else os.link
    copy(source, target)


def prepare(page: str, desk: Path) -> None:
    """Take away what the page makes itself, and add what it alone needs."""
    if page in ("README.md", "your-own-images.md"):
        shutil.rmtree(desk / "runs")
    if page == "your-own-images.md":
        shutil.rmtree(desk / "my-data")
        (desk / "photos" / "street.jpg").unlink()
    if page == "label-train-correct.md":
        (desk / "photos" / "street.jpg").unlink()
    if page == "data-set-forms.md":
        (desk / "photos" / "street.jpg").unlink()
        write_camvid(desk / "camvid-download")
    if page == "cityscapes-pspnet.md":
        write_cityscapes(desk / "cityscapes-download", counts=CITYSCAPES)
        for package in ("leftImg8bit", "gtFine"):
            zip_up(desk / "cityscapes-download", package, f"{package}_trainvaltest.zip")
        write_street_photos(desk)
        write_their_pspnet(desk / "pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth")
    if page == "cityscapes.md":
        for kind in ("gtFine", "gtCoarse"):
            write_cityscapes(desk / "cityscapes-download", counts=CITYSCAPES, kind=kind)
        zip_up(desk / "cityscapes-download", "gtFine", "gtFine_trainvaltest.zip")
        write_cityscapes(desk / "two-cities", counts={"train": 2}, form="polygons")
    if page == "ade20k.md":
        write_benchmark(desk / "ade20k-download")
        zip_up(desk / "ade20k-download", "ADEChallengeData2016", "ADEChallengeData2016.zip")
        write_full(desk / "ade20k-full-download")
    if page == "bdd100k.md":
        write_bdd100k(desk / "bdd100k-download")
    if page == "coco.md":
        write_instances(desk / "coco-download")
        write_panoptic(desk / "coco-panoptic-download")
        write_stuff(desk / "coco-stuff-download")
    if page == "pizza-robot.md":
        shutil.rmtree(desk / "runs")
        write_release_of(scenes(5, size_hw=SIZE_HW, first=200), desk / "sidewalks" / "robot-v1.0.json")
    if page == "segments.md":
        write_segments(desk / "crossings")
    if page == "camvid.md":
        write_camvid(desk / "camvid-download")
    if page == "plain-folders.md":
        for write, folder in (
            (write_drives, "drives"),
            (write_paintings, "paintings"),
            (write_cracks, "cracks"),
        ):
            write(desk / folder)
        write_camvid(desk / "camvid-download")
    if page == "pascal-voc.md":
        write_sbd(write_voc(desk / "voc-download"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(page.name, desk)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.is_run and block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                run_line(line.strip(), capsys)
        elif block.is_run and block.language == "python":
            file = re.match(r"# (\w+\.py)\n", block.text)
            if file:
                (desk / file[1]).write_text(block.text)
            else:
                code = "\n" * (block.line - 1) + block.text  # errors show the page's own lines
                exec(compile(code, str(page), "exec"), names)


@pytest.mark.skipif(THERE, reason="this is that process")
def test_pages_that_share_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    server = subprocess.Popen(
        [sys.executable, str(PROJECT / "tests" / "hub_server.py"), str(tmp_path / "empty")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    hub = {"HF_ENDPOINT": server.stdout.readline().strip(), "HF_HUB_DISABLE_XET": "1"}
    here = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "pages")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, __file__, "-k", "page_does"],
            env={**here, **hub},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=900,  # a machine that measures stops its others for minutes
        )
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ON_THE_HUB)} passed" in done.stdout


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not line or line.startswith(("#", *NOT_HERE)):
        return
    if line.startswith("scripts/"):
        assert os.access(PROJECT / line.split()[0], os.X_OK), line
        return
    if not line.startswith("terrazzo "):
        subprocess.run(["bash", "-e", "-c", line], check=True, stdout=subprocess.DEVNULL)
        return
    words = shlex.split(line, comments=True)[1:]
    if ">" in words:
        *words, _, file = words
        with open(file, "w") as stream, contextlib.redirect_stdout(stream):
            code = main(words)
    else:
        code = main(words)
    assert code == 0, f"{line}\n{capsys.readouterr().err}"


def write_street_photos(desk: Path) -> None:
    """Four labelled photographs of somebody's own, of several sizes, masks in Cityscapes' raw ids."""
    for number, size_hw in enumerate([(48, 96), (60, 80), (48, 64), (50, 75)]):
        mask = labels(200 + number, size_hw)
        write_image(desk / "street-photos" / f"street {number}.jpg", mask, number)
        (desk / "street-labels").mkdir(exist_ok=True)
        Image.fromarray(mask).save(desk / "street-labels" / f"street {number}.png")


def write_their_pspnet(path: Path) -> None:
    """A PSPNet as MMSegmentation 0.x published them, on the ResNet that trainings are cut down to here."""
    import torch

    from terrazzo.data.importers.cityscapes import CLASSES
    from terrazzo.nn import build

    chosen = recipes.load("pspnet_r18-d8_4xb2-80k_cityscapes-512x1024", ["model.pretrained=null"])
    network = build(chosen.model, num_classes=19)
    names = {name: re.sub(r"^head\.", "decode_head.", name) for name in network.state_dict()}
    names = {name: re.sub(r"^auxiliary\.", "auxiliary_head.", new) for name, new in names.items()}
    state = {
        names[name].replace(".classifier.", ".conv_seg."): tensor
        for name, tensor in network.state_dict().items()
    }
    meta = {
        "mmseg_version": "0.5.0",
        "CLASSES": list(CLASSES.names),
        "PALETTE": [list(c) for c in CLASSES.colors],
    }
    torch.save({"meta": meta, "state_dict": state}, path)


def write_camvid(root: Path) -> None:
    """A made-up CamVid of the SegNet version: one frame a split."""
    for split in ("train", "val", "test"):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        picture, mask = np.zeros((360, 480, 3), np.uint8), np.zeros((360, 480), np.uint8)
        Image.fromarray(picture).save(root / split / "0001TP_006690.png")
        Image.fromarray(mask).save(root / f"{split}annot" / "0001TP_006690.png")


def test_the_words_for_ids_in_the_first_tutorial_are_those_of_the_scenes() -> None:
    page = (PROJECT / "docs" / "tutorial" / "your-own-images.md").read_text(encoding="utf-8")
    assert "\\n".join(SCENE_CLASSES.names) in page


def test_blocks_of_a_page_are_found_with_their_lines() -> None:
    page = "a\n```sh\nls\n```\n\n<!-- not run: it costs money -->\n```python\nx = 1\n```\n```\nplain\n```\n"
    assert list(blocks(page)) == [
        Block("sh", "ls\n", 3, True),
        Block("python", "x = 1\n", 8, False),
        Block("", "plain\n", 11, True),
    ]
