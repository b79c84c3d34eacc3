"""Batch norm over processes: what one process computes from the whole batch, several compute from its parts."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.sync_batch_norm import SyncBatchNorm, synchronise

SHARES = (5, 1, 2)  # images of each process
SCRIPT = """
import os, socket, sys, torch
from torch import nn
import torch.distributed as dist
from terrazzo.nn.sync_batch_norm import synchronise

folder, shares = sys.argv[1], [5, 1, 2]
with socket.create_server(("127.0.0.1", 0)) as free:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
children = []
for rank in range(3):
    if not (child := os.fork()):
        break
    children.append(child)
else:
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
dist.init_process_group("gloo", rank=rank, world_size=3)
cases = torch.load(f"{folder}/cases.pt", weights_only=False)
for name, (norm, x, weight) in cases.items():
    sync = synchronise(norm)
    mine = x.split(shares)[rank].clone().requires_grad_()
    for _ in range(2):
        out = sync(mine)
    (out.float() * weight.split(shares)[rank]).sum().backward()
    own = [torch.zeros(1) if p.grad is None else p.grad for p in (sync.weight, sync.bias) if p is not None]
    for grad in own:
        dist.all_reduce(grad)
    torch.save((out.detach(), mine.grad, own, sync.state_dict()), f"{folder}/{name}.{rank}.pt")
dist.destroy_process_group()
os._exit(0)
"""


def cases() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    torch.manual_seed(0)
    wide, flat = torch.randn(8, 4, 5, 6) * 3 + 20, torch.randn(8, 4)
    made = {
        "map": (nn.BatchNorm2d(4), wide),
        "channels_last": (
            nn.BatchNorm2d(4, momentum=0.3),
            wide.contiguous(memory_format=torch.channels_last),
        ),
        "vector": (nn.BatchNorm1d(4), flat),
        "volume": (nn.BatchNorm3d(4, eps=1e-3), torch.randn(8, 4, 2, 3, 2)),
        "plain_mean": (nn.BatchNorm2d(4, momentum=None), wide),
        "not_affine": (nn.BatchNorm2d(4, affine=False), wide),
        "untracked": (nn.BatchNorm2d(4, track_running_stats=False), wide),
        "double": (nn.BatchNorm2d(4).double(), wide.double()),
        "bfloat16": (nn.BatchNorm2d(4), wide.bfloat16()),
    }
    for norm, _ in made.values():
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
    return {name: (norm, x, torch.randn(x.shape)) for name, (norm, x) in made.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("norms")
    torch.save(cases(), root / "cases.pt")
    (root / "ranks.py").write_text(SCRIPT)
    words = [sys.executable, str(root / "ranks.py"), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return root


@pytest.mark.parametrize("name", list(cases()))
def test_uneven_parts_give_what_torch_gives_for_the_whole(folder: Path, name: str) -> None:
    norm, x, weight = cases()[name]
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = norm(x.float()).to(x.dtype) if x.dtype is torch.bfloat16 else norm(x)
    (out.float() * weight).sum().backward()
    found = [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    close = {"rtol": 2e-2, "atol": 2e-2} if x.dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 2e-5}
    torch.testing.assert_close(torch.cat([one[0] for one in found]), out.detach(), **close)
    torch.testing.assert_close(torch.cat([one[1] for one in found]), x.grad, **close)
    for rank in range(len(SHARES)):
        for grad, parameter in zip(found[rank][2], norm.parameters(), strict=True):
            torch.testing.assert_close(grad, parameter.grad, rtol=close["rtol"], atol=1e-3)
        state = found[rank][3]
        assert state.keys() == norm.state_dict().keys()
        for key, tensor in norm.state_dict().items():
            torch.testing.assert_close(state[key], tensor, rtol=1e-5, atol=1e-6)
    assert torch.cat([one[0] for one in found]).dtype == x.dtype


def test_alone_it_is_batch_norm(folder: Path) -> None:
    for name, (norm, x, _) in cases().items():
        if name == "bfloat16":
            continue
        sync = synchronise(copy.deepcopy(norm))
        assert isinstance(sync, SyncBatchNorm)
        assert torch.equal(sync(x), norm(x)), name
        norm.eval()
        sync.eval()
        assert torch.equal(sync(x), norm(x)), name
        assert all(torch.equal(a, b) for a, b in zip(sync.buffers(), norm.buffers(), strict=True)), name


def test_it_takes_the_place_of_every_batch_norm_and_keeps_its_tensors() -> None:
    size = Size((1, 1, 1, 1), (8, 8, 16, 16), 16, num_heads=(1, 1, 2, 2))
    network = SegFormer(size, 3, mean=(0.5,) * 3, std=(0.2,) * 3, dropout=0.0, drop_path=0.0)
    names, held = list(network.state_dict()), dict(network.named_parameters())
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32)
    other = copy.deepcopy(network)
    assert synchronise(network) is network
    assert isinstance(network.decode_head.batch_norm, SyncBatchNorm)
    assert list(network.state_dict()) == names
    assert all(parameter is held[name] for name, parameter in network.named_parameters())
    torch.testing.assert_close(
        network(image).logits, other(image).logits, rtol=1e-5, atol=1e-6
    )  # not folded any more
    torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.eval()(image).logits, other.eval()(image).logits, rtol=1e-5, atol=1e-5)


def test_a_tensor_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 4, …\), got \(2, 3, 8, 8\)"):
        synchronise(nn.BatchNorm2d(4))(torch.zeros(2, 3, 8, 8))
