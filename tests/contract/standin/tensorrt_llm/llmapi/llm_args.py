"""Records that LLM(...) takes; the library's are strict, so an unknown name is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

from tensorrt_llm._settings import fields


@dataclasses.dataclass
class _Checked:
    def __post_init__(self) -> None:
        share = getattr(self, "free_gpu_memory_fraction", None)
        if share is not None and not 0 <= share <= 1:
            raise ValueError(
                "kv_cache_config.free_gpu_memory_fraction must be a float between 0 and 1"
            )


KvCacheConfig: Any = dataclasses.make_dataclass(
    "KvCacheConfig",
    [
        (name, Any, dataclasses.field(default=value))
        for name, value in fields.KV_CACHE_CONFIG.items()
    ],
    bases=(_Checked,),
    kw_only=True,
)
KvCacheConfig.__module__ = __name__  # so that it can be pickled
