"""Where weights lie: files, model folders and the Hub. Reading them runs no code.

safetensors first; pickles of torch.save are read as data by `torch_file.py`.
What the tensors mean is the matter of `weights.py`.
"""

import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from terrazzo.errors import (
    MissingPathError,
    UnreadableFileError,
    UnsafeFileError,
    UsageError,
    WeightsError,
    nearest,
)
from terrazzo.nn.pickled import Inert, mapping
from terrazzo.nn.torch_file import read_torch_file
from terrazzo.storage import read_json

CONFIG, PROCESSOR, OURS = "config.json", "preprocessor_config.json", "terrazzo.json"
CARD = "README.md"
SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
# OneFormer is told its task in words
TOKENISERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

WEIGHTS_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")  # how a file of weights ends


def read_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a weights file (.safetensors; .bin, .pth, .pt) or a model folder, sharded or not, on CPU.

    A folder's safetensors go before its pickles, of which nothing is run; a pickle that names what runs code raises
    UnsafeFileError. Damaged files raise UnreadableFileError; no file, MissingPathError; no tensors, WeightsError.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise MissingPathError(f"There is no weights file {path}.")
    with open(path, "rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise UnreadableFileError(
                f"{path} is a Git LFS pointer, not the weights.",
                found=f"{path.stat().st_size} bytes of text",
                hint="The repository was cloned without its large files. In its folder:",
                command="git lfs pull",
            )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return named_tensors(read_torch_file(path), path)


def named_tensors(value: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors by name of what a file of torch.save holds: a state dict, or a checkpoint around one."""
    found = mapping(value)
    for nested in ("state_dict", "model_state_dict", "model"):
        found = mapping(found.get(nested)) or found
    tensors = {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    if not tensors:
        is_object = isinstance(value, Inert)
        raise WeightsError(
            f"{path} holds no named tensors.",
            found=f"an object of {value.what}" if is_object else type(value).__name__,
            expected="a state dict",
            hint="It is an object with its code. In the program that made it, save its weights:\n"
            "torch.save(model.state_dict(), PATH)"
            if is_object
            else None,
        )
    return tensors


def model_folder(source: str | PathLike[str]) -> Path:
    """Return the folder of a model: `source` itself, or the local copy of the Hub id "user/name[@revision]".

    A folder goes before a Hub id of the same name; what was fetched once is used again without a connection.
    """
    path, text = Path(source), str(source)
    if path.is_dir():
        return path
    if path.is_file():
        raise UsageError(
            f"{text} is a file, and a model is a folder.",
            expected=f"a folder with {SAFE} and {CONFIG} or {OURS}",
            hint="To start a training from a weights file, name it as model.pretrained.",
        )
    if path.suffix in WEIGHTS_FILES:
        near = nearest(path.name, (one.name for one in path.parent.iterdir())) if path.parent.is_dir() else []
        hint = f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else None
        raise MissingPathError(f"There is no weights file {text}.", hint=hint)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", text):
        raise MissingPathError(f"There is no model folder {text}.", hint=_similar(path))
    repo, _, revision = text.partition("@")
    return _fetch(repo, revision or None, hint=_similar(path))


def fetched(source: str, name: str) -> Path | None:
    """Return a file of the Hub id "user/name[@revision]" that was fetched before; nothing is asked of the Hub."""
    from huggingface_hub import errors, try_to_load_from_cache

    repo, _, revision = source.partition("@")
    try:
        found = try_to_load_from_cache(repo, name, revision=revision or None)
    except errors.HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def on_card(card: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the licence that a model's card states, and the models that it says to be made from.

    The licence is the Hub's word for it, or the name beside "other"; None, and no models, where there is no card.
    """
    from huggingface_hub import ModelCard

    if card is None or not card.is_file():
        return None, ()
    try:
        about = ModelCard.load(card, ignore_metadata_errors=True).data
    except Exception:  # a stranger's YAML: what cannot be read states nothing
        return None, ()
    stated, name, bases = about.get("license"), about.get("license_name"), about.get("base_model") or []
    stated = name if stated == "other" and name else stated
    bases = bases if isinstance(bases, list) else [bases]
    return str(stated) if stated else None, tuple(one for one in bases if isinstance(one, str))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return "a, b, c", with "and N more" after `most`."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for single, index in ((SAFE, SAFE_INDEX), (PICKLE, PICKLE_INDEX)):
        if (folder / single).is_file():
            return read_tensors(folder / single)
        if (folder / index).is_file():
            return _read_shards(folder, index)
    raise MissingPathError(
        f"There are no weights in {folder}.",
        found=listed(sorted(entry.name for entry in folder.iterdir())) or "an empty folder",
        expected=f"{SAFE}, {SAFE_INDEX}, {PICKLE} or {PICKLE_INDEX}",
    )


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    value = read_json(folder / index)
    weight_map: dict[str, str] = value.get("weight_map", {}) if isinstance(value, dict) else {}
    if (
        not weight_map
        or not isinstance(weight_map, dict)
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise WeightsError(
            f"{folder / index} does not say which file holds which tensor.",
            expected='{"weight_map": {"tensor": "file"}}',
        )
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:  # an index from elsewhere must not lead out of its folder
            raise UnsafeFileError(
                f"{folder / index} points outside its folder.", found=shard, expected="file names"
            )
        tensors |= read_tensors(folder / shard)
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise WeightsError(f"The shards in {folder} lack tensors that {index} lists.", found=listed(missing))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        # clones, so that no tensor holds on to the file: it may be replaced while the network lives
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} is damaged, or no weights file.",
        found=_first_line(error),
        hint=f"It has {path.stat().st_size:,} bytes; compare with where it came from, and copy it again.",
    )


def _fetch(repo: str, revision: str | None, *, hint: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    shown = repo if revision is None else f"{repo}@{revision}"
    names = [CONFIG, PROCESSOR, OURS, CARD, SAFE, SAFE_INDEX, "model-*.safetensors", *TOKENISERS]
    pickles = [PICKLE, PICKLE_INDEX, "pytorch_model-*.bin"]
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=names))
        if (
            not (folder / SAFE).is_file() and not (folder / SAFE_INDEX).is_file()
        ):  # older models have nothing else
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[*names, *pickles]))
        return folder
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        if _is_data_set(repo):
            raise UsageError(
                f"{shown} on the Hub is a data set, not a model.", command=f"terrazzo check {shown}"
            ) from error
        login = "If it is yours, or you were given access, log in first:"
        raise MissingPathError(
            f"There is no folder {shown} here, and no such model on the Hub, or it is private or gated.",
            hint=f"{hint} {login}" if hint else login,
            command="hf auth login",
        ) from error
    except (
        Exception
    ) as error:  # no connection has many names: huggingface_hub's, httpx's or requests', the system's
        fetch = "Where there is a connection, fetch it once; afterwards it is found without one:"
        raise WeightsError(
            f"There is no folder {shown} here, and the Hub could not be asked for a model of that name.",
            found=_first_line(error),
            hint=f"{hint} {fetch}" if hint else fetch,
            command=f"hf download {repo}" + (f" --revision {revision}" if revision else ""),
        ) from error


def _is_data_set(repo: str) -> bool:
    from huggingface_hub import HfApi

    try:
        return HfApi().repo_exists(repo, repo_type="dataset")
    except Exception:  # it is asked only to say more of another error
        return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _similar(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    near = nearest(path.name, (entry.name for entry in path.parent.iterdir() if entry.is_dir()))
    return f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else None
