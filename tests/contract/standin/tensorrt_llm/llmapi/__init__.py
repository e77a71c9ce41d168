"""The LLM API."""

from tensorrt_llm.builder import BuildConfig
from tensorrt_llm.executor import CompletionOutput, RequestError
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.models import QuantConfig
from tensorrt_llm.quantization import QuantAlgo
from tensorrt_llm.sampling_params import SamplingParams

from .llm import LLM
from .llm_args import KvCacheConfig

__all__ = [
    "LLM",
    "BuildConfig",
    "CompletionOutput",
    "KvCacheConfig",
    "QuantAlgo",
    "QuantConfig",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
]
