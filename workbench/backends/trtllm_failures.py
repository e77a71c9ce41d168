"""How TensorRT-LLM fails: what the log says then, and what to do.

The wordings are those of the library's source, of TensorRT, PyTorch, MPI and the Hugging Face
libraries below it, and of the logs in the issues of their repositories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.units import format_bytes


@dataclass(frozen=True)
class Known:
    """A failure with a name.

    A line that holds one of `marks` is evidence of it; a mark may begin with the line feed
    before the line. Where `pattern` matches that line, its
    named groups fill `numbers`, which follows `what`; a group `bytes` is shown as a size.
    `passing` evidence is void once TensorRT has finished an engine: it had only skipped a kernel.
    """

    name: str
    marks: tuple[str, ...]
    what: str
    remedy: str
    pattern: re.Pattern[str] | None = None
    numbers: str = ""
    passing: bool = False


def _compile(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII)


GPU_MEMORY = (
    "Free the GPU from other programs, lower max_batch_size, max_num_tokens or max_seq_len, "
    "quantize the weights, or split them over more GPUs with tp_size."
)
HOST_MEMORY = (
    "Close other programs, build with one worker, or use a machine with more memory; a build "
    "takes two to three times the size of the weights."
)
SHARED_MEMORY = (
    "In a container, give it more with --shm-size or --ipc=host; elsewhere, remove old files from "
    "/dev/shm."
)
LIBRARIES = "Install TensorRT-LLM anew in a clean environment, or use NVIDIA's container."
DRIVER = (
    "Update the NVIDIA driver (CUDA 13, which TensorRT-LLM 1.2 uses, needs 580 or newer), or use a "
    "toolchain with an older CUDA."
)
REBUILD = "Build the engine again where it is to run."

KNOWN = (
    Known(
        "shared memory",
        ("not enough space for /dev/shm", "out of shared memory", "unable to allocate shared memo"),
        "There is not enough shared memory in /dev/shm",
        SHARED_MEMORY,
    ),
    Known(
        "disk",
        ("No space left on device", "os error 28", "Disk quota exceeded"),
        "The disk is full; a build writes the converted checkpoint and the engines, each about as "
        "large as the quantized weights",
        "Free some space, or set WORKBENCH_HOME to a folder on a larger disk.",
    ),
    Known(
        "gated model",
        ("gated repo", "GatedRepoError", "Client Error: Unauthorized", "Invalid user token"),
        "The Hugging Face hub refuses the files",
        "Accept the licence on the model's page at huggingface.co, then log in with "
        "`hf auth login` or set HF_TOKEN.",
        _compile(r"for url:? https?://[^/\s]+/(?:api/models/)?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})"),
        " of {repo}",
    ),
    Known(
        "calibration data",
        ("Unsupported dataset name or local repo", "Couldn't reach '", "DatasetNotFoundError"),
        "The calibration data cannot be loaded",
        "Name a local folder with a train split and a text column, or check the network.",
        _compile(r"(?:directory: |Couldn't reach '|Dataset ')(?P<name>[^\s']{1,200}?)(?:'|\.?$)"),
        ": {name}",
    ),
    Known(
        "remote code",
        ("requires you to execute the", "contains custom code which must be executed"),
        "The model brings Python code of its own, and the workbench does not run it",
        "Choose a model that transformers knows by itself.",
    ),
    Known(
        "architecture",
        ("is not supported in TRT-LLM yet", "Unsupported model architecture"),
        "TensorRT-LLM builds no engines for this architecture",
        "Choose a model of a supported architecture, or run this one with another backend.",
        _compile(r"architecture:? (?P<name>\w{1,100})"),
        ": {name}",
    ),
    Known(
        "quantization on this GPU",
        ("is not supported on SM", "only supported on SM"),
        "This GPU cannot run an option of the build",
        "Switch it off, or choose another quantization: on Blackwell NVFP4, FP8 or none.",
        _compile(r"(?P<what>\w[\w/=. -]{0,120} supported on SM ?[>=<]*\d+)"),
        ": {what}",
    ),
    Known(
        "no bfloat16",
        ("GPUs do not support bfloat16",),
        "This GPU is too old for bfloat16",
        "Use dtype float16.",
    ),
    Known(
        "GPU unknown to TensorRT",
        ("is not supported by this TensorRT release", "Unsupported SM:"),
        "This TensorRT has no kernels for this GPU",
        "Use a GPU and a TensorRT-LLM release that fit together; 1.2 needs compute capability 8.0 "
        "or newer.",
        _compile(r"(?:GPU SM |Unsupported SM: )(?P<sm>\w{1,8})"),
        " (SM {sm})",
    ),
    Known(
        "no kernels",
        (
            "no kernel image is available",
            "is not compatible with the current PyTorch installation",
            "device kernel image is invalid",
        ),
        "The installed PyTorch has no kernels for this GPU",
        "Install the PyTorch that this TensorRT-LLM release asks for, from the index of its CUDA "
        "version; or use a newer GPU.",
        _compile(r"capability (?P<sm>sm_\w{1,8})"),
        " ({sm})",
    ),
    Known(
        "engine of another TensorRT",
        ("not compatible with this version of TensorRT", "Version tag does not match"),
        "The engine was built with another version of TensorRT",
        REBUILD,
        _compile(
            r"(?:expecting library version |Current Version: )(?P<here>[\d.]{1,20})"
            r"(?: got |, Serialized Engine Version: )(?P<engine>[\d.]{0,20}\d)"
        ),
        " ({engine}; here is {here})",
    ),
    Known(
        "engine of another GPU",
        ("generated on an incompatible device", "different models of devices"),
        "The engine was built for another kind of GPU",
        REBUILD,
        _compile(r"expecting compute (?P<a>[\d.]{1,8}) got compute (?P<b>\d[\d.]{0,6}\d)"),
        " (expected compute capability {a}, got {b})",
    ),
    Known(
        "no GPU",
        (
            "Found no NVIDIA driver",
            "No CUDA GPUs are available",
            "no CUDA-capable device is detected",
            "CUDA initialization failure with error: 100",
            "libcuda.so.1: cannot open",
            "NVML Shared Library Not Found",
            # torch.cuda.device_count() of 0 becomes the number of the builder's processes.
            "max_workers must be greater than 0",
            "GPU is required for inference",
            "0 active drivers",
        ),
        "There is no NVIDIA GPU that this process can use",
        "Check nvidia-smi and CUDA_VISIBLE_DEVICES; a container needs --gpus all.",
    ),
    Known(
        "driver",
        (
            "driver on your system is too old",
            "CUDA driver version is insufficient",
            "CUDA initialization failure with error",
            "compiled with an unsupported toolchain",
            "forward compatibility was attempted",
            "unsupported display driver / cuda driver combination",
        ),
        "The NVIDIA driver does not fit the CUDA version of the toolchain",
        DRIVER,
        _compile(r"(?P<code>found version \d{1,9}|failure with error: \d{1,9})"),
        " ({code})",
    ),
    Known(
        "MPI as root",
        ("detected an attempt to run as root", "has detected an attempt to run as root"),
        "Open MPI refuses to start as root",
        "Run as another user, or set OMPI_ALLOW_RUN_AS_ROOT, PRTE_ALLOW_RUN_AS_ROOT and both names "
        "with _CONFIRM at their end to 1.",
    ),
    Known(
        "MPI slots",
        ("All nodes which are allocated for this job are already filled", "not enough slots"),
        "MPI refuses to start a process: it counts no free slot on this machine",
        "Unset the variables of the batch system (SLURM_*, PMI_*), or set "
        "OMPI_MCA_rmaps_base_oversubscribe=1.",
    ),
    Known(
        "MPI",
        ("libmpi.so", "libmpi_cxx.so", "cannot load MPI library", "MPI_Init_thread", "libpmix"),
        "Open MPI is missing or does not start",
        "Install it (apt-get install libopenmpi-dev; in conda, openmpi and mpi4py from "
        "conda-forge), or use NVIDIA's container.",
    ),
    Known(
        "shared library",
        ("cannot open shared object file", "undefined symbol"),
        "A library that TensorRT-LLM needs is missing or of another version",
        LIBRARIES,
        _compile(r"(?P<name>lib[\w.+-]{1,100}: cannot open|undefined symbol: \w{1,100})"),
        " ({name})",
    ),
    Known(
        "package",
        ("ModuleNotFoundError: No module named", "ImportError: cannot import name"),
        "A Python package is missing in the toolchain, or of another version",
        LIBRARIES,
        _compile(r"(?:named|name) '(?P<name>[\w.]{1,100})'"),
        ": {name}",
    ),
    Known(
        "a worker died",
        ("A process in the process pool was terminated abruptly", "terminated with signal SIGKILL"),
        "One of the builder's processes was killed, most likely because the host's memory ran out",
        HOST_MEMORY,
    ),
    Known(
        "host memory",
        (
            "can't allocate memory",
            "Cannot allocate memory",
            "\nMemoryError",
            "ArrayMemoryError",
            "std::bad_alloc",
        ),
        "The host's memory is not enough",
        HOST_MEMORY,
        _compile(r"tried to allocate (?P<bytes>\d{1,18}) bytes"),
        " ({bytes} were asked for)",
    ),
    Known(
        "GPU memory",
        (
            "OutOfMemory (",
            "OutOfMemoryError: ",
            "CUDA out of memory",
            "CUDA error: out of memory",
            "Cuda Runtime (out of memory)",
            "Requested amount of GPU memory",
            "cudaErrorMemoryAllocation",
        ),
        "The GPU's memory is not enough",
        GPU_MEMORY,
        _compile(
            r"(?:amount of GPU memory \(|Requested size was )(?P<bytes>\d{1,18}) bytes"
            r"|Tried to allocate (?P<tried>[\d.]{1,12} [KMGT]iB)"
            r"(?:.{0,80}?total capacity of (?P<total>[\d.]{1,12} [KMGT]iB)"
            r" of which (?P<free>[\d.]{1,12} [KMGT]iB) is free)?"
        ),
        " ({bytes}{tried} were asked for)",
        passing=True,
    ),
    Known(
        "no implementation",
        ("Could not find any implementation for node",),
        "TensorRT found no kernel that can run a part of this network",
        "This is often a lack of GPU memory while it tries them: lower max_num_tokens and "
        "max_batch_size; else try another dtype, quantization or gemm_plugin.",
        _compile(r"implementation for node \{?(?:ForeignNode\[)?(?P<node>[^\s.,+]{1,80})"),
        ": {node}",
        passing=True,
    ),
)
"""In the order in which they are believed where a log has evidence of several."""

_MARKS = tuple((mark, known) for known in KNOWN for mark in known.marks)

SIGNALS = {
    4: (
        "The process used an instruction that this processor lacks (signal 4)",
        "Use a machine whose processor has AVX2.",
    ),
    6: (
        "The library gave up (signal 6) without a reason that the workbench knows",
        "The log has the details.",
    ),
    7: ("The process could not reach its memory (signal 7, bus error)", SHARED_MEMORY),
    11: (
        "The library crashed (signal 11, segmentation fault)",
        "Switch off the plugins that you changed, or use NVIDIA's container of this release.",
    ),
}
"""What an end by a signal means, where the log has no better explanation."""


def signal_of(status: int | None) -> int:
    """Return the signal that ended a process, 0 for none; shells and containers add 128."""
    if status is None:
        return 0
    return -status if status < 0 else status - 128 if 128 < status < 128 + 65 else 0


class Evidence:
    """What of a log points to known failures; O(1) memory."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}
        self._size: dict[str, int] = {}

    def take(self, line: str) -> None:
        """Remember a line that speaks of a known failure; of several, the largest size."""
        text = "\n" + line
        for mark, known in _MARKS:
            if mark in text:
                self._keep(known, line)

    def _keep(self, known: Known, line: str) -> None:
        match = known.pattern.search(line) if known.pattern else None
        if match is None:
            self._numbers.setdefault(known.name, "")
            return
        groups = {name: text or "" for name, text in match.groupdict().items()}
        size = int(groups.get("bytes") or 0)
        if size < self._size.get(known.name, 0):
            return
        self._size[known.name] = size
        if size:
            groups["bytes"] = format_bytes(size)
        numbers = known.numbers.format_map(groups)
        if groups.get("total"):
            numbers += f"; it has {groups['total']}, of which {groups['free']} are free"
        self._numbers[known.name] = numbers

    def passed(self) -> None:
        """Forget what TensorRT got over."""
        for known in KNOWN:
            if known.passing:
                self._numbers.pop(known.name, None)
                self._size.pop(known.name, None)

    def sentence(self) -> str:
        """Return what happened and what to do, or nothing."""
        for known in KNOWN:
            if known.name in self._numbers:
                return f"{known.what}{self._numbers[known.name]}. {known.remedy}"
        return ""
