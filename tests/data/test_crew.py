"""Threads that read ahead: a stall is named, an error is no stall, and neither keeps a program from its end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from terrazzo.data import crew as crew_module
from terrazzo.data.crew import Crew


def test_a_stalled_thread_is_named_with_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "STALL", 0.02)
    door = threading.Event()

    def read_from_a_disk_that_does_not_answer() -> int:
        door.wait(20)
        return 7

    with Crew(1) as crew:
        task = crew.submit("sample street/004", read_from_a_disk_that_does_not_answer)
        threading.Timer(0.1, door.set).start()
        with pytest.warns(RuntimeWarning) as said:
            assert task.result() == 7
    text = str(said[0].message)
    assert "s without sample street/004. terrazzo-data-0 is at:" in text
    assert "read_from_a_disk_that_does_not_answer" in text


def test_a_work_that_times_out_itself_is_an_error_not_a_stall() -> None:
    def slow_server() -> None:
        raise TimeoutError("the server")

    with Crew(1) as crew, pytest.raises(TimeoutError, match="the server"):
        crew.submit("sample", slow_server).result()


HANGS = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
from terrazzo.data.crew import Crew
crew, begun = Crew(2), threading.Event()
tasks = [crew.submit("sample", lambda: begun.set() or threading.Event().wait()) for _ in range(4)]
begun.wait()
print("ready", flush=True)
{last}
"""


def test_a_thread_that_hangs_does_not_keep_the_interpreter_from_its_end() -> None:
    command = [sys.executable, "-c", HANGS.format(last="sys.exit(3)")]
    assert subprocess.run(command, timeout=crew_module.FAREWELL + 30, check=False).returncode == 3


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent otherwise on Windows")
def test_ctrl_c_ends_a_wait() -> None:
    command = [sys.executable, "-c", HANGS.format(last="tasks[0].result()")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT
