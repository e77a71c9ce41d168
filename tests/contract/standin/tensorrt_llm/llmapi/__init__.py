"""The LLM API."""

from tensorrt_llm._settings import VERSION, fields
from tensorrt_llm.executor import CompletionOutput, RequestError
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.quantization import QuantAlgo
from tensorrt_llm.sampling_params import GuidedDecodingParams, SamplingParams

from .llm_args import CudaGraphConfig, KvCacheConfig
from .torch_llm import LLM

__all__ = [
    "LLM",
    "CompletionOutput",
    "CudaGraphConfig",
    "GuidedDecodingParams",
    "KvCacheConfig",
    "QuantAlgo",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
]

if fields.has_engines(VERSION):
    from tensorrt_llm.builder import BuildConfig
    from tensorrt_llm.models import QuantConfig

    __all__ += ["BuildConfig", "QuantConfig"]
