"""SegFormer-B0 from random weights on a few hundred small images, on a CPU or a GPU.

For those who may not use NVIDIA's weights, whose images look like none of ImageNet's, or who have two cores and ten
minutes. The network is the paper's (Xie et al. 2021, arXiv 2105.15203); the recipe is ours: a rate sixteen times
higher, small batches, the head no faster than the rest (nothing is pretrained), small scaled crops, rare classes
weighed up, no dropout (so short a training does not overfit).
Command: terrazzo import camvid PATH --out data/camvid; terrazzo train segformer-b0-scratch --data data/camvid
Hardware, hours: CamVid, two cores of an AMD EPYC (AVX-512, bf16), 1,700 to 1,800 steps: eight minutes of the ten that
bench/quality.py gives.
Expected mIoU: 52.4 on CamVid val after those eight minutes, mean of two seeds (52.3, 52.5), 2026-11; 52.6 after 2,318
steps. The recipe's own 6,000 steps: not measured.
Weights: none, so what is trained belongs to whoever owns the data.
"""

from terrazzo.data.transforms import DataConfig
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig


def recipe() -> Recipe:
    """Return the recipe."""
    return Recipe(
        name="segformer-b0-scratch",
        summary="Train SegFormer-B0 from random weights on a few hundred small images, on a CPU or a GPU.",
        model=ModelConfig(name="segformer-b0", pretrained=None, dropout=0.0, drop_path=0.0),
        data=DataConfig(
            resize="original", scale=(0.7, 1.4), crop_hw=(256, 320), max_one_class=0.75, flip=0.5
        ),
        loss=LossConfig(class_weights="sqrt_inverse"),
        optim=OptimConfig(
            kind="adamw",
            lr=1e-3,
            head_lr_factor=1.0,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            schedule="poly",
            poly_power=1.0,
            warmup_steps=100,
            warmup_factor=1e-3,
        ),
        train=TrainConfig(steps=6000, batch_size=4, precision="auto", save_every=500),
        eval=EvalConfig(every=500, inference="whole"),
    )
