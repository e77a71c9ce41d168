"""Calibrate and export through ModelOpt: the same lines, and a checkpoint of every rank."""

from __future__ import annotations

import os
import time
from typing import Any

from tensorrt_llm._settings import FAIL, error, follows, gpu, rest
from tensorrt_llm.logger import logger


@follows("quantize_and_export")
def quantize_and_export(**given: Any) -> None:
    """Write the checkpoint of all ranks to `output_dir`.

    Raises:
        OSError: There is no GPU.
    """
    from tensorrt_llm.mapping import Mapping
    from tensorrt_llm.models.modeling_utils import QuantConfig, pretrained_config, write_rank

    try:
        gpu()
    except RuntimeError:
        raise OSError(error("no_gpu")) from None
    logger.say("calib_model", path=given["model_dir"])
    logger.say("calib_tokenizer", path=given["model_dir"])
    _calibrate(given)
    begin = time.time()
    world = given["tp_size"] * given["pp_size"] * given["cp_size"]
    algorithms = {"fp8": "FP8", "nvfp4": "NVFP4", "int4_awq": "W4A16_AWQ"}
    algorithms |= {"w4a8_awq": "W4A8_AWQ", "int8_sq": "W8A8_SQ_PER_CHANNEL"}
    cache = given["kv_cache_dtype"]
    quantization = QuantConfig(
        quant_algo=algorithms.get(given["qformat"]),
        kv_cache_quant_algo=cache.upper() if cache else None,
        group_size=given["awq_block_size"],
    )
    for rank in range(world):
        sizes = {name: given[name] for name in ("tp_size", "pp_size", "cp_size")}
        mapping = Mapping(world_size=world, rank=rank, **sizes)
        config = pretrained_config(given["model_dir"], given["dtype"], mapping, quantization)
        write_rank(given["output_dir"], config, mapping, save_config=rank == 0)
    logger.say("exported", path=given["output_dir"], seconds=time.time() - begin)


def _calibrate(given: dict[str, Any]) -> None:
    """Go through the batches: the only sign of life is one line each, at debug level."""
    size = given["calib_size"]
    if "awq" in given["qformat"]:
        if size > 32:
            logger.say("awq_size", size=size)
            size = 32
        logger.say("awq_slow")
    logger.say("calib_dataset")
    dataset = given["calib_dataset"]
    if os.environ.get("HF_HUB_OFFLINE") == "1" and not os.path.isdir(dataset):  # noqa: PTH112
        # As datasets says it.
        raise ConnectionError(f"Couldn't reach '{dataset}' on the Hub (OfflineModeIsEnabled)")
    logger.say("calib_start")
    begin = time.time()
    batches = -(-size // given["batch_size"])
    for index in range(batches):
        logger.debug(f"Calibrating batch {index}")
        time.sleep(0.5) if FAIL == "calibration_slow" else rest(1 / batches)
    logger.say("calib_done", seconds=time.time() - begin)
