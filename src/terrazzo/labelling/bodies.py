"""Bodies of requests: read within limits of bytes and time (`web/bodies.py`), and taken apart without trust."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request

from terrazzo.web.bodies import Intake, Room
from terrazzo.web.problems import RefusalError


async def read(intake: Intake, request: Request, most: int) -> bytes:
    """Return the body of a request, `most` bytes at most; what it holds is given back by the gate at its end."""
    room = Room(intake)
    request.state.rooms = [*getattr(request.state, "rooms", ()), room]
    return await room.fill(request, most, what="request", too_large=lambda found: _too_large(found, most))


class Told:
    """What a client says in JSON, taken out by name and kind; what is of another kind is told as 400."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value

    @classmethod
    def of(cls, body: bytes, names: Collection[str]) -> "Told":
        """Return the object in a body; it may have members of these names and no others."""
        try:
            value = json.loads(body or b"{}", parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _wrong(f"The JSON cannot be read: {str(error)[:200]}.", names) from error
        if not isinstance(value, dict):
            raise _wrong("The JSON is no object.", names)
        strange = sorted(set(value) - set(names))
        if strange:
            raise _wrong(f"There is no member {strange[0]!r:.80} here.", names)
        return cls(value)

    def has(self, name: str) -> bool:
        """Whether it was said."""
        return name in self._value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text."""
        return str(self._of(name, str, default, "a text"))

    def maybe_text(self, name: str) -> str | None:
        """Return a text, or None where it was null or not said."""
        return None if self._value.get(name) is None else self.text(name)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number."""
        value = self._of(name, int, default, "a whole number")
        if isinstance(value, bool):
            raise RefusalError(
                400, f"{name!r} is no whole number.", kind="bad-json", found=str(value).lower()
            )
        return int(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return true or false."""
        return bool(self._of(name, bool, default, "true or false"))

    def listed(self, name: str, default: list[Any] | None = None) -> list[Any]:
        """Return a list of whatever."""
        value: list[Any] = self._of(name, list, default, "a list")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self.listed(name)
        if not all(isinstance(one, str) for one in value):
            raise RefusalError(400, f"{name!r} is no list of texts.", kind="bad-json")
        return value

    def wholes(self, name: str) -> list[int]:
        """Return a list of whole numbers."""
        value = self.listed(name)
        if not all(type(one) is int for one in value):
            raise RefusalError(400, f"{name!r} is no list of whole numbers.", kind="bad-json")
        return value

    def get(self, name: str) -> Any:
        """Return whatever was said, None where nothing was."""
        return self._value.get(name)

    def _of(self, name: str, kind: type, default: Any, expected: str) -> Any:
        value = self._value.get(name, default)
        if not isinstance(value, kind):
            found = "nothing" if name not in self._value else f"{value!r:.80}"
            raise RefusalError(400, f"{name!r} is not said as it must be.", kind="bad-json", found=found,
                               expected=expected)  # fmt: skip
        return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _wrong(what: str, names: Collection[str]) -> RefusalError:
    expected = "an object with " + ", ".join(sorted(names)) if names else "an empty object"
    return RefusalError(400, what, kind="bad-json", expected=expected)


def _too_large(found: str, most: int) -> RefusalError:
    return RefusalError(
        413,
        "The request is too large.",
        kind="too-large",
        found=found,
        expected=f"at most {most:,} bytes",
        headers={"Connection": "close"},
    )
