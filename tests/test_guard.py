"""What a build needs is compared with what there is, and a shortage is told with its numbers."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import stat
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench import guard
from workbench.backends import NAMES, get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan, engine_of, start_build
from workbench.errors import JobError, SpecError
from workbench.fit import BuildNeed, Part
from workbench.gpus import Gpu
from workbench.journal import Journal, View
from workbench.model import Model
from workbench.processes import processes_of
from workbench.runner import describe_os_error, with_numbers

GIB = 1 << 30
MIB = 1 << 20


def _part(low: int, high: int) -> Part:
    return Part("part", low * GIB, high * GIB, exact=False, how="measured on a rainy day")


NEED = BuildNeed(_part(4, 8), _part(10, 12))
ON_GPU = dataclasses.replace(NEED, device=_part(20, 30))


def _gpu(free: int, total: int = 80) -> Gpu:
    return Gpu(0, "H100", (9, 0), total * GIB, free * GIB, "GPU-1")


def _fit() -> Any:
    spec = make_spec({})
    model = Model.read(DEMO_MODEL)
    return get_backend("openvino").fit(spec, model, Plan.make(spec).device)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what this machine has, in GiB: `machine(disk=5)`; the rest is plenty."""

    def have(
        disk: float = 100,
        total: float = 64,
        available: float = 32,
        swap: tuple[float, float] = (0, 0),
        limit: float | None = None,
    ) -> None:
        sizes = [round(size * GIB) for size in (disk, total, available, *swap)]
        monkeypatch.setattr(guard, "free_disk", lambda _: sizes[0])
        monkeypatch.setattr(guard, "memory", lambda: (sizes[1], sizes[2]))
        monkeypatch.setattr(guard, "swap", lambda: (sizes[3], sizes[4]))
        monkeypatch.setattr(guard, "address_limit", lambda: limit and round(limit * GIB))

    have()
    return have


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "job").mkdir()
    return Journal(tmp_path / "job")


def _facts(journal: Journal) -> dict[str, Any]:
    view = View(journal.path)
    view.update()
    return view.facts


# Before the build.


@pytest.mark.parametrize(
    ("has", "free_on_gpu", "level", "words"),
    [
        (
            {"disk": 9},
            70,
            "refuse",
            "writes at least 10.0 GiB, and only 9.00 GiB are free on the disk",
        ),
        ({"disk": 11}, 70, "warn", "may write up to 12.0 GiB, and 11.0 GiB are free in"),
        (
            {"total": 3, "available": 2},
            70,
            "refuse",
            "at least 4.00 GiB of memory; 2.00 GiB are av",
        ),
        ({"available": 3}, 70, "warn", "3.00 GiB are available, and this process can have no more"),
        ({"limit": 3}, 70, "refuse", "process can have no more than 3.00 GiB"),
        ({}, 19, "warn", "at least 20.0 GiB on the GPU; 19.0 GiB of 80.0 GiB are free on H100"),
    ],
)
def test_what_is_missing_is_found_with_its_level_and_numbers(
    machine: Callable[..., None],
    has: dict[str, Any],
    free_on_gpu: int,
    level: str,
    words: str,
) -> None:
    machine(**has)
    (finding,) = guard.findings(ON_GPU, _fit(), [_gpu(free_on_gpu)])
    assert (finding.level, finding.source) == (level, "measured on a rainy day")
    assert words in finding.reason
    assert finding.remedy


def test_a_gpu_that_is_too_small_altogether_is_refused(machine: Callable[..., None]) -> None:
    (finding,) = guard.findings(ON_GPU, _fit(), [_gpu(15, total=16)])
    assert finding.level == "refuse"


def test_only_gpus_that_it_compiles_on_are_looked_at(machine: Callable[..., None]) -> None:
    gpus = [_gpu(70), _gpu(1), _gpu(2)]
    assert guard.findings(ON_GPU, _fit(), gpus) == []
    two = dataclasses.replace(ON_GPU, devices=2)
    assert [finding.level for finding in guard.findings(two, _fit(), gpus)] == ["warn"]
    assert guard.findings(NEED, _fit(), gpus[1:]) == []


def test_all_gpus_that_the_engine_is_tried_on_are_looked_at(machine: Callable[..., None]) -> None:
    ranks = dataclasses.replace(ON_GPU, ranks=2)
    gpus = [_gpu(70), dataclasses.replace(_gpu(1), index=1)]
    (finding,) = guard.findings(ranks, _fit(), gpus)
    assert "1.00 GiB of 80.0 GiB are free on H100 (GPU 1)" in finding.reason
    assert guard.findings(ranks.untried, _fit(), gpus) == []


def test_a_gpu_that_is_too_small_altogether_comes_before_one_that_is_full(
    machine: Callable[..., None],
) -> None:
    ranks = dataclasses.replace(ON_GPU, ranks=2)
    (finding,) = guard.findings(ranks, _fit(), [_gpu(1), _gpu(16, total=16)])
    assert finding.level == "refuse"


def test_a_recipe_that_nobody_tries_takes_no_gpu(machine: Callable[..., None]) -> None:
    recipe = dataclasses.replace(ON_GPU, devices=0)
    assert len(guard.findings(recipe, _fit(), [_gpu(1)])) == 1
    assert guard.findings(recipe.untried, _fit(), [_gpu(1)]) == []


def test_where_there_is_enough_nothing_is_found(machine: Callable[..., None]) -> None:
    machine(disk=12, total=8, available=4)
    assert guard.findings(NEED, _fit(), []) == []


def test_swap_is_memory_that_a_process_may_have(machine: Callable[..., None]) -> None:
    machine(total=3, available=2, swap=(2, 1.5))
    (finding,) = guard.findings(NEED, _fit(), [])
    assert finding.level == "warn"
    machine(total=3, available=2, swap=(2, 2))
    assert guard.findings(NEED, _fit(), []) == []


def test_the_form_refuses_what_cannot_work(machine: Callable[..., None], home: Path) -> None:
    machine(disk=0.001)
    with pytest.raises(SpecError, match=r"only 1\.02 MiB are free on the disk of"):
        start_build(make_spec({}))
    assert not (home / "jobs").exists()


# When its turn has come.


@pytest.mark.parametrize(
    ("has", "free_on_gpu", "words"),
    [
        ({"disk": 9}, 70, r"writes at least 10\.0 GiB, and only 9\.00 GiB are .* Free some"),
        ({"available": 3}, 70, r"at least 4\.00 GiB of memory; 3\.00 GiB are available.* Close"),
        ({}, 19, r"at least 20\.0 GiB on the GPU; 19\.0 GiB of 80\.0 GiB are free on H100\. End"),
    ],
)
def test_a_job_is_refused_while_not_even_the_least_is_free(
    machine: Callable[..., None],
    journal: Journal,
    has: dict[str, Any],
    free_on_gpu: int,
    words: str,
) -> None:
    machine(**has)
    with pytest.raises(JobError, match=f"^Nothing was begun: the build .*{words}") as caught:
        guard.check_now(journal, ON_GPU, [_gpu(free_on_gpu)])
    assert "\n" not in str(caught.value)


def test_between_the_least_and_the_most_a_job_goes_on_and_journals_the_estimate(
    machine: Callable[..., None], journal: Journal
) -> None:
    machine(disk=10, total=5, available=4)
    guard.check_now(journal, ON_GPU, [_gpu(20)])
    assert _facts(journal)["need"] == {
        "disk": [10 * GIB, 12 * GIB],
        "memory": [4 * GIB, 8 * GIB],
        "GPU memory": [20 * GIB, 30 * GIB],
    }


def test_backends_say_what_they_need_of_a_gpu() -> None:
    model = Model.read(DEMO_MODEL)
    needs = {name: get_backend(name).need(make_spec({"backend": name}), model) for name in NAMES}
    assert needs["openvino"].device is None
    for name in ("tensorrt_llm", "tensorrt_llm_torch", "transformers"):
        device = needs[name].device
        assert device is not None
        assert 2 * model.parameters <= device.low < device.high
        assert not device.exact
    assert needs["tensorrt_llm"].device != needs["tensorrt_llm_torch"].device
    assert {name: needs[name].devices for name in needs} == {
        "openvino": 1,
        "tensorrt_llm": 1,
        "tensorrt_llm_torch": 0,
        "transformers": 0,
    }


# When it has failed.


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("MemoryError: ", "memory"),
        ("MemoryError: std::bad_alloc", "memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. GiB", "memory"),
        ("RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory", "memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "memory"),
        ("ImportError: libtorch_cpu.so: failed to map segment from shared object", "memory"),
        ("The build's worker was killed (signal 9; out of memory is a usual cause).", "memory"),
        ("most likely because the host's memory ran out", "memory"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "GPU memory"),
        ("The GPU's memory is not enough (8.00 GiB were asked for).", "GPU memory"),
        ("The disk is full: 1 MiB are free", "disk"),
        ("The library crashed (signal 11, segmentation fault)", None),
        ("There is no such model", None),
    ],
)
def test_words_of_runtimes_tell_what_ran_out(text: str, resource: str | None) -> None:
    assert guard.shortage(text) == resource


FACTS = {
    "need": {"memory": [4 * GIB, 8 * GIB], "disk": [GIB, GIB], "GPU memory": [GIB, 2 * GIB]},
    "peak_memory_bytes": 3 * GIB,
    "least_available_memory_bytes": 100 * MIB,
    "host_memory_bytes": 4 * GIB,
    "least_disk_free_bytes": 7 * MIB,
    "peak_gpu_memory_bytes": 79 * GIB,
    "gpu_memory_total_bytes": 80 * GIB,
}


@pytest.mark.parametrize(
    ("text", "numbers", "estimate"),
    [
        (
            "It ended with: MemoryError.",
            "It had reached 3.00 GiB, at the least 100 MiB of 4.00 GiB were available, {}.",
            "4.00 GiB to 8.00 GiB",
        ),
        (
            "CUDA out of memory.",
            "At the most 79.0 GiB of the GPU's 80.0 GiB were seen in use, {}.",
            "1.00 GiB to 2.00 GiB",
        ),
        ("The disk is full.", "At the least 7.00 MiB were seen free, {}.", "1.00 GiB"),
    ],
)
def test_a_shortage_is_told_with_its_numbers(
    tmp_path: Path, text: str, numbers: str, estimate: str
) -> None:
    told = guard.explained(text, FACTS, tmp_path)
    assert told == f"{text} {numbers.format(f'the estimate was {estimate}')}"


def test_other_failures_are_told_as_they_are(tmp_path: Path) -> None:
    assert guard.explained("There is no such model.", FACTS, tmp_path) == "There is no such model."


@pytest.mark.parametrize("need", [None, 7, {"memory": "much"}, {"memory": [1]}, {}])
def test_without_facts_or_with_broken_ones_the_text_stands_alone(
    tmp_path: Path, need: object
) -> None:
    facts = {"need": need, "peak_memory_bytes": "many"}
    assert guard.explained("MemoryError.", facts, tmp_path) == "MemoryError."


VERSIONS = {
    "version 2": ("0::/box\n", "unified/box/memory.events", "low 0\noom 3\noom_kill {}\n"),
    "version 1": ("4:memory:/box\n", "memory/box/memory.oom_control", "under_oom 0\noom_kill {}\n"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_kernel_counts_makes_a_guess_certain(tmp_path: Path, version: str) -> None:
    group, name, text = VERSIONS[version]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    counter = tmp_path / "sys/fs/cgroup" / name
    counter.parent.mkdir(parents=True)
    killed = "Its worker was killed (signal 9)."
    counter.write_text(text.format(2))
    assert "kernel" not in guard.explained(killed, {**FACTS, "oom_kills": 2}, tmp_path)
    counter.write_text(text.format(3))
    assert guard.explained(killed, {**FACTS, "oom_kills": 2}, tmp_path).startswith(
        f"{killed} Since it began, the kernel has killed 1 process here because memory ran out. It"
    )
    assert "kernel" not in guard.explained(killed, FACTS, tmp_path)


def test_a_runner_that_is_gone_leaves_numbers_and_a_guess() -> None:
    assert guard.last_words(FACTS).startswith(
        "Its process is gone without a last word: it was killed, most likely because the host's "
        "memory ran out. It had reached 3.00 GiB, at the least 100 MiB of 4.00 GiB were available"
    )
    roomy = {**FACTS, "least_available_memory_bytes": 3 * GIB}
    assert "it was killed, perhaps for memory. It had reached 3.00 GiB" in guard.last_words(roomy)
    assert guard.last_words({}).endswith("it was killed, perhaps for memory.")


def test_a_full_disk_says_what_the_build_needs(journal: Journal, home: Path) -> None:
    journal.fact(need={"disk": [10 * GIB, 12 * GIB]}, least_disk_free_bytes=2 * MIB)
    text = with_numbers(describe_os_error(OSError(28, "No space left on device")), journal.path)
    assert re.fullmatch(
        r"The disk is full: [\d.]+ [MGT]iB are free in \S+, now that what was unfinished is gone\. "
        r"Free some space, or set WORKBENCH_HOME to a folder on a larger disk; nothing was "
        r"published\. At the least 2\.00 MiB were seen free, the estimate was 10\.0 GiB to 12\.0 "
        r"GiB\.",
        text,
    )


# For real: jobs whose worker meets the limit.

WORKER = """
    import json, os, signal, socket, sys
    how = sys.argv.pop()
    channel = socket.socket(fileno=int(sys.argv[-1]))
    reader = channel.makefile("rb")
    reader.readline()

    def say(**message):
        channel.sendall(json.dumps(message).encode() + b"\\n")

    say(event="stage", name="load")
    if how == "python":
        try:
            bytearray(1 << 40)
        except MemoryError as error:
            say(event="error", message=f"{type(error).__name__}: {error}", expected=False)
    elif how == "refused":
        text = "transformers cannot load this model: DefaultCPUAllocator: can't allocate memory"
        say(event="error", message=text, expected=True)
    elif how == "aborted":
        text = "terminate called after throwing an instance of 'std::bad_alloc'"
        print(text, "  what():  std::bad_alloc", sep="\\n", flush=True)
        signal.raise_signal(signal.SIGABRT)
    elif how == "killed":
        signal.raise_signal(signal.SIGKILL)
"""


def _limited(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Make a toolchain that runs `command` in place of an interpreter when it builds."""
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$2" in build) {command};; esac\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", str(python))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("python", r"The host's memory ran out in the toolchain: MemoryError\. Close"),
        ("refused", r"ran out in the toolchain: transformers .*can't allocate memory\. Close"),
        ("aborted", r"ran out in the toolchain: .*std::bad_alloc'?\. Close"),
        ("killed", r"was killed \(signal 9; out of memory is a usual cause\)"),
    ],
)
def test_a_build_that_runs_out_of_memory_ends_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, how: str, words: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    _limited(
        tmp_path,
        monkeypatch,
        # Half a gigabyte of addresses is plenty for an interpreter, and nothing beside a terabyte.
        f'ulimit -v 524288; exec "{sys.executable}" "{script}" "$@" {how}',
    )
    build = start_build(make_spec({}), smoke=False)
    number = r"[\d.]+ [MG]iB"
    with pytest.raises(JobError, match=words) as caught:
        build.wait()
    assert re.search(
        rf"It had reached {number}, at the least {number} of {number} were available",
        str(caught.value),
    )
    assert "\n" not in str(caught.value)


def test_the_real_worker_under_a_limit_ends_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    # PyTorch's libraries alone take more addresses than this.
    _limited(tmp_path, monkeypatch, "ulimit -v 204800")
    with pytest.raises(
        JobError, match=r"The host's memory ran out in the toolchain: .*It had reached [\d.]+ MiB"
    ):
        start_build(make_spec({}), smoke=False).wait()


def test_who_reads_the_journal_of_a_killed_runner_gets_its_last_numbers(home: Path) -> None:
    build = start_build(make_spec({"threads": 1}), smoke=False)
    assert build.job is not None
    deadline = time.monotonic() + 30.0
    while "peak_memory_bytes" not in build.job.view().facts:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    owner = build.job.view().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    with pytest.raises(
        JobError, match=r"gone without a last word: it was killed.* It had reached [\d.]+ MiB"
    ):
        engine_of(build.job, build.job.wait())
    # The worker ends too, from within whatever native code it was in.
    while processes_of(build.job.path):
        assert time.monotonic() < deadline + 30.0
        time.sleep(0.05)
