"""The Hugging Face walk-through's prediction in a process of its own: processor, model, interpolate, argmax.

Started by bench/predict.py, with a model folder that transformers opens and images (N, H, W, 3) uint8 as .npy, whose
masks go to --masks. For a line with an image's number it predicts once and answers with the milliseconds of its parts;
for "file 3" it goes from frame003.jpg beside the images to a PNG there, and answers with the milliseconds of that.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--images", "--masks"):
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images = np.load(args.images)
    processor = transformers.AutoImageProcessor.from_pretrained(args.model)
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(args.model).eval()
    predicted = [predict(image, processor, model)[1] for image in images]
    np.save(args.masks, np.stack(predicted).astype(np.uint8))
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True)
    folder = Path(args.images).parent
    for line in sys.stdin:
        *kind, place = line.split()
        if kind:
            start = time.perf_counter()
            image = np.asarray(Image.open(folder / f"frame{int(place):03}.jpg"))
            mask = predict(image, processor, model)[1]
            Image.fromarray(mask.astype(np.uint8)).save(folder / "theirs.png")
            times = [1000 * (time.perf_counter() - start)]
        else:
            times = predict(images[int(place)], processor, model)[0]
        print(json.dumps(times), flush=True)


def predict(image: np.ndarray, processor: object, model: nn.Module) -> tuple[list[float], np.ndarray]:
    """Return the milliseconds of processor, model, interpolate + argmax, and the mask."""
    start = time.perf_counter()
    inputs = processor(images=image, return_tensors="pt")
    seen = time.perf_counter()
    with torch.no_grad():
        logits = model(**inputs).logits
    scored = time.perf_counter()
    upsampled = nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
    mask = upsampled.argmax(dim=1)[0]
    done = time.perf_counter()
    times = (seen - start, scored - seen, done - scored)
    return [1000 * one for one in times], mask.numpy()


if __name__ == "__main__":
    main()
