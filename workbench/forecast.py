"""Forecast: how fast a build would be, predicted from NVIDIA's performance database.

Nothing is measured here. The database (distribution `aiconfigurator`, later `aisimulate`) has
times of single operations on its GPUs, from which a run of the whole model is put together. It
brings pandas, pyarrow and 100 MB of tables, so it runs as a worker in a toolchain of its own:
WORKBENCH_TOOLCHAIN_FORECAST, or the interpreter that runs this code.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.build import Plan
from workbench.errors import InputError, ToolchainError
from workbench.process import Worker, describe_exit
from workbench.toolchain import find_toolchain
from workbench.units import format_count, format_seconds, printable

DISTRIBUTIONS = ("aisim", "aisimulate", "aiconfigurator")
"""What has the database, the newest name first."""

TIMEOUT = 120.0
"""Seconds after which the database is not waited for any longer."""

INSTALL = "pip install 'trtllm-workbench[forecast]'"

SYSTEMS = (
    ("H100 NVL", "h100_nvl"),
    ("H100 PCIE", "h100_pcie"),
    ("H100", "h100_sxm"),
    ("H200 NVL", "h200_nvl"),
    ("GH200", "gh200"),
    ("H200", "h200_sxm"),
    ("GB200", "gb200"),
    ("GB300", "gb300"),
    ("B200", "b200_sxm"),
    ("B300", "b300_sxm"),
    ("A100 PCIE", "a100_pcie"),
    ("A100", "a100_sxm"),
    ("A30", "a30"),
    ("L40S", "l40s"),
    ("L4", "l4"),
    ("RTX PRO 6000 BLACKWELL SERVER", "rtx_pro_6000_server"),
)
"""Names of GPUs, by words that they contain, and what the database calls them; the first counts.
Some are there to be refused by their own name rather than taken for a relative."""

GEMM = {
    "none": "bfloat16",
    "fp8": "fp8",
    "int8_wo": "int8_wo",
    "int4_wo": "int4_wo",
    "int8_sq": "sq",
    "nvfp4": "nvfp4",
}
"""Quantizations of ours that the database has a name for. It does not tell float16 from
bfloat16, which are equally fast."""

MOST_DIGITS = 9
"""Of a number of tokens or requests: nobody has a billion."""

KV_CACHE = {"auto": "bfloat16", "int8": "int8", "fp8": "fp8"}


@dataclass(frozen=True)
class Load:
    """What is asked of an engine: `concurrency` requests at all times, each of these lengths."""

    input_tokens: int = 1024
    output_tokens: int = 256
    concurrency: int = 16

    @classmethod
    def parse(cls, texts: Mapping[str, str], names: Mapping[str, str] | None = None) -> Load:
        """Return the load that texts spell, by field.

        Args:
            texts: What was typed.
            names: What the fields are called where it was typed, where that is not their name.

        Raises:
            InputError: One is no whole number.
        """
        numbers = {name: text.strip() for name, text in texts.items()}
        for name, text in numbers.items():
            if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
                named = (names or {}).get(name, name)
                raise InputError(
                    f"{named} must be a whole number below a billion; got '{text[:40]}'."
                )
        return cls(**{name: int(text) for name, text in numbers.items()})


@dataclass(frozen=True)
class Forecast:
    """A prediction for a load; times are in seconds.

    Attributes:
        load: What it is for.
        hardware: What the database calls the GPU.
        gpus: Their number.
        ttft: Time to first token.
        itl: Inter-token latency.
        tokens_per_second_per_gpu: Of output, all requests together.
        version: Of TensorRT-LLM whose operations were measured.
        database: Distribution and version of the database.
        sources: Operations by where their times come from: "silicon" is measured.
        warning: What the database adds, such as that the KV cache may not suffice.
    """

    load: Load
    hardware: str
    gpus: int
    ttft: float
    itl: float
    tokens_per_second_per_gpu: float
    version: str
    database: str
    sources: Mapping[str, int]
    warning: str = ""

    @property
    def lines(self) -> list[str]:
        """The prediction in plain lines; the first says that it is one, and whose."""
        load, total = self.load, sum(self.sources.values())
        measured = self.sources.get("silicon", 0)
        source = (
            f"Predicted, not measured: {self.database}, with data of TensorRT-LLM {self.version} "
            f"(PyTorch backend) on {self.hardware}; {measured} of {total} operations were timed on "
            "that GPU, the others are modelled."
        )
        asked = (
            f"Load: {load.concurrency} requests at a time, {load.input_tokens:,} tokens in and "
            f"{load.output_tokens:,} out, {self.gpus} GPU{'s' if self.gpus > 1 else ''}."
        )
        speed = (
            f"TTFT {format_seconds(self.ttft)}   ITL {format_seconds(self.itl)}   "
            f"{format_count(self.tokens_per_second_per_gpu)} tokens/s per GPU"
        )
        return [printable(line) for line in (source, asked, speed, self.warning) if line]


def forecast(plan: Plan, load: Load | None = None) -> Forecast:
    """Return the predicted speed of a plan under a load; it takes some 10 to 30 seconds.

    Args:
        plan: With the model, the parameters and the GPU.
        load: What is asked of it.

    Raises:
        InputError: The database does not know the backend, model, GPU or quantization, or the
            load does not keep to the plan's limits.
        ToolchainError: The database is not installed, or its process fails or does not end.
    """
    load = load or Load()
    order = order_of(plan, load)
    toolchain = find_toolchain("forecast")
    source = database()
    if source is None:
        raise ToolchainError(
            f"The forecast needs NVIDIA's performance database, and {toolchain.name} does not have "
            f"it. Install with: {INSTALL}; or name an interpreter that has it in "
            "WORKBENCH_TOOLCHAIN_FORECAST."
        )
    with tempfile.TemporaryFile() as log:
        worker = Worker(toolchain, "forecast", log)
        given_up = threading.Event()

        def give_up() -> None:
            given_up.set()
            worker.kill()

        limit = threading.Timer(TIMEOUT, give_up)
        limit.daemon = True
        limit.start()
        try:
            worker.send(**order)
            answer = next(worker.messages(), None)
        finally:
            limit.cancel()
            status = worker.close()
    if answer is None and given_up.is_set():
        raise ToolchainError(f"The forecast had no answer after {TIMEOUT:g} s and was given up.")
    if answer is None:
        raise ToolchainError(f"The process of the forecast {describe_exit(status)}. Try again.")
    if answer["event"] == "error":
        raise (InputError if answer.get("expected") else ToolchainError)(str(answer["message"]))
    return Forecast(
        load=load,
        hardware=order["system"],
        gpus=int(answer["gpus"]),
        ttft=answer["ttft_ms"] / 1000,
        itl=answer["itl_ms"] / 1000,
        tokens_per_second_per_gpu=answer["tokens_per_second_per_gpu"],
        version=answer["version"],
        database=source,
        sources=answer["sources"],
        warning=answer["warning"],
    )


def database() -> str | None:
    """Return the distribution that has the database and its version, or None where none has.

    Raises:
        ToolchainError: The interpreter that is named for it does not answer.
    """
    found = find_toolchain("forecast").versions(DISTRIBUTIONS)
    return next((f"{name} {version}" for name, version in found.items() if version), None)


def order_of(plan: Plan, load: Load) -> dict[str, Any]:
    """Return what the worker is told.

    Raises:
        InputError: As `forecast`.
    """
    spec: Any = plan.spec
    if not plan.backend.name.startswith("tensorrt_llm"):
        raise InputError(
            f"There is no forecast for {plan.backend.title}: the database has TensorRT-LLM on "
            "NVIDIA's GPUs."
        )
    _check(spec, load)
    values = {
        "isl": load.input_tokens,
        "osl": load.output_tokens,
        "batch_size": load.concurrency,
        "tp_size": spec.tp_size,
        "pp_size": spec.pp_size,
        "free_gpu_memory_fraction": spec.kv_cache_free_gpu_memory_fraction,
        **_precision(plan),
    }
    text = plan.model.config.get("text_config", plan.model.config)
    if text.get("num_experts_per_tok"):
        values["moe_tp_size"] = getattr(spec, "moe_tp_size", None) or spec.tp_size
        values["moe_ep_size"] = getattr(spec, "moe_ep_size", None) or 1
    return {
        "backend": "forecast",
        "config": dict(plan.model.config),
        "system": system_of(plan.device.name),
        "values": values,
    }


def system_of(gpu: str) -> str:
    """Return what the database calls a GPU.

    Raises:
        InputError: It has no name for it.
    """
    name = " ".join(gpu.upper().replace("-", " ").split())
    for words, system in SYSTEMS:
        if all(f" {word} " in f" {name} " for word in words.split()):
            return system
    raise InputError(
        f"The database does not know the GPU '{gpu}'. Choose another device: it has A100, H100, "
        "H200, L40S, B200, B300, GB200, GB300 and RTX PRO 6000 Server."
    )


def _precision(plan: Plan) -> dict[str, str]:
    """Return the precisions as the database names them; a quantized checkpoint has its own.

    Raises:
        InputError: It has no name for one.
    """
    if plan.model.quantized_with:
        return {}
    quantization = str(getattr(plan.spec, "quantization", "none") or "none")
    kv_cache = str(getattr(plan.spec, "kv_cache_dtype", "auto"))
    for name, value, known in (
        ("quantization", quantization, GEMM),
        ("kv_cache_dtype", kv_cache, KV_CACHE),
    ):
        if value not in known:
            raise InputError(
                f"The database does not know {name} {value}; it has {', '.join(known)}."
            )
    return {"gemm_quant_mode": GEMM[quantization], "kvcache_quant_mode": KV_CACHE[kv_cache]}


def _check(spec: Any, load: Load) -> None:
    """Refuse a load that the engine could not take.

    Raises:
        InputError: Says which limit it goes beyond.
    """
    for name in ("input_tokens", "output_tokens", "concurrency"):
        if getattr(load, name) < 1:
            raise InputError(f"{name} must be at least 1; got {getattr(load, name)}.")
    limit, length = spec.sequence_limit, load.input_tokens + load.output_tokens
    if limit and length > limit:
        raise InputError(
            f"A request of {length} tokens is longer than max_seq_len, {limit}, allows."
        )
    if load.concurrency > spec.max_batch_size:
        raise InputError(
            f"{load.concurrency} requests at a time are more than max_batch_size, "
            f"{spec.max_batch_size}, allows."
        )
