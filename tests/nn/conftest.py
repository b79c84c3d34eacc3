"""A model that was saved, for the tests of reading it."""

from pathlib import Path

import pytest

from terrazzo.nn.weights import save_model
from tiny_segformer import ROAD, tiny


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A three-class model in a folder of ours."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, tiny(), classes=ROAD, preprocessing={"resize": "exact", "resize_hw": (48, 64)})
    return folder
