"""Zips are read where they lie, and a hostile one is refused whichever data set it says it is."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ade20k_tree import write_benchmark
from bdd100k_tree import write_bdd100k
from cityscapes_tree import write_cityscapes
from coco_tree import write_instances
from terrazzo.data import importers
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import UnreadableFileError

ZIPS: dict[str, tuple[Callable[[Path], Path], str, str]] = {  # what writes it, folder, its zip
    "ade20k": (write_benchmark, "ADEChallengeData2016", "ADEChallengeData2016.zip"),
    "bdd100k": (write_bdd100k, "bdd100k/images", "bdd100k_images_10k.zip"),
    "cityscapes": (write_cityscapes, "gtFine", "gtFine_trainvaltest.zip"),
    "coco": (write_instances, "train2017", "train2017.zip"),
}


@pytest.mark.parametrize("name", ZIPS)
@pytest.mark.parametrize(
    "member", ["../evil.txt", "{}/../../evil.txt", "/evil.txt", "{}/a.png -> /etc/passwd"]
)
def test_a_zip_that_leaves_its_folder_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, member: str
) -> None:
    write, folder, packed = ZIPS[name]
    raw = write(tmp_path / "raw")
    with zipfile.ZipFile(raw / packed, "w") as archive:
        for path in sorted((raw / folder).rglob("*.*")):
            archive.write(path, path.relative_to(raw).as_posix())
        info = zipfile.ZipInfo(member.format(folder).split(" -> ")[0])
        if "->" in member:
            info.external_attr = 0o120777 << 16  # a symbolic link
        archive.writestr(info, "/etc/passwd")
    shutil.rmtree(raw / folder)
    with pytest.raises(UnreadableFileError, match="is not to be trusted; nothing was unpacked"):
        importers.run(name, raw, tmp_path / "out", Wanted(partial=True))
    assert os.listdir(tmp_path) == ["raw"]
