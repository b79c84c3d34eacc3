"""Hugging Face's walk-through to the letter, to compare with: SegFormer-B0 on segments/sidewalk-semantic.

The post is "Fine-Tune a Semantic Segmentation Model with a Custom Dataset": 5 epochs of batches of 2, AdamW at a
constant 6e-5 for all parameters, images squashed to 512 x 512, ColorJitter alone, all 35 raw ids as classes,
"unlabeled" and "void-*" included. Three things differ. Weight decay, 0.01, spares biases and norms. ColorJitter
multiplies the brightness by 1 ± 0.25; ours adds, and ± 0.125 of the range is the same to a middle grey. Scores are
ours: the post leaves class 0 out and counts at 512 x 512, so its numbers cannot be compared with these.
Command: terrazzo train sidewalk-post
Hardware, hours: not measured. Meant for one GPU with 8 GB.
Expected mIoU: not measured.
Weights: nvidia/mit-b0, NVIDIA Source Code License: non-commercial research and evaluation only, and so is what is
fine-tuned from them. Data: cc-by-nc-4.0.
"""

from terrazzo.data.transforms import DataConfig
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig


def recipe() -> Recipe:
    """Return the recipe."""
    return Recipe(
        name="sidewalk-post",
        summary="The Hugging Face post's own recipe on segments/sidewalk-semantic, to compare with.",
        default_data="segments/sidewalk-semantic",
        model=ModelConfig(name="segformer-b0", pretrained="nvidia/mit-b0", dropout=0.1, drop_path=0.1),
        data=DataConfig(
            resize="exact",
            resize_hw=(512, 512),
            scale=(1.0, 1.0),
            crop_hw=(512, 512),
            max_one_class=1.0,
            flip=0.0,
            brightness=0.125,
            contrast=0.25,
            saturation=0.25,
            hue=0.1,
            color_probability=1.0,
            keep_void=True,
        ),
        loss=LossConfig(class_weights="none"),
        optim=OptimConfig(kind="adamw", lr=6e-5, head_lr_factor=1.0, weight_decay=0.01, schedule="constant"),
        train=TrainConfig(
            steps=None, epochs=5.0, batch_size=2, precision="f32", max_grad_norm=1.0, save_every=200
        ),
        eval=EvalConfig(every=200, inference="whole"),
    )
