"""A table on the Hugging Face Hub: "user/name", at a revision; the only way into a data set that uses the network.

What was downloaded before is used again, and serves where the Hub is out of reach. Python scripts are never run: data
sets that are published as one are named together with their importer.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.data import class_names, table
from terrazzo.data.dataset import Dataset
from terrazzo.data.refusals import missing, script_data_set
from terrazzo.errors import DatasetFormatError

SAVE_IT = 'Save it once with datasets, load_dataset("{repo}").save_to_disk(FOLDER), and write the names into FOLDER.'


def open_hub(source: str, *, keep_void: bool = False, split_manifest: Any = None) -> Dataset:
    """Return the Dataset "user/name[@revision]" on the Hugging Face Hub; what was downloaded before is used again."""
    import datasets

    repo, _, revision = source.partition("@")
    about = _about(repo, revision or None, source)
    names_file = _names_file(repo, revision or None, source, is_reachable=about is not None)
    commit = (
        names_file.parent.name if names_file is not None else about.sha
    )  # the cache's folders are commits
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
    records = table.recognise(tables, source)
    if names_file is None:
        raise table.unnamed(source, Path(repo.split("/")[-1]), records, advice=SAVE_IT.format(repo=source))
    return table.assemble(
        records,
        class_names.read(names_file, keep_void=keep_void),
        tables,
        name=repo.split("/")[-1],
        location=f"{repo}@{commit}",
        manifest=split_manifest,
        license=_license(about),
        source=f"https://huggingface.co/datasets/{repo}",
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
    return str(card["license"]) if card is not None and "license" in card else None


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
    """The downloaded id2label.json, in a folder called by its commit; None where the data set has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(
                repo,
                "id2label.json",
                repo_type="dataset",
                revision=revision,
                local_files_only=not is_reachable,
            )
        )
    except LocalEntryNotFoundError as error:  # not looked for: the Hub is out of reach
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


def _is_out_of_reach(error: BaseException) -> bool:
    """True for no network, no answer, or a network that was switched off; the libraries' HTTP clients change names."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        kinds & {"ConnectionError", "TransportError", "Timeout", "TimeoutError", "LocalEntryNotFoundError"}
    )
