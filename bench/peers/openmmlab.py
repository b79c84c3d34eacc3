"""The environment in which MMSegmentation 1.2.2 still installs and runs on a CPU."""

import subprocess
from pathlib import Path

from peers.environments import environment_of

PACKAGES = ["torch==2.13.0", "mmengine", "mmcv-lite==2.1.0", "mmsegmentation==1.2.2", "ftfy", "regex", "numpy<2",
            "setuptools<80"]  # fmt: skip
# mmseg imports compiled operations of mmcv that these networks never call
STUB = """def __getattr__(name):
    def missing(*args, **kwargs):
        raise NotImplementedError(name)
    return missing
"""


def openmmlab_environment() -> Path:
    """Return the Python of the environment, made if it is not there."""
    python = environment_of("mmseg", PACKAGES)
    where = subprocess.run(
        [python, "-c", "import mmcv; print(mmcv.__path__[0])"], capture_output=True, text=True, check=True
    )
    stub = Path(where.stdout.strip()) / "_ext.py"
    if not stub.exists():
        stub.write_text(STUB)
    return python
