"""Config texts: what Python says where it needs no running, and nothing else."""

import ast
import time
from pathlib import Path

import pytest

from terrazzo.errors import UnreadableFileError, UsageError
from terrazzo.nn.config_text import Unread, read_config_text, shown

TEXT = '''
"""A docstring."""
import os
num = 2 * 3 + 1
size = (512, 1024)
name = 'pspnet'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type="EncoderDecoder",
    backbone=dict(depth=50, norm_cfg=norm_cfg, strides=(1, 2) + (1, 1)),
    decode_head=[{'num_classes': num, **norm_cfg}],
    ratio=-1.5 / 2, path=f'work_dirs/{name}_{num}')
model['backbone']['depth'] = 101
width, lr = size[1], model['ratio']
twice = [size] * 2
secret = os.environ['HOME']
found = [p for p in range(3)]
'''


def test_what_python_says_is_what_is_read():
    values = read_config_text(TEXT, where="it")
    truth: dict[str, object] = {}
    exec(TEXT, truth)  # the truth; the reader itself never does
    for key in ("num", "size", "name", "norm_cfg", "model", "twice"):
        assert values[key] == truth[key], key
    assert values["secret"] == Unread("os.environ['HOME']")
    assert values["found"] == Unread("[p for p in range(3)]")


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('touch {canary}')",
        "open('{canary}', 'w')",
        "eval(\"open('{canary}', 'w')\")",
        "dict(a=exec(\"open('{canary}', 'w')\"))",
        "[open('{canary}', 'w') for _ in (1,)]",
        "(lambda: open('{canary}', 'w'))()",
        "f\"{{open('{canary}', 'w')}}\"",
        "().__class__.__base__.__subclasses__()",
    ],
)
def test_nothing_is_executed(source: str, tmp_path: Path):
    canary = tmp_path / "it-ran"
    text = f"a = {source.format(canary=canary)}\nb = 1\n"
    ast.parse(text)  # it is Python
    values = read_config_text(text, where="it")
    assert not canary.exists()
    assert values["b"] == 1
    assert isinstance(values["a"], Unread) or isinstance(values["a"]["a"], Unread)


def test_a_config_that_builds_on_others_is_refused():
    for text in ("_base_ = ['../_base_/models/pspnet.py']\nmodel = dict()",
                 "with read_base():\n    from .._base_.models.pspnet import *\n"):  # fmt: skip
        with pytest.raises(UsageError, match="x.py builds on other configs") as caught:
            read_config_text(text, where="x.py")
        assert "print_config.py" in str(caught.value)
        assert "pspnet" in str(caught.value)


def test_a_statement_that_is_no_python_hurts_only_itself():
    values = read_config_text("a = 1\nhook = <function f at 0x7f>\nb = dict(\n    c=2)\n", where="it")
    assert values["a"] == 1 and values["b"] == {"c": 2}
    assert isinstance(values["hook"], Unread)
    with pytest.raises(UnreadableFileError, match="it is no Python config"):
        read_config_text("<html>", where="it")


def test_strings_of_careless_habits_are_read():
    assert read_config_text("pattern = '\\d+'\n", where="it") == {"pattern": "\\d+"}


def test_texts_made_to_take_for_ever_end():
    begun = time.monotonic()
    doubling = "a0 = (1,)\n" + "".join(f"a{i + 1} = (a{i}, a{i})\n" for i in range(60))
    values = read_config_text(
        doubling + "d = {a60: 1}\n_base_ = None\nn = 9 ** 9 ** 9\ns = 'x' * 10**9\n", where="it"
    )
    assert (
        isinstance(values["d"], Unread)
        and isinstance(values["n"], Unread)
        and isinstance(values["s"], Unread)
    )
    assert len(shown(values["a60"])) < 100
    read_config_text("a = [0] * 1000\n" + "a = a + a\n" * 100, where="it")
    read_config_text("a = " + "(" * 150 + ")" * 150, where="it")
    with pytest.raises(UnreadableFileError):
        read_config_text("(" * 5000, where="it")
    with pytest.raises(UsageError):
        read_config_text(doubling + "_base_ = a60\n", where="it")
    assert time.monotonic() - begun < 5
