"""Sockets, patience with slow clients, signals, and an end that finishes what is in flight.

uvicorn speaks HTTP. Added here: a client that is slow with the head of a request, or with the rest of a body whose
answer it has, is let go; a signal ends the server in order, and its process with exit code 0.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from terrazzo.errors import UsageError
from terrazzo.serving.app import create_app
from terrazzo.serving.gate import Door, is_loopback
from terrazzo.serving.service import Service

BACKLOG = 4096
IDLE_SECONDS = 75  # of a connection between requests: longer than balancers keep theirs, usually 60
FILES = 65536  # open sockets to ask the system for, where it allows as many


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises UsageError where the address is no address of this machine, or taken."""
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
            command="terrazzo serve MODEL --port 0",
        ) from error
    return listener


def run(
    service: Service, door: Door, listener: socket.socket, *, stop: threading.Event | None = None
) -> None:
    """Serve until a signal (or `stop`), then finish what is in flight, for `limits.stop_seconds` at most."""
    service.warm_up()
    _allow_many_files()
    config = uvicorn.Config(
        create_app(service, door),
        http=patient(service),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(service.limits.stop_seconds)),
    )
    server = Server(config, service, stop)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(
        f"{model.name} ({len(model.predictor.classes)} classes, {model.predictor.eye.backend.says})"
        for model in service.models.values()
    )
    print(f"Serving {names}: http://{shown}:{port}/", flush=True)
    if not is_loopback(host):
        print(
            "Others can reach it, and nothing is encrypted: let a proxy speak https to them.", file=sys.stderr
        )
    server.run(sockets=[listener])
    service.line.close(0)
    total = int(service.tally.total("terrazzo_requests_total"))
    print(f"Stopped after {total:,} request{'s' if total != 1 else ''}.", flush=True)


class Server(uvicorn.Server):
    """uvicorn's server, whose signals end in order; a second one ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service, stop: threading.Event | None) -> None:
        super().__init__(config)
        self.service, self.stop = service, stop

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
        self.should_exit = self.service.is_stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        if self.stop is not None and self.stop.is_set():
            self.should_exit = self.service.is_stopping = True
        return await super().on_tick(counter)


def patient(service: Service) -> type[H11Protocol]:
    """Return uvicorn's HTTP/1.1, with `limits.head_seconds` of patience."""

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
                self.patience = self.loop.call_later(service.limits.head_seconds, self._let_go)

        def _forget(self) -> None:
            if self.patience is not None:
                self.patience.cancel()
                self.patience = None

        def _let_go(self) -> None:
            self.patience = None
            if not self.transport.is_closing():
                self.transport.close()

    return Patient


def _allow_many_files() -> None:
    """A connection is an open file; many systems begin with 1,024 and allow more to those who ask."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
