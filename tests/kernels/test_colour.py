"""Recolouring is one matrix product per pixel, clipped and laid out in planes."""

import numpy as np
import pytest
import torch

from terrazzo.data.transforms import DataConfig, colour_matrix
from terrazzo.kernels import colour as module
from terrazzo.kernels.colour import recolour, recolour_batch, recolour_reference

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255.0), (np.uint16, 65535.0), (np.float32, 1.0)])
def test_every_pixel_is_multiplied_and_clipped(dtype: type, white: float, channels: int) -> None:
    image = (RNG.random((9, 14, channels)) * white).astype(dtype)
    matrix = RNG.normal(0, 1, (channels, channels + 1)).astype(np.float32)
    matrix[0] = [2.5, *[0.0] * (channels - 1), -0.6]  # one channel at least is clipped below and above
    out = np.empty((channels, 9, 14), np.float32)
    recolour(image, matrix, white=white, low=-0.2, high=0.9, out_CHW=out)
    homogeneous = np.concatenate([image.astype(np.float64) / white, np.ones((9, 14, 1))], axis=2)
    expected = np.clip(np.einsum("ij,hwj->ihw", matrix.astype(np.float64), homogeneous), -0.2, 0.9)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert out.min() == np.float32(-0.2)
    assert out.max() == np.float32(0.9)


def test_what_lies_beyond_the_image_is_left_alone() -> None:
    image = np.full((2, 3, 3), 255, np.uint8)
    out = np.full((3, 4, 5), 7, np.float32)
    recolour(image, np.eye(3, 4, dtype=np.float32), white=255.0, out_CHW=out)
    assert (out[:, :2, :3] == 1).all()
    assert out.sum() == 3 * (2 * 3 * 1 + (4 * 5 - 2 * 3) * 7)


def test_a_pixel_that_is_no_number_stays_none() -> None:
    image = np.array([[[np.nan]], [[0.5]]], np.float32)
    out = np.empty((1, 2, 1), np.float32)
    recolour(image, np.eye(1, 2, dtype=np.float32), white=1.0, out_CHW=out)
    assert np.isnan(out[0, 0, 0])
    assert out[0, 1, 0] == 0.5


@pytest.mark.parametrize("channels", [2, 3])
def test_without_numba_the_same_comes_out(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    image = RNG.integers(0, 256, (9, 8, channels), dtype=np.uint8)
    matrix = RNG.normal(0, 1, (channels, channels + 1)).astype(np.float32)
    compiled, plain = np.zeros((channels, 12, 12), np.float32), np.zeros((channels, 12, 12), np.float32)
    recolour(image, matrix, white=255.0, out_CHW=compiled)
    monkeypatch.setattr(module, "is_available", lambda: False)
    recolour(image, matrix, white=255.0, out_CHW=plain)
    np.testing.assert_allclose(compiled, plain, atol=1e-6)


def crops(channels: int) -> np.ndarray:
    """Four 8-bit crops: noise, black, white, and all greys."""
    image = RNG.integers(0, 256, (4, 8, 32, channels), dtype=np.uint8)
    image[1], image[2] = 0, 255
    image[3] = np.arange(256, dtype=np.uint8).reshape(8, 32, 1)
    return image


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_on_a_device_is_recoloured_as_each_image_on_the_cpu(channels: int, device: str) -> None:
    config = DataConfig(color_probability=1.0)
    for _ in range(8):
        image = crops(channels)
        matrices = np.stack([colour_matrix(config, channels, RNG) for _ in image])
        expected, plain = np.empty((2, 4, channels, 8, 32), np.float32)
        for slot in range(4):
            recolour(image[slot], matrices[slot], white=255.0, out_CHW=expected[slot])
            recolour_reference(image[slot], matrices[slot], white=255.0, out_CHW=plain[slot])
        result = recolour_batch(
            torch.from_numpy(image).to(device),
            torch.from_numpy(matrices).to(device),
            beyond_C=torch.zeros(channels, device=device),
        )
        assert result.is_contiguous()
        np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.cpu().numpy(), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_whose_colours_stay_is_its_grey_levels_over_255(device: str) -> None:
    image, same = crops(3), torch.eye(3, 4).expand(4, 3, 4).to(device)
    result = recolour_batch(torch.from_numpy(image).to(device), same, beyond_C=torch.zeros(3, device=device))
    np.testing.assert_array_equal(
        result.cpu().numpy(), image.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    )


def test_a_batch_is_recoloured_without_a_look_at_its_values() -> None:
    with torch.device("meta"):  # what waits for a GPU to read a value raises here
        image, matrices = torch.empty(2, 8, 9, 3, dtype=torch.uint8), torch.empty(2, 3, 4)
        inside, beyond = torch.empty(2, 2, dtype=torch.int32), torch.empty(3)
    assert recolour_batch(image, matrices, inside_B2=inside, beyond_C=beyond).shape == (2, 3, 8, 9)


@pytest.mark.parametrize("device", DEVICES)
def test_beyond_the_pixels_of_a_batch_stands_one_colour(device: str) -> None:
    image, inside = torch.full((3, 4, 5, 3), 255, dtype=torch.uint8), torch.tensor([[4, 5], [2, 3], [0, 0]])
    result = recolour_batch(
        image.to(device),
        torch.eye(3, 4).expand(3, 3, 4).to(device),
        inside_B2=inside.to(device),
        beyond_C=torch.tensor([0.25, 0.5, 0.75], device=device),
    ).cpu()
    assert (result[0] == 1).all()
    assert (result[1, :, :2, :3] == 1).all()
    assert result[1, 1].sum() == 2 * 3 + 0.5 * (4 * 5 - 2 * 3)
    assert result[2].mean((1, 2)).tolist() == [0.25, 0.5, 0.75]
