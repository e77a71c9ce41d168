"""Records that LLM(...) takes; the library's are strict, so an unknown name is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tensorrt_llm._settings import error, fields


@dataclasses.dataclass
class _Checked:
    def __post_init__(self) -> None:
        share = getattr(self, "free_gpu_memory_fraction", None)
        if share is not None and not 0 <= share <= 1:
            raise ValueError(
                "kv_cache_config.free_gpu_memory_fraction must be a float between 0 and 1"
            )


@dataclasses.dataclass
class _Graphs:
    def __post_init__(self) -> None:
        mine: Any = self
        if mine.max_batch_size < 0:
            raise ValueError(error("graph_size"))


def _record(name: str, known: dict[str, Any], base: type) -> Any:
    rows = [(key, Any, dataclasses.field(default=value)) for key, value in known.items()]
    made = dataclasses.make_dataclass(name, rows, bases=(base,), kw_only=True)
    made.__module__ = __name__  # so that it can be pickled
    return made


KvCacheConfig = _record("KvCacheConfig", fields.KV_CACHE_CONFIG, _Checked)
CudaGraphConfig = _record("CudaGraphConfig", fields.CUDA_GRAPH_CONFIG, _Graphs)


def fill_graph_sizes(config: Any) -> None:
    """Fill in the batch sizes that graphs are captured for (llm_args.py, TorchLlmArgs).

    Raises:
        ValueError: Sizes and their largest are both given, and contradict each other.
    """
    if not config.batch_sizes:
        config.max_batch_size = config.max_batch_size or 128
        config.batch_sizes = _graph_sizes(config.max_batch_size, padded=config.enable_padding)
        return
    config.batch_sizes = sorted(config.batch_sizes)
    limit = config.max_batch_size
    if not limit:
        config.max_batch_size = config.batch_sizes[-1]
    elif config.batch_sizes != _graph_sizes(limit, padded=config.enable_padding):
        raise ValueError(error("graph_sizes", sizes=config.batch_sizes, limit=limit))


def _graph_sizes(limit: int, *, padded: bool) -> list[int]:
    known = {1, 2, 4, *range(8, 129, 8)} if padded else {*range(1, 33), 64, 128}
    known |= {2**power for power in range(8, math.ceil(math.log2(limit)))}
    return sorted({size for size in known if size <= limit} | {limit})
