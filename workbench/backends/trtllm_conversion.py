"""From a Hugging Face checkpoint to one of TensorRT-LLM: the parameters, and the plain recipe.

The recipe is a dictionary of JSON values. The worker and the shell command both follow it, so
that what is shown is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from workbench.model import Model
from workbench.spec import BuildSpec, parameter

_CONVERT = "tensorrt_llm models/automodel.py"
_QUANTIZE = "tensorrt_llm quantization/quantize_by_modelopt.py"
_MAPPING = "tensorrt_llm mapping.py"


class ConversionParameters(BuildSpec):
    """How weights are read, quantized and spread over GPUs."""

    dtype: Literal["auto", "float16", "bfloat16", "float32"] = parameter(
        "auto",
        help="Compute precision, and that of weights which are not quantized. auto takes the "
        "model's own, and float16 for a float32 model.",
        group="Precision",
        effect="compiled",
        source=_CONVERT,
    )
    quantization: Literal[
        "none",
        "int8_wo",
        "int4_wo",
        "fp8",
        "fp8_rowwise",
        "nvfp4",
        "int4_awq",
        "w4a8_awq",
        "int8_sq",
    ] = parameter(
        "none",
        help="Precision of the weights. int8_wo and int4_wo: weights only, no calibration. "
        "fp8: weights and activations (Ada and later). fp8_rowwise: FP8 with a scale a token "
        "and a channel (Hopper), no calibration. nvfp4: 4-bit floats (Blackwell). int4_awq: "
        "4-bit weights, activation-aware. w4a8_awq: that with FP8 activations. int8_sq: 8-bit "
        "weights and activations by SmoothQuant.",
        group="Precision",
        effect="compiled",
        source="tensorrt_llm quantization/mode.py",
    )
    kv_cache_dtype: Literal["auto", "int8", "fp8"] = parameter(
        "auto",
        help="Precision of the KV cache. auto takes the compute precision; the others halve it.",
        group="KV cache",
        effect="compiled",
        source="tensorrt_llm models/modeling_utils.py QuantConfig",
    )
    tp_size: int = parameter(
        1,
        ge=1,
        help="GPUs that share every layer (tensor parallelism).",
        unit="GPUs",
        group="Parallelism",
        effect="compiled",
        source=_MAPPING,
    )
    pp_size: int = parameter(
        1,
        ge=1,
        help="Groups of GPUs that each hold some of the layers (pipeline parallelism).",
        unit="stages",
        group="Parallelism",
        effect="compiled",
        source=_MAPPING,
    )
    moe_tp_size: int | None = parameter(
        None,
        ge=1,
        help="GPUs that share each expert; moe_tp_size x moe_ep_size is tp_size.",
        unit="GPUs",
        group="Parallelism",
        effect="compiled",
        none_means="tp_size / moe_ep_size",
        source=_MAPPING,
    )
    moe_ep_size: int | None = parameter(
        None,
        ge=1,
        help="Groups over which the experts are spread.",
        unit="groups",
        group="Parallelism",
        effect="compiled",
        none_means="tp_size / moe_tp_size, or 1 where that is empty too",
        source=_MAPPING,
    )
    use_parallel_embedding: bool = parameter(
        default=False,
        help="Share the embedding table among the GPUs instead of a copy on each.",
        group="Parallelism",
        effect="compiled",
        source=_CONVERT,
    )
    embedding_sharding_dim: Literal[0, 1] = parameter(
        0,
        help="What is shared of the embedding table: 0 its rows (words), 1 its columns.",
        group="Parallelism",
        effect="compiled",
        source=_CONVERT,
    )
    awq_block_size: int = parameter(
        128,
        ge=1,
        help="Weights that share one scale in int4_awq and w4a8_awq.",
        unit="weights",
        group="Advanced",
        effect="compiled",
        source=_QUANTIZE,
    )
    smoothquant_val: float | None = parameter(
        None,
        gt=0,
        lt=1,
        help="SmoothQuant's alpha for int8_sq. A value such as 0.5 takes TensorRT-LLM's own "
        "SmoothQuant with scales a channel and a token.",
        group="Advanced",
        effect="compiled",
        none_means="ModelOpt's SmoothQuant with its own alpha",
        source="tensorrt_llm models/modeling_utils.py QuantConfig",
    )
    disable_weight_only_quant_plugin: bool = parameter(
        default=False,
        help="Let TensorRT's own kernels multiply weights of int8_wo and int4_wo.",
        group="Advanced",
        effect="compiled",
        source="tensorrt_llm builder.py",
    )
    calib_dataset: str = parameter(
        "cnn_dailymail",
        min_length=1,
        help="Texts for calibration: cnn_dailymail, pileval, or a local directory that datasets "
        "can load, with a train split and a text column.",
        group="Advanced",
        effect="compiled",
        source=_QUANTIZE,
    )
    calib_size: int = parameter(
        512,
        ge=1,
        help="Texts that calibration runs on. int4_awq and w4a8_awq never take more than 32.",
        unit="texts",
        group="Advanced",
        effect="compiled",
        source=_QUANTIZE,
    )
    calib_batch_size: int = parameter(
        1,
        ge=1,
        help="Texts that calibration runs on at the same time: faster, more memory.",
        unit="texts",
        group="Advanced",
        effect="compiled",
        source=_QUANTIZE,
    )
    calib_max_seq_length: int = parameter(
        512,
        ge=1,
        help="Tokens after which a calibration text is cut off.",
        unit="tokens",
        group="Advanced",
        effect="compiled",
        source=_QUANTIZE,
    )
    load_by_shard: bool = parameter(
        default=False,
        help="Read the weights file by file, for models larger than the host's memory.",
        group="Advanced",
        effect="run",
        source=_CONVERT,
    )
    load_model_on_cpu: bool = parameter(
        default=False,
        help="Keep the original model in host memory while it is converted.",
        group="Advanced",
        effect="run",
        source=_CONVERT,
    )

    @property
    def world_size(self) -> int:
        """Ranks of the engine, each on a GPU of its own."""
        return self.tp_size * self.pp_size

    @property
    def quant_algo(self) -> str | None:
        """Name of TensorRT-LLM's QuantAlgo for the weights."""
        if self.quantization == "int8_sq" and self.smoothquant_val is not None:
            return "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"
        return ALGORITHMS[self.quantization]

    @property
    def kv_cache_quant_algo(self) -> str | None:
        """Name of TensorRT-LLM's QuantAlgo for the KV cache."""
        return None if self.kv_cache_dtype == "auto" else self.kv_cache_dtype.upper()

    @property
    def calibrated_by(self) -> Literal["", "modelopt", "tensorrt_llm"]:
        """Who calibrates; nobody where scales follow from the weights alone.

        Source: QuantConfig._requires_modelopt_quantization in models/modeling_utils.py, and
        quantize() in models/llama/convert.py. An FP8 KV cache beside weight-only or rowwise
        weights is not calibrated: quantize() refuses it, from_hugging_face sets its scales to 1.
        """
        algorithm, kv_cache = self.quant_algo, self.kv_cache_quant_algo
        if algorithm in MODELOPT or (algorithm is None and kv_cache == "FP8"):
            return "modelopt"
        own = algorithm is not None and algorithm.endswith("_PLUGIN")
        return "tensorrt_llm" if own or kv_cache == "INT8" else ""


ALGORITHMS: Mapping[str, str | None] = {
    "none": None,
    "int8_wo": "W8A16",
    "int4_wo": "W4A16",
    "fp8": "FP8",
    "fp8_rowwise": "FP8_PER_CHANNEL_PER_TOKEN",
    "nvfp4": "NVFP4",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "int8_sq": "W8A8_SQ_PER_CHANNEL",
}
"""TensorRT-LLM's QuantAlgo by our name, which is quantize.py's."""

MODELOPT = ("FP8", "NVFP4", "W4A16_AWQ", "W4A8_AWQ", "W8A8_SQ_PER_CHANNEL")
"""Algorithms that NVIDIA ModelOpt calibrates."""

STORED = ("awq", "gptq", "fbgemm_fp8")
"""Methods of Hugging Face checkpoints whose quantized weights are taken as they are."""


def conversion(
    spec: ConversionParameters, source: str, model: Model | None = None
) -> dict[str, Any]:
    """Return the recipe of a conversion, as JSON values.

    Args:
        spec: The parameters.
        source: The local directory of the Hugging Face checkpoint.
        model: What is known of it; tells whether its weights are quantized already.

    Returns:
        path: "from_hugging_face" (a call and a save_checkpoint for each rank) or "quantize"
            (one call of the model class for all ranks).
        model: The directory.
        dtype: For either call.
        mapping: Arguments of Mapping, but for the rank.
        quantization: Arguments of QuantConfig; quant_algo and kv_cache_quant_algo are None or
            the names of QuantAlgo members.
        calibration: Keyword arguments of quantize; empty for from_hugging_face.
        options: Further keyword arguments of either call.
        trust_remote_code: Whether code of the model's repository may run.
    """
    quantization, options = _quantization(spec, model)
    calibrated = spec.calibrated_by
    return {
        "path": "quantize" if calibrated else "from_hugging_face",
        "model": source,
        "dtype": spec.dtype,
        "mapping": _mapping(spec),
        "quantization": quantization,
        "calibration": _calibration(spec) if calibrated else {},
        "options": options | _options(spec, model),
        "trust_remote_code": spec.trust_remote_code,
    }


def _mapping(spec: ConversionParameters) -> dict[str, int]:
    values = {
        "world_size": spec.world_size,
        "tp_size": spec.tp_size,
        "pp_size": spec.pp_size,
        "moe_tp_size": spec.moe_tp_size,
        "moe_ep_size": spec.moe_ep_size,
    }
    return {name: value for name, value in values.items() if value is not None}


def _quantization(
    spec: ConversionParameters, model: Model | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of QuantConfig, and the options that go with them."""
    values: dict[str, Any] = {
        "quant_algo": spec.quant_algo,
        "kv_cache_quant_algo": spec.kv_cache_quant_algo,
    }
    options: dict[str, Any] = {}
    if spec.quantization in ("int4_awq", "w4a8_awq"):
        values["group_size"] = spec.awq_block_size
    if spec.quantization == "int8_sq" and spec.smoothquant_val is not None:
        values["smoothquant_val"] = spec.smoothquant_val
    if spec.quantization == "fp8_rowwise":
        # What convert_checkpoint.py of the Llama example gives.
        values["clamp_val"] = [-1200.0, 1200.0]
    if spec.disable_weight_only_quant_plugin and spec.quantization in ("int8_wo", "int4_wo"):
        options["disable_weight_only_quant_plugin"] = True
    if model and model.quantized_with in STORED and spec.quantization == "none":
        stored, options = _stored(model)
        values |= stored
    return values, options


def _stored(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what describes weights that are quantized in the checkpoint.

    Source: update_quant_config_from_hf in the Llama example's convert_checkpoint.py. It marks
    AWQ as GPTQ, too: the layout in the engine is the same, only the reader differs.
    """
    details = model.config["quantization_config"]
    if model.quantized_with == "fbgemm_fp8":
        bound = float(details.get("activation_scale_ub", 1200.0))
        return {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "clamp_val": [-bound, bound]}, {}
    awq = model.quantized_with == "awq"
    values = {
        "quant_algo": "W4A16_GPTQ",
        "group_size": details.get("group_size", 128),
        "has_zero_point": bool(details.get("zero_point" if awq else "sym", False)),
    }
    return values, {"use_autoawq": True} if awq else {}


def _calibration(spec: ConversionParameters) -> dict[str, Any]:
    return {
        "calib_dataset": spec.calib_dataset,
        "calib_batches": spec.calib_size,
        "calib_batch_size": spec.calib_batch_size,
        "calib_max_seq_length": spec.calib_max_seq_length,
    }


def _options(spec: ConversionParameters, model: Model | None) -> dict[str, Any]:
    """Return what differs from the library's defaults; some model classes take no others."""
    if spec.calibrated_by == "modelopt":
        return {}  # ModelOpt writes the checkpoint and takes none of them
    options: dict[str, Any] = {}
    if spec.use_parallel_embedding:
        options["use_parallel_embedding"] = True
        options["embedding_sharding_dim"] = spec.embedding_sharding_dim
    if spec.calibrated_by == "tensorrt_llm" or (model and model.code):
        # Its default would run code from the checkpoint (models/llama/model.py and config.py).
        options["trust_remote_code"] = spec.trust_remote_code
    if not spec.calibrated_by:
        wanted = {
            "load_by_shard": spec.load_by_shard,
            "load_model_on_cpu": spec.load_model_on_cpu,
        }
        options |= {name: True for name, value in wanted.items() if value}
    return options
