"""Words of strangers inside a card: what YAML, Markdown and HTML would read as their own is taken away from them.

Class names, names of data sets, licences and sources come from files that anybody may have written. `line` makes one
printable line of them, `shown` lets Markdown and HTML show it and do nothing else, `front_matter` leaves quoting to the
YAML library that huggingface_hub uses itself.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

LONGEST = 200  # characters of a stranger's words that a card repeats
# what would turn the rest of a line around, or hide in it (Unicode's bidirectional controls and marks, byte order mark)
UNSEEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFEFF}
SPECIAL = r"([\\`*_{}\[\]<>|~$&^=#!])"  # Markdown's and HTML's signs that mean something inside a line
URL = r"https?://[\w.-]+(:\d+)?(/[\w./~%?&=#+,:;@!-]*)?"


def line(words: object, *, longest: int = LONGEST) -> str:
    """Return one line of printable characters: no control, no surrogate, nothing that turns its direction."""
    kept = " ".join(str(words).split())
    kept = "".join(
        "\ufffd" if unicodedata.category(one) in ("Cc", "Cs") else one
        for one in kept
        if ord(one) not in UNSEEN
    )
    return (kept if len(kept) <= longest else f"{kept[: longest - 1]}…") or "?"


def shown(words: object) -> str:
    """Return a line that Markdown and HTML show as it is, inside a sentence as in a cell of a table."""
    escaped = re.sub(SPECIAL, r"\\\1", line(words))
    # what readers make links of by themselves: an invisible mark of no width keeps them from it
    return re.sub(r"(?i):(?=//)|\bwww(?=\.)|@", r"\g<0>&#8203;", escaped)


def linked(words: str | None) -> str:
    """Return a plain web address as a link, and any other words as `shown`; "not known" where there are none."""
    if words is None or not words.strip():
        return "not known"
    return f"<{words.strip()}>" if re.fullmatch(URL, words.strip(), re.ASCII) else shown(words)


def fingerprint(words: Any) -> str:
    """Return a fingerprint as code, and what is none as `shown`."""
    is_one = isinstance(words, str) and re.fullmatch(r"[0-9a-f]{8,128}", words)
    return f"`{words}`" if is_one else shown(words or "not known")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return a Markdown table of cells that are `shown` already; the columns `right` stand at the right."""
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def front_matter(values: Mapping[str, Any]) -> str:
    """Return the YAML between two lines of three dashes; strings are made lines first."""
    from huggingface_hub import CardData

    return f"---\n{CardData(**{name: _lines(value) for name, value in values.items()}).to_yaml()}\n---\n"


def swatch(color: Sequence[int]) -> str:
    """Return a patch of a colour with its number, where HTML's styles are kept; else the number alone."""
    code = "#{:02x}{:02x}{:02x}".format(*color)
    return f'<span style="background-color:{code}">&nbsp;&nbsp;&nbsp;&nbsp;</span> `{code}`'


def percent(share: float | None, *, digits: int = 2) -> str:
    """Return a share in percent, "n/a" where there is none."""
    return "n/a" if share is None or share != share else f"{100 * share:.{digits}f}"


def counted(number: int, word: str, plural: Literal["s", "es", "ies"] = "s") -> str:
    """Return "1 image", "2 images"."""
    many = f"{word[:-1]}ies" if plural == "ies" else f"{word}{plural}"
    return f"{number:,} {word if number == 1 else many}"


def _lines(value: Any) -> Any:
    if isinstance(value, str):
        return line(value)
    if isinstance(value, Mapping):
        return {line(name): _lines(inner) for name, inner in value.items()}
    return [_lines(one) for one in value] if isinstance(value, list | tuple) else value
