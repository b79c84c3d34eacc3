"""SegFormer-B4, fine-tuned on one's own few hundred images from weights that know ImageNet.

Paper: Xie et al. 2021, SegFormer (arXiv 2105.15203); after 160,000 steps of 16 on ADE20K, MMSegmentation's B4 reaches
48.5 mIoU. As segformer-b0, with a larger network.
Command: terrazzo train segformer-b4 --data DATA
Hardware, hours: not measured. Should it not fit: train.micro_batch=2, then train.gradient_checkpointing=true; neither
changes the result beyond rounding.
Expected mIoU: not measured.
Weights: nvidia/mit-b4, NVIDIA Source Code License: non-commercial research and evaluation only, and so is what is
fine-tuned from them.
"""

from dataclasses import replace

from terrazzo.nn import ModelConfig
from terrazzo.recipe import Recipe
from terrazzo.recipes import segformer_b0


def recipe() -> Recipe:
    """Return the recipe."""
    return replace(
        segformer_b0.recipe(),
        name="segformer-b4",
        summary="Fine-tune SegFormer-B4 (64.0 M parameters) on a few hundred images.",
        model=ModelConfig(name="segformer-b4", pretrained="nvidia/mit-b4", dropout=0.1, drop_path=0.1),
    )
