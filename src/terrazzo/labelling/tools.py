"""Which of the tools that need OpenCV are ready on this machine, and what is missing for the others."""

import importlib.util
from typing import Any


def readiness() -> dict[str, dict[str, Any]]:
    """Return {tool: {"ready", "says"}}."""
    has_cv2 = importlib.util.find_spec("cv2") is not None
    missing = 'needs OpenCV: pip install "terrazzo[label]"'
    cv2 = {"ready": has_cv2, "says": "OpenCV" if has_cv2 else missing}
    return {
        "scissors": cv2,
        "grabcut": cv2,
    }
