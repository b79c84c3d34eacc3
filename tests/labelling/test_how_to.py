"""What docs/how-to/label-with-a-team.md tells works, against a server of the test's own, and its numbers are true."""

import json
import re
from pathlib import Path

import pytest

from labelled import make_project
from labelserved import label_served
from terrazzo.labelling.access import ROLES, Person
from terrazzo.labelling.limits import Limits
from terrazzo.labelling.people import BYTES, read_people
from terrazzo.labelling.running import TOKENS
from terrazzo.project import open_project

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "label-with-a-team.md").read_text(encoding="utf-8")


def test_the_program_on_the_page_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(
        r"<!-- not run: tests/labelling/test_how_to.py[^\n]*\n```python\n(.*?)```", PAGE, re.DOTALL
    )[0]
    make_project(tmp_path).close()
    token = "t" * 32
    with label_served(tmp_path, people={token: Person("lars", "labeller")}) as client:
        code = code.replace("127.0.0.1:8001", f"127.0.0.1:{client.port}").replace("the token of lars", token)
        exec(compile(code, "label-with-a-team.md", "exec"), {})
        assert capsys.readouterr().out.splitlines()[-1].startswith("1 ")
    with open_project(tmp_path / "street.db") as project:
        mask = project.read_mask("photos/a.png")
        assert (mask[:512, :512] == 1).all() and not mask[512:].any() and not mask[:, 512:].any()
        assert project.revisions("photos/a.png")[0].author == "lars"


def test_the_numbers_and_words_on_the_page_are_the_servers(tmp_path: Path) -> None:
    limits = Limits()
    assert f"{limits.max_pixels // 1_000_000} megapixels or {limits.max_image_bytes >> 20} MiB" in PAGE
    assert f"more than {limits.wrong_tokens} wrong tokens of one address in a minute" in PAGE
    assert f"a token of {8 * BYTES} bits" in PAGE and f"`{TOKENS}`" in PAGE
    (listed,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "people.json").write_text(listed)
    assert (
        set(read_people(tmp_path / "people.json").values()) == set(ROLES) == set(json.loads(listed).values())
    )
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(ROLES)
