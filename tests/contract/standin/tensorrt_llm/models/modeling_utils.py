"""Checkpoints: the configuration as the library writes it, and small files of the real layout."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import FAIL, error, fields, follows, rest
from tensorrt_llm._transformers import read_config
from tensorrt_llm.logger import logger
from tensorrt_llm.mapping import Mapping


@dataclasses.dataclass
class _Quantization:
    """What the fields of QuantConfig mean."""

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return dataclasses.asdict(self)

    def _calibrates(self) -> bool:
        algorithm = getattr(self, "quant_algo", None)
        wants = algorithm is not None and str(algorithm) not in fields.UNCALIBRATED
        return wants or getattr(self, "kv_cache_quant_algo", None) is not None

    def _goes_to_modelopt(self) -> bool:
        algorithm = getattr(self, "quant_algo", None)
        if algorithm is None:
            return str(getattr(self, "kv_cache_quant_algo", None)) == "FP8"
        return str(algorithm) in fields.MODELOPT_FORMATS


QuantConfig: Any = dataclasses.make_dataclass(
    "QuantConfig",
    [(name, Any, default) for name, default in fields.QUANT_CONFIG.items()],
    bases=(_Quantization,),
)
QuantConfig.__module__ = __name__  # so that it can be pickled


def pretrained_config(
    directory: str | Path, dtype: str, mapping: Mapping | None, quantization: Any, **options: Any
) -> dict[str, Any]:
    """Return the config.json of a checkpoint for a Hugging Face directory."""
    # Their own default, and ModelOpt is never told otherwise.
    source = read_config(directory, trust_remote_code=options.get("trust_remote_code", True))
    if dtype == "auto":
        dtype = source.get("dtype") or source.get("torch_dtype") or "float16"
        dtype = "float16" if dtype == "float32" else dtype
    heads = source["num_attention_heads"]
    head_size = source.get("head_dim") or source["hidden_size"] // heads
    shared = (mapping or Mapping()).to_dict()
    del shared["rank"]
    return {
        "architecture": source["architectures"][0],
        "dtype": dtype,
        "vocab_size": source["vocab_size"],
        "hidden_size": source["hidden_size"],
        "num_hidden_layers": source["num_hidden_layers"],
        "num_attention_heads": heads,
        "hidden_act": source.get("hidden_act", "gelu"),
        "logits_dtype": "float32",
        "norm_epsilon": source.get("rms_norm_eps", 1e-5),
        "runtime_defaults": None,
        "position_embedding_type": "rope_gpt_neox",
        "num_key_value_heads": source.get("num_key_value_heads", heads),
        "intermediate_size": source.get("intermediate_size", source["hidden_size"] * 4),
        "max_position_embeddings": source.get("max_position_embeddings"),
        "mapping": shared,
        "quantization": (quantization or QuantConfig()).to_dict(),
        "use_parallel_embedding": options.get("use_parallel_embedding", False),
        "embedding_sharding_dim": options.get("embedding_sharding_dim", 0),
        "head_size": head_size,
        "qk_layernorm": False,
        "rotary_embedding_dim": head_size,
        "rotary_base": source.get("rope_theta", 10000.0),
        "rotary_scaling": source.get("rope_scaling"),
        "tie_word_embeddings": source.get("tie_word_embeddings", False),
    }


def tensor_names(config: dict[str, Any], mapping: Mapping) -> list[str]:
    """Return the names of a rank's tensors, as the library calls them."""
    parts = ("attention.dense", "attention.qkv", "mlp.fc", "mlp.gate", "mlp.proj")
    norms = ("input_layernorm", "post_layernorm")
    layers = mapping.layers(config["num_hidden_layers"])
    return [
        "lm_head.weight",
        "transformer.vocab_embedding.weight",
        "transformer.ln_f.weight",
        *(f"transformer.layers.{n}.{part}.weight" for n in layers for part in parts + norms),
    ]


def write_safetensors(path: Path, names: list[str]) -> None:
    """Write a file of the safetensors format with a 4 by 4 tensor of zeros for each name."""
    size = 4 * 4 * 2
    header = {
        name: {"dtype": "F16", "shape": [4, 4], "data_offsets": [place * size, (place + 1) * size]}
        for place, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + bytes(size * len(names)))


def write_rank(
    directory: str | Path, config: dict[str, Any], mapping: Mapping, *, save_config: bool
) -> None:
    """Write one rank of a checkpoint; the configuration belongs to all of them."""
    folder = Path(directory)
    if not folder.is_dir():  # ModelOpt makes it, and save_checkpoint's caller must have
        folder.mkdir(parents=True)
    write_safetensors(folder / f"rank{mapping.rank}.safetensors", tensor_names(config, mapping))
    if save_config:
        (folder / "config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")


class PretrainedModel:
    """One rank of a model."""

    def __init__(self, config: dict[str, Any], mapping: Mapping) -> None:
        self.config = config
        self.mapping = mapping

    @classmethod
    def from_hugging_face(
        cls,
        directory: str | Path,
        dtype: str = "auto",
        mapping: Mapping | None = None,
        quant_config: Any = None,
        **options: Any,
    ) -> PretrainedModel:
        """Convert one rank; what needs calibration must go through `quantize`."""
        if quant_config is not None and quant_config._calibrates():
            raise RuntimeError(
                f"(stand-in) {quant_config} needs calibration: the weights have no scales."
            )
        config = pretrained_config(directory, dtype, mapping, quant_config, **options)
        model = cls(config, mapping or Mapping())
        rest(0.3)
        count = len(tensor_names(config, model.mapping))
        print(f"\r0it [00:00, ?it/s]\r{count}it [00:00, 424.87it/s]", file=sys.stderr, flush=True)
        return model

    @classmethod
    def from_checkpoint(cls, directory: str, config: dict[str, Any], rank: int) -> PretrainedModel:
        """Read one rank of a checkpoint, in silence."""
        assert (Path(directory) / f"rank{rank}.safetensors").is_file()
        return cls(config, Mapping(rank=rank, **config["mapping"]))

    @follows("PretrainedModel.save_checkpoint")
    def save_checkpoint(self, output_dir: str, save_config: bool) -> None:
        """Write this rank into a directory that exists."""
        if not Path(output_dir).is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(output_dir))
        rest(0.2)
        write_rank(output_dir, self.config, self.mapping, save_config=save_config)

    @classmethod
    def quantize(cls, *given: Any, **named: Any) -> None:
        """Calibrate through ModelOpt, and write all ranks.

        Raises:
            ValueError: This kind of quantization needs no calibration.
            NotImplementedError: Experts are spread over ranks.
        """
        _quantize(cls, *given, **named)


@follows("PretrainedModel.quantize")
def _quantize(cls: type[PretrainedModel], **given: Any) -> None:
    from tensorrt_llm.quantization import quantize_and_export

    config = given["quant_config"]
    mapping = given["mapping"] or Mapping()
    if mapping.moe_ep_size > 1:
        raise NotImplementedError(error("moe_calibration"))
    if not config._goes_to_modelopt():
        raise ValueError(error("no_calibration", config=config, cls=cls.__name__))
    algorithm, cache = config.quant_algo, config.kv_cache_quant_algo
    quantize_and_export(
        model_dir=str(given["hf_model_dir"]),
        device=given["device"],
        calib_dataset=given["calib_dataset"],
        dtype=given["dtype"],
        qformat=fields.MODELOPT_FORMATS[str(algorithm)] if algorithm else "full_prec",
        kv_cache_dtype=str(cache).lower() if cache else None,
        calib_size=given["calib_batches"],
        batch_size=given["calib_batch_size"],
        calib_max_seq_length=given["calib_max_seq_length"],
        awq_block_size=config.group_size,
        output_dir=given["output_dir"],
        tp_size=mapping.tp_size,
        pp_size=mapping.pp_size,
        cp_size=mapping.cp_size,
        seed=given["random_seed"],
        tokenizer_max_seq_length=given["tokenizer_max_seq_length"],
    )


PretrainedModel.quantize.__func__.__signature__ = _quantize.__signature__  # type: ignore[attr-defined]


def fail_on_disk(path: Path) -> None:
    """Fail as a full disk fails, with a part of the file written."""
    if FAIL == "disk_full":
        path.write_bytes(bytes(512))
        logger.error(f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
