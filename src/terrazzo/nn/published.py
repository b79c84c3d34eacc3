"""Backbone weights that others publish, by name: where they lie, what they are called, and their licence.

    openmmlab/resnet101_v1c    OpenMMLab's files, fetched over https into a cache folder and checked by their hash
    timm/resnet50d.ra2_in1k    a model of timm's on the Hugging Face Hub
    timm                       the one of timm's that fits the network, where there is one

What was fetched once serves without a connection. Files of OpenMMLab's are pickles: `torch_file.py` reads them
without executing anything.
"""

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.errors import UnknownNameError, WeightsError, unknown_name
from terrazzo.storage import cache_folder, replacing

OPENMMLAB = "openmmlab/"
TIMM = "timm"
HOST = "https://download.openmmlab.com/pretrain/third_party/"
FILES = {  # name -> the beginning of its sha256, which is also in the name of the file
    "resnet18_v1c": "b5776b93",
    "resnet50_v1c": "2cccc1ad",
    "resnet101_v1c": "e67eebb6",
}
# (depth, variant) of our ResNets -> the model of timm's with the same layers; there are no 18 and 34 with v1c's stem
TIMM_RESNETS = {
    (18, "v1b"): "resnet18.tv_in1k",
    (34, "v1b"): "resnet34.tv_in1k",
    (50, "v1b"): "resnet50.tv_in1k",
    (101, "v1b"): "resnet101.tv_in1k",
    (152, "v1b"): "resnet152.tv_in1k",
    (50, "v1c"): "resnet50c.gluon_in1k",
    (101, "v1c"): "resnet101c.gluon_in1k",
    (152, "v1c"): "resnet152c.gluon_in1k",
    (18, "v1d"): "resnet18d.ra2_in1k",
    (34, "v1d"): "resnet34d.ra2_in1k",
    (50, "v1d"): "resnet50d.gluon_in1k",
    (101, "v1d"): "resnet101d.gluon_in1k",
    (152, "v1d"): "resnet152d.gluon_in1k",
}
LICENSES = (  # of timm's weights, by their tag; the cards on the Hub say the same
    (r"\.(fb_ssl|fb_swsl)_", "CC-BY-NC-4.0: non-commercial"),
    (r"\.tv2?_in1k", "BSD-3-Clause"),
    (r"\.(gluon|a1|a1h|a2|a3|b1k|b2k|c1|c2|d|ra|ra2|ra3|ram|bt)_in1k", "Apache-2.0"),
)
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20
MOST_BYTES = 4 << 30


def license_of_published(source: str) -> str | None:
    """Return the licence of weights by name, as far as it is known."""
    if source.startswith(OPENMMLAB):
        return "Apache-2.0, as OpenMMLab says of its files"
    if not source.startswith(f"{TIMM}/"):
        return None
    found = [license for pattern, license in LICENSES if re.search(pattern, source)]
    return found[0] if found else f"unknown; its card says: https://huggingface.co/{source}"


def timm_name(backbone: Mapping[str, Any] | None) -> str:
    """Return the Hub id of timm's weights for a backbone's spec; UnknownNameError where timm has none."""
    about = backbone or {}
    if about.get("kind") == "timm":
        return f"{TIMM}/{about['name']}"
    key = (about.get("depth"), about.get("variant"))
    if key in TIMM_RESNETS:
        return f"{TIMM}/{TIMM_RESNETS[key]}"
    known = ", ".join(f"resnet{depth}_{variant}" for depth, variant in TIMM_RESNETS)
    what = (
        f"resnet{key[0]}_{key[1]}"
        if about.get("kind") == "resnet"
        else f"a backbone of kind {about.get('kind')}"
    )
    raise UnknownNameError(
        f"timm publishes no weights for {what}.",
        expected=f"one of {known}, or timm/NAME",
        hint="To start from random weights:",
        command="terrazzo train … model.pretrained=null",
    )


def fetch_openmmlab(source: str) -> Path:
    """Return the local file of "openmmlab/NAME", fetched where it is not there yet.

    Raises UnknownNameError with the nearest names, and WeightsError with the address and the folder to put the file in
    where it cannot be fetched, or is not what it should be.
    """
    name = source.removeprefix(OPENMMLAB)
    if name not in FILES:
        raise unknown_name("backbone of OpenMMLab's", name, FILES)
    begins = FILES[name]
    file = cache_folder() / "weights" / f"{name}-{begins}.pth"
    if file.is_file() and _hash(file).startswith(begins):
        return file
    url = f"{HOST}{file.name}"
    try:
        with replacing(file) as beside:
            found = _download(url, beside)
            if not found.startswith(begins):
                raise _not_fetched(
                    url, file, f"another file: its sha256 begins with {found[:8]}, not {begins}"
                )
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _not_fetched(url, file, str(reason) or type(error).__name__) from error
    return file


def _download(url: str, file: Path) -> str:
    """Write what lies at `url` into `file`; return its sha256."""
    digest, size = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "terrazzo"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(file, "wb") as out:
        while piece := answer.read(CHUNK):
            size += len(piece)
            if size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
            digest.update(piece)
            out.write(piece)
    return digest.hexdigest()


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while piece := opened.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _not_fetched(url: str, file: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{url} could not be fetched.",
        found=found,
        hint="Where there is a connection, fetch it by hand and put it here; or start from random weights:",
        command=f"curl -L -o {file} {url}\nterrazzo train … model.pretrained=null",
    )
