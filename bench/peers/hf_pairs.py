"""The Hugging Face walk-through's training transform, over a folder when asked: a child process of bench/loader.py.

    python bench/peers/hf_pairs.py --folder data/train

It knows nothing of terrazzo: Pillow opens the files, ColorJitter changes the whole image, SegformerImageProcessor makes
512x512 of image and mask. First one JSON line of versions; then, for each line on standard input, it goes over the
folder once and answers with the seconds.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import transformers
from PIL import Image
from torchvision.transforms import ColorJitter
from transformers import SegformerImageProcessor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    torch.manual_seed(0)
    processor = SegformerImageProcessor()
    jitter = ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.1)
    images = sorted((folder / "images").iterdir())
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for path in images:
            image = Image.open(path).convert("RGB")
            mask = Image.open(folder / "masks" / f"{path.stem}.png")
            inputs = processor([jitter(image)], [mask], return_tensors="pt")
            assert inputs["pixel_values"].shape[1] == 3
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
