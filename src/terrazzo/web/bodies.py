"""The body of a request, read in the event loop within limits of bytes, of time, and of what all hold together."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from starlette.requests import ClientDisconnect, Request

from terrazzo.web.problems import RefusalError, busy

DISCARD_SECONDS = 2.0


class Intake:
    """How many bytes of bodies are held, over all requests; only the event loop touches it."""

    def __init__(self, most: int, seconds: float) -> None:
        """most: bytes that all may hold together. seconds: for a body to arrive."""
        self.most, self.seconds, self.held = most, seconds, 0

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """A place to put a body in; what it holds is given back at the end."""
        room = Room(self)
        try:
            yield room
        finally:
            room.release()


class Room:
    """The body of one request, as far as it has arrived."""

    def __init__(self, intake: Intake) -> None:
        self.intake, self.size = intake, 0

    def release(self) -> None:
        """Give back what it holds."""
        self.intake.held -= self.size
        self.size = 0

    async def fill(
        self, request: Request, most: int, *, what: str, too_large: Callable[[str], RefusalError]
    ) -> bytes:
        """Return the whole body, `most` bytes at most; raises RefusalError, or ClientDisconnect when the client leaves.

        what: such as "image", in the words of the refusals. too_large: the refusal of one that is larger, by its size.
        """
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > most:
            await _discard(request)
            raise too_large(f"{int(declared):,} bytes" if declared.isdigit() else declared[:40])
        parts: list[bytes] = []
        is_complete = False
        try:
            async with asyncio.timeout(self.intake.seconds):
                while not is_complete:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    is_complete = not message.get("more_body", False)
                    part = message.get("body", b"")
                    if self.size + len(part) > most:
                        raise too_large(f"more than {most:,} bytes")
                    self._take(part)
                    parts.append(part)
        except RefusalError:
            if not is_complete:
                await _discard(request)
            raise
        except TimeoutError:
            raise RefusalError(
                408,
                f"The {what} did not arrive in time.",
                kind="slow-upload",
                found=f"{self.size:,} bytes in {self.intake.seconds:g} s",
                headers={"Connection": "close"},
            ) from None
        return b"".join(parts)

    def _take(self, part: bytes) -> None:
        if self.intake.held + len(part) > self.intake.most:
            raise busy("The server holds as many uploads as it may.", kind="uploads-full", seconds=1)
        self.size += len(part)
        self.intake.held += len(part)


async def _discard(request: Request) -> None:
    """Let a client send on for a while: one that is cut off in the middle does not read why."""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await request.receive()).get("more_body"):
                pass
