"""Nothing is sent home: the telemetry of the packages is switched off before they are imported."""

from __future__ import annotations

import sys


def switch_telemetry_off() -> None:
    """Make `openvino_telemetry` impossible to import.

    OpenVINO's converter and NNCF both go on without it, as for users who did not install it.
    NNCF asks for no consent of its own, so this is the only switch that works for both.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
