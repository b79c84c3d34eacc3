"""MMSegmentation's own PSPNet, timed when asked: a child process of bench/pspnet.py, in an environment of its own.

    python bench/peers/mmseg_network.py --weights w.pt --image image.npy --logits logits.npy --threads 2 …

It knows nothing of terrazzo. The model is built from MMSegmentation's config of PSPNet R50-d8, batch norm instead of
synchronised batch norm; `model(image, mode="tensor")` is what is timed. First it writes its logits and one JSON line of
versions; then, for each line on standard input, it runs once and answers with the milliseconds.
"""

import argparse
import json
import sys
import time
from typing import Any

import mmseg
import numpy as np
import torch
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

NORM = {"type": "BN", "requires_grad": True}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--weights", "--image", "--logits"):
        parser.add_argument(name, required=True)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    register_all_modules()
    model = MODELS.build(config(args.depth)).eval()
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    model.to(args.device)
    image = torch.from_numpy(np.load(args.image)).to(args.device)

    def run() -> torch.Tensor:
        is_half = args.precision == "bf16"
        with torch.no_grad(), torch.autocast(args.device, torch.bfloat16, enabled=is_half):
            logits = model(image, mode="tensor")
        if args.device == "cuda":
            torch.cuda.synchronize()
        return logits

    np.save(args.logits, run().float().cpu().numpy())
    said = {"torch": torch.__version__, "mmseg": mmseg.__version__, "threads": torch.get_num_threads()}
    print(json.dumps(said), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(1000 * (time.perf_counter() - start), flush=True)


def config(depth: int) -> dict[str, Any]:
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0}
    head = {"dropout_ratio": 0.1, "num_classes": 19, "norm_cfg": NORM, "align_corners": False}
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor"},
        "backbone": {
            "type": "ResNetV1c",
            "depth": depth,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "dilations": (1, 1, 2, 4),
            "strides": (1, 2, 1, 1),
            "norm_cfg": NORM,
            "norm_eval": False,
            "style": "pytorch",
            "contract_dilation": True,
        },
        "decode_head": head
        | {
            "type": "PSPHead",
            "in_channels": 2048,
            "in_index": 3,
            "channels": 512,
            "pool_scales": (1, 2, 3, 6),
            "loss_decode": loss,
        },
        "auxiliary_head": head
        | {
            "type": "FCNHead",
            "in_channels": 1024,
            "in_index": 2,
            "channels": 256,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": loss,
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }


if __name__ == "__main__":
    main()
