"""trtllm-build."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import FAIL, die, error, fields, gpu, interface, rest
from tensorrt_llm.builder import BuildConfig, build, clock
from tensorrt_llm.logger import logger
from tensorrt_llm.mapping import Mapping
from tensorrt_llm.models import MODEL_MAP
from tensorrt_llm.models.modeling_utils import PretrainedModel
from tensorrt_llm.plugin import PluginConfig

_SPECULATION = {None: 1, "draft_tokens_external": 2, "medusa": 4, "lookahead_decoding": 8}
_SPECULATION |= {"explicit_draft_tokens": 16, "eagle": 32}


def parse_arguments() -> argparse.ArgumentParser:
    """Return the parser, as the library's function of this name does."""
    parser: argparse.ArgumentParser = interface.parser()
    return parser


def main() -> None:
    """Build all ranks.

    Raises:
        RuntimeError: The options contradict each other.
    """
    given = parse_arguments().parse_args()
    logger.warn("generation_logits")  # the level is not set yet: only TLLM_LOG_LEVEL shows it
    if given.gather_all_token_logits:
        given.gather_context_logits = given.gather_generation_logits = True
    if given.gather_context_logits and given.max_draft_len > 0:
        raise RuntimeError(error("context_logits"))
    logger.set_level(given.log_level)
    begin = time.time()
    Path(given.output_dir).mkdir(parents=True, exist_ok=True)
    if hasattr(given, "paged_kv_cache"):
        logger.warn("paged_kv_cache")
    workers = min(gpu().count, given.workers)
    plugins = PluginConfig.from_arguments(given)
    plugins.validate()
    if given.fast_build:
        plugins.manage_weights = True
    directory, config = _checkpoint(given)
    parallel_build(config, directory, _build_config(given, plugins), given.output_dir, workers)
    logger.say("all_done", time=clock(time.time() - begin))


def _checkpoint(given: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    source = given.checkpoint_dir if given.checkpoint_dir is not None else given.model_config
    directory = None if source.lower().endswith(".json") else source
    path = Path(source) if directory is None else Path(directory) / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if given.logits_dtype is not None:
        config["logits_dtype"] = given.logits_dtype
    return directory, config


def _build_config(given: argparse.Namespace, plugins: PluginConfig) -> Any:
    if given.build_config is not None:
        values = json.loads(Path(given.build_config).read_text(encoding="utf-8"))
        known = {name: value for name, value in values.items() if name in fields.BUILD_CONFIG}
        known.pop("lora_config", None)
        return BuildConfig(**{**known, "plugin_config": plugins})
    if given.multiple_profiles == "enable" and given.opt_num_tokens is not None:
        raise RuntimeError(error("profiles"))
    named = {name: value for name, value in vars(given).items() if name in fields.BUILD_CONFIG}
    named["speculative_decoding_mode"] = _SPECULATION[given.speculative_decoding_mode]
    named["use_strip_plan"] = given.strip_plan
    profiles = os.environ.get("BUILDER_FORCE_NUM_PROFILES")
    named["force_num_profiles"] = int(profiles) if profiles else None
    made = BuildConfig(**{**named, "plugin_config": plugins})
    made.lora_config.lora_dir = given.lora_dir or []
    made.lora_config.lora_ckpt_source = given.lora_ckpt_source
    made.lora_config.max_lora_rank = given.max_lora_rank
    made.lora_config.lora_target_modules = given.lora_target_modules or []
    return made


def build_and_save(
    rank: int,
    *,
    directory: str | None,
    build_config: Any,
    output_dir: str,
    config: dict[str, Any],
    level: str,
) -> bool:
    """Build one rank, in this process or in one of its own."""
    logger.set_level(level) if logger.level != level else None
    plugins = build_config.plugin_config
    assert not plugins.streamingllm, error("streamingllm")
    mixtral = config["architecture"] == "MixtralForCausalLM"
    assert not plugins.pp_reduce_scatter or mixtral, error("pp_reduce_scatter")
    known = config["architecture"] in MODEL_MAP
    assert known, error("build_architecture", name=config["architecture"])
    if directory is None:
        model = PretrainedModel(config, Mapping(rank=rank, **config["mapping"]))
    else:
        model = PretrainedModel.from_checkpoint(directory, config, rank)
    rest(0.2)  # reading and optimising are silent
    if FAIL == "host_killed":
        die(signal.SIGKILL)
    build(model, build_config).save(output_dir)
    return True


def parallel_build(
    config: dict[str, Any],
    directory: str | None,
    build_config: Any,
    output_dir: str,
    workers: int,
) -> None:
    """Build the ranks one after another, or `workers` at once.

    Raises:
        AssertionError: A rank failed.
    """
    ranks = range(config["mapping"]["world_size"])
    shared = {"directory": directory, "build_config": build_config, "output_dir": output_dir}
    shared |= {"config": config, "level": logger.level}
    if workers == 1:
        for rank in ranks:
            build_and_save(rank, **shared)
        return
    failed = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(build_and_save, rank, **shared) for rank in ranks]
        for future in as_completed(futures):
            try:
                future.result()
            except Exception:  # noqa: BLE001 - so the library does
                traceback.print_exc()
                failed += 1
    assert failed == 0, error("parallel_failed")


if __name__ == "__main__":
    main()
