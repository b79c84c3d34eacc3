"""What the server says of an image: masks worked by hand, the Predictor's own, and Hugging Face's form of them."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from served import FLAG, FLAG_MASK, Served, flag, served
from terrazzo.data.scenes import scene
from terrazzo.images import decode_mask
from terrazzo.serving.answers import ANSWERS


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as running:
        yield running


def test_the_class_map_is_the_mask_worked_by_hand_in_the_classes_colours(server: Served) -> None:
    answer = server.post(FLAG)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert decode_mask(answer.body, where="the answer").tolist() == FLAG_MASK.tolist()
    shown = np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGB"))
    assert shown[0].tolist() == [[255, 0, 0]] * 2 + [[0, 255, 0]] * 2 + [[0, 0, 255]] * 2


def test_every_answer_is_the_predictors_own(server: Served) -> None:
    image = scene(3, size_hw=(40, 60)).image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    predictor = server.service.models["rgb"].predictor
    truth = predictor(image, confidence=True)
    got = {form: server.post(file.getvalue(), form) for form in ANSWERS}
    assert {answer.status for answer in got.values()} == {200}
    assert (got["map"].array == truth.mask).all()
    assert (got["color"].array == np.asarray(truth.color())).all()
    assert (got["overlay"].array == np.asarray(truth.overlay())).all()
    assert (got["confidence"].array == truth.confidence).all()
    red, green, blue = np.moveaxis(got["layers"].array, 2, 0)
    assert (red + 256 * green.astype(int) == truth.mask).all()
    assert (blue == truth.confidence).all()
    assert got["polygons"].json == truth.polygons()
    assert got["shares"].json["shares"] == pytest.approx(truth.shares(), abs=1e-6)
    probs = np.load(io.BytesIO(got["probs"].body), allow_pickle=False)
    assert (probs.shape, probs.dtype) == ((3, 40, 60), np.float16)
    assert np.allclose(probs.sum(axis=0, dtype=np.float32), 1, atol=2e-3)
    assert (probs.argmax(axis=0) == truth.mask).mean() > 0.99  # float16 makes ties


def test_segments_are_read_by_hugging_faces_own_client(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the socket is on this machine
    path = tmp_path / "flag.png"
    path.write_bytes(FLAG)
    for url, words in (("/models/rgb", {}), ("/", {"subtask": "semantic"})):  # raw bytes; JSON with base64
        client = InferenceClient(model=f"http://127.0.0.1:{server.port}{url}")
        found = client.image_segmentation(path, **words)
        assert [(one.label, one.score) for one in found] == [("red", None), ("green", None), ("blue", None)]
        for class_id, one in enumerate(found):
            assert one.mask.mode == "L"
            assert (np.asarray(one.mask) == np.where(class_id == FLAG_MASK, 255, 0)).all()


def test_classes_that_are_not_there_have_no_segment(server: Served) -> None:
    file = io.BytesIO()
    Image.fromarray(flag()[:, 2:4]).save(file, "PNG")
    (only,) = server.post(file.getvalue(), "segments").json
    assert only["label"] == "green"
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(only["mask"])))).tolist() == [[255, 255]] * 4


@pytest.mark.parity
def test_segments_are_those_of_the_transformers_pipeline(tmp_path: Path) -> None:
    import torch
    import transformers

    from terrazzo.inference import load

    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
        id2label={0: "road", 1: "sky", 2: "car"},
        label2id={"road": 0, "sky": 1, "car": 2},
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(scene(1, size_hw=(64, 64)).image)
    theirs = transformers.pipeline("image-segmentation", model=network, image_processor=processor)(image)
    file = io.BytesIO()
    image.save(file, "PNG")
    with served(models={"theirs": load(tmp_path)}) as server:
        ours = server.post(file.getvalue(), "segments", model="theirs").json
    assert [(one["label"], one["score"]) for one in ours] == [(one["label"], one["score"]) for one in theirs]
    assert len(ours) > 1
    for our, their in zip(ours, theirs, strict=True):
        assert set(our) == set(their)
        mask = Image.open(io.BytesIO(base64.b64decode(our["mask"])))
        assert (mask.mode, mask.size) == (their["mask"].mode, their["mask"].size)
        assert (np.asarray(mask) == np.asarray(their["mask"])).mean() > 0.999


def test_models_tell_their_classes_and_where_they_are_asked(server: Served) -> None:
    (told,) = server.ask("GET", "/models").json
    assert told["classes"] == [
        {"name": "red", "color": "#ff0000"},
        {"name": "green", "color": "#00ff00"},
        {"name": "blue", "color": "#0000ff"},
    ]
    assert server.ask("POST", f"{told['url']}?as=shares", FLAG).json["shares"] == {
        "red": pytest.approx(1 / 3, abs=1e-6),
        "green": pytest.approx(1 / 3, abs=1e-6),
        "blue": pytest.approx(1 / 3, abs=1e-6),
    }


def test_examples_are_images_that_the_server_takes(server: Served) -> None:
    listed = server.ask("GET", "/examples").json
    assert len(listed) == 4
    example = server.ask("GET", listed[2]["url"])
    assert example.headers["Content-Type"] == "image/jpeg"
    assert server.post(example.body).array.shape == (480, 640)
    assert server.ask("GET", "/examples/../../etc/passwd").status == 404
    assert server.ask("GET", "/examples/9").json["title"] == "There is no example '9'."


def test_openapi_describes_what_there_is(server: Served) -> None:
    told = server.ask("GET", "/openapi.json").json
    assert set(told["paths"]) >= {"/models", "/models/{name}", "/", "/healthz", "/readyz", "/metrics"}
    post = told["paths"]["/models/{name}"]["post"]
    assert {"200", "401", "404", "408", "413", "415", "422", "429", "503"} <= set(post["responses"])
    assert all(name in json.dumps(post["parameters"]) for name in ANSWERS)


def test_names_of_models_come_from_their_folders(tmp_path: Path) -> None:
    from terrazzo.serving import _named

    assert _named(["runs/street", "old/street/", "user/street", "day=runs/a"]) == {
        "street": "runs/street",
        "street-2": "old/street/",
        "street-3": "user/street",
        "day": "runs/a",
    }
