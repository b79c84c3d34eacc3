"""Sockets, patience with slow clients, signals, and an end that finishes what is in flight.

uvicorn speaks HTTP. Added here: a client that is slow with the head of a request, or with the rest of a body whose
answer it has, is let go; a signal ends the server in order, and its process with exit code 0.
"""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from terrazzo.errors import UsageError

BACKLOG = 4096
IDLE_SECONDS = 75  # of a connection between requests: longer than balancers keep theirs, usually 60
FILES = 65536  # open sockets to ask the system for, where it allows as many


def bind(host: str, port: int, *, command: str) -> socket.socket:
    """Return a listening socket; raises UsageError where the address is no address of this machine, or taken.

    command: what to type for any free port.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"There is no port {port}.", expected="0 to 65535; 0 takes any free one")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"There is no address {host}, port {port}.", found=str(error), expected="such as 127.0.0.1, 8000"
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"The server cannot listen on {host}, port {port}.",
            found=error.strerror or str(error),
            hint="Another program may have the port. Any free one:",
            command=command,
        ) from error
    return listener


def settings(app: ASGIApp, *, head_seconds: float, stop_seconds: float) -> uvicorn.Config:
    """Return how uvicorn serves an application of ours."""
    return uvicorn.Config(
        app,
        http=patient(head_seconds),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
    )


def address_of(listener: socket.socket) -> str:
    """Return the URL at which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """uvicorn's server, whose signals end in order; a second one ends at once."""

    def __init__(
        self, config: uvicorn.Config, on_stop: Callable[[], None], stop: threading.Event | None
    ) -> None:
        """on_stop: called when the end begins, before what is in flight is finished. stop: ends it, once set."""
        super().__init__(config)
        self.on_stop, self.stop = on_stop, stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Note signals while serving; afterwards they mean what they meant."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; at the second signal, end."""
        self.force_exit = self.should_exit
        self._begin_the_end()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        if self.stop is not None and self.stop.is_set():
            self._begin_the_end()
        return await super().on_tick(counter)

    def _begin_the_end(self) -> None:
        if not self.should_exit:
            self.should_exit = True
            self.on_stop()


def patient(head_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's HTTP/1.1, with so much patience with the head of a request, and with bodies nobody reads."""

    class Patient(H11Protocol):
        patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._mind()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._mind()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._mind()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _mind(self) -> None:
            """Nobody of ours waits for this client's bytes with a deadline: the clock does."""
            has_begun = self.conn.their_state is h11.IDLE and bool(
                self.conn.trailing_data[0] or self.cycle is None
            )
            is_late = (
                self.conn.our_state in (h11.DONE, h11.MUST_CLOSE) and self.conn.their_state is h11.SEND_BODY
            )
            if not (has_begun or is_late):
                self._forget()
            elif self.patience is None:
                self.patience = self.loop.call_later(head_seconds, self._let_go)

        def _forget(self) -> None:
            if self.patience is not None:
                self.patience.cancel()
                self.patience = None

        def _let_go(self) -> None:
            self.patience = None
            if not self.transport.is_closing():
                self.transport.close()

    return Patient


def allow_many_files() -> None:
    """A connection is an open file; many systems begin with 1,024 and allow more to those who ask."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
