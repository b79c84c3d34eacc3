"""The law for input that went wrong: it works and what comes of it is consistent, or a TerrazzoError says why not.

Anything else is broken: another exception, a crash of the process, five seconds of computing, more memory than the
bound, a file written elsewhere than into the output folder, the input changed, an output that is there in part, words
that a terminal cannot show, a pickle that is opened, a program that is started.

Cases run in children of one process that has imported everything (`Bench`), so that a crash is one result among others.
`python law.py TARGET SEED` runs one case and prints what it did.
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

SECONDS = 5  # of computing, for one case
PATIENCE = 200  # seconds by the clock, for one that waits for something; others may use the machine meanwhile
MEMORY = 384 << 20  # bytes that a case may take beyond what the imports took
SERIES = 50  # cases that one child does
WORDS = 40_000  # characters that one error may have
HERE = Path(__file__).parent


class BrokenError(AssertionError):
    """What came of a case is not consistent."""


@dataclass
class Tally:
    """What became of the cases of a target."""

    target: str
    counts: Counter[str] = field(default_factory=Counter)
    """"read", "refused" and "broken"."""
    broken: list[str] = field(default_factory=list)
    """How each broken case broke, and how to see it again."""
    slowest: float = 0.0
    """Seconds."""
    peak: int = 0
    """Bytes that the process held beyond what the imports took."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Refusals by the kind of error."""

    def __str__(self) -> str:
        count = sum(self.counts.values())
        return (
            f"{self.target:<22} {count:>6,} mutations: {self.counts['read']:>5,} read, {self.counts['refused']:>5,} "
            f"refused, {self.counts['broken']} broken; at most {self.slowest * 1000:,.0f} ms and {self.peak >> 20} MiB"
        )


# -- in the test's process ---------------------------------------------------------------------------------------------


class Bench:
    """A process that has imported everything, and forks for each series of cases."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.errors = (place / "stderr").open("wb")
        paths = [str(HERE.parent), *(one for one in sys.path if one.endswith("src"))]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "ARROW_NUM_THREADS": "1",
        }
        env |= {"HF_HUB_OFFLINE": "1", "TERRAZZO_CACHE": str(place / "cache"), "HF_HOME": str(place / "hf")}
        env |= {"TMPDIR": str(place / "tmp"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        env.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch sets it for itself once it was imported whole
        (place / "tmp").mkdir()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "law.py"), "serve", str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=env,
            text=True,
        )

    def run(
        self, target: str, seeds: range, *, plant: str = "", enough: int = 20, seconds: float = SECONDS
    ) -> Tally:
        """Return the tally of these cases; it stops when `enough` are broken. seconds: of computing, for each."""
        tally, left, again = Tally(target), list(seeds), set[int]()
        while left and len(tally.broken) < enough:
            done = 0
            some = left[:SERIES]
            for line in self._ask(
                {"target": target, "seeds": [some[0], some[-1] + 1], "plant": plant, "seconds": seconds}
            ):
                if line.get("end") == 0:
                    break
                if (
                    line.get("end", 0) in (signal.SIGPROF, signal.SIGALRM, signal.SIGKILL)
                    and left[done] not in again
                ):
                    again.add(left[done])  # a machine that others keep busy is asked twice
                    break
                self._note(tally, left[done], line)
                done += 1
            left = left[done:]
        return tally

    def _ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        while True:
            text = self.process.stdout.readline()
            assert text, (self.place / "stderr").read_text(errors="replace")[-3000:]
            line = json.loads(text)
            yield line
            if "end" in line:
                return

    def _note(self, tally: Tally, seed: int, line: dict[str, Any]) -> None:
        outcome, detail = line.get("outcome", "broken"), line.get("detail") or _fate(line.get("end", 0))
        tally.counts[outcome] += 1
        tally.slowest = max(tally.slowest, line.get("seconds", 0.0))
        tally.peak = max(tally.peak, line.get("peak", 0))
        if outcome == "refused":
            tally.kinds[detail] += 1
        if outcome == "broken":
            tally.broken.append(f"python tests/mutation/law.py {tally.target} {seed}\n{detail}")

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.kill()  # it waits for the next request, and holds nothing
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def _fate(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGPROF:
        return "hang: it computed for longer than it may"
    if code == -signal.SIGALRM:
        return f"hang: it waited for more than {PATIENCE} s"
    return f"crash: the process died with {signal.Signals(-code).name if code < 0 else code}"


# -- in the process of its own -----------------------------------------------------------------------------------------


def serve(place: Path) -> None:
    """Answer requests from standard input: fork, let the child do the cases, say how it ended."""
    from mutation import targets

    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    targets.imports()
    for text in sys.stdin:
        request = json.loads(text)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _series(request, place, answers)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        _say(answers, {"end": status})


def _say(answers: int, line: dict[str, Any]) -> None:
    os.write(answers, (json.dumps(line) + "\n").encode())


def _series(request: dict[str, Any], place: Path, answers: int) -> None:
    from mutation import plants, targets

    target = targets.TARGETS[request["target"]]
    os.fsync = lambda descriptor: None  # what survives a pulled plug is another test's matter
    pristine = place / "pristine" / target.name
    if not pristine.is_dir():
        shutil.rmtree(place / "making", ignore_errors=True)
        (place / "making").mkdir()
        target.make(place / "making")
        pristine.parent.mkdir(exist_ok=True)
        (place / "making").rename(pristine)
    if request["plant"]:
        plants.PLANTS[request["plant"]]()
    warnings.simplefilter("ignore")
    guard = Guard(place)
    resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + MEMORY, resource.RLIM_INFINITY))
    for seed in range(*request["seeds"]):
        signal.setitimer(
            signal.ITIMER_PROF, request["seconds"]
        )  # nobody catches these two: the kernel ends the process
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        held, started = _memory("VmRSS"), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        outcome, detail = run_case(target, seed, pristine, place / "case", guard)
        seconds = time.process_time() - started
        peak = _memory("VmHWM") - held
        _say(answers, {"outcome": outcome, "detail": detail[-3000:], "seconds": seconds, "peak": peak})


def _memory(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def run_case(target: Any, seed: int, pristine: Path, case: Path, guard: "Guard") -> tuple[str, str]:
    """Make the input of a target wrong, read it, and hold what happened against the law."""
    from terrazzo.errors import TerrazzoError

    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(pristine, case / "raw", symlinks=True)
    rng = random.Random(f"{target.name} {seed}")
    what = target.change(rng, case / "raw")
    out = case / "out"
    before = _snapshot(case)
    error: BaseException | None = None
    said = io.StringIO()
    try:
        with guard.watching(case), redirect_stdout(said), redirect_stderr(said):
            target.read(case / "raw", out)
    except TerrazzoError as refusal:
        error = refusal
    except BaseException as other:
        error = other
        told = _told(other)
        if isinstance(other, MemoryError):
            told = f"memory: more than {MEMORY >> 20} MiB\n{told}"
        return "broken", f"{what}\n{told}"
    try:
        _check(error, case, out, before, guard, writes=target.writes)
        _check_shown(said.getvalue())
    except BrokenError as broken:
        return "broken", f"{what}\n{broken}" + (
            "" if error is None else f"\nafter {type(error).__name__}: {error}"[:800]
        )
    return ("read", "") if error is None else ("refused", type(error).__name__)


def _told(error: BaseException) -> str:
    """The last steps in code of ours, where it broke, and what it said."""
    steps = traceback.extract_tb(error.__traceback__)
    ours = [step for step in steps if "/src/terrazzo/" in step.filename][-2:]
    lines = [f"  {step.filename}:{step.lineno} {step.line}" for step in (*ours, steps[-1])]
    return "\n".join((*dict.fromkeys(lines), f"{type(error).__name__}: {error}"[:600]))


def _check(
    error: Any, case: Path, out: Path, before: dict[str, Any], guard: "Guard", *, writes: bool
) -> None:
    after = _snapshot(case)
    written = {path for path in after if path == "out" or path.startswith("out/")}
    if {path: after[path] for path in after.keys() - written} != before:
        strange = sorted(set(after.items()) ^ set(before.items()))
        raise BrokenError(f"something beside the output folder was changed: {strange[:6]}")
    if error is not None and written:
        raise BrokenError(f"a part of the output is there although it failed: {sorted(written)[:6]}")
    if error is None and writes and "out" not in written:
        raise BrokenError("there is no output although it worked")
    if guard.strays:
        raise BrokenError(f"it did what it should not: {guard.strays[:6]}")
    if error is not None:
        check_words(error)


def check_words(error: Exception) -> None:
    """Raise BrokenError where an error cannot be shown to a person."""
    text = str(error)
    _check_shown(text)
    if not text.strip() or len(text) > WORDS:
        raise BrokenError(f"it is told in {len(text):,} characters")


def _check_shown(text: str) -> None:
    odd = sorted({one for one in text if not one.isprintable() and one not in "\n\u00a0\u200c\u200d"})
    if odd:
        raise BrokenError(f"its words hold what a terminal obeys or cannot show: {odd[:8]!a}")


def _snapshot(case: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for folder, folders, names in os.walk(case):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            about = os.lstat(path)
            is_file = not os.path.isdir(path)
            found[os.path.relpath(path, case)] = (
                (about.st_mode, about.st_size, about.st_mtime_ns) if is_file else 0
            )
    return found


class Guard:
    """Hears, from Python's audit hooks, of files opened to be written and of what should never happen."""

    NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
             "socket.connect", "webbrowser.open", "code.__new__X")  # fmt: skip
    CHANGES: ClassVar = {  # event: which of its arguments are paths, and which the folders that these are relative to
        "os.mkdir": (slice(0, 1), slice(2, 3)),
        "os.remove": (slice(0, 1), slice(1, 2)),
        "os.rmdir": (slice(0, 1), slice(1, 2)),
        "os.chmod": (slice(0, 1), slice(2, 3)),
        "os.utime": (slice(0, 1), slice(3, 4)),
        "os.rename": (slice(0, 2), slice(2, 4)),
        "os.link": (slice(1, 2), slice(3, 4)),
        "os.symlink": (slice(1, 2), slice(2, 3)),
    }

    def __init__(self, place: Path) -> None:
        self.caches = tuple(str(place / name) for name in ("cache", "hf", "tmp"))
        self.case: str | None = None
        self.strays: list[str] = []
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def watching(self, case: Path) -> Iterator[None]:
        """Note what happens meanwhile."""
        self.strays, self.case = [], str(case)
        try:
            yield
        finally:
            self.case = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.case is None:
            return
        if event in self.NEVER:
            self.strays.append(f"{event} {arguments!a}"[:200])
        elif event == "open":
            path, _, flags = arguments
            wants = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if (flags or 0) & wants:
                self._look(event, path)
        elif event in self.CHANGES:
            paths, folders = self.CHANGES[event]
            for path, folder in zip(arguments[paths], arguments[folders], strict=True):
                self._look(event, path, folder)

    def _look(self, event: str, name: Any, folder: int = -1) -> None:
        if not isinstance(
            name, str | bytes | os.PathLike
        ):  # an open file, which was looked at when it was opened
            return
        above = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
        path = os.path.abspath(os.path.join(above, os.fsdecode(name)))
        inside = os.path.relpath(path, self.case)
        is_output = inside == "out" or inside.startswith(("out/", ".out."))
        if not is_output and not path.startswith((*self.caches, "/dev/")) and "__pycache__" not in path:
            self.strays.append(f"{event} {path!a}"[:200])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder))
            first = int(sys.argv[2])
            seen = bench.run(sys.argv[1], range(first, int(sys.argv[3]) if len(sys.argv) > 3 else first + 1))
            print(seen, *seen.broken, dict(seen.kinds), sep="\n\n")
            bench.close()
            print((Path(folder) / "stderr").read_text()[:1500])
