"""Trials of servers: chunks, counts that only the server knows, and what is missing is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEMO
from tests.servers.scripted import Connection, completing, scripted
from tests.servers.triton_frontend import frontend
from workbench import results
from workbench.axes import COST, values_of
from workbench.bench import run_trial
from workbench.build import DEMO_MODEL
from workbench.candidates import candidates_of
from workbench.cli import main
from workbench.comparison import Comparison
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError
from workbench.hardware import host
from workbench.prompts import vocabulary_of
from workbench.served import run_endpoint_trial, run_server_trial, server_point
from workbench.server_spec import ServerSpec
from workbench.serving import Server
from workbench.tokenizer import read_tokenizer
from workbench.trial import Trial
from workbench.trial_words import trial_lines
from workbench.widgets.compare import ComparePanel
from workbench.workload import Workload

WORKLOAD = Workload(input_len=5, output_len=6, requests=4, warmup=1, concurrency=2)


def test_a_server_is_measured_with_the_workload_of_an_engine() -> None:
    with scripted(completing()) as server:
        trial = run_endpoint_trial(
            Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL, devices=2
        ).require()
        asked = server.asked
    # One token, to see whether it takes ids; the warm-up; four requests.
    assert asked.pop(0).body["max_tokens"] == 1
    assert len(asked) == 5
    assert {len(connection.body["prompt"]) for connection in asked} == {5}
    assert all(connection.body["ignore_eos"] for connection in asked)
    assert trial.spec["model"] == "m"
    assert trial.summary["output_tokens"] == 4 * 6
    assert trial.summary["input_tokens"] == 4 * 5
    per_device = trial.summary["output_tokens_per_second_per_device"]
    assert per_device == pytest.approx(trial.summary["output_tokens_per_second"] / 2)
    # Three chunks of two tokens: two gaps a request.
    assert [len(request["itl"]) for request in trial.record["repetitions"][0]] == [2] * 4
    assert results.find_trial(trial.id).valid


def test_a_server_that_gives_fewer_tokens_than_it_should_makes_it_invalid() -> None:
    with scripted(completing(short=2)) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL)
    assert trial.status == "invalid"
    assert "it was asked for 6 output tokens and gave 4" in trial.record["reasons"][0]


def test_tokens_that_nobody_counts_make_it_invalid(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo\n")
    with scripted(frontend()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD.replace(prompts=str(path)))
    assert trial.status == "invalid"
    assert "nobody tells how many output tokens it had" in trial.record["reasons"][0]


def test_a_server_that_takes_text_alone_and_counts_nothing_is_measured() -> None:
    with scripted(frontend()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL).require()
        refused, _, _, *measured = server.asked
    assert isinstance(refused.body["prompt"], list)
    prompts = [connection.body["prompt"] for connection in measured]
    assert len(set(prompts)) == 4
    tokenizer = read_tokenizer(DEMO_MODEL)
    assert tokenizer
    counts = [tokenizer.count(prompt) for prompt in prompts]
    assert all(5 <= count <= 7 for count in counts)
    assert trial.summary["input_tokens"] == sum(counts)
    assert trial.summary["output_tokens"] == 4 * 6
    assert {request["counted"] for request in trial.record["repetitions"][0]} == {"here"}
    shown = "\n".join(trial_lines(trial))
    assert "The server takes no token ids: prompts were sent as text" in shown
    assert "they were counted here, by encoding its text" in shown


def test_a_server_that_counts_is_believed_and_nothing_is_remarked() -> None:
    with scripted(completing()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL).require()
    assert {request["counted"] for request in trial.record["repetitions"][0]} == {"server"}
    assert "counted here" not in "\n".join(trial_lines(trial))


def test_far_more_tokens_than_were_asked_for_are_found_also_where_they_were_counted_here() -> None:
    with scripted(frontend(12, deaf=True)) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL)
    assert trial.status == "invalid"
    assert "it was asked for 6 output tokens and gave 12" in trial.record["reasons"][0]


def test_what_takes_text_alone_needs_the_package_that_makes_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with scripted(frontend()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL)
    assert trial.status == "failed"
    assert "only single string input is supported" in trial.record["reasons"][0]
    assert "pip install 'trtllm-workbench[trials]'" in trial.record["reasons"][0]


def test_a_server_that_refuses_text_too_is_a_failed_trial_with_its_words() -> None:
    def refuse(connection: Connection) -> None:
        connection.answer("400 Bad Request", b'{"detail": "Unknown model: m"}')

    with scripted(refuse) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL)
    assert trial.status == "failed"
    assert "Unknown model: m" in trial.record["reasons"][0]


def test_a_spelled_prompt_has_as_many_tokens_as_its_ids() -> None:
    tokenizer = read_tokenizer(DEMO_MODEL)
    assert tokenizer
    ids = vocabulary_of(DEMO_MODEL)[200:328]
    assert abs(tokenizer.count(tokenizer.spell(ids)) - 128) <= 4


def test_a_server_of_ours_is_a_point_beside_its_engine(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_trial(DEMO, WORKLOAD)
    with scripted(completing()) as server:
        ours = Server(("x",), server.url, engine=stocked.key)
        monkeypatch.setattr("workbench.served.server_at", lambda _: ours)
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL).require()
    assert trial.record["engine"]["key"] == stocked.key
    assert trial.record["environment"]["device"] == host().name
    assert (trial.spec["model"], trial.spec["served_model"]) == ("demo", "m")
    assert "Engine   " in "\n".join(trial_lines(trial))
    candidates = candidates_of([alone.require(), trial])
    assert [candidate.group for candidate in candidates] == ["", ""]
    panel = ComparePanel()
    panel.choose(trial.id)
    panel.use()
    assert panel.engine
    assert panel.engine.key == stocked.key


def test_nothing_is_known_of_what_a_server_of_others_runs_on() -> None:
    with scripted(completing()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL).require()
        again = server.url.replace("127.0.0.1", "localhost")
        other = run_endpoint_trial(Endpoint(again), WORKLOAD, tokenizer=DEMO_MODEL).require()
    assert trial.record["environment"]["device"] is None
    assert trial.record["engine"] == {}
    # Two names of one server are no two devices.
    assert [candidate.group for candidate in candidates_of([trial, other])] == ["", ""]


def test_what_a_server_runs_on_can_be_said_and_is_compared_by_it() -> None:
    def measure(**said: Any) -> Trial:
        with scripted(completing()) as server:
            spec = ServerSpec.parse({"url": server.url, "tokenizer": str(DEMO_MODEL), **said})
            return run_server_trial(spec, WORKLOAD).require()

    said = {"device_name": "NVIDIA H100 80GB HBM3", "devices": 2}
    first, second, unsaid = measure(**said), measure(**said), measure(device_name="NVIDIA H200")
    assert "Device" not in "\n".join(trial_lines(first))
    compared = Comparison.make([first, second, unsaid], price=2.0)
    groups: dict[str, set[str]] = {}
    for candidate in compared.candidates:
        groups.setdefault(candidate.device, set()).add(candidate.group)
    assert {device: len(found) for device, found in groups.items()} == {
        "2 x NVIDIA H100 80GB HBM3": 1,
        "NVIDIA H200": 1,
    }
    assert all("--device-name=NVIDIA H" in c.command for c in compared.candidates)
    speed = first.summary["output_tokens_per_second"]
    assert values_of(first, COST, 2.0) == [pytest.approx(2 * 2.0 / (speed * 3600) * 1e6)]
    (number,) = [c.number for c in compared.candidates if c.device == "NVIDIA H200"]
    (note,) = [note for note in compared.notes() if "cost" in note]
    assert note.startswith(f"The cost of {number} is that of a single device")


def test_what_nobody_says_of_a_server_is_unknown_in_words() -> None:
    with scripted(completing()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=DEMO_MODEL).require()
    shown = "\n".join(trial_lines(trial))
    assert "Device   unknown; with device_name it is compared" in shown
    assert "Device   counted as one" in shown
    (candidate,) = candidates_of([trial])
    assert candidate.device.startswith("unknown device of localhost:")
    notes = Comparison.make([trial]).notes()
    assert any("What 1 ran on is unknown" in note for note in notes)
    # Without a price there is no cost that could be wrong.
    assert not any("cost" in note for note in notes)


def test_another_device_is_another_point() -> None:
    spec = ServerSpec(url="http://127.0.0.1:1")
    said = [spec, spec.replace(device_name="A"), spec.replace(device_name="B")]
    assert len({server_point(one, WORKLOAD) for one in said}) == 3


def test_a_command_measures_the_same_server_again(capsys: pytest.CaptureFixture) -> None:
    words = ["--input-len=5", "--output-len=6", "--requests=2", f"--tokenizer={DEMO_MODEL}"]
    with scripted(completing(), models=["m", "n"]) as server:
        assert main(["trial", f"--url={server.url}", "--served-model=n", *words]) == 0
        (candidate,) = Comparison.make().candidates
        assert f"--url={server.url} --served-model=n --tokenizer=" in candidate.command
        assert main(candidate.command.split()[1:]) == 0
    capsys.readouterr()
    (candidate,) = Comparison.make().candidates
    assert len(candidate.trials) == 2


def test_what_only_a_server_has_is_refused_without_one(capsys: pytest.CaptureFixture) -> None:
    assert main(["trial", "--served-model=m"]) == 2
    assert "served_model: only a server has that. Give its url too." in capsys.readouterr().err


def test_without_a_tokenizer_prompts_come_from_a_file(tmp_path: Path) -> None:
    with scripted(completing()) as server:
        trial = run_endpoint_trial(Endpoint(server.url), WORKLOAD)
        assert trial.status == "failed"
        assert "Give a file of prompts" in trial.record["reasons"][0]
        path = tmp_path / "prompts.txt"
        path.write_text("one\ntwo\n")
        own = WORKLOAD.replace(prompts=str(path))
        assert run_endpoint_trial(Endpoint(server.url), own).require().summary["requests"] == 4
        with pytest.raises(InputError, match="There is no tokenizer"):
            run_endpoint_trial(Endpoint(server.url), WORKLOAD, tokenizer=tmp_path)


def test_a_server_that_is_gone_is_a_failed_trial() -> None:
    with scripted(completing()) as server:
        url = server.url
    trial = run_endpoint_trial(Endpoint(url), WORKLOAD, tokenizer=DEMO_MODEL)
    assert trial.status == "failed"
    assert results.list_trials() == [results.find_trial(trial.id)]


def test_the_command_line_measures_a_server(capsys: pytest.CaptureFixture) -> None:
    words = ["--input-len=5", "--output-len=6", "--requests=2", f"--tokenizer={DEMO_MODEL}"]
    with scripted(completing()) as server:
        assert main(["trial", "--url", server.url, *words]) == 0
        assert "Sent     2 requests" in capsys.readouterr().out
        assert main(["trial", "--url", server.url, "--quantization=int4"]) == 2
        assert "quantization cannot be chosen with --url" in capsys.readouterr().err
