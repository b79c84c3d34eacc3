"""FCN: a few convolutions on one map of the backbone, then the classifier; also every network's auxiliary head.

Long et al. 2015 (arXiv 1411.4038). The head is OpenMMLab's modern form, not the paper's: one dilated map instead of a
sum over three strides, and `concat_input` joins the map with what the convolutions made of it. Written from
published configs and checkpoints, whose names the parameters bear; ours, Apache-2.0.

Shapes: B batch, C channels, K classes, h w size of the map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from terrazzo.nn.conv import Classifier, ConvNormAct, initialise


class FCNHead(nn.Module):
    """Maps of a backbone -> logits (B, K, h, w) at the size of the one it reads."""

    waits_for_nothing = True

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: int,
        in_index: int = 3,
        num_convs: int = 2,
        kernel_size: int = 3,
        concat_input: bool = True,
    ) -> None:
        """in_index: which map is read; align_corners changes nothing here, where no map is resized."""
        super().__init__()
        self.in_index = in_index
        inputs, padding = in_channels[in_index], kernel_size // 2
        self.convs = nn.Sequential(
            *(
                ConvNormAct(channels if position else inputs, channels, kernel_size, padding=padding)
                for position in range(num_convs)
            )
        )
        outputs = channels if num_convs else inputs
        self.conv_cat = (
            ConvNormAct(inputs + outputs, channels, kernel_size, padding=padding) if concat_input else None
        )
        self.classifier = Classifier(channels if concat_input else outputs, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        x = maps[self.in_index]
        y = self.convs(x)
        if self.conv_cat is not None:
            y = self.conv_cat(torch.cat([x, y], dim=1))
        logits: Tensor = self.classifier(y)
        return logits
