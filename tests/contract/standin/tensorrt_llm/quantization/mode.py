"""The names of the kinds of quantization; each is a string, as in config.json."""

from __future__ import annotations

from enum import Enum
from typing import Any

from tensorrt_llm._settings import fields


class _Text(str, Enum):  # noqa: UP042 - StrEnum is not in Python 3.10
    def __str__(self) -> str:
        return str(self.value)


QuantAlgo: Any = _Text("QuantAlgo", [(name, name) for name in fields.QUANT_ALGOS])  # type: ignore[call-overload]
