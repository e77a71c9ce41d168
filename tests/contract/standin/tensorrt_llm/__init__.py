"""A stand-in for tensorrt_llm: the interface of the contract over a toy engine. Test equipment.

Environment variables set what it plays; `_settings.py` lists them.
"""

from __future__ import annotations

from . import _settings

_settings.fail_at_import()

from . import models, quantization, runtime  # noqa: E402 - a failing import fails before them
from .builder import BuildConfig, Builder, BuilderConfig, build  # noqa: E402
from .llmapi import LLM, KvCacheConfig  # noqa: E402
from .logger import logger  # noqa: E402
from .mapping import Mapping  # noqa: E402
from .models.automodel import AutoModelForCausalLM  # noqa: E402
from .sampling_params import SamplingParams  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    "LLM",
    "AutoModelForCausalLM",
    "BuildConfig",
    "Builder",
    "BuilderConfig",
    "KvCacheConfig",
    "Mapping",
    "SamplingParams",
    "__version__",
    "build",
    "logger",
    "models",
    "quantization",
    "runtime",
]

print(_settings.line("banner", version=__version__), flush=True)
