"""What one client may ask of the machine, and how long anyone waits."""

from dataclasses import dataclass, fields

from terrazzo.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds on time, memory and work. Whatever goes beyond gets an answer that says so, not a share of the machine."""

    queue: int = 32
    """Images that are worked on or wait; one more is answered 429 with the seconds after which to try again."""
    batch: int | None = None
    """Images that one pass of a network may hold, where as many wait that it sees at one size. None: 8 on a GPU, 1 on a
    CPU, where two passes beside each other are quicker than one of two images."""
    passes: int | None = None
    """Passes at a time. None: on a CPU one for each thread, 8 at most, which share the threads; 2 on a GPU."""
    max_bytes: int = 32 << 20
    """Of one image file."""
    max_pixels: int = 64_000_000
    """Of one image; a phone's largest photographs have 50 million."""
    held_bytes: int = 512 << 20
    """Of all uploads together that are arriving or wait; beyond it, 429."""
    head_seconds: float = 10
    """For a client to send the head of a request, or the rest of one that is answered already."""
    body_seconds: float = 20
    """For a client to send an image."""
    answer_seconds: float = 60
    """From then to the answer; then 503, and the image is let go."""
    stop_seconds: float = 20
    """For what is in flight when the server is asked to stop."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise UsageError(f"The limit {field.name} is {value}.", expected="a number above 0")
