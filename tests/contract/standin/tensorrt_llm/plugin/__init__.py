"""The configuration of the plugins: every value that is set is logged."""

from __future__ import annotations

import argparse
from typing import Any

from tensorrt_llm._settings import error, gpu, interface
from tensorrt_llm.logger import logger

# What no kernel of compute capability 10.0 supports (plugin.py, validate).
_NOT_ON_100 = (
    *("gemm_swiglu_plugin", "fp8_rowwise_gemm_plugin", "low_latency_gemm_plugin"),
    *("low_latency_gemm_swiglu_plugin", "bert_context_fmha_fp32_acc"),
)


class PluginConfig:
    """All plugins and features; assigning one logs a line."""

    def __init__(self, **given: Any) -> None:
        for name, (_, default) in interface.PLUGINS.items():
            if name in given:
                setattr(self, name, interface.plugin_value(name, given[name]))
            else:
                self.__dict__[name] = interface.plugin_value(name, default)

    def __setattr__(self, name: str, value: Any) -> None:
        logger.say("set_plugin", field=name, value=value)
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    @classmethod
    def from_arguments(cls, given: argparse.Namespace) -> PluginConfig:
        """Take what the command line says; other names are ignored, as the library ignores them."""
        made = cls(**vars(given))
        made.__dict__["explicitly_disabled_gemm"] = given.gemm_plugin == "disable"
        return made

    def validate(self) -> None:
        """Refuse what the GPU has no kernel for.

        Raises:
            NotImplementedError: Names it.
        """
        for name in _NOT_ON_100 if gpu().sm == 100 else ():
            if getattr(self, name):
                raise NotImplementedError(
                    error("plugin_on_sm", field=name, value=getattr(self, name), sm=100)
                )

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return {name: getattr(self, name) for name in interface.PLUGINS}
