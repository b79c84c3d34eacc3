"""The pictures of the page of docs on labelling are those that scripts/pictures.py draws, and no others."""

import importlib.util
import re
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).parents[2]


def test_the_docs_show_what_the_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("pictures", PROJECT / "scripts" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    page = (PROJECT / "docs" / "how-to" / "label.md").read_text(encoding="utf-8")
    shown = re.findall(r"\.\./images/([\w-]+)\.jpg", page)
    assert sorted(shown) == sorted(pictures.PICTURES)
    for name in shown:
        with Image.open(pictures.OUT / f"{name}.jpg") as picture:
            assert picture.size == (pictures.SIZE["width"], pictures.SIZE["height"])
