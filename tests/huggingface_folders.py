"""Folders that transformers saved: tiny networks with random weights, four of them that answer queries.

Importing this skips a file of tests where transformers is not installed.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from terrazzo.classes import Classes
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.huggingface import HuggingFaceNetwork

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install transformers"
)
NAMES = {0: "field", 1: "box", 2: "sky"}  # those of the boxes
CLASSES = Classes(tuple(NAMES.values()))
PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": False,
    "image_mean": [0.5, 0.4, 0.3],
    "image_processor_type": "SegformerImageProcessor",
    "image_std": [0.2, 0.25, 0.3],
    "rescale_factor": 1 / 255,
}


def saved(folder: Path, kind: str) -> Any:
    """A folder of transformers' with random weights that are not trivial; returns the model."""
    config, name = {**SEMANTIC, **BY_QUERIES}[kind]
    torch.manual_seed(0)
    model = getattr(transformers, name)(config()).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    if kind == "oneformer":
        write_tokenizer(folder)
    return model


def built(folder: Path, **other: Any) -> HuggingFaceNetwork:
    """The network of a folder as a training builds it, of two classes unless told otherwise."""
    settings = {"num_classes": 2, "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3} | other
    network = build(ModelConfig("huggingface", pretrained=str(folder)), **settings)
    assert isinstance(network, HuggingFaceNetwork)
    return network


def write_tokenizer(folder: Path) -> None:
    """CLIP's, of letters alone."""
    letters = sorted(set("thetaskissemantic"))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "th", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


def normalised(image: Tensor) -> Tensor:
    """An image as the processor of these folders hands it over."""
    mean, std = (torch.tensor(PROCESSOR[name]).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    return (image - mean) / std


def labelled() -> dict[str, Any]:
    return {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}


def upernet() -> Any:
    backbone = transformers.ConvNextConfig(
        hidden_sizes=[8, 12, 16, 20],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        pool_scales=[1, 2],
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        **labelled(),
    )


def mobilevit() -> Any:
    return transformers.MobileViTConfig(
        hidden_sizes=[8, 12, 16], neck_hidden_sizes=[8, 8, 8, 12, 16, 20, 24], num_attention_heads=2,
        aspp_out_channels=8, atrous_rates=[1, 2, 3], image_size=64, **labelled(),
    )  # fmt: skip


def beit() -> Any:
    return transformers.BeitConfig(
        hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        out_indices=[1, 2, 3, 4], pool_scales=[1, 2], use_relative_position_bias=True, auxiliary_channels=8,
        **labelled(),
    )  # fmt: skip


def dpt() -> Any:
    return transformers.DPTConfig(
        hidden_size=12, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
        **labelled(),
    )  # fmt: skip


SEMANTIC = {
    "upernet": (upernet, "UperNetForSemanticSegmentation"),
    "mobilevit": (mobilevit, "MobileViTForSemanticSegmentation"),
    "beit": (beit, "BeitForSemanticSegmentation"),
    "dpt": (dpt, "DPTForSemanticSegmentation"),
}


def swin() -> Any:
    return transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def mask2former() -> Any:
    return transformers.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6, **labelled(),
    )  # fmt: skip


def maskformer() -> Any:
    decoder = transformers.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=6,
    )  # fmt: skip
    return transformers.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        **labelled(),
    )


def oneformer() -> Any:
    return transformers.OneFormerConfig(
        backbone_config=swin(), num_queries=6, task_seq_len=20, conv_dim=32, mask_dim=32, hidden_dim=32,
        encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2, query_dec_layers=1,
        num_attention_heads=2, text_encoder_width=16, text_encoder_num_layers=1, text_encoder_vocab_size=300,
        text_encoder_context_length=20, text_encoder_n_ctx=4, **labelled(),
    )  # fmt: skip


def eomt() -> Any:
    return transformers.EomtConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=1, image_size=64, patch_size=16,
        num_blocks=1, num_queries=6, num_register_tokens=1, **labelled(),
    )  # fmt: skip


BY_QUERIES = {
    "mask2former": (mask2former, "Mask2FormerForUniversalSegmentation"),
    "maskformer": (maskformer, "MaskFormerForInstanceSegmentation"),
    "oneformer": (oneformer, "OneFormerForUniversalSegmentation"),
    "eomt": (eomt, "EomtForUniversalSegmentation"),
}
