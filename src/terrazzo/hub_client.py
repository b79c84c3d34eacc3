"""Talking to the Hugging Face Hub: huggingface_hub does it; here are its deadline and its failures in words.

The token is huggingface_hub's own business (HF_TOKEN, `hf auth login`); nothing here looks at it or prints it.
A place that says nothing for `timeout` seconds, and does not move the bytes it is sent, ends with a sentence. Transfers
by hf_xet, which huggingface_hub takes where it is installed, keep time by that package's own rules.
"""

import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn

from terrazzo import __version__
from terrazzo.errors import (
    DatasetFormatError,
    MissingPathError,
    StorageError,
    TerrazzoError,
    UnreachableError,
    UsageError,
)

Kind = Literal["model", "dataset"]
TIMEOUT = 120.0  # seconds; a commit of many files may take the Hub half a minute
KEPT = {  # what need not be done again, by the command
    "push": "What it has received it keeps, and is not sent again.",
    "pull": "What has arrived is kept, and is not fetched again.",
}
WORDS: dict[Kind, str] = {"model": "model", "dataset": "data set"}
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def name_and_revision(text: str) -> tuple[str, str | None]:
    """Return ("user/name", revision or None) of "user/name[@revision]"; UsageError for what is no name on the Hub."""
    repo, at, revision = text.partition("@")
    is_name = NAME.fullmatch(repo) and len(repo) <= 96 and "--" not in repo and ".." not in repo
    if not is_name or repo.endswith((".git", "-", ".")) or bool(at) != bool(revision):
        raise UsageError(
            f"{text!r} is no name on the Hub.",
            expected="user/name, of letters, digits, '-', '_' and '.'; user/name@REVISION to read a state of it",
            hint="Your own user name there:",
            command="hf auth whoami",
        )
    return repo, revision or None


@contextmanager
def talking(repo: str, kind: Kind | None, *, timeout: float, again: Sequence[str]) -> Iterator[Any]:
    """Yield an HfApi whose failures are told in words.

    again: the words of the command that does the same once more. Raises UsageError for a name, a token or a right that
    is missing, UnreachableError where the Hub does not answer or has too much to do, TerrazzoError for anything else.
    """
    import huggingface_hub
    from huggingface_hub.utils import _http

    silence = _Silence(timeout, KEPT.get(again[1], ""))
    before = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    huggingface_hub.set_client_factory(lambda: silence.limited(before()))
    try:
        with _only_our_words():
            yield huggingface_hub.HfApi(library_name="terrazzo", library_version=__version__)
    except TerrazzoError:
        raise
    except Exception as error:
        _tell(error, repo, kind, silence, shlex.join(again))
    finally:
        huggingface_hub.set_client_factory(before)


class SilentError(Exception):
    """The Hub has not been heard for too long."""


class BusyError(Exception):
    """The Hub asks to wait longer than we do."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Silence:
    """When the Hub was last heard: hooks of a client, which has no deadline of its own."""

    def __init__(self, seconds: float, kept: str) -> None:
        self.seconds, self.kept = seconds, kept
        self.heard = time.monotonic()
        self.asked: set[str] = set()  # and not answered yet
        self.status: int | None = None

    def limited(self, client: Any) -> Any:
        """Add the hooks to a client of httpx."""
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._limit],
            "response": [*hooks["response"], self._hear],
        }
        return client

    def _limit(self, request: Any) -> None:
        what = f"{request.method} {request.url}"
        if what not in self.asked:  # not the second time: that is the client trying again
            self.asked.add(what)
            self._alive()
        elif time.monotonic() - self.heard >= self.seconds:
            raise SilentError(f"{request.method} {request.url.host}{request.url.path}")
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), self.seconds)
        request.stream = _watched(request.stream, self._alive)

    def _hear(self, response: Any) -> None:
        self.status = response.status_code
        if response.status_code < 500 and response.status_code != 429:
            self.asked.discard(f"{response.request.method} {response.request.url}")
            self._alive()
            return
        seconds = _asked_to_wait(response.headers)
        if seconds is not None and seconds > self.seconds:
            raise BusyError(seconds)

    def _alive(self) -> None:
        self.heard = time.monotonic()


def _watched(stream: Any, alive: Callable[[], None]) -> Any:
    """The same bytes of a request; `alive` is called for each piece that the other side took."""
    base = next((kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream"), None)
    if base is None:
        return stream

    class Watched(base):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Iterator[bytes]:
            for piece in stream:
                yield piece
                alive()

        def close(self) -> None:
            stream.close()

    return Watched()


def _asked_to_wait(headers: Any) -> int | None:
    """The seconds in Retry-After, or in the Hub's RateLimit header when nothing is left of the rate."""
    if (value := headers.get("retry-after", "")).isdigit():
        return int(value)
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return int(limit[1]) if limit else None


@contextmanager
def _only_our_words() -> Iterator[None]:
    """The client's warnings and bars are for programs; a person gets sentences."""
    import warnings

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    level, had_bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity_error()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub")
            warnings.simplefilter("ignore", DeprecationWarning)  # of the packages below it
            yield
    finally:
        hub_logging.set_verbosity(level)
        if had_bars:
            enable_progress_bars()


# -- failures in words ---------------------------------------------------------------------------------------------


def _tell(error: Exception, repo: str, kind: Kind | None, silence: _Silence, again: str) -> NoReturn:
    """Raise what a person can do something about instead of `error`."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, TerrazzoError):
            raise one
        told = _network(one, silence, again) or _answer(one, repo, kind, again, silence.kept) or _here(one)
        if told is not None:
            raise told from error
    raise TerrazzoError(
        f"The Hub and this machine did not come together over {repo}.",
        found=f"{type(chain[-1]).__name__}: {_first_line(chain[-1])}",
        hint="To try again:",
        command=again,
    ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _network(error: BaseException, silence: _Silence, again: str) -> TerrazzoError | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, SilentError) or "TimeoutException" in kinds:
        status = silence.status if silence.status is not None and silence.status >= 500 else None
        where = str(error) if isinstance(error, SilentError) else "no answer"
        return UnreachableError(
            f"The Hub did not answer for {silence.seconds:g} seconds.",
            found=where if status is None else f"{where}: {_number(status)}",
            hint=f"{silence.kept} To go on, --timeout gives it longer:",
            command=again,
        )
    if isinstance(error, BusyError):
        return _busy(error.seconds, again, silence.kept)
    if "OfflineModeIsEnabled" in kinds:
        return UsageError(
            "The Hub may not be asked: HF_HUB_OFFLINE is set.",
            hint="Without it:",
            command=f"env -u HF_HUB_OFFLINE {again}",
        )
    if kinds & {"TransportError", "ConnectionError", "NetworkError", "ConnectError"}:
        from huggingface_hub import constants

        return UnreachableError(
            f"The Hub at {constants.ENDPOINT} cannot be reached.",
            found=_first_line(error),
            hint=f"{silence.kept} Where there is a connection:",
            command=again,
        )
    return None


def _busy(seconds: int | None, again: str, kept: str) -> UnreachableError:
    wait = "" if seconds is None else f" for {seconds} seconds"
    return UnreachableError(
        f"The Hub asks to wait{wait}: too many requests.",
        hint=f"{kept} Afterwards:",
        command=again if seconds is None else f"sleep {seconds} && {again}",
    )


def _answer(
    error: BaseException, repo: str, kind: Kind | None, again: str, kept: str
) -> TerrazzoError | None:
    name = type(error).__name__
    if name == "LocalTokenNotFoundError":
        return not_logged_in()
    if name == "HFValidationError":
        return UsageError(f"{repo!r} is no name on the Hub.", found=_first_line(error), expected="user/name")
    if name == "ValueError" and "Invalid metadata" in str(error):
        return TerrazzoError(
            f"The Hub does not take the card of {repo}.",
            found=" ".join(str(error).split()),
            command="terrazzo env",
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None:
        return None
    said = getattr(error, "server_message", None) or ""
    what = f"{WORDS[kind]} {repo}" if kind else repo
    if status == 401 and ("credentials" in said.lower() or name != "RepositoryNotFoundError"):
        return _wrong_token(said)
    if name == "RevisionNotFoundError":
        return MissingPathError(
            f"The {what} has no such revision.",
            found=said or None,
            expected="a branch, a tag or a commit of it",
        )
    if name == "GatedRepoError":
        return UsageError(
            f"The {what} asks who you are.",
            found=said or None,
            hint="Accept its terms on its page, then log in:",
            command="hf auth login",
        )
    if status in (401, 404):
        return MissingPathError(
            f"There is no {what} on the Hub, or you may not see it.",
            found=said or None,
            hint="Is the name right? A private one needs the token of somebody who may read it:",
            command="hf auth login",
        )
    if status in (402, 403):
        return UsageError(
            f"The token that was used may not write to {repo}.",
            found=said or f"the Hub answers {status}",
            expected="a name that begins with your own user name or organisation, and a token that may write",
            hint="Who the token belongs to; then log in with another one, or choose another name:",
            command="hf auth whoami\nhf auth login --force",
        )
    if status == 409:
        return TerrazzoError(
            f"Something else is being done to {repo} on the Hub right now.",
            found=said or None,
            hint="What was sent is kept, and nothing of it is shown yet. Again:",
            command=again,
        )
    if status == 412:
        return TerrazzoError(
            f"{repo} was changed on the Hub by somebody else in the meantime.",
            found=said or None,
            hint="Nothing of theirs was replaced. Look at what they did; to put yours on top of it:",
            command=again,
        )
    if status == 429:
        return _busy(_asked_to_wait(error.response.headers), again, kept)  # type: ignore[attr-defined]
    if status >= 500:
        return UnreachableError(
            "The Hub has troubles of its own.",
            found=f"it answers {_number(status)}" + (f": {said}" if said else ""),
            hint=f"{kept} A little later:",
            command=again,
        )
    return TerrazzoError(
        f"The Hub refuses: {_number(status)}.", found=said or _first_line(error), command=again
    )


def not_logged_in() -> UsageError:
    """Build the error of a push without a token."""
    return UsageError(
        "Nobody is logged in to the Hub on this machine.",
        expected="a token that may write, from https://huggingface.co/settings/tokens",
        hint="Log in once, or set HF_TOKEN:",
        command="hf auth login",
    )


def _wrong_token(said: str) -> UsageError:
    import os

    is_set = bool(os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"))
    where = "in the environment variable HF_TOKEN" if is_set else "that is stored on this machine"
    return UsageError(
        f"The Hub does not know the token {where}.",
        found=said.splitlines()[0] if said else None,
        hint="It was revoked, or mistyped. " + ("Take it away, then log in:" if is_set else "Log in anew:"),
        command="unset HF_TOKEN\nhf auth login --force" if is_set else "hf auth login --force",
    )


def _here(error: BaseException) -> TerrazzoError | None:
    """What is wrong on this machine."""
    import errno

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return StorageError("The disk is full.", found=str(error), hint="Free some space, then run it again.")
    return None


def _number(status: int) -> str:
    from http import HTTPStatus

    with suppress(ValueError):
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def other_kind(api: Any, repo: str, kind: Kind) -> Kind | None:
    """Return the other kind where something of that kind has this name."""
    other: Kind = "dataset" if kind == "model" else "model"
    with suppress(Exception):
        if api.repo_exists(repo, repo_type=other):
            return other
    return None


def not_of_this_kind(repo: str, kind: Kind, other: Kind) -> DatasetFormatError | UsageError:
    """Build the error for a name that belongs to the other kind of thing."""
    opens = {"model": f"terrazzo.load({repo!r})", "dataset": f"terrazzo.open_dataset({repo!r})"}
    return UsageError(
        f"{repo} on the Hub is a {WORDS[other]}, not a {WORDS[kind]}.",
        hint="It is opened by:",
        command=opens[other],
    )
