"""The doctor's page stands alone, escapes what strangers named, marks the place, and replaces nothing but its like."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terrazzo.classes import Classes
from terrazzo.cli import main
from terrazzo.data.description import Description, read_description, write_description
from terrazzo.data.doctor import diagnose
from terrazzo.data.examination import examine
from terrazzo.data.findings import Finding
from terrazzo.doctor_page import page, write_page
from terrazzo.doctor_pictures import pictures
from terrazzo.errors import ExistingOutputError

EVIL = 'x"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\x1b[2J\u202eedis'
HOLDS = (
    "html head meta title style body h1 h2 h3 p ol li span a div table tr th td i br article dl dt dd code bdi pre "
    "figure img figcaption"
)


class Tags(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def strange_id(boxes: Path) -> Path:
    """Boxes with an id in one mask that no class has."""
    mask = np.asarray(Image.open(boxes / "train/masks/001.png")).copy()
    mask[20:30, 40:52] = 9
    Image.fromarray(mask).save(boxes / "train/masks/001.png")
    return boxes


def broken(boxes: Path) -> Path:
    """The same with a mask of another size, and hostile names of files and classes."""
    strange_id(boxes)
    small = np.asarray(Image.open(boxes / "train/masks/002.png"))[::2, ::2]
    Image.fromarray(small).save(boxes / "train/masks/002.png")
    (boxes / "train/masks/003.png").unlink()
    (boxes / "train/images/003.png").rename(boxes / "train/images" / (EVIL.replace("/", "") + ".png"))
    about = read_description(boxes)
    write_description(boxes, replace(about, classes=Classes(("field", EVIL, "sky"))))
    return boxes


@pytest.fixture
def html(boxes_of_my_own: Path) -> str:
    chart = examine(broken(boxes_of_my_own), workers=1)
    return page(diagnose(chart), chart)


def test_a_page_needs_nothing_but_itself(html: str) -> None:
    seen = Tags(html)
    assert {tag for tag, _ in seen.tags} <= {*HOLDS.split()}  # no script, no link, no frame
    attributes = {name for _, attrs in seen.tags for name in attrs}
    assert not attrs_that_act(attributes)
    sources = [attrs["src"] for tag, attrs in seen.tags if tag == "img"]
    assert sources and all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(
        attrs["href"] is not None and attrs["href"].startswith("#finding-")
        for tag, attrs in seen.tags
        if tag == "a"
    )
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    for source in sources:
        assert source is not None
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()


def attrs_that_act(names: set[str]) -> set[str]:
    return {
        name for name in names if name.startswith("on") or name in ("srcset", "action", "data", "background")
    }


def test_hostile_names_are_only_text(html: str) -> None:
    words = "".join(Tags(html).words)
    assert "<script>alert(1)" in words and "<script" not in html  # shown, and nothing but shown
    assert "\x1b" not in html and "\u202e" not in html
    assert 'x"><script>alert(1)<script><img src=x onerror=alert(2)>&amp;\ufffd[2J\ufffdedis.png' in words


def test_the_page_tells_all_that_the_text_tells(html: str, boxes_of_my_own: Path) -> None:
    words = re.sub(r"\s+", " ", "".join(Tags(html).words))
    diagnosis = diagnose(examine(boxes_of_my_own, workers=1))
    assert diagnosis.summary() in words and len(diagnosis.findings) >= 3
    for one in diagnosis.findings:
        for text in (one.what, one.hint, one.command):
            assert text is None or re.sub(r"\s+", " ", text) in words
    for count in diagnosis.counts:
        assert f"{count.pixels:,}" in words and f"{count.share:.2%}" in words


def test_the_place_is_marked(boxes_of_my_own: Path) -> None:
    chart = examine(strange_id(boxes_of_my_own), workers=1)
    [finding] = [one for one in diagnose(chart).findings if one.kind == "range"]
    [picture] = pictures(finding, chart)
    assert picture.caption == f"train/masks/001.png: {120 / (48 * 64):.1%} of the pixels, in pink"
    pixels = np.asarray(picture.image).astype(int)
    pink = (pixels[..., 0] - pixels[..., 1] > 90) & (pixels[..., 2] - pixels[..., 1] > 40)
    rows, columns = np.flatnonzero(pink.any(axis=1)), np.flatnonzero(pink.any(axis=0))
    scale = picture.image.width / 64
    assert rows[0] / scale == pytest.approx(18, abs=1) and rows[-1] / scale == pytest.approx(31, abs=1.2)
    assert columns[0] / scale == pytest.approx(38, abs=1) and columns[-1] / scale == pytest.approx(
        53, abs=1.2
    )


@pytest.mark.parametrize("kind", ["range", "size", "leak", "displaced", "blended", "specks", "no-such-kind"])
def test_a_picture_of_anything_can_be_drawn_and_what_is_broken_has_none(
    kind: str, boxes_of_my_own: Path
) -> None:
    chart = examine(broken(boxes_of_my_own), workers=1)
    files = tuple(item.where for case in chart.cases for item in (case.image, case.mask) if item is not None)
    for picture in pictures(Finding("error", kind, "…", files, raw_ids=(0, 1, 9)), chart):
        assert picture.image.mode == "RGB" and picture.image.width <= 612
    (boxes_of_my_own / "val/images/000.png").unlink()
    (boxes_of_my_own / "val/masks/000.png").unlink()
    assert pictures(Finding("error", kind, "…", ("val/masks/000.png", "gone.png")), chart) == []


def test_check_writes_the_page_and_replaces_only_its_like(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert main(["check", str(boxes), "--html", str(out)]) == 0
    assert f"The page with pictures: {out}\n" in capsys.readouterr().out
    first = out.read_text(encoding="utf-8")
    assert first.startswith("<!doctype html>") and "</html>" in first
    assert main(["check", str(boxes), "--html", str(out), "--json"]) == 0
    assert capsys.readouterr().out.startswith("{") and out.read_text(encoding="utf-8") == first
    precious = tmp_path / "thesis.html"
    precious.write_text("years of work")
    assert main(["check", str(boxes), "--html", str(precious)]) == 2
    assert precious.read_text() == "years of work"
    told = capsys.readouterr()
    assert told.out == "" and "is no page of an earlier check" in told.err  # said before anything is examined


def test_a_folder_is_not_replaced(boxes: Path, tmp_path: Path) -> None:
    chart = examine(boxes, workers=1)
    with pytest.raises(ExistingOutputError):
        write_page(tmp_path, diagnose(chart), chart)


def test_a_data_set_without_anything_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    chart = examine(tmp_path / "nothing", workers=1)
    assert "is not a data set that terrazzo knows" in page(diagnose(chart), chart)
    write_description(tmp_path / "nothing", Description(Classes(("a",))))
    chart = examine(tmp_path / "nothing", workers=1)
    assert "<html" in page(diagnose(chart), chart)
