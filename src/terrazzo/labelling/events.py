"""Pages are told what happens in the project they show, as server-sent events: one short JSON object for each change.

An event says that something is new, not what it is: whoever is told asks for it. Nothing is kept for those who are not
there. A page that does not read its events loses its connection, comes again, and looks at everything anew.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

from terrazzo.web.problems import busy

WAITING = 256  # events that one page may have unread
QUIET = 15.0  # seconds after which a comment shows that the connection lives


class Events:
    """Who listens to which project. Events are sent from any thread."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._listeners: dict[_Listener, str] = {}
        self._is_closed = False

    def send(self, project: str, event: dict[str, Any]) -> None:
        """Tell all pages of a project; an event has a "kind"."""
        text = json.dumps(event, ensure_ascii=False)
        with self._lock:
            chosen = [listener for listener, name in self._listeners.items() if name == project]
        for listener in chosen:
            listener.tell(text)

    def listen(self, project: str) -> AsyncIterator[bytes]:
        """Return the events of a project from now on, as the body of an answer; RefusalError where too many listen."""
        listener = _Listener(asyncio.get_running_loop())
        with self._lock:
            if len(self._listeners) >= self._most or self._is_closed:
                raise busy(
                    "Too many pages listen already.", kind="too-many-listeners", seconds=10, status=503
                )
            self._listeners[listener] = project
        return self._told(listener)

    def close(self) -> None:
        """Let all listeners go: the server ends."""
        with self._lock:
            self._is_closed = True
            chosen = list(self._listeners)
        for listener in chosen:
            listener.tell(None)

    async def _told(self, listener: "_Listener") -> AsyncIterator[bytes]:
        try:
            yield b"retry: 1000\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(listener.queue.get(), QUIET)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if text is None:
                    return
                yield f"data: {text}\n\n".encode()
        finally:
            with self._lock:
                self._listeners.pop(listener, None)


class _Listener:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(self, text: str | None) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._put, text)

    def _put(self, text: str | None) -> None:
        if self.queue.qsize() <= WAITING:  # the one beyond it ends the connection; nothing comes after it
            self.queue.put_nowait(None if self.queue.qsize() == WAITING else text)
