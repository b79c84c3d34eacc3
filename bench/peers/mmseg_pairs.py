"""MMSegmentation's training pipeline for Cityscapes, over a folder when asked: a child process of bench/loader.py.

    python bench/peers/mmseg_pairs.py --folder data/train

It knows nothing of terrazzo. The transforms are those of its config of Cityscapes at 512x1024, from the files to the
packed inputs. First one JSON line of versions; then, for each line on standard input, it goes over the folder once and
answers with the seconds.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import mmseg
import numpy as np
import torch
from mmcv.transforms import Compose
from mmseg.utils import register_all_modules

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomResize", "scale": (2048, 1024), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (512, 1024), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    np.random.seed(0)  # noqa: NPY002  (what its transforms draw from)
    register_all_modules()
    pipeline = Compose(PIPELINE)
    images = sorted((folder / "images").iterdir())
    print(json.dumps({"torch": torch.__version__, "mmseg": mmseg.__version__}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for image in images:
            mask = folder / "masks" / f"{image.stem}.png"
            sample = pipeline({"img_path": str(image), "seg_map_path": str(mask), "label_map": None,
                               "reduce_zero_label": False, "seg_fields": []})  # fmt: skip
            assert sample["inputs"].shape[0] == 3
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
