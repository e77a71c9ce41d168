"""Build an engine: the fix-ups, the lines and the files are real, the compiling is play."""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import time
from enum import Enum
from pathlib import Path
from typing import Any

from . import _engine_file, _tensorrt
from ._fixups import finish_plugins, fix
from ._settings import VERSION, error, fields, follows, rest
from .logger import logger
from .models.modeling_utils import PretrainedModel, fail_on_disk
from .plugin import PluginConfig


@dataclasses.dataclass
class LoraConfig:
    """What LoRA the engine can take."""

    lora_dir: list[str] = dataclasses.field(default_factory=list)
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: list[str] = dataclasses.field(default_factory=list)
    trtllm_modules_to_hf_modules: dict[str, str] = dataclasses.field(default_factory=dict)


_RECORDS = {"lora_config": LoraConfig, "plugin_config": PluginConfig}


class _Dumped:
    def to_dict(self) -> dict[str, Any]:
        """Return what an engine's config.json holds."""
        values = {name: getattr(self, name) for name in fields.BUILD_CONFIG}
        for name in fields.NOT_IN_ENGINE:
            del values[name]
        values["lora_config"] = dataclasses.asdict(values["lora_config"])
        values["plugin_config"] = values["plugin_config"].to_dict()
        kind = values["kv_cache_type"]
        if isinstance(kind, Enum):  # since 1.2 by its value, before by its name
            new = tuple(int(part) for part in VERSION.split(".")[:2]) >= (1, 2)
            values["kv_cache_type"] = kind.value if new else kind.name
        return values


BuildConfig: Any = dataclasses.make_dataclass(
    "BuildConfig",
    [
        (
            name,
            Any,
            dataclasses.field(default_factory=_RECORDS[name])
            if name in _RECORDS
            else dataclasses.field(default=default),
        )
        for name, default in fields.BUILD_CONFIG.items()
    ],
    bases=(_Dumped,),
)
BuildConfig.__module__ = __name__  # so that it can be pickled


class BuilderConfig:
    """Wraps TensorRT's own configuration."""

    def __init__(self, trt_builder_config: _tensorrt.TrtConfig, **values: Any) -> None:
        self._trt_builder_config = trt_builder_config
        self.__dict__.update(values)

    @property
    def trt_builder_config(self) -> _tensorrt.TrtConfig:
        """TensorRT's configuration; a progress monitor can be set on it."""
        return self._trt_builder_config


class Builder:
    """Wraps TensorRT's builder, which takes long to start."""

    def __init__(self) -> None:
        rest(0.05)
        logger.trt("init_cuda")
        rest(0.05)
        logger.trt("init_builder")

    @follows("Builder.create_builder_config")
    def create_builder_config(self, **given: Any) -> BuilderConfig:
        """Return a configuration; a timing cache is read when its file is there."""
        path = given["timing_cache"]
        entries = 0
        if path is not None and Path(path).exists():
            entries = int(json.loads(Path(path).read_text())["entries"])
        elif path is not None:
            logger.warn("bad_timing_cache")
        return BuilderConfig(_tensorrt.TrtConfig(entries), **given)

    @staticmethod
    def save_timing_cache(builder_config: BuilderConfig, out_path: str) -> bool:
        """Write the timing cache."""
        entries = builder_config.trt_builder_config.entries
        logger.trt("code_cache")
        logger.trt("compile_cache")
        logger.trt("timing_entries", count=entries)
        Path(out_path).write_text(json.dumps({"entries": entries}))
        logger.say("timing_saved", path=out_path)
        return True


def clock(seconds: float) -> str:
    """Return seconds as the library's lines show them."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


@dataclasses.dataclass
class Engine:
    """A built rank; `plan` is None after a dry run."""

    config: dict[str, Any]
    rank: int
    plan: bytes | None

    def save(self, engine_dir: str) -> None:
        """Write rank{n}.engine, and config.json by rank 0."""
        folder = Path(engine_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            (folder / "config.json").write_text(json.dumps(self.config, indent=4))
        if self.plan is None:
            return
        path = folder / f"rank{self.rank}.engine"
        logger.say("serializing", path=path)
        begin = time.time()
        rest(0.15)
        fail_on_disk(path)
        path.write_bytes(self.plan)
        logger.say("serialized", time=clock(time.time() - begin))


def build(model: PretrainedModel, build_config: Any) -> Engine:
    """Build one rank.

    Raises:
        AssertionError: TensorRT built nothing.
    """
    begin = time.time()
    config, rank = model.config, model.mapping.rank
    build_config = copy.deepcopy(build_config)
    fix(config, build_config)
    builder = Builder()
    builder_config = builder.create_builder_config(
        precision=config["dtype"],
        timing_cache=build_config.input_timing_cache,
        profiling_verbosity=build_config.profiling_verbosity,
        weight_streaming=build_config.weight_streaming,
    )
    finish_plugins(config, build_config)
    rest(0.1)
    logger.say("network", seconds=time.time() - begin)
    plan = None
    if not build_config.dry_run:
        plan = _build_plan(model, build_config, builder_config)
    if build_config.output_timing_cache is not None and rank == 0:
        builder.save_timing_cache(builder_config, build_config.output_timing_cache)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    logger.say("peak", mib=peak)
    whole = {
        "version": VERSION,
        "pretrained_config": config,
        "build_config": build_config.to_dict(),
    }
    return Engine(whole, rank, plan)


def _build_plan(model: PretrainedModel, build_config: Any, builder_config: BuilderConfig) -> bytes:
    logger.say("profiles", count=6 if build_config.plugin_config.multiple_profiles else 1)
    logger.say("init_weights", rank=0, time=clock(0))
    logger.say("build_start", rank=0)
    begin = time.time()
    built = _tensorrt.compile_plan(model.config, build_config, builder_config.trt_builder_config)
    assert built, error("build_failed")
    logger.say("build_done", rank=0, time=clock(time.time() - begin))
    return _engine_file.make(model.config, model.mapping.rank)
