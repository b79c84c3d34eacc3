"""SegFormer-B0 fine-tuned on segments/sidewalk-semantic: Hugging Face's walk-through, done right.

The post is "Fine-Tune a Semantic Segmentation Model with a Custom Dataset"; sidewalk-post is its recipe to the letter.
Here the 35 raw ids become 30 classes and ignore (0 "unlabeled" and 31-34 "void-*" teach nothing and are not scored),
images keep their proportions, crops are scaled and mirrored, the head learns ten times faster, the rate warms up and
falls, the best checkpoint is chosen by mIoU, and mIoU is counted at the size of the original masks.
Command: terrazzo train sidewalk
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
        name="sidewalk",
        summary="Fine-tune SegFormer-B0 on segments/sidewalk-semantic: 30 classes of sidewalk scenes.",
        default_data="segments/sidewalk-semantic",
        model=ModelConfig(name="segformer-b0", pretrained="nvidia/mit-b0", dropout=0.1, drop_path=0.1),
        data=DataConfig(
            resize="short",  # of 1080 x 1920: thin poles survive, and a crop sees a third of the scene
            resize_hw=(720, 720),
            scale=(0.5, 2.0),
            crop_hw=(512, 512),
            max_one_class=0.75,
            flip=0.5,
        ),
        loss=LossConfig(class_weights="none"),
        optim=OptimConfig(
            kind="adamw",
            lr=6e-5,
            head_lr_factor=10.0,
            weight_decay=0.01,
            schedule="poly",
            poly_power=1.0,
            warmup_steps=500,
            warmup_factor=1e-6,
        ),
        train=TrainConfig(steps=8000, batch_size=8, precision="auto"),
        eval=EvalConfig(every=1000, inference="whole"),
    )
