"""A folder of images through `transformers.pipeline("image-segmentation")`, masks written as class-id PNG.

Run by bench/predict_folder.py in an environment of its own. The last line is JSON: images, and the seconds from the
first file read to the last one written, after three images that do not count.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import pipeline

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--images", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)
args.out.mkdir(parents=True, exist_ok=True)
files = sorted(args.images.iterdir())
segment = pipeline("image-segmentation", model=args.model, device="cpu")
ids = segment.model.config.label2id


def answer(file: Path) -> None:
    """Write the class ids of one image."""
    image = Image.open(file).convert("RGB")
    mask = np.zeros((image.height, image.width), np.uint8)
    for part in segment(image):
        mask[np.asarray(part["mask"]) > 0] = ids[part["label"]]
    Image.fromarray(mask).save(args.out / f"{file.stem}.png")


for file in files[:3]:
    answer(file)
started = time.perf_counter()
for file in files:
    answer(file)
print(
    json.dumps({"images": len(files), "seconds": time.perf_counter() - started, "torch": torch.__version__})
)
