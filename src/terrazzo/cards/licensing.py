"""What a card says of licences: the Hub's fields, and a table of code, weights and data with what they allow."""

import re
from typing import Any

from terrazzo.cards.text import line, linked, shown, table
from terrazzo.licences import Ledger, Licence, read

WORDS = {"yes": "allowed", "no": "not allowed", "unknown": "not known"}


def metadata(licence: Licence) -> dict[str, Any]:
    """Return "license", and "license_name" and "license_link" where the Hub has no identifier for it."""
    if licence.hub != "other":
        return {"license": licence.hub}
    name = re.sub(r"[^a-z0-9.]+", "-", line(licence.stated).lower()).strip("-.")[:80]
    return {"license": "other", "license_name": name or "other", "license_link": licence.link}


def section(ledger: Ledger) -> str:
    """Return the part of a model's card on licences."""
    rows: list[tuple[str, str, str | None, Licence]] = [("code", "terrazzo", ledger.code, read(ledger.code))]
    rows += [("weights it started from", one.name, one.license, one.licence) for one in ledger.weights]
    rows += [("data", one.name, one.license, one.licence) for one in ledger.data]
    cells = [
        (kind, shown(name), _stated(words, known), WORDS[known.commercial])
        for kind, name, words, known in rows
    ]
    text = ["## Licences", table(("what", "which", "licence, as stated", "commercial use"), cells)]
    text += [f"**{shown(notice[0].upper() + notice[1:])}.**" for notice in ledger.notices()]
    if ledger.chosen is not None:
        text.append(
            f"Whoever made these weights gives them away under {_stated(ledger.chosen, read(ledger.chosen))}."
        )
    elif not ledger.weights:
        text.append("Whoever trained these weights has stated no licence for them.")
    else:
        text.append("What is trained from weights inherits their licence.")
    if not ledger.data:
        text.append("What data it was trained on, and under which licence, is not known.")
    return "\n\n".join(text)


def _stated(words: str | None, known: Licence) -> str:
    if words is None or not words.strip():
        return "not known"
    return shown(words) + (f" ({linked(known.link)})" if known.link else "")
