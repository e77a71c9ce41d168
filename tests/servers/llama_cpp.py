"""llama.cpp's HTTP server on the demo model.

    python tests/servers/llama_cpp.py MODEL_DIRECTORY GGUF [PORT]

Writes the checkpoint as GGUF in float32, starts the server on a port (by default a free one) of the
loopback interface, prints its address, and serves until standard input is closed; on a given port,
until it is ended.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp


def main() -> None:
    model, target = Path(sys.argv[1]), Path(sys.argv[2])
    write_gguf(model, target)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(target)
    parameters.model_alias = {"demo"}
    parameters.n_ctx = 4096
    parameters.n_parallel = 2
    # More than one would wait for each other where cores are shared.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    parameters.port = port
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    if port:
        signal.pause()
    sys.stdin.read()


def write_gguf(model: Path, target: Path) -> None:
    """Write a Llama checkpoint with a byte-level BPE tokenizer as GGUF."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    # transformers 5 writes the second form.
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, model, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in read_safetensors(model / "model.safetensors"):
        rotated = heads.get(name.split(".")[-2])
        ours = interleaved(tensor, rotated) if rotated else tensor
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), ours)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, model: Path, config: dict) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    texts = {number: text for text, number in vocabulary.items()} | special
    kinds = [
        gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL
        for number in range(len(texts))
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([texts[number] for number in range(len(texts))])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(value=False)
    writer.add_chat_template((model / "chat_template.jinja").read_text(encoding="utf-8"))


def read_safetensors(path: Path):
    """Yield names and float32 arrays of a file of bfloat16 tensors."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "BF16"
            begin, end = entry["data_offsets"]
            short = np.frombuffer(data[start + begin : start + end], np.uint16)
            whole = (short.astype(np.uint32) << 16).view(np.float32)
            yield name, whole.reshape(entry["shape"])


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows of each head: llama.cpp rotates neighbours, transformers rotates halves."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


if __name__ == "__main__":
    main()
