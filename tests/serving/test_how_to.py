"""What docs/how-to/serve.md tells to type works, against a server of the test's own."""

import ast
import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from served import served
from terrazzo.data.scenes import scene
from terrazzo.images import image_size
from terrazzo.serving import application
from terrazzo.serving.gate import SHORTEST_TOKEN, Door
from terrazzo.serving.limits import Limits

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
ASKED = re.compile(r"<!-- not run: tests/serving/test_how_to.py[^\n]*\n```(\w+)\n(.*?)```", re.DOTALL)


def test_the_page_asks_and_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the socket is on this machine
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene(0, size_hw=(24, 32)).image).save("photos/street.jpg")
    blocks = ASKED.findall(PAGE)
    assert [language for language, _ in blocks] == ["sh", "python", "python"]
    with served() as server:
        server.service.models["mine"] = server.service.models["rgb"]
        for language, text in blocks:
            code = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            if language == "python":
                exec(compile(code, "serve.md", "exec"), {})
            elif shutil.which("curl"):
                subprocess.run(
                    ["bash", "-e", "-c", code.replace("curl ", "curl -fsS ")], check=True, timeout=30
                )
                assert [image_size(name) for name in ("map.png", "overlay.png")] == [(24, 32)] * 2
                assert '"FeatureCollection"' in Path("areas.geojson").read_text()
    told = capsys.readouterr().out
    assert "(32, 24)" in told
    assert "{'red': " in told


def test_the_numbers_on_the_page_are_the_servers() -> None:
    limits = Limits()
    assert f"`--queue` images\n({limits.queue})" in PAGE
    assert f"{limits.max_bytes >> 20} MiB and `--max-megapixels` ({limits.max_pixels // 1_000_000})" in PAGE
    assert f"{limits.body_seconds} seconds to arrive and {limits.answer_seconds} to be answered" in PAGE
    assert f"within {limits.stop_seconds} seconds" in PAGE
    assert Door.of("0.0.0.0", token="x" * SHORTEST_TOKEN).token


def test_an_application_for_other_servers_wants_a_token_and_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import asyncio

    from served import COLORS, FLAG, FLAG_MASK, BrightestChannel
    from terrazzo.errors import UsageError
    from terrazzo.images import decode_mask
    from terrazzo.inference import Predictor

    with pytest.raises(UsageError, match="can be guessed"):
        application({"rgb": Predictor(BrightestChannel(), COLORS)}, token="short")
    token = "0123456789abcdef"
    app = application({"rgb": Predictor(BrightestChannel(), COLORS)}, token=token)

    async def ask(headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        told: list[dict[str, Any]] = []
        parts = iter([{"type": "http.request", "body": FLAG, "more_body": False}])

        async def receive() -> dict[str, Any]:
            part = next(parts, None)
            return part if part is not None else await asyncio.Future()

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/models/rgb",
            "raw_path": b"/models/rgb",
            "root_path": "",
        }
        scope |= {
            "query_string": b"as=map",
            "headers": [(b"host", b"10.0.0.7:8000"), *headers],
            "scheme": "http",
        }
        await app(scope, receive, send)  # type: ignore[arg-type]
        return told[0]["status"], b"".join(one.get("body", b"") for one in told)

    assert asyncio.run(ask([]))[0] == 401
    status, body = asyncio.run(ask([(b"authorization", f"Bearer {token}".encode())]))
    assert status == 200
    assert decode_mask(body, where="the answer").tolist() == FLAG_MASK.tolist()


def test_the_file_for_ray_builds_its_replicas_from_names_that_exist() -> None:
    tree = ast.parse((PROJECT / "deploy" / "ray_serve.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "terrazzo.serving"
        for alias in node.names
    }
    assert imported == {"application"}
    call = next(
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "application"
    )
    assert {word.arg for word in call.keywords} <= set(inspect.signature(application).parameters)
