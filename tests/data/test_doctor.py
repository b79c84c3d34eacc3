"""The doctor over a whole data set: what it counts where all is well, and that no illness hides another.

Every illness has a hand-made data set, the sentence it is told in, and a command that is run and does mend it:
test_doctor_files.py, test_doctor_masks.py and test_doctor_ids.py, one for each place where it sits.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sick_folder import NAMES, Folder, ids, only, photo, read
from terrazzo.data import open_dataset
from terrazzo.data.doctor import check
from terrazzo.data.repair import Remedies, fix

# -- a healthy data set ------------------------------------------------------------------------------------------------


def test_a_healthy_data_set_has_counts_and_no_findings(sick: Folder) -> None:
    diagnosis = check(sick.root)
    assert diagnosis.ok and diagnosis.findings == ()
    assert diagnosis.images == {"train": 3, "val": 1} and diagnosis.masks == {"train": 3, "val": 1}
    of_val = {one.name: one for one in diagnosis.counts if one.split == "val"}
    truth = read(sick.root / "val/masks/d.png")
    for class_id, name in enumerate(NAMES):
        pixels = int((truth == class_id).sum())
        assert (of_val[name].pixels, of_val[name].images) == (pixels, 1)
        assert of_val[name].share == pytest.approx(pixels / truth.size)
    text = diagnosis.text()
    assert text.startswith(f"{sick.root}: train 3 images, val 1 image\n")
    assert text.endswith("Nothing wrong found.")
    told = json.loads(diagnosis.to_json())
    assert told["ok"] is True and told["counts"][0]["name"] == "road"


def test_ignored_pixels_are_counted_apart(sick: Folder) -> None:
    half = ids(3)
    half[:6] = 255
    sick.put("val/masks/d.png", half)
    diagnosis = check(sick.root)
    assert diagnosis.ok
    assert diagnosis.ignored == {"train": 0.0, "val": 0.5}
    assert sum(one.share for one in diagnosis.counts if one.split == "val") == pytest.approx(1.0)
    assert "(ignored)" in diagnosis.text() and "50.00%" in diagnosis.text()


def test_a_test_split_may_be_without_masks(sick: Folder) -> None:
    sick.put("test/images/z.png", photo(9))
    diagnosis = check(sick.root)
    assert diagnosis.findings == () and diagnosis.images["test"] == 1
    assert "test 1 image (no usable mask)" in diagnosis.text()


def test_void_classes_are_ignored_not_missed(sick: Folder) -> None:
    (sick.root / "dataset.json").unlink()
    (sick.root / "classes.txt").write_text("road\ncar\ntree\nunlabeled\n")
    void = ids(0)
    void[0] = 3
    sick.put("train/masks/a.png", void)
    diagnosis = check(sick.root)
    assert diagnosis.findings == ()
    assert diagnosis.ignored["train"] == pytest.approx(16 / (3 * 192))


def test_progress_is_told(sick: Folder) -> None:
    seen: list[tuple[int, int]] = []
    check(sick.root, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# -- tables, and the whole ---------------------------------------------------------------------------------------------


def test_a_table_is_examined_and_mended_into_folders(tmp_path: Path) -> None:
    import io

    import datasets

    def encoded(array: np.ndarray) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    def table(seeds: list[int]) -> datasets.Dataset:
        binary = [np.where(ids(seed) > 0, 255, 0).astype(np.uint8) for seed in seeds]
        rows = {
            "image": [encoded(photo(seed)) for seed in seeds],
            "label": [encoded(mask) for mask in binary],
        }
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        return datasets.Dataset.from_dict(rows, features=features)

    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": table([0, 1]), "validation": table([2, 0])}).save_to_disk(str(saved))
    (saved / "id2label.json").write_text(json.dumps({"0": "ground", "1": "thing"}))
    diagnosis = check(saved)
    assert [one.kind for one in diagnosis.errors] == ["binary", "leak"]
    assert diagnosis.images == {"train": 2, "val": 2}
    assert diagnosis.errors[1].files[0].endswith("row 1, column 'image'")
    repair = fix(saved, tmp_path / "mended", Remedies(binary=True, drop_duplicates=True))
    assert check(repair.folder).findings == ()
    data = open_dataset(repair.folder)
    assert len(data["train"]) == 1 and len(data["val"]) == 2 and data.classes.names == ("ground", "thing")
    sample = data["train"][0]
    assert np.array_equal(sample.image, photo(1)) and np.array_equal(sample.mask, ids(1) > 0)


def test_an_open_data_set_is_examined_too(sick: Folder) -> None:
    data = open_dataset(sick.root)
    assert check(data).findings == ()
    assert check(data).images == {"train": 3, "val": 1}
    broken = sick.root / "val/images/d.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert only(check(data), "unreadable-image").files == (str(broken),)


def test_one_problem_does_not_hide_the_next(sick: Folder, tmp_path: Path) -> None:
    (sick.root / "train/masks/a.png").unlink()
    broken = sick.root / "train/images/b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    sick.put("val/masks/d.png", ids(0, (6, 8), count=4) * np.uint8(20))
    diagnosis = check(sick.root)
    assert [one.kind for one in diagnosis.errors] == ["image-alone", "unreadable-image", "size", "range"]
    lines = diagnosis.text().splitlines()
    assert "Errors:" in lines and lines[-1] == diagnosis.summary()
    assert diagnosis.summary().startswith("4 errors, ")
    assert f"       terrazzo fix {sick.root} --drop-unpaired --out {sick.root}-fixed" in lines


def test_few_files_are_named_and_all_are_counted(sick: Folder) -> None:
    for number in range(8):
        sick.put(f"train/images/extra{number}.png", photo(60 + number))
    finding = only(check(sick.root), "image-alone")
    assert finding.count == 8 and len(finding.files) == 5
    assert ", … (8 in all)" in check(sick.root).text()


def test_every_flag_that_a_finding_names_exists() -> None:
    import re

    from terrazzo.data import findings

    pages = "".join(page.read_text() for page in Path(findings.__file__).parent.glob("*.py"))
    known = {"--" + one.name.replace("_", "-") for one in fields(Remedies)}
    assert set(re.findall(r'"(--[a-z-]+)["=]', pages)) - {"--out"} == known


def test_every_finding_stands_on_the_page_about_them() -> None:
    import re

    from terrazzo.data import findings

    pages = "".join(page.read_text() for page in Path(findings.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'"(?:error|warning)",\s*"([a-z0-9-]+)"', pages)) - {"warning"}
    kinds |= {"unreadable-image", "unreadable-mask", "jpeg-mask", "only-in-val", "missing-in-train"}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "doctor.md").read_text(encoding="utf-8")
    assert len(kinds) > 35 and {kind for kind in kinds if f"`{kind}`" not in page} == set()
    flags = {"--" + one.name.replace("_", "-") for one in fields(Remedies)}
    assert {flag for flag in flags if flag not in page} == set()
