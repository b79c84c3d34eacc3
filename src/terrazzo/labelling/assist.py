"""What helps to draw, for the projects of one server: superpixels, masks from boxes and points, edges to follow.

The engines (`superpixels`, `grabcut`, `scissors`, `sam`) know arrays; here is what they need around them: the image of
a sample, decoded once for several questions in a row; what was computed, kept in a folder beside the project; and work
that takes longer than an answer may, as a job. An image that has changed since it was labelled is another image.
"""

import contextlib
import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import TerrazzoError, UnreadableFileError
from terrazzo.labelling.grabcut import grabcut
from terrazzo.labelling.jobs import Job, Jobs
from terrazzo.labelling.kept import Kept
from terrazzo.labelling.pictures import visible
from terrazzo.labelling.prompts import Point, Prompt, Proposal
from terrazzo.labelling.sam import Maps, Sam, weights
from terrazzo.labelling.sam import pack as pack_maps
from terrazzo.labelling.sam import unpack as unpack_maps
from terrazzo.labelling.scissors import Scissors
from terrazzo.labelling.superpixels import Box, key_of, pack, superpixels, unpack
from terrazzo.project import Project
from terrazzo.project.samples import Entry
from terrazzo.web.problems import RefusalError, busy

CELLS_BYTES = 1 << 30  # of superpixels kept beside a project: some 5,000 images
MAPS_BYTES = 4 << 30  # of embeddings: some 500 images
IN_MEMORY_PIXELS = 60_000_000  # of decoded images, 3 bytes each
FEW = 4  # embeddings, and packed superpixels, in memory
AT_ONCE = 2  # masks computed beside each other; more would make all of them late


class Assist:
    """The engines of one server and what they have ready."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._scissors = Scissors()
        self._lock = threading.Lock()
        self._decode = threading.Lock()
        self._busy = threading.BoundedSemaphore(AT_ONCE)
        self._images: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._cells: OrderedDict[str, bytes] = OrderedDict()
        self._maps: OrderedDict[str, Maps] = OrderedDict()
        self._kept: dict[tuple[Path, str], Kept] = {}
        self._sam: Sam | None = None
        self._has_looked = False
        self._no_sam = "no SAM weights on this machine"

    # -- superpixels -------------------------------------------------------------------------------------------------

    def superpixels(self, project: Project, one: Entry, box: Box | None) -> tuple[str, bytes | Job]:
        """Return (key, packed superpixels), or (key, the job that makes them)."""
        key = key_of(one.sha256 + str(one.orientation), box)
        data = self._ready_cells(project, key)
        if data is not None:
            return key, data

        def work(progress: Any, is_cancelled: Any) -> dict[str, Any]:
            if self._ready_cells(project, key) is None:
                progress(0.0, "reading the image")
                made = pack(superpixels(self.image(project, one), box=box, report=progress))
                self._remember(self._cells, key, made)
                self._folder(project, "cells").put(key, made)
            return {"sample": one.id, "box": box}

        return key, self._jobs.start("superpixels", (str(project.path), key), work, project=project.name)

    def _ready_cells(self, project: Project, key: str) -> bytes | None:
        with self._lock:
            if key in self._cells:
                self._cells.move_to_end(key)
                return self._cells[key]
        folder = self._folder(project, "cells")
        data = folder.get(key)
        if data is None:
            return None
        try:
            unpack(data)
        except UnreadableFileError:
            folder.drop(key)
            return None
        self._remember(self._cells, key, data)
        return data

    # -- masks and edges ---------------------------------------------------------------------------------------------

    def grabcut(self, project: Project, one: Entry, prompt: Prompt) -> Proposal:
        """Return the mask of what lies in the prompt's box."""
        with self._turn():
            return grabcut(self.image(project, one), prompt)

    def scissors(self, project: Project, one: Entry, view: Box, anchor: Point, target: Point) -> list[Point]:
        """Return the way along edges from anchor to target."""

        def read(box: Box) -> NDArray[np.uint8]:
            return self.image(project, one)[box[1] : box[3], box[0] : box[2]]

        with self._turn():
            return self._scissors.path(_name(one), read, view, anchor, target)

    # -- SAM -----------------------------------------------------------------------------------------------------------

    def sam(self, project: Project, one: Entry, prompt: Prompt) -> Proposal | Job:
        """Return the mask that SAM means by a prompt, or the job in which it reads the image first."""
        model = self._model()
        ready = self.embedding(project, one)
        if isinstance(ready, Job):
            return ready
        with self._turn():
            return model.answer(_name(one), ready, prompt, one.size_hw)

    def embedding(self, project: Project, one: Entry) -> Maps | Job:
        """Return what SAM read of an image, or the job in which it does."""
        model = self._model()
        key = hashlib.sha256(f"{model.key} {_name(one)}".encode()).hexdigest()
        maps = self._ready_maps(project, key)
        if maps is not None:
            return maps

        def work(progress: Any, is_cancelled: Any) -> dict[str, Any]:
            if self._ready_maps(project, key) is None:
                progress(0.1, f"{model.name} reads the image")
                made = model.embed(self.image(project, one))
                progress(0.9, "keeping what it read")
                self._remember(self._maps, key, made)
                self._folder(project, "maps").put(key, pack_maps(made))
            return {"sample": one.id}

        return self._jobs.start("embedding", (str(project.path), key), work, project=project.name)

    def readiness(self) -> dict[str, Any]:
        """Return {"ready", "says"} of SAM."""
        model = self._found()
        return {"ready": model is not None, "says": self._no_sam if model is None else model.name}

    def _model(self) -> Sam:
        model = self._found()
        if model is None:
            raise RefusalError(
                409,
                "SAM is not ready here.",
                kind="no-sam",
                found=self._no_sam,
                hint="GrabCut answers boxes without it.",
            )
        return model

    def _found(self) -> Sam | None:
        """The model; looked for once, for the disk of a running server rarely changes."""
        with self._lock:
            if not self._has_looked:
                self._has_looked = True
                try:
                    folder = weights()
                    self._sam = None if folder is None else Sam(folder)
                except TerrazzoError as error:
                    found = f" ({error.found})" if error.found else ""
                    self._no_sam = error.what.rstrip(".") + found
                    if error.command:
                        self._no_sam += f". {error.hint or 'To have them:'} {error.command}"
            return self._sam

    def _ready_maps(self, project: Project, key: str) -> Maps | None:
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        folder = self._folder(project, "maps")
        data = folder.get(key)
        if data is None:
            return None
        try:
            maps = unpack_maps(data)
        except UnreadableFileError:
            folder.drop(key)
            return None
        self._remember(self._maps, key, maps)
        return maps

    # -- shared --------------------------------------------------------------------------------------------------------

    def image(self, project: Project, one: Entry) -> NDArray[np.uint8]:
        """Return the upright image (H, W, 3) uint8 RGB; DataError where it is gone or has changed.

        The last few are kept decoded: a click on a box should not wait for a JPEG. Their files are looked at each time.
        """
        name = _name(one)
        if project.samples.state(one) != "there":
            project.samples.content(one)  # raises, with what is wrong
        with self._decode:  # one at a time: ten clicks on one image decode it once
            with self._lock:
                if name in self._images:
                    self._images.move_to_end(name)
                    return self._images[name]
            shown = visible(project.samples.read(one.name))
            image = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
            with self._lock:
                self._images[name] = image
                while (
                    len(self._images) > 1
                    and sum(i.size for i in self._images.values()) > 3 * IN_MEMORY_PIXELS
                ):
                    self._images.popitem(last=False)
            return image

    def _folder(self, project: Project, what: str) -> Kept:
        with self._lock:
            name = project.path, what
            if name not in self._kept:
                most = CELLS_BYTES if what == "cells" else MAPS_BYTES
                self._kept[name] = Kept(project.path.with_suffix(".assist"), most, f".{what}")
            return self._kept[name]

    def _remember(self, what: OrderedDict[str, Any], key: str, value: Any) -> None:
        with self._lock:
            what[key] = value
            what.move_to_end(key)
            while len(what) > FEW:
                what.popitem(last=False)

    @contextlib.contextmanager
    def _turn(self) -> Any:
        if not self._busy.acquire(timeout=5):
            raise busy("The server computes as many masks as it may.", kind="assist-full", seconds=1)
        try:
            yield
        finally:
            self._busy.release()


def _name(one: Entry) -> str:
    return f"{one.sha256}-{one.orientation}"
