"""Whose code, weights and data something was made from, and what their licences say: the ledger that travels.

    dataset.json "license" -> a run's data.json -> terrazzo.json of a model -> its card

A licence is kept in its publisher's words; `read` looks up what is known of them: the SPDX id, and whether commercial
use is allowed. Words that are not known mean "unknown", never "yes". This is a notebook, not a lawyer.

Commercial use is denied by NVIDIA's licence for SegFormer ("research or evaluation purposes only", its section 3.3, for
derivative works too), by Creative Commons' NC licences, and by whoever says "non-commercial" in so many words.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from terrazzo.errors import UsageError

Use = Literal["yes", "no", "unknown"]

CODE = "Apache-2.0"  # of terrazzo
NVIDIA_SEGFORMER = "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation only"
NVIDIA_LINK = "https://github.com/NVlabs/SegFormer/blob/master/LICENSE"

# SPDX id -> may it be used commercially. The Hub's identifiers are these in lower case, those in NOT_ON_HUB excepted.
KNOWN: dict[str, Use] = {
    **dict.fromkeys(("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unlicense"), "yes"),
    **dict.fromkeys(("GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-3.0", "AGPL-3.0", "MPL-2.0"), "yes"),
    **dict.fromkeys(("CC0-1.0", "PDDL-1.0", "ODbL-1.0", "ODC-By-1.0"), "yes"),
    **dict.fromkeys(("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0"), "yes"),
    **{f"CC-BY-{version}": "yes" for version in ("2.0", "2.5", "3.0", "4.0")},
    **{f"CC-BY-{kind}-{version}": "yes" for kind in ("SA", "ND") for version in ("2.0", "3.0", "4.0")},
    **{f"CC-BY-NC{kind}-{version}": "no" for kind in ("", "-SA", "-ND") for version in ("2.0", "3.0", "4.0")},
}
ON_HUB = {"PDDL-1.0": "pddl", "ODbL-1.0": "odbl", "ODC-By-1.0": "odc-by"}  # the Hub's own words for these
NOT_ON_HUB = ("CC-BY-SA-2.0", "CC-BY-ND-2.0", "CC-BY-ND-3.0", "CC-BY-NC-ND-2.0")
ALIASES = {  # what people write instead, squeezed as `_squeezed` does
    "apachelicense20": "Apache-2.0",
    "apache20license": "Apache-2.0",
    "apache2": "Apache-2.0",
    "mitlicense": "MIT",
    "bsd3clauselicense": "BSD-3-Clause",
    "cc0": "CC0-1.0",
    "publicdomain": "CC0-1.0",
    "odbl": "ODbL-1.0",
    "odcby": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "gplv3": "GPL-3.0",
    "agplv3": "AGPL-3.0",
}
DENIED = r"non-?\s?commercial|\bresearch (and|or) (education|evaluation|academic)|\b(academic|research)( use)? only\b"
UNSTATED = r"(not (stated|known)|unknown|none)\b"
SEALED = r"no redistribution|not (be )?redistribut"


@dataclass(frozen=True)
class Licence:
    """What is known of a licence."""

    stated: str | None
    """In its publisher's words; None where nothing is stated."""
    spdx: str | None
    """Its SPDX id, where the words are the name of one licence and nothing else."""
    commercial: Use
    """Whether commercial use is allowed."""
    redistribution: Use
    """Whether what is under it may be passed on."""
    link: str | None
    """Where it can be read."""

    @property
    def hub(self) -> str:
        """The identifier that cards on the Hub take: "apache-2.0"; "other" with a name, "unknown" where none is."""
        if self.spdx is not None and self.spdx not in NOT_ON_HUB:
            return ON_HUB.get(self.spdx, self.spdx.lower())
        is_stated = self.stated is not None and not re.match(UNSTATED, self.stated, re.IGNORECASE)
        return "other" if is_stated else "unknown"

    def __str__(self) -> str:
        return self.stated or "not known"


def read(stated: str | None) -> Licence:
    """Return what is known of a licence in its publisher's words."""
    words = " ".join((stated or "").split())
    if not words or re.match(UNSTATED, words, re.IGNORECASE):
        return Licence(words or None, None, "unknown", "unknown", None)
    spdx = _spdx(words)
    is_denied = re.search(DENIED, words, re.IGNORECASE) is not None
    is_sealed = re.search(SEALED, words, re.IGNORECASE) is not None
    commercial: Use = "no" if is_denied else KNOWN[spdx] if spdx is not None else "unknown"
    redistribution: Use = "no" if is_sealed else "yes" if spdx is not None else "unknown"
    link = f"https://spdx.org/licenses/{spdx}.html" if spdx is not None else None
    if words.startswith("NVIDIA Source Code License for SegFormer"):
        link = NVIDIA_LINK
    return Licence(words, spdx, commercial, redistribution, link)


def _spdx(words: str) -> str | None:
    """The id that the words are, alone or before what only says who says so, or repeats that it is non-commercial."""
    head = re.sub(r"(, as .* says of .*|: non-commercial)$", "", words, flags=re.IGNORECASE)
    squeezed = _squeezed(head)
    return _BY_SQUEEZED.get(squeezed) or ALIASES.get(squeezed)


def _squeezed(words: str) -> str:
    return re.sub(r"[^a-z0-9]", "", words.lower().removeprefix("the ").removeprefix("creative commons "))


_BY_SQUEEZED = {_squeezed(spdx): spdx for spdx in KNOWN}


@dataclass(frozen=True)
class Origin:
    """One thing that a model was made from."""

    name: str
    """As it can be found: a Hub id, a published name, the name of a data set. Never a local path."""
    license: str | None
    """In its publisher's words; None where nobody said."""

    @property
    def licence(self) -> Licence:
        """What is known of it."""
        return read(self.license)

    def to_json(self) -> dict[str, str | None]:
        """Return {"name", "license"}."""
        return {"name": self.name, "license": self.license}


@dataclass(frozen=True)
class Ledger:
    """What a model was made from, the nearest first: what its training started from, what that started from, …"""

    weights: tuple[Origin, ...] = ()
    """Weights of others; none where everything began with random values."""
    data: tuple[Origin, ...] = ()
    """Data sets it was trained on, those of the models before it included."""
    code: str = CODE
    """Licence of the code."""
    chosen: str | None = None
    """What whoever made the model gives its weights away under; None where they have not said."""

    @property
    def commercial(self) -> Use:
        """ "no" where any part denies it, "unknown" where any part is not known, or what the data were; else "yes"."""
        parts = [one.licence.commercial for one in (*self.weights, *self.data)]
        parts += [read(self.chosen).commercial] if self.chosen is not None else []
        return least(parts if self.data else [*parts, "unknown"])

    @property
    def of_weights(self) -> str | None:
        """The licence of the weights: as chosen, else as they inherit it."""
        return self.chosen if self.chosen is not None else self.inherited

    @property
    def inherited(self) -> str | None:
        """The licence that weights trained from these inherit: one that denies something, else the nearest stated."""
        stated = [one.license for one in self.weights if one.license is not None]
        return next((words for words in stated if read(words).commercial == "no"), next(iter(stated), None))

    def after(self, name: str, license: str | None) -> "Ledger":
        """Return the ledger of what is trained from this on the data set `name`."""
        mine = Origin(name, license)
        return Ledger(self.weights, (mine, *(one for one in self.data if one != mine)), self.code)

    def given(self, license: str) -> "Ledger":
        """Return the same, given away under `license`; UsageError where that allows more than what was inherited."""
        denied = next((one for one in self.weights if one.licence.commercial == "no"), None)
        if denied is not None and read(license).commercial != "no":
            raise UsageError(
                f"These weights cannot be given away under {license!r}.",
                found=f"they come from {denied.name}: {denied.license}",
                expected="a licence that allows no commercial use, such as CC-BY-NC-4.0, or none: they inherit theirs",
            )
        return replace(self, chosen=license)

    def notices(self) -> tuple[str, ...]:
        """Return a sentence for each part whose licence denies commercial use: for the log, an export, a card."""
        parts = [(f"its weights come from {one.name}", one) for one in self.weights]
        parts += [(f"it was trained on {one.name}", one) for one in self.data]
        denied = [(how, one) for how, one in parts if one.licence.commercial == "no"]
        return tuple(f"not for commercial use: {how} ({one.license})" for how, one in denied)

    def to_json(self) -> dict[str, Any]:
        """Return the "licenses" of terrazzo.json: the words for each kind, and under "from" every part."""
        return {
            "code": self.code,
            "weights": self.of_weights,
            "data": next((one.license for one in self.data), None),
            **({"chosen": self.chosen} if self.chosen is not None else {}),
            "commercial": self.commercial,
            "from": {
                "weights": [one.to_json() for one in self.weights],
                "data": [one.to_json() for one in self.data],
            },
        }

    @classmethod
    def from_json(cls, value: Any) -> "Ledger":
        """Read what `to_json` returns, as far as it is there; what somebody else wrote, too."""
        value = value if isinstance(value, Mapping) else {}
        parts = value.get("from")
        parts = parts if isinstance(parts, Mapping) else {}

        def origins(kind: str, name: str) -> tuple[Origin, ...]:
            found = parts.get(kind)
            if isinstance(found, list):
                return tuple(_origin(one) for one in found if isinstance(one, Mapping))
            said = value.get(kind)
            return (Origin(name, said),) if isinstance(said, str) else ()

        weights, data = origins("weights", "others, not named"), origins("data", "a data set, not named")
        chosen = value.get("chosen")
        return cls(weights, data, str(value.get("code") or CODE), chosen if isinstance(chosen, str) else None)


def ledger_of(about: Mapping[str, Any]) -> Ledger:
    """Return the ledger in the content of a model's terrazzo.json; an empty one where it holds none."""
    return Ledger.from_json(about.get("licenses"))


def public(words: str) -> bool:
    """Return whether words may be passed on: they are no path of a machine."""
    return not re.match(r"\s*(/|~|\.{1,2}[/\\]|\\|[A-Za-z]:[/\\]|file:)", words)


def least(uses: Iterable[Use]) -> Use:
    """Return what all parts together allow."""
    found = set(uses)
    return "no" if "no" in found else "unknown" if "unknown" in found else "yes"


def _origin(value: Mapping[str, Any]) -> Origin:
    license = value.get("license")
    return Origin(str(value.get("name", "")), license if isinstance(license, str) else None)
