"""The Hugging Face walk-through's training, as its readers run it today, for so many seconds.

    python bench/peers/hf_post.py --data data/camvid --seconds 600 --seed 0 --threads 2 --out predictions/

transformers' SegFormer-B0 from random weights, its image processor (512x512, squashed), ColorJitter, its Trainer, batch
2, learning rate 6e-5, constant. It knows nothing of terrazzo: it writes the class-id masks of the val images, brought
back to their original size as the post does, and one JSON line. Runs in an environment of its own: transformers,
torchvision, accelerate.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import ColorJitter
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Folder(Dataset):
    def __init__(
        self,
        root: Path,
        split: str,
        processor: SegformerImageProcessor,
        jitter: ColorJitter | None,
        void: int,
    ):
        self.images = sorted((root / split / "images").iterdir())
        self.masks = root / split / "masks"
        self.processor, self.jitter, self.void = processor, jitter, void

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        image = Image.open(self.images[index]).convert("RGB")
        mask = np.array(Image.open(self.masks / (self.images[index].stem + ".png")))
        mask[mask == self.void] = 255
        inputs = self.processor(self.jitter(image), mask)
        return {"pixel_values": torch.as_tensor(np.asarray(inputs["pixel_values"][0])),
                "labels": torch.as_tensor(np.asarray(inputs["labels"][0])).long()}  # fmt: skip


class Clock(TrainerCallback):
    def __init__(self, seconds: float):
        self.seconds, self.steps = seconds, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps = state.global_step
        if time.monotonic() - self.began >= self.seconds:
            control.should_training_stop = True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--void", type=int, default=11)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    processor = SegformerImageProcessor()
    jitter = ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.1)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=args.classes))
    clock = Clock(args.seconds)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch, learning_rate=6e-5, lr_scheduler_type="constant", num_train_epochs=10_000,
                per_device_train_batch_size=2, save_strategy="no", eval_strategy="no", report_to=[], seed=args.seed,
                remove_unused_columns=False, use_cpu=True, disable_tqdm=True, logging_steps=100,
            ),
            train_dataset=Folder(args.data, "train", processor, jitter, args.void),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    seconds = time.monotonic() - clock.began
    model.eval()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted((args.data / "val" / "images").iterdir()):
        image = Image.open(path).convert("RGB")
        with torch.no_grad():
            logits = model(**processor(image, return_tensors="pt")).logits
        logits = torch.nn.functional.interpolate(
            logits, size=image.size[::-1], mode="bilinear", align_corners=False
        )
        Image.fromarray(logits.argmax(1)[0].to(torch.uint8).numpy()).save(args.out / f"{path.stem}.png")
    print(json.dumps({"steps": clock.steps, "seconds": seconds, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
