"""Tests keep to this machine: what conftest.py promises holds."""

import os
import socket

import pytest


@pytest.mark.parametrize("address", [("203.0.113.1", 80), ("2001:db8::1", 80)])  # reserved for documentation
def test_other_machines_cannot_be_reached(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(RuntimeError, match="tests use no network"):
        sock.connect(address)


def test_other_machines_cannot_be_looked_up() -> None:
    with pytest.raises(RuntimeError, match="tests use no network"):
        socket.getaddrinfo("huggingface.co", 443)


def test_this_machine_can_be_reached() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        client.sendall(b"x")
        there, _ = server.accept()
        with there:
            assert there.recv(1) == b"x"


def test_the_hub_is_offline_and_caches_are_the_tests_own() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE or "HF_ENDPOINT" in os.environ
    assert "terrazzo-tests-" in constants.HF_HOME
