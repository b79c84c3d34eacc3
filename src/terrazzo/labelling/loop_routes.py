"""Routes of the loop: predicting, training, scores, and where labels and predictions disagree.

What takes long is a job of the slow line, one at a time; torch is imported there. The models are in model_routes.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from terrazzo.errors import UsageError
from terrazzo.labelling import scores, training
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.jobs import Cancelled
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import Project, comparing
from terrazzo.project.models import Attached

MOST = 500  # items of a list


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}")
    _work(api, shelf)
    _lists(api, shelf)
    return api


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
