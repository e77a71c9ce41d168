"""What lines of TensorRT-LLM's log mean: the stage that they belong to, and what they measure.

Wordings: tensorrt_llm builder.py, _common.py, commands/build.py, plugin.py,
quantize_by_modelopt.py and llm_utils.py; those of TensorRT, and of releases since 0.5, from logs
in the issues of their repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

STAGES = {
    "import": "import tensorrt_llm (silent)",
    "load": "load the model",
    "convert": "convert the weights",
    "calibrate": "calibrate",
    "export": "write the converted checkpoint",
    "start": "start the builder: import tensorrt_llm (silent)",
    "read": "read the checkpoint (silent)",
    "network": "trace the network",
    "compile": "TensorRT: choose kernels (long silences)",
    "write": "write the engine",
}
"""Stages of both steps in their order, with titles for people."""

STEPS: dict[str, tuple[str, ...]] = {
    "convert": ("import", "load", "convert", "calibrate", "export"),
    "build": ("start", "read", "network", "compile", "write"),
}
"""Stages of each step. No name is in both, since a journal has each stage once."""

SIGNS: dict[str, tuple[tuple[str, str], ...]] = {
    "convert": (
        ("Initializing model from", "load"),
        ("Initializing tokenizer from", "load"),
        ("Loading checkpoint shards:", "load"),
        ("Loading weights:", "load"),
        ("Loading calibration dataset", "calibrate"),
        ("Starting quantization...", "calibrate"),
        ("Calibrating batch ", "calibrate"),
        ("calibrating model:", "calibrate"),
        ("Quantization done.", "export"),
        ("current rank: ", "export"),
        ("Total time of reading and converting:", "export"),
    ),
    "build": (
        ("TensorRT LLM version", "read"),
        ("TensorRT-LLM version", "read"),
        ("[I] Set ", "read"),
        ("Downloading HF model", "read"),
        ("Loading HF model to memory", "read"),
        ("Loading TRT checkpoints to memory", "read"),
        ("[MemUsageChange] Init ", "network"),
        ("Building TRT-LLM engine", "network"),
        ("Build TRT-LLM engine", "network"),
        ("Total time of constructing network", "network"),
        ("Total optimization profiles added", "network"),
        ("Build TensorRT engine ", "compile"),
        ("timing cache in use", "compile"),
        ("Compiler backend is used during engine", "compile"),
        ("] [GraphReduction]", "compile"),
        ("] [BlockAssignment]", "compile"),
        ("Total Activation Memory:", "compile"),
        ("Engine generation completed in", "compile"),
        ("Serializing engine to ", "write"),
        ("Engine serialized", "write"),
    ),
}
"""What a line holds that belongs to a stage. Some need a look at what came before as well."""

BARS = (
    ("calibrating model:", "calibrate", "samples"),
    ("Loading checkpoint shards:", "load", "shards"),
    ("Loading weights:", "load", "tensors"),
)
"""Progress bars that count something: how they begin, their stage and their unit."""


@dataclass(frozen=True)
class Measure:
    """A fact that a line with `mark` states: the group of `pattern`, times `scale` if a number."""

    mark: str
    pattern: re.Pattern[str]
    name: str
    unit: Literal["bytes", "seconds", "text"]
    scale: int = 1


_NUMBER = r"(\d{1,15}(?:\.\d{0,15})?)"
_CLOCK = r"(\d{1,6}:\d\d:\d\d)"
_MIB = 1 << 20


def _bytes(mark: str, pattern: str, name: str, scale: int = 1) -> Measure:
    return Measure(mark, re.compile(pattern + _NUMBER, re.ASCII), name, "bytes", scale)


def _seconds(mark: str, pattern: str, name: str) -> Measure:
    return Measure(mark, re.compile(pattern, re.ASCII), name, "seconds")


def _text(mark: str, pattern: str, name: str) -> Measure:
    return Measure(mark, re.compile(pattern, re.ASCII), name, "text")


MEASURES = (
    _text("TensorRT-LLM version", r"version:? v?(\d[\w.+-]{0,40})", "tensorrt_llm_version"),
    _text("TensorRT LLM version", r"version:? v?(\d[\w.+-]{0,40})", "tensorrt_llm_version"),
    _text("TensorRT version", r"TensorRT version:? v?(\d[\d.]{0,20})", "tensorrt_version"),
    # TensorRT 9 gives these two without a unit.
    _bytes("Total Activation Memory:", r"Activation Memory: ", "activation_bytes"),
    _bytes("Total Weights Memory:", r"Weights Memory: ", "weights_bytes"),
    # Of the builder's own process; its "children" share pages with it.
    _bytes("Build phase peak memory:", r"peak memory: ", "host_peak_bytes", _MIB),
    _bytes("during Engine building", r"CPU: ", "host_peak_bytes", _MIB),
    _bytes("[MemUsageChange]", r"now: CPU ", "host_peak_bytes", _MIB),
    # What is taken of the GPU by all programs, and by TensorRT alone.
    _bytes("[MemUsageChange]", r"now: CPU \d{1,15}, GPU ", "gpu_peak_bytes", _MIB),
    _bytes("memory allocators:", r" GPU ", "tensorrt_gpu_peak_bytes", _MIB),
    _seconds("of constructing network", rf"object {_NUMBER} sec", "network_seconds"),
    _seconds("Engine generation completed", rf"in {_NUMBER} sec", "engine_seconds"),
    _seconds("of building all engines:", rf"engines: {_CLOCK}", "build_seconds"),
    _seconds("Total latency:", rf"latency: {_NUMBER}s", "build_seconds"),
    _seconds("reading and converting:", rf"converting: {_NUMBER} s", "convert_seconds"),
    _seconds("Weights loaded.", rf"time: {_CLOCK}", "convert_seconds"),
    _seconds("of saving checkpoint:", rf"checkpoint: {_NUMBER} s", "save_seconds"),
    _seconds("Quantization done.", rf"used: {_NUMBER} s", "calibrate_seconds"),
    _text("max_seq_len is not spec", r"value (\d{1,12})", "max_seq_len"),
    _text("New max_seq_len is set to", r"set to (\d{1,12})", "max_seq_len"),
    _text("timing cache in use", r"(\w{1,10}) timing cache", "timing_cache"),
    _text("timing cache entries", r"Serialized (\d{1,9}) timing", "timing_cache_entries"),
)
"""Of several ranks the largest or slowest counts: that is what one GPU needs."""

NOISE = (
    "gather_generation_logits is deprecated",  # printed by every build
    "paged_kv_cache is deprecated",
    "Implicitly setting ",
    "max_input_len is not required and will be ignored",
    "while opt_num_tokens is not set",
    "Logger level already set",
    "Invalid timing cache",
    "Unused Input",
    "[RemoveDeadLayers]",
    "is on by default in TensorRT",
    "ITensor::setType",
    "layernorm",
    "kipping tactic",
    "Requested amount of GPU memory",
    "Unable to determine GPU memory usage",
)
"""Warnings that come whatever one does, or that mean something only where the build fails."""

LONGEST = 2000
"""Characters of a line that are looked at; what matters stands before."""

_ANSI = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_STAMP = re.compile(r"(?=\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[)", re.ASCII)
_RECORD = re.compile(
    r"\[(TRT|TRT-LLM|TensorRT-LLM)\] ?(?:\[RANK \d{1,6}\] ?)?\[([A-Z])[A-Z]*\] ?(.*)", re.ASCII
)


def records(text: str) -> Iterator[str]:
    """Cut what came as one line: at carriage returns, and where processes wrote side by side."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    for line in text.splitlines():
        pieces = _STAMP.split(line) if line.count("] [TRT") > 1 else (line,)
        for piece in pieces:
            yield piece[:LONGEST]


def logged(line: str) -> tuple[str, str, str] | None:
    """Return who logged a line, its level (I, W, E, F ...) and the message, if a logger did."""
    match = _RECORD.search(line)
    if match is None:
        return None
    source = "TensorRT" if match[1] == "TRT" else "TensorRT-LLM"
    return source, match[2], " ".join(match[3].split())
