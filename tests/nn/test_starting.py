"""Weights by name: fetched once and checked, under our names, with their licence; and a training that starts from them.

Truth: timm's own feature maps; a file server on this machine plays OpenMMLab's.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from terrazzo.classes import Classes
from terrazzo.errors import UnknownNameError, WeightsError
from terrazzo.licences import Ledger, Origin, read
from terrazzo.nn import published
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.starting import NVIDIA_LICENSE, license_of, load_pretrained, origins_of
from terrazzo.nn.weights import read_model, save_model

THREE = Classes(("a", "b", "c"))
HEAD = {"channels": 4, "in_index": 3, "num_convs": 1, "concat_input": False}


def small(depth: int = 18, variant: str = "v1c", *, seed: int = 0, channels: int = 3) -> Segmenter:
    torch.manual_seed(seed)
    backbone = {"kind": "resnet", "depth": depth, "variant": variant, "stem_channels": 8, "base_channels": 4,
                "output_stride": 32, "multi_grid": None, "contract_dilation": True}  # fmt: skip
    spec = {"architecture": "fcn", "backbone": backbone, "head": HEAD, "auxiliary": None, "dropout": 0.0,
            "align_corners": False}  # fmt: skip
    ones = (0.5,) * channels
    return assemble(spec, num_classes=3, channels=channels, mean=ones, std=ones).eval()


# OpenMMLab's files ------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, *_: Any) -> None:
        self.requests.append(self.path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that this machine serves as OpenMMLab's, with the weights of a narrow ResNet-18; the cache is empty."""
    folder = tmp_path / "served"
    folder.mkdir()
    tensors = {
        n.removeprefix("backbone."): t
        for n, t in small(seed=7).state_dict().items()
        if n.startswith("backbone.")
    }
    file = folder / "weights.pth"
    torch.save({"meta": {}, "state_dict": tensors | {"fc.weight": torch.zeros(1000, 32)}}, file)
    begins = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    file.rename(folder / f"resnet18_v1c-{begins}.pth")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published, "HOST", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setitem(published.FILES, "resnet18_v1c", begins)
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    Quiet.requests.clear()
    yield folder
    server.shutdown()
    server.server_close()


def test_openmmlabs_weights_are_fetched_once_and_checked(host: Path, tmp_path: Path):
    network = small(seed=1)
    report = load_pretrained(network, "openmmlab/resnet18_v1c", classes=THREE)
    assert report == (
        "openmmlab/resnet18_v1c: loaded the backbone; the head starts from random weights "
        "(Apache-2.0, as OpenMMLab says of its files)"
    )
    source = small(seed=7).backbone.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in network.backbone.state_dict().items())
    load_pretrained(small(), "openmmlab/resnet18_v1c", classes=THREE)
    assert len(Quiet.requests) == 1
    (kept,) = (tmp_path / "cache" / "weights").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])  # a file that broke in the cache is fetched again
    load_pretrained(small(), "openmmlab/resnet18_v1c", classes=THREE)
    assert len(Quiet.requests) == 2


def test_another_file_than_promised_is_not_kept(host: Path, tmp_path: Path):
    (served,) = host.iterdir()
    served.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="could not be fetched") as caught:
        load_pretrained(small(), "openmmlab/resnet18_v1c", classes=THREE)
    assert "its sha256 begins with" in str(caught.value)
    assert not list((tmp_path / "cache" / "weights").iterdir())


def test_without_a_connection_the_address_and_the_place_are_told(host: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(published, "HOST", "http://127.0.0.1:9/")  # nobody listens there
    with pytest.raises(WeightsError, match="could not be fetched") as caught:
        load_pretrained(small(), "openmmlab/resnet18_v1c", classes=THREE)
    file = host.parent / "cache" / "weights" / f"resnet18_v1c-{published.FILES['resnet18_v1c']}.pth"
    assert f"curl -L -o {file} http://127.0.0.1:9/{file.name}" in str(caught.value)
    assert "model.pretrained=null" in str(caught.value)
    (served,) = host.iterdir()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(served.read_bytes())  # put there by hand, it serves
    assert "loaded the backbone" in load_pretrained(small(), "openmmlab/resnet18_v1c", classes=THREE)


def test_a_name_openmmlab_does_not_publish_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="resnet101_v1d") as caught:
        load_pretrained(small(), "openmmlab/resnet101_v1d", classes=THREE)
    assert "resnet101_v1c" in str(caught.value)


# timm's -----------------------------------------------------------------------------------------------------


def timms(name: str, folder: Path) -> Any:
    """A model of timm's with random weights, and the folder of it as it would lie on the Hub."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "license": "apache-2.0"}
    (folder / "config.json").write_text(json.dumps({"architecture": name, "pretrained_cfg": about}))
    return model


def test_timms_resnets_give_timms_maps(tmp_path: Path):
    model = timms("resnet18d", tmp_path / "timm")
    narrow = small(18, "v1d").spec
    wide = narrow | {"backbone": narrow["backbone"] | {"stem_channels": 64, "base_channels": 64}}
    network = assemble(wide, num_classes=3).eval()
    assert "loaded the backbone" in load_pretrained(network, tmp_path / "timm", classes=THREE)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        theirs, ours = model.forward_features(image), network.backbone(image)[-1]
    assert torch.allclose(theirs, ours, atol=1e-4 * float(theirs.std()))


def test_a_backbone_of_timms_takes_them_too(tmp_path: Path):
    model = timms("test_convnext", tmp_path / "timm")
    backbone = {"kind": "timm", "name": "test_convnext", "output_stride": 32, "drop_path": 0.0}
    spec = {"architecture": "fcn", "backbone": backbone,
            "head": HEAD, "auxiliary": None, "dropout": 0.0, "align_corners": False}  # fmt: skip
    network = assemble(spec, num_classes=3).eval()
    assert "loaded the backbone" in load_pretrained(network, tmp_path / "timm", classes=THREE)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        theirs = model.forward_intermediates(image, intermediates_only=True)[-1]
        assert torch.allclose(theirs, network.backbone(image)[-1], atol=1e-5)


def test_timm_alone_is_the_model_of_the_networks_backbone():
    assert published.timm_name(small(101, "v1c").spec["backbone"]) == "timm/resnet101c.gluon_in1k"
    assert published.timm_name({"kind": "timm", "name": "convnext_tiny"}) == "timm/convnext_tiny"
    with pytest.raises(UnknownNameError, match="timm publishes no weights for resnet18_v1c") as caught:
        load_pretrained(small(), "timm", classes=THREE)
    assert "model.pretrained=null" in str(caught.value)


def test_licences_of_timms_weights_allow_what_timm_says_of_them():
    registry = pytest.importorskip("timm.models._registry")
    seen = 0
    for name, about in registry._model_pretrained_cfgs.items():
        stated = published.license_of_published(f"timm/{name}")
        if about.hf_hub_id and stated is not None and read(stated).commercial != "unknown":
            seen += 1
            assert read(stated).commercial == read(about.license).commercial, name
    assert seen > 200


def test_a_card_tells_the_licence_and_what_the_weights_were_made_from(tmp_path: Path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: nvidia/mit-b0\n---\n# streets\n")
    ledger = origins_of(tmp_path)
    assert [(one.name, one.license) for one in ledger.weights] == [
        (tmp_path.name, "mit"),
        ("nvidia/mit-b0", NVIDIA_LICENSE),
    ]
    assert ledger.commercial == "no"  # though whoever fine-tuned them says otherwise
    for broken in ("---\nlicense: [\n---\n", "---\n- 1\n---\n", "\x00\xff", ""):
        (tmp_path / "README.md").write_text(broken)
        assert [one.license for one in origins_of(tmp_path).weights] == [None]


def test_what_terrazzo_trained_passes_on_what_it_was_made_from(tmp_path: Path):
    before = Ledger((Origin("nvidia/mit-b0", NVIDIA_LICENSE),)).after("streets", "CC-BY-NC-4.0")
    (tmp_path / "terrazzo.json").write_text(json.dumps({"licenses": before.to_json()}))
    assert origins_of(tmp_path) == before
    assert [one.name for one in origins_of(tmp_path).after("mine", None).data] == ["mine", "streets"]
    about = {
        "recipe": {"name": "b0"},
        "data": {"name": "streets"},
        "licenses": before.given("CC-BY-NC-4.0").to_json(),
    }
    (tmp_path / "terrazzo.json").write_text(json.dumps(about))
    assert origins_of(tmp_path).weights == (Origin("b0 trained on streets", "CC-BY-NC-4.0"), *before.weights)


def test_licences_of_names():
    assert license_of("timm/resnet50.fb_swsl_ig1b_ft_in1k") == "CC-BY-NC-4.0: non-commercial"
    assert license_of("timm/resnet50.tv_in1k") == "BSD-3-Clause"
    assert license_of("timm", small(101, "v1c")) == "Apache-2.0"
    assert "https://huggingface.co/timm/new.tag" in str(license_of("timm/new.tag"))
    assert license_of("someone/else") is None


def test_more_channels_spread_the_first_convolution(host: Path):
    network = small(channels=4)
    report = load_pretrained(network, "openmmlab/resnet18_v1c", classes=THREE)
    assert "first convolution spread from 3 to 4 channels" in report
    source = small(seed=7).backbone.stem[0].weight
    assert torch.allclose(network.backbone.stem[0].weight.sum(1), source.sum(1), atol=1e-5)


def test_the_encoder_of_a_segformer_starts_openmmlabs_form_of_it(tmp_path: Path):
    """As nvidia/mit-b0 lies on the Hub, for the network whose head is theirs."""
    torch.manual_seed(0)
    size = Size((1, 1, 1, 1), (8, 16, 24, 32), 24, num_heads=(1, 2, 3, 4))
    segformer = SegFormer(size, 3, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_model(tmp_path, segformer, classes=THREE, preprocessing={})
    fields = ("depths", "hidden_sizes", "num_heads", "reductions", "mlp_ratios", "patch_sizes", "strides")
    backbone = {
        "kind": "mit",
        **{field: list(getattr(size, field)) for field in fields},
        "norm_eps": 1e-6,
        "drop_path": 0.0,
    }
    spec = {"architecture": "segformer-conv", "backbone": backbone, "head": {"channels": 4}, "auxiliary": None,
            "dropout": 0.0, "align_corners": False}  # fmt: skip
    network = assemble(spec, num_classes=3)
    report = load_pretrained(network, tmp_path, classes=THREE)
    assert report.startswith(f"{tmp_path}: loaded the backbone; the head starts from random weights")
    theirs = segformer.backbone.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.backbone.state_dict().items())


class Own(torch.nn.Module):
    """Parts are called as others call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.ModuleDict({"layers": torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))})
        self.decode_head = torch.nn.Conv2d(4, 3, 1)


def test_names_of_a_network_of_ones_own_stay(tmp_path: Path):
    torch.manual_seed(0)
    own, other = Own(), Own()
    save_model(tmp_path, own, classes=THREE, preprocessing={})
    read_model(tmp_path, network=other)
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in other.state_dict().items())
