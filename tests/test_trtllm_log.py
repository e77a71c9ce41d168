"""What the tracker reads out of TensorRT-LLM's logs, and what it says when a build fails.

The logs in fixtures/trtllm_logs are written by hand after the wordings of the releases in their
names; the excerpts below after those in the libraries and in public issues.
"""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.backends.trtllm_failures import KNOWN
from workbench.backends.trtllm_lines import STEPS
from workbench.backends.trtllm_log import NOTES, STAGES, LogTracker
from workbench.journal import Journal, View

LOGS = Path(__file__).parent / "fixtures" / "trtllm_logs"


def _lines(name: str) -> list[str]:
    # A carriage return is part of a line: so they come out of a pipe.
    return (LOGS / f"{name}.txt").read_bytes().decode().split("\n")


def _run(tracker: LogTracker, lines: list[str]) -> list[dict[str, Any]]:
    return _begin(tracker) + [event for line in lines for event in tracker.feed(line)]


def _begin(tracker: LogTracker) -> list[dict[str, Any]]:
    """Let the worker report its first stage, which it does before it prints anything."""
    first = STEPS[tracker.step][0]
    tracker.reached(first)
    return [{"event": "stage", "name": first}]


def _stages(events: list[dict[str, Any]]) -> list[str]:
    return [event["name"] for event in events if event["event"] == "stage"]


def _facts(events: list[dict[str, Any]]) -> dict[str, Any]:
    facts = [event for event in events if event["event"] == "fact"]
    return {f["name"]: f.get("bytes", f.get("seconds", f.get("text"))) for f in facts}


def _notes(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "note"]


def _counts(events: list[dict[str, Any]], name: str) -> list[tuple[int, int, str]]:
    counts = [event for event in events if event["event"] == "count" and event["name"] == name]
    return [(event["done"], event["total"], event["unit"]) for event in counts]


def _after(tracker: LogTracker, lines: list[str], needle: str) -> str:
    """Feed up to the line with `needle`; return the stage that then runs."""
    stages = _stages(_begin(tracker))
    for line in lines:
        stages += _stages(tracker.feed(line))
        if needle in line:
            return stages[-1]
    raise AssertionError(needle)


BUILD = ["start", "read", "network", "compile", "write"]


def test_a_build_of_1_2_is_read() -> None:
    events = _run(LogTracker("build"), _lines("build_1.2_one_gpu"))
    assert _stages(events) == BUILD
    assert _facts(events) == {
        "tensorrt_llm_version": "1.2.1",
        "max_seq_len": "40960",
        "host_peak_bytes": 9216 << 20,
        "gpu_peak_bytes": 640 << 20,
        "network_seconds": 5.125,
        "timing_cache": "Global",
        "activation_bytes": 268435456,
        "weights_bytes": 3221225472,
        "engine_seconds": 17.25,
        "tensorrt_gpu_peak_bytes": 3600 << 20,
        "timing_cache_entries": "31",
        "build_seconds": 54.0,
    }
    assert _notes(events) == [
        "TensorRT-LLM: Overriding paged_state to False",
        (
            "TensorRT-LLM: max_num_tokens (8192) shouldn't be greater than max_seq_len * "
            "max_batch_size (4096), specifying to max_seq_len * max_batch_size (4096)."
        ),
    ]
    assert not _counts(events, "write")


@pytest.mark.parametrize(
    ("needle", "stage"),
    [
        ("LLM version", "read"),
        ("pp_reduce_scatter", "read"),
        (".dtype to", "network"),
        ("Total optimization profiles", "network"),
        ("Build TensorRT engine", "compile"),
        ("Engine generation completed", "compile"),
        ("Total time of building Unnamed", "write"),
        ("building all engines", "write"),
    ],
)
def test_each_stage_begins_at_its_line(needle: str, stage: str) -> None:
    assert _after(LogTracker("build"), _lines("build_1.2_one_gpu"), needle) == stage


def test_ranks_one_after_the_other_have_stages_of_their_own() -> None:
    lines = _lines("build_0.12_two_ranks")
    events = _run(LogTracker("build", ranks=2), lines)
    later = [f"{name}.1" for name in BUILD[1:]]
    assert _stages(events) == BUILD + later
    assert _counts(events, "write") == [(1, 2, "ranks")]
    assert _counts(events, "write.1") == [(2, 2, "ranks")]
    facts = _facts(events)
    # The larger rank, in bytes also where TensorRT gives no unit.
    assert facts["activation_bytes"] == 250_000_000
    assert facts["engine_seconds"] == 44.0
    assert facts["host_peak_bytes"] == 40960 << 20
    assert facts["build_seconds"] == 182.0
    assert _notes(events) == [
        (
            "TensorRT-LLM: max_seq_len 9000 is larger than max_position_embeddings 8192 * rotary "
            "scaling 1, the model accuracy might be affected"
        )
    ]
    # The silent read of the second begins as soon as the first is written.
    assert _after(LogTracker("build", ranks=2), lines, "Engine serialized") == "read.1"


def test_a_lost_last_line_does_not_hide_the_next_rank() -> None:
    lines = [x for x in _lines("build_0.12_two_ranks") if "Engine serialized" not in x]
    stages = _stages(_run(LogTracker("build", ranks=2), lines))
    assert stages == [*BUILD, "network.1", "compile.1", "write.1"]


def test_a_flag_that_is_set_late_begins_no_rank() -> None:
    lines = _lines("build_0.12_two_ranks")
    at = next(n for n, line in enumerate(lines) if "Engine serialized" in line)
    lines.insert(at, "[03/02/2026-10:00:00] [TRT-LLM] [I] Set nccl_plugin to None.")
    events = _run(LogTracker("build", ranks=2), lines)
    assert _counts(events, "write") == [(1, 2, "ranks")]


def test_the_largest_rank_counts() -> None:
    lines = [f"[TRT] [I] Total Activation Memory: {n} bytes" for n in (3000, 5000, 4000)]
    assert _facts(_run(LogTracker("build"), lines)) == {"activation_bytes": 5000}


def test_workers_side_by_side_advance_once_and_ranks_are_counted() -> None:
    events = _run(LogTracker("build", ranks=2, workers=2), _lines("build_1.2_two_workers"))
    assert _stages(events) == BUILD
    assert _counts(events, "write") == [(1, 2, "ranks"), (2, 2, "ranks")]
    # Two processes wrote it into one line.
    assert _facts(events)["activation_bytes"] == 120_000_000


def test_the_llm_api_is_read_through_its_colours() -> None:
    lines = _lines("build_0.17_llm_api")
    events = _run(LogTracker("build"), lines)
    assert _stages(events) == ["start", "read", "network"]
    assert _facts(events) == {"tensorrt_llm_version": "0.17.0", "build_seconds": 130.875}
    assert _after(LogTracker("build"), lines, "[2/3]") == "read"


def test_a_calibration_is_counted_and_never_backwards() -> None:
    tracker = LogTracker("convert", ranks=2, batches=8)
    events = _run(tracker, _lines("convert_1.2_quantize"))
    assert _stages(events) == ["import", "load", "calibrate", "export"]
    assert _counts(events, "load") == [(n, 4, "shards") for n in range(1, 5)]
    # It goes round twice.
    assert _counts(events, "calibrate") == [(n, 8, "batches") for n in range(1, 9)]
    assert _counts(events, "export") == [(1, 2, "ranks")]
    assert _facts(events)["calibrate_seconds"] == 25.0


def test_batches_without_a_total_are_no_percentage() -> None:
    events = _run(LogTracker("convert"), _lines("convert_1.2_quantize"))
    assert not _counts(events, "calibrate")


def test_the_scripts_of_older_releases_are_read() -> None:
    events = _run(LogTracker("convert"), _lines("convert_1.0_script"))
    assert _facts(events) == {
        "tensorrt_llm_version": "1.0.0",
        "convert_seconds": 1.5,
        "save_seconds": 7.25,
    }
    assert not _notes(events)
    events = _run(LogTracker("convert"), _lines("convert_0.16_smoothquant"))
    assert _stages(events) == ["import", "load", "calibrate"]
    assert _counts(events, "calibrate") == [(n, 64, "samples") for n in (1, 2, 32, 64)]
    assert _facts(events)["convert_seconds"] == 107.0


def test_a_stage_that_the_worker_reported_is_not_repeated() -> None:
    tracker = LogTracker("convert")
    tracker.reached("load")
    lines = _lines("convert_1.2_quantize")
    events = [event for line in lines for event in tracker.feed(line)]
    assert _stages(events) == ["calibrate", "export"]
    assert _counts(events, "load")[-1] == (4, 4, "shards")


def test_two_threads_share_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a lock a stage that is reported within a line would be set back by that line."""
    tracker = LogTracker("convert")
    entered, reported = threading.Event(), threading.Event()
    read = tracker._staged

    def slow(record: str) -> list[dict[str, Any]]:
        entered.set()
        assert not reported.wait(0.1)
        return read(record)

    monkeypatch.setattr(tracker, "_staged", slow)

    def report() -> None:
        entered.wait(5)
        tracker.reached("export")
        reported.set()

    thread = threading.Thread(target=report)
    thread.start()
    assert _stages(tracker.feed("Starting quantization...")) == ["calibrate"]
    thread.join(5)
    monkeypatch.undo()
    assert tracker.feed("Starting quantization...") == []


def test_the_journal_takes_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for event in _run(LogTracker("build", ranks=2), _lines("build_0.12_two_ranks")):
        if event["event"] == "stage":
            journal.stage(event["name"], event["name"])
        elif event["event"] == "count":
            journal.count(event["name"], event["done"], event["total"], event["unit"])
    view = View(tmp_path)
    view.update()
    assert len(view.stages) == 9
    assert (view.stages["write"].done, view.stages["write.1"].done) == (1, 2)


def test_notes_are_few_and_none_comes_twice() -> None:
    tracker = LogTracker("build")
    warning = "[03/02/2026-10:00:00] [TRT] [W] {} is odd in layer {}"
    lines = [warning.format("weight", n) for n in range(5)]
    assert len(_notes(_run(tracker, lines))) == 1
    lines = [warning.format("x" * n, 0) for n in range(3 * NOTES)]
    assert len(_notes(_run(tracker, lines))) == NOTES - 1
    runtime = "[TensorRT-LLM][WARNING] The value of beta is ignored"
    assert _notes(LogTracker("build").feed(runtime)) == [
        "TensorRT-LLM: The value of beta is ignored"
    ]


# Text that was never expected


ALL = [line for path in sorted(LOGS.iterdir()) for line in _lines(path.stem)]
MARKS = [mark.strip() for known in KNOWN for mark in known.marks]


def _hold(tracker: LogTracker, events: list[dict[str, Any]]) -> None:
    """Check what holds for any text."""
    names = _stages(events)
    assert len(names) == len(set(names))
    seen: set[str] = set()
    done: dict[str, int] = {}
    for event in events:
        if event["event"] == "stage":
            seen.add(event["name"])
        elif event["event"] == "count":
            assert event["name"] in seen
            assert done.get(event["name"], 0) < event["done"] <= event["total"]
            done[event["name"]] = event["done"]
        else:
            assert event["event"] in ("fact", "note")
    places = [list(STAGES).index(name.partition(".")[0]) for name in names]
    ranks = [int(name.partition(".")[2] or 0) for name in names]
    assert all(a < b for a, b in itertools.pairwise(zip(ranks, places, strict=True)))
    assert max(ranks, default=0) < tracker.ranks
    assert len(_notes(events)) <= NOTES
    for status in (None, 0, 1, 137, -9, -11, -250):
        assert isinstance(tracker.failure(status), str)


@pytest.mark.parametrize("step", ["convert", "build"])
@pytest.mark.parametrize("seed", range(12))
def test_any_order_and_any_cut_is_survived(step: str, seed: int) -> None:
    chance = random.Random(seed)
    lines = [*ALL, *MARKS]
    chance.shuffle(lines)
    lines = [line[chance.randrange(4) : len(line) - chance.choice([0, 0, 3, 20])] for line in lines]
    for at in range(0, len(lines) - 1, 7):
        lines[at] += lines[at + 1]
    tracker = LogTracker(step, ranks=chance.randint(1, 4), workers=chance.randint(1, 2), batches=8)
    _hold(tracker, _run(tracker, lines))


PIECES = st.sampled_from([*ALL, *MARKS, "9" * 30, "٣", "\x1b[", "| 0/0 [", "%|", ":", "now: CPU "])


@given(
    lines=st.lists(st.lists(PIECES | st.text(max_size=20), max_size=4).map("".join), max_size=25),
    step=st.sampled_from(["convert", "build"]),
    ranks=st.integers(1, 3),
    workers=st.integers(1, 3),
)
def test_any_text_is_survived(lines: list[str], step: str, ranks: int, workers: int) -> None:
    tracker = LogTracker(step, ranks, workers, batches=4)
    _hold(tracker, _run(tracker, lines))


def test_a_line_without_end_is_survived() -> None:
    tracker = LogTracker("build")
    text = "[03/02/2026-10:00:00] [TRT] [E] " + "x" * 1_000_000
    assert tracker.feed(text) == []
    assert len(tracker.failure(1)) < 600
    # Bounded work: what stands that far out is not looked at.
    assert tracker.feed("x" * 3000 + "Build TensorRT engine ") == []


# Failures

STAMP = "[03/02/2026-10:00:00] "
UNBUILT = (
    "Traceback (most recent call last):\n"
    '  File "/usr/local/bin/trtllm-build", line 8, in <module>\n'
    "    sys.exit(main())\n"
    "AssertionError: Engine building failed, please check the error log."
)
RESIZE = (
    STAMP + "[TRT] [E] [virtualMemoryBuffer.cpp::resizePhysical::151] Error Code 2: OutOfMemory"
)

FAILURES = {
    "TensorRT lacks GPU memory": (
        (
            f"{RESIZE} (Requested size was 4294967296 bytes.)\n"
            f"{STAMP}[TRT] [W] Requested amount of GPU memory (4294967296 bytes) could not be "
            "allocated. There may not be enough free memory for allocation to succeed.\n"
            f"{RESIZE} (Requested size was 16106127360 bytes.)\n"
            f"{RESIZE} (Requested size was 4294967296 bytes.)\n{UNBUILT}"
        ),
        1,
        "The GPU's memory is not enough (15.0 GiB were asked for). Free the GPU",
    ),
    "TensorRT 9 lacks GPU memory": (
        (
            f"{RESIZE} (no further information)\n{STAMP}[TRT] [E] 2: \n"
            f"{STAMP}[TRT-LLM] [E] Engine building failed, please check the error log."
        ),
        1,
        "The GPU's memory is not enough. Free the GPU",
    ),
    "torch lacks GPU memory": (
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a "
            "total capacity of 79.10 GiB of which 1.25 GiB is free. Process 7 has 77 GiB in use."
        ),
        1,
        "(2.00 GiB were asked for); it has 79.10 GiB, of which 1.25 GiB are free. Free the GPU",
    ),
    "killed for memory": (
        (
            f"{STAMP}[TRT] [I] [MemUsageChange] Init CUDA: CPU +1, GPU +0, now: CPU 20480, GPU 9 "
            f"(MiB)\n{RESIZE} (no further information)"
        ),
        -9,
        "killed the process, most likely because the host's memory ran out (it had reached 20.0",
    ),
    "killed for memory, as a shell says it": ("Killed", 137, "host's memory ran out"),
    "killed, and only the log knows": ("Killed", 1, "host's memory ran out"),
    "a worker was killed": (
        (
            "concurrent.futures.process.BrokenProcessPool: A process in the process pool was "
            f"terminated abruptly while the future was running or pending.\n{UNBUILT}"
        ),
        1,
        "One of the builder's processes was killed",
    ),
    "no host memory": (
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
            "can't allocate memory: you tried to allocate 117440512 bytes. Error code 12"
        ),
        1,
        "The host's memory is not enough (112 MiB were asked for). Close other programs",
    ),
    "no host memory, in Python": ("MemoryError", 1, "The host's memory is not enough."),
    "an exception in colours": (
        "\x1b[1;35mKeyError\x1b[0m: \x1b[35m'lm_head'\x1b[0m",
        1,
        "stopped with: KeyError: 'lm_head'. The log",
    ),
    "an unknown architecture, converting": (
        (
            "NotImplementedError: The given huggingface model architecture Llama4ForCausalLM is "
            "not supported in TRT-LLM yet"
        ),
        1,
        "builds no engines for this architecture: Llama4ForCausalLM. Choose",
    ),
    "an unknown architecture, building": (
        "AssertionError: Unsupported model architecture: GptOssForCausalLM",
        1,
        "builds no engines for this architecture: GptOssForCausalLM. Choose",
    ),
    "no engine, with a reason": (
        (
            f"{STAMP}[TRT] [E] ITensor::getDimensions: Error Code 4: Shape Error (bad reshape)\n"
            f"{UNBUILT}"
        ),
        1,
        "stopped with: ITensor::getDimensions: Error Code 4: Shape Error (bad reshape). The log",
    ),
    "no engine, followed by its consequence": (
        (
            f"{STAMP}[TRT] [E] ITensor::getDimensions: Error Code 4: Shape Error (bad reshape)\n"
            f"{STAMP}[TRT-LLM] [E] Engine building failed, please check the error log.\n"
            "TypeError: a bytes-like object is required, not 'NoneType'"
        ),
        1,
        "stopped with: ITensor::getDimensions",
    ),
    "no engine, without a reason": (UNBUILT, 1, "built no engine and logged no error"),
    "an exception": (
        "RuntimeError: Gather context logits is not support with draft len > 0.",
        1,
        "stopped with: RuntimeError: Gather context logits is not support with draft len > 0. The",
    ),
    "disk full, in Python": ("OSError: [Errno 28] No space left on device", 1, "The disk is full"),
    "disk full, in safetensors": (
        (
            'safetensors_rust.SafetensorError: IoError(Os { code: 28, message: "No space left on '
            'device" })'
        ),
        1,
        "The disk is full",
    ),
    "no MPI": (
        "ImportError: libmpi.so.40: cannot open shared object file: No such file or directory",
        1,
        "Open MPI is missing or does not start. Install it",
    ),
    "no MPI, with mpi4py 4": ("RuntimeError: cannot load MPI library", 1, "Open MPI is missing"),
    "MPI as root": (
        "prterun has detected an attempt to run as root.",
        1,
        "Open MPI refuses to start as root",
    ),
    "no MPI slot": (
        "All nodes which are allocated for this job are already filled.",
        1,
        "MPI refuses to start a process",
    ),
    "another library": (
        "ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory",
        1,
        "missing or of another version (libnvinfer.so.10: cannot open). Install",
    ),
    "a torch of another version": (
        "ImportError: /x/bindings.so: undefined symbol: _ZN3c105ErrorC2E",
        1,
        "of another version (undefined symbol: _ZN3c105ErrorC2E). Install",
    ),
    "no package": (
        "ModuleNotFoundError: No module named 'modelopt'",
        1,
        "missing in the toolchain, or of another version: modelopt. Install",
    ),
    "no driver": (
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
        1,
        "There is no NVIDIA GPU that this process can use",
    ),
    "no GPU for the builder": (
        "ValueError: max_workers must be greater than 0",
        1,
        "no NVIDIA GPU",
    ),
    "no GPU for TensorRT": (
        f"{STAMP}[TRT] [W] CUDA initialization failure with error: 100. Please check your CUDA",
        1,
        "There is no NVIDIA GPU",
    ),
    "an old driver, in torch": (
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). "
            "Please update your GPU driver"
        ),
        1,
        "does not fit the CUDA version of the toolchain (found version 12020). Update",
    ),
    "an old driver, in TensorRT": (
        f"{STAMP}[TRT] [W] CUDA initialization failure with error: 35. Please check your CUDA",
        1,
        "of the toolchain (failure with error: 35). Update",
    ),
    "an engine of another TensorRT": (
        (
            f"{STAMP}[TRT] [E] 6: The engine plan file is not compatible with this version of "
            "TensorRT, expecting library version 9.2.0.5 got 9.3.0.1, please rebuild."
        ),
        1,
        "built with another version of TensorRT (9.3.0.1; here is 9.2.0.5). Build",
    ),
    "an engine of another serialization": (
        (
            f"{STAMP}[TRT] [E] Serialization assertion stdVersionRead == kSERIALIZATION_VERSION "
            "failed.Version tag does not match. Note: Current Version: 228, Serialized Engine "
            "Version: 237)"
        ),
        1,
        "another version of TensorRT (237; here is 228). Build",
    ),
    "an engine of another GPU": (
        (
            f"{STAMP}[TRT] [E] 6: The engine plan file is generated on an incompatible device, "
            "expecting compute 9.0 got compute 8.9, please rebuild.\n"
            "[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine."
        ),
        1,
        "another kind of GPU (expected compute capability 9.0, got 8.9). Build",
    ),
    "a GPU unknown to TensorRT": (
        (
            f"{STAMP}[TRT] [E] IBuilder::buildSerializedNetwork: Error Code 9: API Usage Error "
            f"(Target GPU SM 61 is not supported by this TensorRT release.)\n{UNBUILT}"
        ),
        1,
        "no kernels for this GPU (SM 61). Use",
    ),
    "a GPU unknown to torch": (
        (
            "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the "
            "device"
        ),
        1,
        "The installed PyTorch has no kernels for this GPU",
    ),
    "a quantization that Blackwell lacks": (
        "RuntimeError: INT8/INT4 quantization is not supported on SM>=100.",
        1,
        "option of the build: INT8/INT4 quantization is not supported on SM>=100. Switch",
    ),
    "a plugin that Blackwell lacks": (
        "NotImplementedError: gemm_swiglu_plugin=fp8 is not supported on SM 100.",
        1,
        "option of the build: gemm_swiglu_plugin=fp8 is not supported on SM 100. Switch",
    ),
    "no bfloat16": ("RuntimeError: Pre SM 80 GPUs do not support bfloat16", 1, "dtype float16"),
    "a gated model": (
        (
            "huggingface_hub.errors.GatedRepoError: 401 Client Error.\n"
            "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/"
            "main/config.json."
        ),
        1,
        "refuses the files of meta-llama/Llama-3.1-8B. Accept the licence",
    ),
    "calibration data out of reach": (
        "ConnectionError: Couldn't reach 'abisee/cnn_dailymail' on the Hub (LocalEntryNotFound)",
        1,
        "The calibration data cannot be loaded: abisee/cnn_dailymail. Name a local folder",
    ),
    "code in the model": (
        "ValueError: Loading /m requires you to execute the configuration file in that repo",
        1,
        "The model brings Python code of its own",
    ),
    "no shared memory": (
        (
            "It appears as if there is not enough space for /dev/shm/vader_segment.host.0 (the "
            "shared-memory backing file)."
        ),
        1,
        "not enough shared memory in /dev/shm. In a container",
    ),
    "a bus error": ("", -7, "signal 7, bus error). In a container"),
    "a crash": ("", -11, "signal 11, segmentation fault). Switch off"),
    "a crash after an error": (
        "[TensorRT-LLM][ERROR] Assertion failed: invalid plugin field",
        139,
        "stopped with: Assertion failed: invalid plugin field. The log",
    ),
    "no implementation": (
        (
            f"{STAMP}[TRT] [E] 10: Could not find any implementation for node "
            f"{{ForeignNode[LLaMAForCausalLM/layers/0/qkv...CAST_5]}}.\n{UNBUILT}"
        ),
        1,
        "no kernel that can run a part of this network: LLaMAForCausalLM/layers/0/qkv",
    ),
    "nothing known": ("All went well until now.", 1, ""),
}


@pytest.mark.parametrize(("text", "status", "says"), FAILURES.values(), ids=FAILURES)
def test_a_failure_has_its_sentence(text: str, status: int, says: str) -> None:
    tracker = LogTracker("build")
    _run(tracker, text.split("\n"))
    sentence = tracker.failure(status)
    assert says in sentence
    assert bool(says) == bool(sentence)
    assert "{" not in sentence


def test_every_known_failure_has_an_excerpt() -> None:
    said = []
    for text, status, _ in FAILURES.values():
        tracker = LogTracker("build")
        _run(tracker, text.split("\n"))
        said.append(tracker.failure(status))
    assert not [k.name for k in KNOWN if not any(s.startswith(k.what) for s in said)]


def test_a_good_build_leaves_no_suspicion() -> None:
    # TensorRT tried a kernel that was too large, and took another one.
    tracker = LogTracker("build")
    skipped = STAMP + "[TRT] [W] Requested amount of GPU memory (33555480576 bytes) could not be"
    lines = _lines("build_1.2_one_gpu")
    middle = next(n for n, line in enumerate(lines) if "Detected 17 inputs" in line)
    events = _run(tracker, [*lines[:middle], skipped, RESIZE + " (x)", *lines[middle:]])
    assert _stages(events) == BUILD
    assert not [note for note in _notes(events) if "Requested amount" in note]
    assert "memory" not in tracker.failure(1)


@pytest.mark.parametrize("path", sorted(LOGS.iterdir()), ids=lambda path: path.stem)
def test_a_log_without_a_failure_explains_none(path: Path) -> None:
    tracker = LogTracker(path.stem.partition("_")[0], ranks=2)
    _run(tracker, _lines(path.stem))
    assert tracker.failure(1) == ""
