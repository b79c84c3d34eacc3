"""What docs/how-to/serve.md tells to type works, against a server of the test's own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from served import served
from terrazzo.data.scenes import scene
from terrazzo.images import image_size
from terrazzo.serving.gate import SHORTEST_TOKEN, Door
from terrazzo.serving.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
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
