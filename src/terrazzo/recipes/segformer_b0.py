"""SegFormer-B0, fine-tuned on one's own few hundred images from weights that know ImageNet.

Paper: Xie et al. 2021, SegFormer (arXiv 2105.15203): 160,000 steps of 16 on ADE20K, 37.4 mIoU; for that say
train.steps=160000. The 20,000 steps here are meant for a few hundred images. The rest is the paper's: AdamW, lr 6e-5
with the head at ten times that, 1,500 steps of warm-up, then a straight fall to 0.
Command: terrazzo train segformer-b0 --data DATA
Hardware, hours: not measured. Meant for one GPU with 8 GB; on less, train.micro_batch=4.
Expected mIoU: not measured.
Weights: nvidia/mit-b0, NVIDIA Source Code License: non-commercial research and evaluation only, and so is what is
fine-tuned from them. model.pretrained=null starts from random weights, which needs more data and the recipe
segformer-b0-scratch.
"""

from terrazzo.data.transforms import DataConfig
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig


def recipe() -> Recipe:
    """Return the recipe."""
    return Recipe(
        name="segformer-b0",
        summary="Fine-tune SegFormer-B0 (3.7 M parameters) on a few hundred images.",
        model=ModelConfig(name="segformer-b0", pretrained="nvidia/mit-b0", dropout=0.1, drop_path=0.1),
        data=DataConfig(
            resize="original", scale=(0.5, 2.0), crop_hw=(512, 512), max_one_class=0.75, flip=0.5
        ),
        loss=LossConfig(class_weights="none"),
        optim=OptimConfig(
            kind="adamw",
            lr=6e-5,
            head_lr_factor=10.0,
            weight_decay=0.01,
            schedule="poly",
            poly_power=1.0,
            warmup_steps=1500,
            warmup_factor=1e-6,
        ),
        train=TrainConfig(steps=20_000, batch_size=16, precision="auto"),
        eval=EvalConfig(every=1000, inference="whole"),
    )
