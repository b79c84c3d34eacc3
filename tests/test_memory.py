"""Activation bytes against what one counts by hand, and what is offered to hold less."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from terrazzo import memory
from terrazzo.devices import Precision, autocast
from terrazzo.memory import Setting, activation_bytes, held_bytes, is_out_of_memory, options

CPU = torch.device("cpu")


class Convs(nn.Module):
    """Two convolutions with a ReLU between; the second may be computed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.gradient_checkpointing = False

    def forward(self, image_BCHW: Tensor) -> Tensor:
        hidden = self.first(image_BCHW)
        out = (
            checkpoint(self.body, hidden, use_reentrant=False)
            if self.gradient_checkpointing
            else self.body(hidden)
        )
        return self.norm(out)


def mean_loss(network: nn.Module) -> memory.LossOf:
    def loss_of(image_BCHW: Tensor, mask_BHW: Tensor, precision: Precision) -> Tensor:
        with autocast(precision, CPU):
            return network(image_BCHW).float().mean()

    return loss_of


def test_a_small_network_holds_what_one_counts_by_hand() -> None:
    """By hand, in floats per pixel: the image 3, first 8, the ReLU's result 16 (kept once), the norm's input 8."""
    network = Convs()
    setting = Setting(4, (16, 24), checkpointing=False, precision="f32")
    held = activation_bytes(network, mean_loss(network), setting, channels=3, device=CPU)
    per_pixel = 4 * (3 + 8 + 16 + 8)
    norm = 2 * 8 * 4  # the batch's mean and deviation per channel
    assert held == 4 * 16 * 24 * per_pixel + norm
    assert network.norm.num_batches_tracked == 0  # nothing is changed by looking
    assert network.norm.running_mean is not None
    assert not network.norm.running_mean.any()


def test_checkpointing_holds_only_what_the_block_begins_with() -> None:
    network = Convs()
    setting = Setting(4, (16, 24), checkpointing=True, precision="f32")
    held = activation_bytes(network, mean_loss(network), setting, channels=3, device=CPU)
    assert held == 4 * 16 * 24 * 4 * (3 + 8 + 8) + 2 * 8 * 4  # the 16 inside are not kept
    assert network.gradient_checkpointing is False


def test_weights_that_autocast_casts_are_counted_once_whatever_the_micro_batch() -> None:
    network = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    held = {
        size: activation_bytes(
            network, mean_loss(network), Setting(size, (8, 8), False, "bf16"), channels=3, device=CPU
        )
        for size in (1, 2, 3, 16)
    }
    weights, image = 2 * network.weight.numel(), 2 * 3 * 8 * 8
    assert held == {size: weights + size * image for size in held}


def test_storages_are_counted_once_and_weights_not_at_all() -> None:
    x, w = torch.rand(10, 10, requires_grad=True), torch.rand(10, 10, requires_grad=True)
    assert held_bytes(lambda: x * w, but=[w]) == 400
    assert held_bytes(lambda: (x * x) + (x[:5] * x[5:]).sum(), but=[]) == 400
    assert held_bytes(lambda: x.sum()) == 0


def test_where_a_look_does_not_fit_a_smaller_one_is_scaled_by_its_area() -> None:
    seen: list[tuple[int, ...]] = []
    network = nn.Conv2d(3, 5, 1, bias=False)

    def tight(image_BCHW: Tensor, mask_BHW: Tensor, precision: Precision) -> Tensor:
        seen.append(tuple(image_BCHW.shape))
        if image_BCHW.shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return network(image_BCHW).mean()

    held = activation_bytes(network, tight, Setting(4, (64, 64), False, "f32"), channels=3, device=CPU)
    assert held == 4 * 3 * 64 * 64 * 4
    assert seen == [(2, 3, 64, 64), (2, 3, 32, 32), (2, 3, 16, 16), (3, 3, 16, 16)]
    with pytest.raises(torch.OutOfMemoryError):
        activation_bytes(network, tight, Setting(4, (512, 512), False, "f32"), channels=3, device=CPU)


def test_options_are_those_that_are_left() -> None:
    all_of_them = options(
        Setting(12, (512, 768), False, "f32"), share=12, can_checkpoint=True, is_cropped=True
    )
    assert [option.override for option in all_of_them] == [
        "train.micro_batch=6",
        "train.gradient_checkpointing=true",
        "train.precision=bf16",
        "data.crop_hw=352x512",
    ]
    assert all_of_them[0].setting == Setting(6, (512, 768), False, "f32")
    assert options(Setting(9, (32, 32), True, "bf16"), share=9, can_checkpoint=True, is_cropped=True)[
        0
    ].override == ("train.micro_batch=3")
    assert options(Setting(1, (32, 32), True, "f16"), share=9, can_checkpoint=True, is_cropped=True) == []


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
            ),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: BaseException, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


def test_torch_itself_raises_what_we_recognise() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)
