"""Masks from points and boxes by SAM 2 or SAM 3, through transformers, where somebody has put weights on this machine.

Weights are never fetched here: `weights()` looks where they may lie, and the page says what it found. Reading an image
(the encoder) takes seconds on a CPU, so it is a job of its own, one at a time, and what it read is kept as float16;
answering a click takes the small decoder alone. Images are brought to the model's square by its own rule (bilinear,
then mean and deviation), without its processor, which needs torchvision.

Licences, as published with the weights: SAM 2 and 2.1 Apache-2.0; SAM 3 its own licence, behind a form to fill in.
Neither is part of terrazzo or passed on by it.
"""

import importlib.util
import json
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrazzo.errors import MissingExtraError, MissingPathError, UnreadableFileError, WeightsError
from terrazzo.labelling.prompts import Prompt, Proposal

if TYPE_CHECKING:
    import torch

VARIABLE = "TERRAZZO_SAM"  # a folder with weights, or a name in KNOWN; "none": SAM is not used
KNOWN = (  # of the Hub, looked for among what is already on the disk, the quickest first
    "facebook/sam2.1-hiera-tiny",
    "facebook/sam2.1-hiera-small",
    "facebook/sam2.1-hiera-base-plus",
    "facebook/sam2.1-hiera-large",
    "facebook/sam2-hiera-tiny",
    "facebook/sam2-hiera-small",
    "facebook/sam2-hiera-base-plus",
    "facebook/sam2-hiera-large",
    "facebook/sam3",
)
LOOKS = {  # model type: (class in transformers, mean, deviation), where the folder does not say
    "sam2": ("Sam2Model", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam2_video": ("Sam2Model", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam3_tracker": ("Sam3TrackerModel", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "sam3_video": ("Sam3TrackerModel", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
REFINED = 32  # answers whose logits are kept, for the next point to start from

Maps = list[NDArray[np.float16]]  # an embedding: three maps, fine to coarse


def weights() -> Path | None:
    """Return the folder of the weights that are used: the one in $TERRAZZO_SAM, else the first of KNOWN on the disk.

    None where there are none, or transformers is not installed. Raises MissingPathError where the variable names
    nothing that is there, MissingExtraError where it names something that transformers would have to open.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "none":
        return None
    if chosen and not _has_transformers():
        raise MissingExtraError(
            f"{VARIABLE} names weights that nothing here can open.",
            found="no transformers",
            command='pip install "terrazzo[transformers]"',
        )
    if chosen:
        folder = Path(chosen).expanduser()
        found = folder if (folder / "config.json").is_file() else _on_disk(chosen)
        if found is None:
            raise MissingPathError(
                f"{VARIABLE} names no weights that are on this machine.",
                found=chosen[:200],
                expected="a folder with config.json and model.safetensors, or a name such as " + KNOWN[0],
                hint="They are fetched by the Hub's own command, never by terrazzo:",
                command=f"hf download {KNOWN[0]}",
            )
        return found
    return next((found for name in KNOWN if (found := _on_disk(name)) is not None), None)


class Sam:
    """One model, loaded when it is first needed; may be asked by several threads."""

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.kind = str(config["model_type"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableFileError(f"{folder} holds no model.", found=str(error)[:200]) from error
        if self.kind not in LOOKS:
            raise WeightsError(
                f"{folder} holds another model than SAM.", found=self.kind, expected=", ".join(LOOKS)
            )
        self.folder = folder
        self.name = "SAM 3" if self.kind.startswith("sam3") else "SAM 2"
        self.key = _fingerprint(folder)
        self._model: Any = None
        self._load_lock = threading.Lock()
        self._encoder = threading.Lock()  # one image at a time: two would take twice as long each
        self._decoder = threading.Lock()
        self._logits: OrderedDict[tuple[Any, ...], torch.Tensor] = OrderedDict()

    def embed(self, image: NDArray[np.uint8]) -> Maps:
        """Read an image (H, W, 3) uint8 RGB; seconds on a CPU."""
        import torch

        model = self._loaded()
        side = self._side()
        square = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
        mean, deviation = self._look()
        pixels = (np.asarray(square, np.float32) / 255 - mean) / deviation
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        with self._encoder, torch.inference_mode():
            maps = model.get_image_embeddings(batch.to(model.device, model.dtype))
        return [one[0].to(torch.float16).cpu().numpy() for one in maps]

    def answer(self, key: str, maps: Maps, prompt: Prompt, size_hw: tuple[int, int]) -> Proposal:
        """Return the mask that a prompt means in an image of `size_hw` that was read as `maps`.

        key: of the image. One point alone means a part, a thing or more: three masks, and the one the model trusts most
        is taken. A further point begins from the mask before it.
        """
        import torch

        model = self._loaded()
        device = model.device
        height, width = size_hw
        scale = torch.tensor([self._side() / width, self._side() / height], dtype=torch.float32)
        words: dict[str, Any] = {}
        if prompt.points:
            points = torch.tensor(prompt.points, dtype=torch.float32) * scale
            labels = [1] * len(prompt.positive) + [0] * len(prompt.negative)
            words["input_points"] = points[None, None].to(device, model.dtype)
            words["input_labels"] = torch.tensor(labels)[None, None].to(device)
        if prompt.box is not None:
            box = torch.tensor(prompt.box, dtype=torch.float32) * scale.repeat(2)
            words["input_boxes"] = box[None, None].to(device, model.dtype)
        is_open = prompt.box is None and len(prompt.points) == 1
        with self._decoder, torch.inference_mode():
            before = self._before(key, prompt)
            if before is not None:
                words["input_masks"] = before[None, None]
            embedding = [torch.from_numpy(one)[None].to(device, model.dtype) for one in maps]
            said = model(image_embeddings=embedding, multimask_output=is_open, **words)
            best = int(said.iou_scores[0, 0].argmax())
            logits = said.pred_masks[0, 0, best]
            self._remember(key, prompt, logits)
            whole = torch.nn.functional.interpolate(
                logits[None, None].float(), size_hw, mode="bilinear", align_corners=False
            )
            mask = (whole[0, 0] > 0).cpu().numpy()
        return Proposal.of(mask, self.name)

    def _before(self, key: str, prompt: Prompt) -> "torch.Tensor | None":
        """The logits of the same prompt without one of its last points."""
        for points in ((prompt.positive[:-1], prompt.negative), (prompt.positive, prompt.negative[:-1])):
            if points != (prompt.positive, prompt.negative):
                found = self._logits.get((key, prompt.box, *points))
                if found is not None:
                    return found
        return None

    def _remember(self, key: str, prompt: Prompt, logits: "torch.Tensor") -> None:
        self._logits[key, prompt.box, prompt.positive, prompt.negative] = logits
        while len(self._logits) > REFINED:
            self._logits.popitem(last=False)

    def _loaded(self) -> Any:
        with self._load_lock:
            if self._model is None:
                import torch
                import transformers

                kind = getattr(transformers, LOOKS[self.kind][0])
                device = "cuda" if torch.cuda.is_available() else "cpu"
                self._model = (
                    kind.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
                    .to(device)
                    .eval()
                )
            return self._model

    def _side(self) -> int:
        size = self._loaded().config.prompt_encoder_config.image_size
        return int(size if isinstance(size, int) else size[0])

    def _look(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation: what the folder says, else what this kind was trained with."""
        _, mean, deviation = LOOKS[self.kind]
        for name in ("processor_config.json", "preprocessor_config.json"):
            try:
                told = json.loads((self.folder / name).read_text(encoding="utf-8"))
                told = told.get("image_processor", told)
                mean, deviation = tuple(told["image_mean"]), tuple(told["image_std"])
                break
            except (FileNotFoundError, KeyError):
                continue
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise UnreadableFileError(
                    f"{name} beside the weights of SAM cannot be read.",
                    found=str(error),
                    hint="Fetch the folder of the weights again.",
                ) from error
        return np.array(mean, np.float32), np.array(deviation, np.float32)


def pack(maps: Maps) -> bytes:
    """Return an embedding as safetensors."""
    from safetensors.numpy import save

    return save({str(number): np.ascontiguousarray(one) for number, one in enumerate(maps)})


def unpack(data: bytes) -> Maps:
    """Return what `pack` packed; UnreadableFileError for bytes that it did not."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(data)
        maps = [found[str(number)] for number in range(len(found))]
    except (SafetensorError, KeyError, ValueError) as error:
        raise UnreadableFileError("A kept embedding cannot be read.", found=str(error)[:200]) from error
    if any(one.dtype != np.float16 or one.ndim != 3 for one in maps) or not maps:
        raise UnreadableFileError("A kept embedding cannot be read.", found="maps of another kind")
    return maps


def _fingerprint(folder: Path) -> str:
    """What tells weights apart cheaply: config and the head of the tensors' file, with its size."""
    import hashlib

    total = hashlib.sha256((folder / "config.json").read_bytes())
    for one in sorted(folder.glob("*.safetensors")):
        with open(one, "rb") as file:
            total.update(f"{one.name} {os.path.getsize(one)}".encode() + file.read(1 << 16))
    return total.hexdigest()


def _has_transformers() -> bool:
    return importlib.util.find_spec("transformers") is not None


def _on_disk(name: str) -> Path | None:
    """The folder of a model of the Hub among what was fetched to this disk; nothing is asked of the network."""
    if name.count("/") != 1 or not _has_transformers():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
        tensors = try_to_load_from_cache(name, "model.safetensors")
    except HFValidationError:
        return None
    if not isinstance(config, str) or not isinstance(tensors, str):
        return None
    return Path(config).parent
