"""Routes of the loop: models that are attached, what they predict, what to label next, training, and scores.

What takes long is a job of the slow line, one at a time; torch is imported there, or where a model is attached. A model
is a file or folder on this machine: nothing is fetched because a page asks for it.
"""

import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from terrazzo.errors import MissingPathError, UsageError
from terrazzo.labelling import scores, training
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.jobs import Cancelled
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import Project, comparing
from terrazzo.project.models import Attached, Mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = "application/octet-stream"
MOST = 500  # items of a list
ONLY = ("new", "all")


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes; the shelf is told what says which models a project has."""
    api = APIRouter(prefix="/projects/{name}")
    shelf.models_of = lambda name: [
        model(shelf.project(name), one) for one in shelf.project(name).models.all()
    ]
    _models(api, shelf)
    _work(api, shelf)
    _lists(api, shelf)
    return api


def model(project: Project, one: Attached) -> dict[str, Any]:
    """A model as the page is told of it; where on this machine it lies is nobody's matter."""
    return {
        "hash": one.hash,
        "name": one.name,
        "labelset": one.labelset,
        "classes": [
            {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "category_id": number or None}
            for (name, color), number in zip(
                one.classes, one.table(project.categories.all(deleted=True)).tolist(), strict=True
            )
        ],
        "predicted": project.models.predicted(one.labelset),
        "miou": (one.report or {}).get("miou"),
        "at": one.at,
    }


def _models(api: APIRouter, shelf: Shelf) -> None:
    @api.get("/models")
    def models(name: str) -> JSONResponse:
        return JSONResponse({"items": shelf.models_of(name)})

    @api.post("/models")
    def attach(
        request: Request, name: str, told: Annotated[Told, shelf.said("path", "add", "mapping", "dry_run")]
    ) -> JSONResponse:
        """Attach a model of this machine; dry_run: only say which class would be which category."""
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        path = _path(shelf, told.text("path"))
        from terrazzo import prelabelling

        if told.flag("dry_run", False):
            plan = prelabelling.plan(path, project)
            classes = [
                {"name": one.name, "category_id": one.category_id, "similar": one.similar}
                for one in plan.matches
            ]
            return JSONResponse(
                {"hash": plan.hash, "name": plan.name, "classes": classes, "missing": plan.missing}
            )
        one = prelabelling.attach(
            project,
            path,
            add=told.texts("add") if told.has("add") else None,
            mapping=_mapping(told.get("mapping")),
            author=author,
        )
        shelf.tell(name, "categories")
        shelf.tell(name, "model", model=one.hash)
        return JSONResponse(model(project, one), status_code=201)

    @api.delete("/models/{hash}")
    def detach(request: Request, name: str, hash: str) -> Response:
        author = shelf.need(request, "admin").name
        shelf.writable(name).models.detach(hash, author=author)
        shelf.tell(name, "model", model=None)
        return Response(status_code=204)

    @api.get("/samples/{number}/predictions")
    def predictions(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        there = {one.labelset for one in project.models.all()}
        found = project.predictions.of(project.samples.numbered(number).name)
        items = [
            {"labelset": one, "at": at, "model": one.removeprefix("model:"), "is_attached": one in there}
            for one, at in found
        ]
        return JSONResponse({"items": items})

    @api.get("/samples/{number}/predictions/{labelset:path}")
    def prediction(name: str, number: int, labelset: str) -> Response:
        """Two blocks, each its length (uint32) and zlib: category ids (uint16) as they are called now; confidence."""
        project = shelf.project(name)
        offer = project.predictions.get(project.samples.numbered(number).name, labelset)
        heirs = _heirs(project)
        mask = offer.mask if heirs is None else heirs[offer.mask]
        maps = [zlib.compress(one, 1) for one in (mask.astype("<u2").tobytes(), offer.confidence.tobytes())]
        body = b"".join(struct.pack("<I", len(one)) + one for one in maps)
        return Response(body, media_type=BYTES, headers={"Cache-Control": "no-store"})

    @api.get("/samples/{number}/origin")
    def origin(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        one = project.origins.of(project.samples.numbered(number).name)
        return JSONResponse(
            {"is_touched": one.is_touched, "changed": one.changed, "sources": dict(one.sources)}
        )


def _work(api: APIRouter, shelf: Shelf) -> None:
    @api.get("/jobs")
    def jobs(name: str) -> JSONResponse:
        shelf.project(name)
        return JSONResponse({"items": [one.to_json() for one in shelf.jobs.all(name)]})

    @api.post("/predict")
    def predict(
        request: Request, name: str, told: Annotated[Told, shelf.said("model", "only", "again")]
    ) -> JSONResponse:
        """Let a model look at samples: all that it has not seen, or with again all; or those of these numbers."""
        shelf.need(request, "reviewer")
        project = shelf.writable(name)
        one = _model(project, told.maybe_text("model"))
        only = (
            [project.samples.numbered(number).name for number in told.wholes("only")]
            if told.has("only")
            else None
        )
        return _started(shelf, name, predicting(shelf, name, one.hash, only, again=told.flag("again", False)))

    @api.get("/train")
    def form(name: str) -> JSONResponse:
        return JSONResponse(training.form(shelf.project(name)))

    @api.post("/train")
    def train(
        request: Request,
        name: str,
        told: Annotated[Told, shelf.said("recipe", "overrides", "release", "minutes", "start")],
    ) -> JSONResponse:
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        asked: dict[str, Any] = {
            "recipe": told.text("recipe", training.RECIPES[0]),
            "overrides": told.texts("overrides") if told.has("overrides") else [],
            "minutes": told.get("minutes"),
            "start": told.maybe_text("start"),
        }
        training.check(project, **asked)
        release = told.maybe_text("release")

        def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
            def on_stand(stand: training.Stand) -> None:
                shelf.tell(name, "training", job=job.id, step=stand.step, steps=stand.steps, loss=stand.loss,
                           miou=stand.miou, miou_step=stand.miou_step, seconds=stand.seconds)  # fmt: skip
                if stand.step == 0:
                    shelf.tell(name, "release")

            started.wait()
            result = training.train(
                project, **asked, release=release, author=author, progress=_patient(progress),
                is_cancelled=is_cancelled, on_stand=on_stand,
            )  # fmt: skip
            shelf.tell(name, "release")
            result["model"] = None
            if result.pop("has_model") and not result["is_cancelled"]:
                from terrazzo import prelabelling

                one = prelabelling.attach(project, result["run"], add=[], author=author)
                result["model"] = one.hash
                shelf.tell(name, "model", model=one.hash)
            return result | {"run": Path(result["run"]).name}

        started = threading.Event()
        job = shelf.jobs.start("train", name, work, project=name)
        started.set()
        return JSONResponse({"job": job.id}, status_code=202)

    @api.post("/scores")
    def refresh(request: Request, name: str, told: Annotated[Told, shelf.said("model")]) -> JSONResponse:
        """Compare predictions anew with the labels that changed, and put the queues in order."""
        shelf.need(request, "labeller")
        project = shelf.writable(name)
        one = _model(project, told.maybe_text("model"))

        def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
            progress(0.1, "comparing labels and predictions")
            comparing.refresh(project, one.labelset)
            shelf.tell(name, "samples")
            return {"model": one.hash}

        return JSONResponse({"job": shelf.jobs.start("score", (name, one.hash), work, project=name).id}, 202)


def predicting(
    shelf: Shelf, name: str, hash: str, only: list[str] | None, *, again: bool = False
) -> Callable[..., dict[str, Any]]:
    """Return the work of a job in which a model looks at samples."""
    project = shelf.project(name)

    def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
        from terrazzo import prelabelling

        result = prelabelling.predict(
            project, hash, names=only, again=again, progress=_patient(progress), is_cancelled=is_cancelled
        )
        shelf.tell(name, "samples")
        return {
            "model": result.model,
            "samples": result.samples,
            "prelabelled": result.prelabelled,
            "failed": [{"sample": sample, "says": says} for sample, says in result.failed[:20]],
            "num_failed": len(result.failed),
        }

    return work


def _lists(api: APIRouter, shelf: Shelf) -> None:
    @api.get("/scores")
    def score(name: str, model: str | None = None) -> JSONResponse:
        return JSONResponse(scores.scores(shelf.project(name), model))

    @api.get("/disagreements")
    def disagreements(
        name: str,
        model: str | None = None,
        sample: int | None = None,
        label: int | None = None,
        predicted: int | None = None,
        decided: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> JSONResponse:
        """Where the model is sure of something else than the label says, heaviest first."""
        project = shelf.project(name)
        one = _model(project, model)
        pair = None if label is None or predicted is None else (label, predicted)
        limit, offset = max(1, min(limit, MOST)), max(0, offset)
        found = project.queue.disagreements(
            one.labelset,
            sample=None if sample is None else project.samples.numbered(sample).name,
            pair=pair,
            is_open=not decided,
            limit=limit,
            offset=offset,
        )
        items = [
            {"sample": place.sample_id, "name": place.sample, **vars(place.area), "verdict": place.verdict}
            for place in found
        ]
        return JSONResponse({"items": items, "model": one.hash})

    @api.post("/disagreements")
    def decide(
        request: Request, name: str, told: Annotated[Told, shelf.said("model", "sample", "x", "y", "verdict")]
    ) -> JSONResponse:
        """Note who is right at a disagreement: label, model, neither, or null. No pixel changes."""
        shelf.need(request, "labeller")
        project = shelf.writable(name)
        sample = project.samples.numbered(told.whole("sample")).name
        labelset = _model(project, told.maybe_text("model")).labelset
        project.queue.decide(labelset, sample, told.whole("x"), told.whole("y"), told.maybe_text("verdict"))
        return JSONResponse({"verdict": told.maybe_text("verdict")})

    @api.get("/confusion")
    def behind(name: str, label: int, predicted: int, model: str | None = None) -> JSONResponse:
        """The samples behind one cell of the confusion matrix, most pixels first."""
        project = shelf.project(name)
        found = project.queue.contradicting(_model(project, model).labelset, label, predicted)
        items = [
            {"sample": project.sample(one).id, "name": one, "pixels": pixels} for one, pixels in found[:MOST]
        ]
        return JSONResponse({"items": items, "total": len(found)})


def _started(shelf: Shelf, name: str, work: Callable[..., dict[str, Any]]) -> JSONResponse:
    return JSONResponse({"job": shelf.jobs.start("predict", name, work, project=name).id}, status_code=202)


def _patient(progress: Callable[..., None]) -> Callable[[float, str], None]:
    """As `progress`, but it does not end the work in its middle: that asks `is_cancelled` where it may be left."""

    def tell(share: float, says: str) -> None:
        with suppress(Cancelled):
            progress(share, says)

    return tell


def _model(project: Project, called: str | None) -> Attached:
    one = project.models.newest() if called is None else project.models[called]
    if one is None:
        raise UsageError("No model is attached to the project.", hint="Attach a run, or train on a release.")
    return one


def _path(shelf: Shelf, text: str) -> Path:
    """A model on this machine, as a page names it: from the projects' folder on."""
    if "\0" in text or not text.strip():
        raise UsageError("A model has a path.", found=f"{text!r:.80}", expected="such as runs/street-v1")
    path = shelf.folder / Path(text.strip()).expanduser()
    if not path.exists():
        raise MissingPathError(
            f"There is no {text.strip()!r:.200} here.",
            expected="a run or a model, from the projects' folder on",
        )
    return path


def _mapping(value: Any) -> Mapped | None:
    if value is None:
        return None
    is_mapping = isinstance(value, dict) and all(one is None or type(one) is int for one in value.values())
    if not is_mapping:
        raise UsageError("A mapping is said as classes and categories.", expected='{"road": 1, "tram": null}')
    found: dict[str, int | None] = value
    return found


def _heirs(project: Project) -> "NDArray[np.uint16] | None":
    """What category ids are called now, as a table; None where all are what they were."""
    import numpy as np

    from terrazzo.project.categories import heirs

    there = project.categories.all(deleted=True)
    if not any(one.is_deleted for one in there):
        return None
    table = np.zeros(1 << 16, np.uint16)
    for number, head in heirs(there).items():
        table[number] = head.id
    return table
