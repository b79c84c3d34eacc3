"""SAM 2 as small as it goes, with weights of a seed: what it answers is noise, and the same noise every time."""

from pathlib import Path
from typing import Any

import pytest

SIDE = 128  # pixels of the square it looks at


def write_tiny_sam(folder: Path) -> Path:
    """Write its config and weights, as they come from the Hub."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 2, 2, 2], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [4], "window_positional_embedding_background_size": [4, 4],
    }  # fmt: skip
    sides = [[SIDE // part, SIDE // part] for part in (4, 8, 16)]
    config = transformers.Sam2Config(
        vision_config={"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
                       "backbone_feature_sizes": sides, "fpn_hidden_size": 16},
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        initializer_range=0.4,
    )  # fmt: skip
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model: Any = transformers.Sam2Model(config)
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    return folder


def write_tiny_sam3(folder: Path) -> Path:
    """The same of SAM 3's part that answers points and boxes."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    side, patch = 112, 14
    grid = side // patch
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": side, "pretrain_image_size": side, "patch_size": patch,
        "window_size": 4, "global_attn_indexes": [1],
    }  # fmt: skip
    config = transformers.Sam3TrackerConfig(
        vision_config={"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 16,
                       "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2]},
        prompt_encoder_config={"hidden_size": 16, "image_size": side, "patch_size": patch},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        initializer_range=0.4,
    )  # fmt: skip
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    model: Any = transformers.Sam3TrackerModel(config)
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    return folder
