"""NearFar, 1.5 million parameters, from random weights on a few hundred small images, in ten minutes of two cores.

Smaller crops, smaller batches and a shorter training than camvid-small, and class weights, which so few steps need.
Command: terrazzo import camvid PATH --out data/camvid; terrazzo train camvid-small-cpu --data data/camvid
Hardware, hours: two cores of an AMD EPYC (AVX-512, bf16); the time of its 2,000 steps is not measured there. A step
takes no longer than one of segformer-b0-scratch (256 and 269 ms on one busy core, medians of nine taken in turn).
Expected mIoU: 60.5 on CamVid val after its 2,000 steps, one seed, computed in bf16 on a GPU, 2026-11-20; there
segformer-b0-scratch had 52.2 after 1,700 steps, as it has on the CPU.
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
        name="camvid-small-cpu",
        summary="Train NearFar, 1.5 million parameters, from random weights on a few hundred small images, on a CPU.",
        model=ModelConfig(name="nearfar", pretrained=None, dropout=0.0),
        data=DataConfig(
            resize="original", scale=(0.7, 1.4), crop_hw=(256, 320), max_one_class=0.75, flip=0.5
        ),
        loss=LossConfig(class_weights="sqrt_inverse"),
        optim=OptimConfig(
            kind="adamw",
            lr=2e-3,
            head_lr_factor=1.0,
            weight_decay=0.05,
            betas=(0.9, 0.99),
            schedule="poly",
            poly_power=1.0,
            warmup_steps=100,
            warmup_factor=1e-3,
        ),
        train=TrainConfig(steps=2000, batch_size=4, precision="auto", save_every=500),
        eval=EvalConfig(every=500, inference="whole"),
    )
