"""What is read, made whole and small: every importer and every reader, with the law of what comes of it."""

import importlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mutation import forms, models, pictures
from mutation.law import BrokenError
from mutation.mutator import change_bytes, change_json, change_text

IMPORTED = (
    "terrazzo.data",
    "terrazzo.data.importers",
    "terrazzo.data.table",
    "terrazzo.data.streaming",
    "terrazzo.recipe",
    "terrazzo.inference",
    "terrazzo.checkpoint",
    "terrazzo.run",
    "terrazzo.report",
    "terrazzo.nn.starting",
    "datasets",
    "tifffile",
    "scipy.io",
    "pyarrow.parquet",
    "pyarrow.dataset",
    "PIL.JpegImagePlugin",
    "PIL.TiffImagePlugin",
    "PIL.WebPImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.BmpImagePlugin",
    "PIL.PpmImagePlugin",
    "PIL.PngImagePlugin",
    "safetensors.torch",
)
CHANGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".png": forms.change_png,
    ".tif": forms.change_tiff,
    ".jpg": forms.change_jpeg,
    ".json": change_json,
    ".jsonl": change_text,
    ".txt": change_text,
    ".py": change_text,
    ".zip": forms.change_zip,
    ".safetensors": forms.change_safetensors,
    ".parquet": forms.change_parquet,
    ".pth": forms.change_torch,
}


def imports() -> None:
    """Import what any target needs, once."""
    for name in IMPORTED:
        importlib.import_module(name)
    models.warm()


@dataclass(frozen=True)
class Target:
    """Something that is read."""

    name: str
    make: Callable[[Path], Any]
    """Write it, whole, into an empty folder."""
    read: Callable[[Path, Path], None]
    """(folder, output): read it; raise BrokenError where what comes of it is not consistent."""
    weight: int = 10
    """How many of 500 mutations it gets."""
    suffixes: tuple[str, ...] = ()
    """Files that are changed; all of them where empty."""
    writes: bool = False
    """True where it makes an output folder."""
    settle: Callable[[Path], None] = lambda folder: None
    """Makes right again what stands in the way of what was made wrong, such as a list of digests."""
    alone: bool = False
    """True where each file is a case of its own: the others are taken away."""

    def change(self, rng: random.Random, folder: Path) -> str:
        """Make one file, or now and then two, wrong; return what was done."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = [path for path in files if not self.suffixes or path.suffix in self.suffixes]
        if self.alone:
            files = [rng.choice(files)]
            for path in folder.iterdir():
                path.unlink() if path not in files else None
        done = []
        for _ in range(rng.choice((1, 1, 1, 2))):
            path = rng.choice(files)
            done.append(path.relative_to(folder).as_posix())
            if rng.random() < 0.06:
                done[-1] += " " + _misplace(rng, path, rng.choice(files))
            elif path.is_file():
                path.write_bytes(_changed(rng, path))
        self.settle(folder)
        return "changed: " + ", ".join(done)


def _changed(rng: random.Random, path: Path) -> bytes:
    data = path.read_bytes()
    try:
        return CHANGES.get(path.suffix.lower(), change_bytes)(rng, data)
    except (struct.error, ValueError, LookupError, TypeError, RecursionError):  # its fields are gone already
        return change_bytes(rng, data)


def _misplace(rng: random.Random, path: Path, other: Path) -> str:
    """Something else than the file is where it was."""
    if path.is_dir() and not path.is_symlink():
        return "is a folder still"
    act = rng.randrange(6)
    if act == 0:
        path.unlink(missing_ok=True)
        return "is gone"
    if act == 1 and other.is_file() and path.is_file():
        shutil.copyfile(other, path) if path != other else None
        return f"is {other.name}"
    if act == 2:
        path.unlink(missing_ok=True)
        path.mkdir(exist_ok=True)
        return "is a folder"
    if act == 3:
        path.unlink(missing_ok=True)
        path.symlink_to(rng.choice((path, Path("/nonexistent"), path.parent)))
        return "is a link that leads nowhere"
    if act == 4 and path.is_file():
        path.rename(
            path.with_name(
                rng.choice((path.name + ".bak", "-" + path.name, path.name.upper(), "\udcff" + path.name))
            )
        )
        return "has another name"
    (
        path.parent / rng.choice(("Thumbs.db", ".hidden.png", "a\nb.png", "x" * 200 + ".png", "\udcfe.png"))
    ).write_bytes(b"x")
    return "got a strange neighbour"


# -- images and masks --------------------------------------------------------------------------------------------------


def _image_target(name: str, suffix: str, weight: int) -> Target:
    def make(folder: Path) -> None:
        pictures.write_forms(folder)
        for path in folder.iterdir():
            if path.suffix not in suffix.split():
                path.unlink()

    return Target(name, make, pictures.read_one, weight, alone=True)


# -- data sets ---------------------------------------------------------------------------------------------------------


def whole(data: Any) -> None:
    """Read every sample; each is consistent, or refused."""
    from terrazzo.errors import TerrazzoError

    first: TerrazzoError | None = None
    str(data.describe())
    for split in data.splits.values():
        names = split.names
        if len(set(names)) != len(names):
            raise BrokenError("two samples of one name")
        for index in range(len(split)):
            try:
                sample = split[index]
            except TerrazzoError as error:
                first = first or error
                continue
            if sample.mask is None:
                continue
            ids = set(np.unique(sample.mask).tolist()) - {data.classes.ignore}
            if sample.mask.shape != sample.image.shape[:2] or (ids and max(ids) >= len(data.classes)):
                raise BrokenError(f"sample {sample.name}: mask {sample.mask.shape}, ids {sorted(ids)[-4:]}")
    if first is not None:
        raise first


def _opened(folder: Path, out: Path) -> None:
    from terrazzo.data import open_dataset

    whole(open_dataset(folder / "data"))


def _streamed(folder: Path, out: Path) -> None:
    from terrazzo.data import open_dataset

    whole(open_dataset(folder / "data", stream=True))


def importing(name: str, file: str = "", **words: Any) -> Callable[[Path, Path], None]:
    """Return what imports a folder, or a file in it, in this format; what comes of it opens, and every sample reads."""

    def read(folder: Path, out: Path) -> None:
        from terrazzo.data import importers, open_dataset
        from terrazzo.data.importers.planning import Wanted
        from terrazzo.errors import TerrazzoError

        importers.run(name, folder / file, out, Wanted(**{"partial": True, **words}), workers=1)
        try:
            whole(open_dataset(out))
        except TerrazzoError as error:
            raise BrokenError(f"what was imported does not read: {error}") from error

    return read


def _write_boxes(folder: Path, *, description: bool = True) -> None:
    from conftest import write_boxes

    write_boxes(folder / "data", train=2, val=1, size_hw=(26, 36))
    about = json.loads((folder / "data" / "dataset.json").read_text())
    about |= {
        "license": "CC0",
        "source": "here",
        "channels": 3,
        "dtype": "uint8",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    about |= {
        "splits": {"train": "train", "val": "val"},
        "groups": "^(.)",
        "raw_names": {"7": "void"},
        "extra": {"a": [1]},
    }
    about |= {"remap": {"0": 0, "1": 1, "2": 2, "255": None, "7": None}}
    about["classes"] = [
        {"name": name, "color": [40 * i, 10, 20]} for i, name in enumerate(("field", "box", "sky"))
    ]
    (folder / "data" / "dataset.json").write_text(json.dumps(about))


def _write_ids(folder: Path) -> None:
    """Masks in a form whose every byte is an id, and no checksum."""
    from PIL import Image

    _write_boxes(folder)
    about = json.loads((folder / "data" / "dataset.json").read_text())
    del about["remap"], about["raw_names"]
    (folder / "data" / "dataset.json").write_text(json.dumps(about))
    for path in sorted((folder / "data").glob("*/masks/*.png")):
        Image.open(path).save(path.with_suffix(".pgm"))
        path.unlink()


def _write_lists(folder: Path) -> None:
    """images/ and masks/, the splits as lists of names."""
    _write_boxes(folder)
    data = folder / "data"
    about = json.loads((data / "dataset.json").read_text())
    for kind in ("images", "masks"):
        (data / kind).mkdir()
        for split in ("train", "val"):
            for path in (data / split / kind).iterdir():
                path.rename(data / kind / f"{split}{path.name}")
    shutil.rmtree(data / "train"), shutil.rmtree(data / "val")
    about |= {"splits": {"train": ["train000", "train001"], "val": ["val000"]}}
    (data / "dataset.json").write_text(json.dumps(about))


def _write_names(folder: Path, name: str, value: Any) -> None:
    _write_boxes(folder)
    (folder / "data" / "dataset.json").unlink()
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "data" / name).write_text(text)


def _write_table(folder: Path, *, parquet: bool) -> None:
    import datasets

    _write_boxes(folder)
    data = folder / "data"
    rows: dict[str, Any] = {"image": [], "label": []}
    for path in sorted((data / "train" / "images").iterdir()):
        rows["image"].append({"bytes": path.read_bytes(), "path": path.name})
        rows["label"].append(
            {"bytes": (data / "train" / "masks" / path.name).read_bytes(), "path": path.name}
        )
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    table = datasets.Dataset.from_dict(rows, features=features)
    shutil.rmtree(data)
    if parquet:
        data.mkdir()
        table.to_parquet(data / "train.parquet")
    else:
        table.save_to_disk(data)
    (data / "id2label.json").write_text('{"0": "field", "1": "box", "2": "sky"}')


def _write_zipped(folder: Path) -> None:
    from cityscapes_tree import write_cityscapes, zip_up

    write_cityscapes(folder, counts={"train": 1, "val": 1}, size_hw=(16, 32), form="polygons")
    zip_up(folder, "leftImg8bit", "leftImg8bit_trainvaltest.zip")
    zip_up(folder, "gtFine", "gtFine_trainvaltest.zip")


def _tree(module: str, function: str, **words: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        getattr(importlib.import_module(module), function)(folder, **words)

    return make


def _both(*makers: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for one in makers:
            one(folder)

    return make


def _write_folders(folder: Path) -> None:
    """Photographs and masks of colours in folders of their own naming, and a table of the colours."""
    from PIL import Image

    rng = np.random.default_rng(0)
    colors = np.array([[90, 120, 60], [200, 60, 60], [80, 80, 220]], np.uint8)
    for place in ("photos/day1", "labels/day1"):
        (folder / place).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(
            folder / "photos" / "day1" / f"{name}.jpg"
        )
        Image.fromarray(colors[rng.integers(0, 3, (12, 16))]).save(folder / "labels" / "day1" / f"{name}.png")
    legend = [{"name": n, "color": c} for n, c in zip(("field", "box", "sky"), colors.tolist(), strict=True)]
    (folder / "classes.json").write_text(json.dumps(legend))


def _import_folders(folder: Path, out: Path) -> None:
    words = {"images": "photos/**/*", "masks": "labels/**/*.png", "classes": str(folder / "classes.json")}
    importing("folders", **words)(folder, out)


LABEL_FILES: Sequence[tuple[str, Any]] = (
    ("classes.txt", "field\nbox\nsky\n"),
    ("classes.json", [{"name": "field", "color": [1, 2, 3]}, {"name": "box", "id": 1}, {"name": "sky"}]),
    ("id2label.json", {"0": "field", "1": "box", "2": "sky"}),
)

_ALL = (
    _image_target("images-png", ".png", 70),
    _image_target("images-tiff", ".tif", 60),
    _image_target("images-jpeg", ".jpg", 30),
    _image_target("images-others", ".webp .gif .bmp .ppm .pgm", 40),
    Target("camvid", _tree("camvid_tree", "write_camvid"), importing("camvid"), 15, writes=True),
    Target(
        "cityscapes",
        _tree(
            "cityscapes_tree",
            "write_cityscapes",
            counts={"train": 1, "val": 1},
            size_hw=(16, 32),
            form="polygons",
        ),
        importing("cityscapes"),
        15,
        writes=True,
    ),
    Target("cityscapes-zips", _write_zipped, importing("cityscapes"), 25, writes=True),
    Target("ade20k", _tree("ade20k_tree", "write_benchmark"), importing("ade20k"), 12, writes=True),
    Target(
        "ade20k-full",
        _tree("ade20k_tree", "write_full"),
        importing("ade20k", annotations="full"),
        12,
        writes=True,
    ),
    Target("bdd100k", _tree("bdd100k_tree", "write_bdd100k"), importing("bdd100k"), 8, writes=True),
    Target(
        "bdd100k-instances",
        _tree("bdd100k_tree", "write_bdd100k"),
        importing("bdd100k", annotations="ins_seg"),
        8,
        writes=True,
    ),
    Target("voc", _tree("voc_tree", "write_voc"), importing("voc"), 12, writes=True),
    Target(
        "sbd",
        _both(_tree("voc_tree", "write_voc"), _tree("voc_tree", "write_sbd")),
        importing("voc", annotations="sbd"),
        12,
        writes=True,
    ),
    Target(
        "coco-instances",
        _tree("coco_tree", "write_instances"),
        importing("coco"),
        30,
        (".json",),
        writes=True,
    ),
    Target(
        "coco-panoptic",
        _tree("coco_tree", "write_panoptic"),
        importing("coco", annotations="panoptic"),
        15,
        writes=True,
    ),
    Target(
        "coco-stuff",
        _tree("coco_tree", "write_stuff"),
        importing("coco", annotations="stuff"),
        6,
        writes=True,
    ),
    Target(
        "segments",
        _tree("segments_tree", "write_segments"),
        importing("segments", "crossings-v1.0.json"),
        20,
        (".json",),
        writes=True,
    ),
    Target(
        "segments-bitmaps",
        _tree("segments_tree", "write_segments"),
        importing("segments", "crossings-v1.0.json", status=("all",)),
        10,
        writes=True,
    ),
    Target("folders", _write_folders, _import_folders, 15, writes=True),
    Target("dataset.json", _write_boxes, _opened, 30, (".json",)),
    Target("dataset.json-lists", _write_lists, _opened, 10, (".json",)),
    Target("folder", _write_boxes, _opened, 10),
    Target("folder-ids", _write_ids, _opened, 10, (".pgm",)),
    *(
        Target(
            name,
            lambda folder, name=name, value=value: _write_names(folder, name, value),
            _opened,
            8,
            (Path(name).suffix,),
        )
        for name, value in LABEL_FILES
    ),
    Target("saved-table", lambda folder: _write_table(folder, parquet=False), _opened, 20),
    Target("parquet", lambda folder: _write_table(folder, parquet=True), _opened, 4),
    Target("parquet-stream", lambda folder: _write_table(folder, parquet=True), _streamed, 20),
    Target("model", models.write_model, models.load_model, 30),
    Target("model-transformers", models.write_theirs, models.load_model, 20),
    Target("model-spec", models.write_segmenter, models.load_model, 15),
    Target("start", models.write_model, models.start, 8),
    Target("torch-files", models.write_torch_files, models.read_torch_files, 30, alone=True),
    Target("openmmlab", models.write_openmmlab, models.read_openmmlab, 15),
    Target("config-text", models.write_config, models.read_config, 15),
    Target("recipe", models.write_recipe, models.read_recipe, 20),
    Target("run", models.write_run, models.read_run, 20),
    Target(
        "checkpoint",
        models.write_run,
        models.read_checkpoint,
        15,
        (".json", ".safetensors"),
        settle=models.stamp,
    ),
)
TARGETS = {target.name: target for target in _ALL}


def shares(total: int) -> dict[str, int]:
    """Return how many of `total` mutations each target gets, by its weight."""
    whole = sum(target.weight for target in _ALL)
    counts = {target.name: total * target.weight // whole for target in _ALL}
    heaviest = max(counts, key=counts.__getitem__)
    counts[heaviest] += total - sum(counts.values())
    return counts
