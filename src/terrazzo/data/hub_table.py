"""A table on the Hugging Face Hub: "user/name", at a revision; the only way into a data set that uses the network.

What was downloaded before is used again, and serves where the Hub is out of reach. Python scripts are never run: data
sets that are published as one are named together with their importer.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.data import class_names, description, table
from terrazzo.data.dataset import Dataset
from terrazzo.data.refusals import missing, script_data_set
from terrazzo.errors import DatasetFormatError, UsageError

SAVE_IT = 'Save it once with datasets, load_dataset("{repo}").save_to_disk(FOLDER), and write the names into FOLDER.'


def open_hub(source: str, *, keep_void: bool = False, split_manifest: Any = None) -> Dataset:
    """Return the Dataset "user/name[@revision]" on the Hugging Face Hub; what was downloaded before is used again."""
    import datasets

    repo, _, revision = source.partition("@")
    about = _about(repo, revision or None, source)
    named = _names_file(repo, revision or None, source, is_reachable=about is not None)
    commit = named.parent.name if named is not None else about.sha  # the cache's folders are commits
    with _reachable(about is not None):
        try:
            tables = dict(datasets.load_dataset(repo, revision=commit))
        except Exception as error:  # whatever the libraries below trip over
            raise _hub_error(source, error) from error
    found = {Path(file["filename"]).parent.name for one in tables.values() for file in one.cache_files}
    if about is None and found != {commit}:  # out of reach, `datasets` takes the newest it has
        raise missing(
            source,
            found=f"the Hugging Face Hub cannot be reached, and only commit {', '.join(sorted(found))} is kept here",
        )
    page, location = f"https://huggingface.co/datasets/{repo}", f"{repo}@{commit}"
    if named is not None and named.name == description.FILE:
        return table.assemble_described(
            tables,
            description.read_description(named.parent),
            title=source,
            location=location,
            keep_void=keep_void,
            manifest=split_manifest,
            license=_license(about),
            source=page,
        )
    records = table.recognise(tables, source)
    if named is None:
        raise table.unnamed(source, Path(repo.split("/")[-1]), records, advice=SAVE_IT.format(repo=source))
    return table.assemble(
        records,
        class_names.read(named, keep_void=keep_void),
        tables,
        name=repo.split("/")[-1],
        location=location,
        manifest=split_manifest,
        license=_license(about),
        source=page,
    )


@dataclass(frozen=True)
class HubParquet:
    """A data set of parquet files on the Hub, of which only the files' names are known."""

    repo: str
    """Its name, "user/name"."""
    commit: str
    """The commit that was looked at."""
    files: Mapping[str, Sequence[str]]
    """By split: the URLs of the files at that commit, hf://…"""
    names_file: Path | None
    """The downloaded file of class names."""
    license: str | None
    """As its card says."""


def find_parquet(source: str) -> HubParquet:
    """Return where the parquet files of "user/name[@revision]" lie; none of them is downloaded."""
    import datasets

    repo, _, revision = source.partition("@")
    about = _about(repo, revision or None, source)
    if about is None:
        raise missing(source, found="the Hugging Face Hub cannot be reached, and a stream comes from there")
    names_file = _names_file(repo, revision or None, source, is_reachable=True)
    try:
        found = datasets.load_dataset_builder(repo, revision=about.sha).config.data_files or {}
    except Exception as error:  # whatever the libraries below trip over
        raise _hub_error(source, error) from error
    files = {str(split): [str(url) for url in urls] for split, urls in found.items()}
    others = [url for urls in files.values() for url in urls if not url.lower().endswith(".parquet")]
    if others or not files:
        raise DatasetFormatError(
            f"{source} on the Hugging Face Hub cannot be streamed.",
            found=f"{len(others)} files such as {others[0]}" if others else "no data files",
            expected="parquet files",
            hint="The Hub keeps a copy of many data sets as parquet, on a branch of its own; or download it whole:",
            command=f"terrazzo train … --data {repo}@refs/convert/parquet data.stream=true\n"
            f"terrazzo train … --data {source} data.stream=false",
        )
    return HubParquet(repo, about.sha, files, names_file, _license(about))


def _license(about: Any) -> str | None:
    card = about.card_data if about is not None else None
    stated = card["license"] if card is not None and "license" in card else None
    return None if stated in (None, "unknown") else str(stated)


def _about(repo: str, revision: str | None, source: str) -> Any:
    """What the Hub says of a data set (its commit, its card), or None where the Hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(repo, revision=revision, timeout=20)
    except Exception as error:
        if _is_out_of_reach(error):
            return None  # what was downloaded before may serve
        raise _hub_error(source, error) from error


def _names_file(repo: str, revision: str | None, source: str, *, is_reachable: bool) -> Path | None:
    """The downloaded dataset.json of ours, else id2label.json, in a folder called by its commit; None without both."""
    described = _downloaded(repo, revision, description.FILE, source, is_reachable=is_reachable, is_due=False)
    if described is not None and _is_ours(described):
        return described
    return _downloaded(repo, revision, "id2label.json", source, is_reachable=is_reachable, is_due=True)


def _is_ours(path: Path) -> bool:
    """True for a dataset.json that terrazzo wrote; other people may call anything so."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"format_version", "classes"} <= value.keys()


def _downloaded(
    repo: str, revision: str | None, name: str, source: str, *, is_reachable: bool, is_due: bool
) -> Path | None:
    """A file of the data set; None where there is none. is_due: where the Hub is out of reach, it must be here."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                repo, name, repo_type="dataset", revision=revision, local_files_only=not is_reachable
            )
        )
    except LocalEntryNotFoundError as error:  # not looked for: the Hub is out of reach
        if not is_due:
            return None
        raise _hub_error(source, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        raise _hub_error(source, error) from error


@contextlib.contextmanager
def _reachable(is_reachable: bool) -> Iterator[None]:
    """Where the Hub was just found out of reach, keep `datasets` from asking it again and again for half a minute."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or not is_reachable
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _hub_error(source: str, error: BaseException) -> Exception:
    """Say what went wrong on the Hub, and what to do."""
    said = table.innermost(error)
    kind = type(error).__name__
    if "scripts are no longer supported" in said:
        return script_data_set(source, None)
    if "gated" in said.lower() or "authenticated" in said.lower():
        return DatasetFormatError(
            f"{source} on the Hugging Face Hub asks who you are.",
            found=said,
            hint="Accept its terms on its page, then log in:",
            command="hf auth login",
        )
    if kind in (
        "DatasetNotFoundError",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "FileNotFoundError",
    ):
        if kind == "RepositoryNotFoundError" and _is_model(source.partition("@")[0]):
            return UsageError(
                f"{source} on the Hub is a model, not a data set.",
                command=f"terrazzo predict {source} IMAGES --out DIR",
            )
        return missing(source, found=f"no such folder here, and on the Hub: {said}")
    if _is_out_of_reach(error):
        return missing(
            source, found=f"no such folder here, and the Hugging Face Hub cannot be reached: {said}"
        )
    if "config name is missing" in said.lower():
        return DatasetFormatError(
            f"{source} on the Hugging Face Hub has several parts.",
            found=said,
            hint="Save the part you want with datasets, load_dataset(NAME, PART).save_to_disk(FOLDER); open FOLDER.",
        )
    return DatasetFormatError(
        f"{source} could not be loaded from the Hugging Face Hub.", found=f"{kind}: {said}"
    )


def _is_model(repo: str) -> bool:
    from huggingface_hub import HfApi

    try:
        return HfApi().repo_exists(repo)
    except Exception:  # it is asked only to say more of another error
        return False


def _is_out_of_reach(error: BaseException) -> bool:
    """True for no network, no answer, or a network that was switched off; the libraries' HTTP clients change names."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        kinds & {"ConnectionError", "TransportError", "Timeout", "TimeoutError", "LocalEntryNotFoundError"}
    )
