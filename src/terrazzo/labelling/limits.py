"""What one client may ask of a labelling server, and how long anyone waits."""

from dataclasses import dataclass, fields

from terrazzo.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Bounds on time, memory and work; whatever goes beyond gets an answer that says so."""

    max_image_bytes: int = 128 << 20
    """Of one image file that is sent."""
    max_pixels: int = 100_000_000
    """Of one image that is sent."""
    max_json_bytes: int = 1 << 20
    """Of a request that carries no pixels."""
    max_ops_bytes: int = 96 << 20
    """Of one operation: all tiles of 100 megapixels, packed as strokes pack, take a tenth of it."""
    held_bytes: int = 512 << 20
    """Of all requests together that are arriving or worked on; beyond it, 429."""
    head_seconds: float = 10
    """For a client to send the head of a request, or the rest of one that is answered already."""
    body_seconds: float = 60
    """For a client to send a body."""
    stop_seconds: float = 10
    """For what is in flight when the server is asked to stop."""
    cache_bytes: int = 2 << 30
    """Of pictures kept beside a project; the ones not looked at for longest go first."""
    wrong_tokens: int = 10
    """Of one address in a minute; beyond it, 429."""
    listeners: int = 256
    """Pages that are told of changes, over all projects."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UsageError(
                    f"The limit {field.name} is {getattr(self, field.name)}.", expected="a number above 0"
                )
