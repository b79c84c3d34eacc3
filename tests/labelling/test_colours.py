"""The page's words can be read on what they stand on, in light and in dark, by WCAG 2.2's formula."""

import re
from pathlib import Path

import pytest

from terrazzo import labelling

STYLE = (Path(labelling.__file__).parent / "static" / "style.css").read_text(encoding="utf-8")
WORDS = {  # what is read, and on what
    "ink": ("paper", "card", "hover", "press", "accent-soft"),
    "soft": ("paper", "card", "hover", "press"),
    "faint": ("paper", "card"),
    "accent": ("card", "accent-soft"),
    "accent-ink": ("accent",),
    "good": ("card",),
    "warn": ("card", "warn-soft"),
    "bad": ("card", "bad-soft"),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_they_stand_on(theme: str) -> None:
    colors = themes()[theme]
    assert luminance("#ffffff") == pytest.approx(1)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for word, grounds in WORDS.items():
        for ground in grounds:
            assert contrast(colors[word], colors[ground]) >= 4.5, f"{word} on {ground}"  # AA, for text
    for ground in ("paper", "card", "stage"):
        assert contrast(colors["focus"], colors[ground]) >= 3, (
            f"the focus on {ground}"
        )  # AA, for what is no text


def test_dark_is_dark_whether_the_system_or_a_person_says_so() -> None:
    blocks = [properties(block) for block in re.findall(r":root[^{]*\{(.*?)\}", STYLE, re.DOTALL)]
    assert len(blocks) == 3
    assert blocks[1] == blocks[2]


def themes() -> dict[str, dict[str, str]]:
    light, dark, _ = (properties(block) for block in re.findall(r":root[^{]*\{(.*?)\}", STYLE, re.DOTALL))
    return {"light": light, "dark": {**light, **dark}}


def properties(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6})\b", block))


def luminance(color: str) -> float:
    digits = color.lstrip("#")
    digits = "".join(one * 2 for one in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
