"""What the rules of the `openvino` backend say of the processor that they run on."""

from __future__ import annotations

import dataclasses

import pytest

from workbench import hardware
from workbench.backends import get_backend, make_spec


@pytest.mark.parametrize(
    ("dtype", "features", "said"),
    [
        ("bfloat16", {"avx2", "avx512f", "avx512_vnni"}, True),
        ("bfloat16", {"avx2", "avx512f", "avx512_bf16"}, False),
        ("bfloat16", {"bf16"}, False),
        ("float32", {"avx2"}, False),
    ],
)
def test_bfloat16_is_warned_of_where_the_processor_has_to_convert(
    monkeypatch: pytest.MonkeyPatch, dtype: str, features: set[str], said: bool
) -> None:
    here = dataclasses.replace(hardware.host(), features=frozenset(features))
    monkeypatch.setattr(hardware, "host", lambda: here)
    spec = make_spec({"dtype": dtype})
    found = [
        one for one in get_backend("openvino").findings(spec, None, ()) if one.field == "dtype"
    ]
    assert [(one.level, one.changes) for one in found] == (
        [("warn", (("dtype", "float32"),))] if said else []
    )
