"""A service behind a door, from its first request to its last."""

import socket
import sys
import threading

from terrazzo.serving.app import create_app
from terrazzo.serving.gate import Door
from terrazzo.serving.service import Service
from terrazzo.web.doors import is_loopback
from terrazzo.web.server import Server, address_of, allow_many_files, settings


def run(
    service: Service, door: Door, listener: socket.socket, *, stop: threading.Event | None = None
) -> None:
    """Serve until a signal (or `stop`), then finish what is in flight, for `limits.stop_seconds` at most."""
    service.warm_up()
    allow_many_files()
    limits = service.limits
    config = settings(
        create_app(service, door), head_seconds=limits.head_seconds, stop_seconds=limits.stop_seconds
    )
    names = ", ".join(
        f"{model.name} ({len(model.predictor.classes)} classes, {model.predictor.eye.backend.says})"
        for model in service.models.values()
    )
    print(f"Serving {names}: {address_of(listener)}", flush=True)
    if not is_loopback(listener.getsockname()[0]):
        print(
            "Others can reach it, and nothing is encrypted: let a proxy speak https to them.", file=sys.stderr
        )
    Server(config, service.begin_to_stop, stop).run(sockets=[listener])
    service.line.close(0)
    total = int(service.tally.total("terrazzo_requests_total"))
    print(f"Stopped after {total:,} request{'s' if total != 1 else ''}.", flush=True)
