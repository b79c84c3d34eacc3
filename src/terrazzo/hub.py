"""Sharing: a run, a model or a data set goes to the Hugging Face Hub, and comes back.

`push` sends what is needed to use the thing, and nothing else: no optimiser state, no logs, no path of this machine, no
place or person from image files. Everything appears at once, in one commit; what the Hub has already is not sent again,
so a broken push is simply repeated. `pull` writes a folder, whole or not at all; it is `hub_client.py` that talks,
`staging.py` that prepares data sets, and `cards` that writes README.md.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo import cards
from terrazzo.errors import MissingPathError, TerrazzoError, UsageError, WeightsError, nearest, quoted
from terrazzo.hub_client import (
    TIMEOUT,
    WORDS,
    Kind,
    name_and_revision,
    not_logged_in,
    not_of_this_kind,
    other_kind,
    talking,
)
from terrazzo.licences import ledger_of, public, read
from terrazzo.nn.files import CONFIG, OURS, PICKLE, PICKLE_INDEX, PROCESSOR, SAFE, SAFE_INDEX, TOKENISERS
from terrazzo.nn.starting import origins_of
from terrazzo.progress import Progress
from terrazzo.report import EVALUATION
from terrazzo.run import Run
from terrazzo.staging import StagedData, stage_data
from terrazzo.storage import read_json, refuse_existing, write_json

CARD = "README.md"
ALONE = 1 << 20  # bytes of a file that is sent before the commit
MODEL_FILES = (
    CONFIG,
    PROCESSOR,
    OURS,
    SAFE,
    SAFE_INDEX,
    EVALUATION,
    *TOKENISERS,
)  # the rest of a checkpoint stays here
WEIGHT_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
OURS_THERE = re.compile(
    r"data/[\w.]+-\d{5}-of-\d{5}\.parquet|pictures/[^/]+"
)  # replaced as a whole by a new push
PULLED = {  # what is fetched; never a program
    "model": ["*.json", "*.txt", "*.safetensors", "*.md", "pictures/*"],
    "dataset": ["*.json", "*.txt", "*.md", "*.parquet", "*/*.parquet", "pictures/*"],
}


def push(
    path: "str | os.PathLike[str]",
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    keep_metadata: bool = False,
    pictures: bool = True,
    timeout: float = TIMEOUT,
    quiet: bool = False,
) -> str:
    """Share a run (its best checkpoint), a model folder or a data set as "user/name"; return "user/name@COMMIT".

    private: make the repository private, where it is new. revision: a branch, made where there is none; main by
    default. license: what you give it away under, such as "CC-BY-4.0"; by default what a data set says of itself, and
    for weights what they inherit. keep_metadata: leave in images what they say beside their pixels, such as the place
    where they were taken. pictures: show some images on the card; those of a model are of its validation, and stay here
    where the data set is private on the Hub and the model is not. timeout: seconds without a sign of life after which
    the Hub is given up.
    Raises UsageError for a name, token or right that is missing, UnreachableError where the Hub does not answer, and
    the errors of opening what lies at `path`.
    """
    source = Path(path)
    repo, mentioned = name_and_revision(name)
    if mentioned is not None:
        raise UsageError(
            f"A push goes to a branch, which has a word of its own: {name}.",
            command=f"terrazzo push {quoted(path)} {repo} --revision {mentioned}",
        )
    kind = kind_of(source)
    again = ["terrazzo", "push", str(path), repo, *(["--private"] if private else [])]
    again += ["--revision", revision] if revision else []
    again += ["--license", license] if license is not None else []
    again += ["--keep-metadata"] if keep_metadata else []
    again += [] if pictures else ["--no-pictures"]
    with (
        tempfile.TemporaryDirectory(prefix="terrazzo-push-") as folder,
        Progress(total=1, what="push", quiet=quiet) as progress,
    ):
        stage = Path(folder)
        staged = (
            stage_data(source, license=license, keep_metadata=keep_metadata)
            if kind == "dataset"
            else stage_model(source, stage, license=license)
        )
        for line in staged_words(staged):
            progress.say(line)
        with talking(repo, kind, timeout=timeout, again=again) as api:
            place = _Place(api, repo, kind, revision or "main", progress)
            place.make(private=private)
            if isinstance(staged, StagedData):
                _send_shards(staged, stage, place)
                about = _about_data(staged, stage, repo, place, pictures=pictures)
            else:
                shown = pictures and not place.would_show_what_is_private(staged.about)
                about = _about_model(staged, stage, repo, pictures=shown)
            place.send(about)
            commit = place.commit(f"{WORDS[kind].capitalize()} from terrazzo")
    return f"{repo}@{commit}"


def check_before_training(name: str) -> None:
    """Raise UsageError for what can be known hours before a push: no name on the Hub, or nobody logged in."""
    from huggingface_hub import get_token

    repo, mentioned = name_and_revision(name)
    if mentioned is not None:
        raise UsageError(f"A training pushes to the main branch: {name}.", expected=repo)
    if get_token() is None:
        raise not_logged_in()


def kind_of(source: Path) -> Kind:
    """Return what lies at a path, "model" or "dataset"; MissingPathError where there is nothing."""
    if not source.exists():
        beside = source.parent if source.parent.is_dir() else Path()
        near = nearest(source.name, [entry.name for entry in beside.iterdir()])
        hint = f"Did you mean {' or '.join(str(source.parent / one) for one in near)}?" if near else None
        raise MissingPathError(
            f"There is nothing at {source}.", expected="a run, a model folder or a data set", hint=hint
        )
    if source.is_file() and source.suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors"):
        raise UsageError(
            f"{source} is a file of weights; a model that others can open is a folder.",
            hint="Write it as one, then push that:",
            command=f"terrazzo convert {quoted(source)} --out {quoted(source.with_suffix(''))}",
        )
    is_model = any((source / file).is_file() for file in ("recipe.json", OURS, CONFIG))
    return "model" if is_model else "dataset"


# -- what is sent --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StagedModel:
    """A model folder, prepared."""

    folder: Path
    """What is sent of it, links to the files where they lie."""
    about: Mapping[str, Any]
    """terrazzo.json; {} for a model that transformers saved."""


def stage_model(source: Path, stage: Path, *, license: str | None = None) -> StagedModel:
    """Put into `stage` what is shared of a run or a model folder, given away under `license`.

    Raises WeightsError where there is nothing safe to share, UsageError where the weights inherit a stricter licence.
    """
    folder = Run.open(source).best_folder() if (source / "recipe.json").is_file() else source
    names = [entry.name for entry in sorted(folder.iterdir()) if entry.is_file()]
    if SAFE not in names and SAFE_INDEX not in names:
        pickles = [name for name in names if name in (PICKLE, PICKLE_INDEX)]
        raise WeightsError(
            f"There are no weights in {folder} that others may open safely.",
            found=", ".join(pickles or names[:8]) or "an empty folder",
            expected=SAFE,
            hint="A pickle runs code when it is opened. Write the model anew, then push that:"
            if pickles
            else None,
            command=f"terrazzo convert {quoted(source)} --out {quoted(source.name + '-safe')}"
            if pickles
            else None,
        )
    for name in names:
        if name in MODEL_FILES or WEIGHT_SHARD.fullmatch(name):
            _link(folder / name, stage / name)
    about = read_json(folder / OURS) if OURS in names else {}
    if license is not None:
        ledger = ledger_of(about) if about else origins_of(folder)
        about = {**about, "licenses": ledger.given(license).to_json()}
    if about:
        (stage / OURS).unlink(missing_ok=True)
        told = {name: one if name == "classes" else without_paths(one) for name, one in about.items()}
        write_json(stage / OURS, told, durable=False)
    return StagedModel(folder, about)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def without_paths(about: Any) -> Any:
    """Return the same JSON without places of this machine: a path becomes null, in a list it is left out."""
    if isinstance(about, Mapping):
        return {key: without_paths(value) for key, value in about.items()}
    if isinstance(about, list):
        return [without_paths(value) for value in about if not isinstance(value, str) or public(value)]
    return about if not isinstance(about, str) or public(about) else None


def staged_words(staged: "StagedModel | StagedData") -> Iterator[str]:
    """Yield what a person should hear before something is sent: the licences that go with it."""
    if isinstance(staged, StagedData):
        licence = read(staged.dataset.license)
        if licence.stated is None:
            yield 'The data set states no licence, so nobody knows what they may do with it: "license" in dataset.json.'
        else:
            yield f"licence of the data: {licence.stated}"
        if licence.redistribution == "no":
            yield "Its licence does not allow passing it on; push it only where you may."
        return
    yield from ledger_of(staged.about).notices()


def _send_shards(staged: StagedData, stage: Path, place: "_Place") -> None:
    """Write, send and forget one shard after the other."""
    place.progress.total = len(staged.shards)
    for shard in staged.shards:
        file = stage / "shard.parquet"
        staged.write(shard, file)
        place.send({shard.name: file}, is_passing=True)
        file.unlink(missing_ok=True)


def _about_data(
    staged: StagedData, stage: Path, repo: str, place: "_Place", *, pictures: bool
) -> dict[str, Path]:
    """Write what goes beside the shards; returns {path there: file here}."""
    if staged.num_cleaned:
        count = f"{staged.num_cleaned} file{'s' if staged.num_cleaned != 1 else ''}"
        place.progress.say(
            f"What {count} said beside the pixels (places, devices, texts) stays here; the orientation goes along. "
            "Their bytes are others now, and so is the fingerprint."
        )
    write_json(stage / "dataset.json", staged.description.to_json(), durable=False)
    write_json(stage / "id2label.json", staged.id2label, durable=False)
    shown = cards.pictures(staged.dataset, stage) if pictures else ()
    words = cards.data_card(staged.dataset, repo_id=repo, pictures=shown, is_cleaned=staged.num_cleaned > 0)
    (stage / CARD).write_text(words, encoding="utf-8")
    return _files_below(stage)


def _about_model(staged: StagedModel, stage: Path, repo: str, *, pictures: bool) -> dict[str, Path]:
    if pictures:
        cards.pictures(staged.folder, stage)
    (stage / CARD).write_text(cards.model_card(stage, repo_id=repo), encoding="utf-8")
    return _files_below(stage)


def _files_below(stage: Path) -> dict[str, Path]:
    return {file.relative_to(stage).as_posix(): file for file in sorted(stage.rglob("*")) if file.is_file()}


class _Place:
    """A branch of a repository that something is being pushed to."""

    def __init__(self, api: Any, repo: str, kind: Kind, branch: str, progress: Progress) -> None:
        self.api, self.repo, self.kind, self.branch, self.progress = api, repo, kind, branch, progress
        self.head, self.is_private = "", False
        self.there: set[str] = set()
        self.operations: list[Any] = []

    def make(self, *, private: bool) -> None:
        """Make the repository and the branch where there are none; look at what is there."""
        self.api.whoami()  # before anything is made: is there a token, and is it known
        self.api.create_repo(self.repo, repo_type=self.kind, private=private or None, exist_ok=True)
        if self.branch != "main":
            self.api.create_branch(self.repo, branch=self.branch, repo_type=self.kind, exist_ok=True)
        info = self.api.repo_info(self.repo, repo_type=self.kind, revision=self.branch)
        if private and not info.private:
            raise UsageError(
                f"{self.repo} is there already, and it is public.",
                hint="Nothing was sent. --private makes new repositories private; to hide this one, its settings:",
                command=f"hf repos settings {self.repo} --type {self.kind} --private",
            )
        self.head, self.is_private = info.sha, bool(info.private)
        self.there = {one.rfilename for one in info.siblings or []}

    def would_show_what_is_private(self, about: Mapping[str, Any]) -> bool:
        """True where a public model was trained on a data set that is private on the Hub; it says so."""
        found = (about.get("data") or {}).get("hub") or {}
        if self.is_private or "id" not in found:
            return False
        try:
            is_private = bool(self.api.repo_info(found["id"], repo_type="dataset").private)
        except Exception:  # who may not see it does not show it
            is_private = True
        if is_private:
            self.progress.say(f"No pictures go along: {found['id']}, which it was trained on, is private.")
        return is_private

    def send(self, files: Mapping[str, Path], *, is_passing: bool = False) -> None:
        """Send large files, those that the Hub has not; the others go with the commit. is_passing: gone afterwards."""
        from huggingface_hub import CommitOperationAdd

        for path, file in files.items():
            one = CommitOperationAdd(path, str(file))
            self.progress.update(len(self.operations), f"{path}, {file.stat().st_size / 2**20:,.1f} MiB")
            if is_passing or file.stat().st_size > ALONE:
                # one at a time, here and not in threads: Ctrl-C ends it at once, and memory stays small
                self.api.preupload_lfs_files(
                    self.repo,
                    additions=[one],
                    repo_type=self.kind,
                    revision=self.branch,
                    free_memory=is_passing,
                )
            if is_passing and one.path_or_fileobj != b"":  # so small that it goes with the commit
                one.path_or_fileobj = file.read_bytes()
            self.operations.append(one)

    def commit(self, message: str) -> str:
        """Let everything appear at once, and what an earlier push left disappear; return the commit."""
        from huggingface_hub import CommitOperationDelete

        sent = {one.path_in_repo for one in self.operations}
        stale = sorted(path for path in self.there - sent if OURS_THERE.fullmatch(path))
        done = self.api.create_commit(
            self.repo,
            [*self.operations, *(CommitOperationDelete(path) for path in stale)],
            commit_message=message,
            repo_type=self.kind,
            revision=self.branch,
            parent_commit=self.head,
        )
        if done.oid == self.head:
            self.progress.say(f"{self.repo} has all of it already; nothing was changed.")
        return str(done.oid)


# -- what is fetched -----------------------------------------------------------------------------------------------


def pull(
    name: str,
    out: "str | os.PathLike[str] | None" = None,
    *,
    kind: Kind | None = None,
    revision: str | None = None,
    timeout: float = TIMEOUT,
    quiet: bool = False,
) -> Path:
    """Fetch the model or the data set `name`, "user/name[@revision]", into a new folder; return the folder.

    out: the folder, made whole or not at all; by default called as the repository. kind: "model" or "dataset", where
    both have this name. What arrived before a break is kept in a hidden folder beside it and not fetched again.
    Programs in the repository are not fetched. Raises as `push` does, and ExistingOutputError.
    """
    repo, mentioned = name_and_revision(name)
    folder = Path(out) if out is not None else Path(repo.split("/")[1])
    refuse_existing(folder)
    again = ["terrazzo", "pull", name, "--out", str(folder), *(["--revision", revision] if revision else [])]
    with (
        talking(repo, kind, timeout=timeout, again=again) as api,
        Progress(total=1, what="pull", quiet=quiet) as progress,
    ):
        kind = _kind_there(api, repo) if kind is None else kind
        info = _info(api, repo, kind, revision or mentioned)
        progress.say(f"{WORDS[kind]} {repo} at {info.sha}")
        _fetch(api, repo, kind, info.sha, folder)
    return folder


def _kind_there(api: Any, repo: str) -> Kind:
    found: list[Kind] = [one for one in WORDS if api.repo_exists(repo, repo_type=one)]
    if len(found) > 1:
        raise UsageError(
            f"{repo} on the Hub is a model, and a data set has the same name.",
            hint="Say which:",
            command=f"terrazzo pull {repo} --kind model\nterrazzo pull {repo} --kind dataset",
        )
    return found[0] if found else "model"  # whose absence is told


def _info(api: Any, repo: str, kind: Kind, revision: str | None) -> Any:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.repo_info(repo, repo_type=kind, revision=revision)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        other = other_kind(api, repo, kind)
        if other is not None:
            raise not_of_this_kind(repo, kind, other) from None
        raise


def _fetch(api: Any, repo: str, kind: Kind, commit: str, folder: Path) -> None:
    """Fetch beside `folder`, then rename; a folder left by a break is gone on with."""
    folder = Path(os.path.realpath(folder))
    beside = folder.with_name(f".{folder.name}.{commit[:12]}.partial")
    api.snapshot_download(
        repo, repo_type=kind, revision=commit, local_dir=beside, allow_patterns=PULLED[kind], max_workers=1
    )
    shutil.rmtree(beside / ".cache", ignore_errors=True)
    if not any(beside.iterdir()):
        beside.rmdir()
        raise TerrazzoError(
            f"The {WORDS[kind]} {repo} holds nothing that terrazzo opens.", expected=", ".join(PULLED[kind])
        )
    if folder.is_dir():
        folder.rmdir()  # empty, or it would have been refused
    os.rename(beside, folder)
