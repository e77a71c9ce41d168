"""What packages would bring along is left out before they are imported: telemetry, and more."""

from __future__ import annotations

import sys


def switch_telemetry_off() -> None:
    """Make `openvino_telemetry` impossible to import.

    OpenVINO's converter and NNCF both go on without it, as for users who did not install it.
    NNCF asks for no consent of its own, so this is the only switch that works for both.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def leave_sklearn_out() -> None:
    """Make `sklearn` impossible to import: it takes a second, and nothing of ours uses it.

    transformers imports it for assisted generation, and goes on without it, as for users who did
    not install it; here NNCF has brought it.
    """
    sys.modules["sklearn"] = None  # type: ignore[assignment]
