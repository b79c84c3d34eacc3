"""The one door: whatever holds a data set, `open_dataset` returns a Dataset, or says in words why it cannot.

A folder in our form, a saved Hugging Face data set, parquet files, a release of a labelling project ("street.db@v1"),
or a data set on the Hub or at a URL. Only the last two touch the network. Raw downloads of published data sets are
imported once, by `terrazzo import`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.data import folds, splits
from terrazzo.data.dataset import Dataset
from terrazzo.data.refusals import PUBLISHED_AS_SCRIPTS, missing, script_data_set
from terrazzo.errors import DatasetFormatError, quoted
from terrazzo.remote import is_url

RELEASE = re.compile(r"(.+)@([A-Za-z0-9][\w.-]*)")
PROJECT_SUFFIX = ".db"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def open_dataset(
    source: Path | str | Dataset,
    *,
    keep_void: bool = False,
    stream: bool = False,
    split_manifest: Path | str | Mapping[str, Any] | None = None,
) -> Dataset:
    """Return the data set at `source`: a folder, a saved table, parquet, "street.db@v1", "user/name[@revision]", a URL.

    keep_void: classes called "unlabeled", "void-…" and the like stay classes instead of becoming ignore.
    stream: parquet is read where it lies, row group by row group, instead of being downloaded and converted; what is no
    table here is read file by file anyway. A URL (s3://bucket/street, https://…/train.parquet) is never copied.
    split_manifest: the split or fold that a run made and stored, used again, so that no training image is scored. A
    Dataset is returned as it is, or with the stored fold.
    Raises MissingPathError, DatasetFormatError, or the error of the first file that is read.
    """
    if split_manifest is not None:
        split_manifest = splits.read_manifest(split_manifest)
        if folds.is_fold(split_manifest):
            return folds.folded_again(
                open_dataset(source, keep_void=keep_void, stream=stream), split_manifest
            )
    if isinstance(source, Dataset):
        return source
    if is_url(source):
        from terrazzo.data.streaming import open_url

        return open_url(source, keep_void=keep_void, split_manifest=split_manifest)
    path = Path(source).expanduser()
    named = RELEASE.fullmatch(str(path))
    if named and not path.exists() and (Path(named[1]).is_file() or named[1].endswith(PROJECT_SUFFIX)):
        return _open_release(Path(named[1]), named[2], keep_void=keep_void, split_manifest=split_manifest)
    if path.is_file() and path.suffix == PROJECT_SUFFIX:
        raise _which_release(path)
    if path.is_dir():
        return _open_local_folder(path, keep_void=keep_void, stream=stream, split_manifest=split_manifest)
    if path.is_file() and path.suffix.lower() == ".parquet":
        return _open_parquet(path, keep_void=keep_void, stream=stream, split_manifest=split_manifest)
    if path.is_file() and path.name == "dataset.json":
        return open_dataset(path.parent, keep_void=keep_void, split_manifest=split_manifest)
    if path.exists():
        raise DatasetFormatError(
            f"{path} is a file that holds no data set.",
            expected="a folder, or a .parquet file",
            hint="Name the folder that holds images and masks.",
        )
    opening = _stream_by_name if stream else _open_by_name
    return opening(str(source), keep_void=keep_void, split_manifest=split_manifest)


def _open_local_folder(path: Path, *, keep_void: bool, stream: bool, split_manifest: Any) -> Dataset:
    from terrazzo.data.folder import open_folder

    if _is_described(path):
        return _open_parquet(path, keep_void=keep_void, stream=stream, split_manifest=split_manifest)
    if (path / "dataset.json").is_file():
        return open_folder(path, keep_void=keep_void, split_manifest=split_manifest)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        from terrazzo.data.table import open_saved

        return open_saved(path, keep_void=keep_void, split_manifest=split_manifest)
    if any(path.glob("*.parquet")) or any(path.glob("*/*.parquet")):
        return _open_parquet(path, keep_void=keep_void, stream=stream, split_manifest=split_manifest)
    return open_folder(path, keep_void=keep_void, split_manifest=split_manifest)


def _open_release(path: Path, name: str, *, keep_void: bool, split_manifest: Any) -> Dataset:
    """Open what was finished in a release; its categories that are ignored, and what nobody drew, become ignore."""
    from terrazzo.data.dataset import assemble
    from terrazzo.data.label_space import settle
    from terrazzo.project import open_project
    from terrazzo.project.records import records_of

    with open_project(path, create=False, read_only=True) as project:
        release = project.releases[name]
    records, left_out = records_of(path, release)
    if not records:
        raise DatasetFormatError(
            f"The release {name} of {path} has no finished labels.",
            found=f"{left_out:,} samples, none of them labelled or reviewed",
            hint='Give samples whose label is done the status "labelled", and make another release.',
        )
    scored = [one for one in release.categories if not one.is_ignore]
    table: dict[int, int | None] = {0: None, **{one.id: None for one in release.categories if one.is_ignore}}
    table |= {one.id: class_id for class_id, one in enumerate(scored)}
    names = {one.id: one.name for one in release.categories}
    if not scored:
        raise DatasetFormatError(
            f"The release {name} of {path} has no categories to train on.",
            found=", ".join(names.values()) or "none",
        )
    space = settle(
        [one.name for one in scored],
        [one.color for one in scored],
        table,
        raw_names=names,
        keep_void=keep_void,
    )
    notes = [f"{left_out:,} samples of the release are not labelled yet, and left out."] if left_out else []
    return assemble(
        records,
        space,
        name=f"{path.stem} {name}",
        location=f"{path.resolve()}@{name}",
        source=f"labelled here; release {name} of {release.created_at[:10]}",
        split_manifest=split_manifest,
        notes=notes,
        known_fingerprint=release.id,
    )


def _which_release(path: Path) -> DatasetFormatError:
    from terrazzo.project import open_project

    with open_project(path, create=False, read_only=True) as project:
        names = project.releases.names()
    return DatasetFormatError(
        f"{path} is a labelling project; a data set is one of its releases.",
        found=f"releases: {', '.join(names)}" if names else "no releases",
        expected=f"{path}@{names[-1] if names else 'v1'}",
        hint=None if names else "To make one:",
        command=None if names else f"terrazzo release {quoted(path)} create v1",
    )


def _is_described(path: Path) -> bool:
    from terrazzo.data.table import is_described

    return is_described(path)


def _open_parquet(path: Path, *, keep_void: bool, stream: bool, split_manifest: Any) -> Dataset:
    if stream:
        from terrazzo.data.streaming import stream_files

        return stream_files(path, keep_void=keep_void, split_manifest=split_manifest)
    from terrazzo.data.table import open_parquet

    return open_parquet(path, keep_void=keep_void, split_manifest=split_manifest)


def _open_by_name(source: str, *, keep_void: bool, split_manifest: Any) -> Dataset:
    """Open what is no path here: a data set on the Hub, if it is called like one."""
    if not _may_be_on_the_hub(source):
        raise missing(source)
    from terrazzo.data.hub_table import open_hub

    return open_hub(source, keep_void=keep_void, split_manifest=split_manifest)


def _stream_by_name(source: str, *, keep_void: bool, split_manifest: Any) -> Dataset:
    if not _may_be_on_the_hub(source):
        raise missing(source)
    from terrazzo.data.streaming import stream_hub

    return stream_hub(source, keep_void=keep_void, split_manifest=split_manifest)


def _may_be_on_the_hub(source: str) -> bool:
    """True where a name looks like one on the Hub; raises for names of data sets that have to be imported."""
    importer = PUBLISHED_AS_SCRIPTS.get(source.lower())
    if importer is not None:
        raise script_data_set(source, importer)
    return (
        HUB_ID.fullmatch(source) is not None and not Path(source).parent.is_dir()
    )  # data/camvd is a slip, not a name on the Hub
