"""Endpoints against servers that others wrote: llama.cpp's, and `transformers serve`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults import until
from tests.servers.running import llama_cpp, transformers_serve
from workbench.build import DEMO_MODEL
from workbench.endpoint import Endpoint, EndpointSession
from workbench.errors import RequestError, SessionError
from workbench.session import Session

CHAT = [{"role": "user", "content": "write a haiku about latency"}]
HAIKU = {"max_tokens": 40}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSession]:
    with (
        llama_cpp(tmp_path_factory.mktemp("llama")) as address,
        Endpoint(address).open() as session,
    ):
        yield session


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSession]:
    with (
        transformers_serve(tmp_path_factory.mktemp("serve")) as address,
        Endpoint(address, str(DEMO_MODEL)).open() as session,
    ):
        yield session


def test_llama_cpp_tells_its_model_and_its_limit(llama: EndpointSession) -> None:
    assert (llama.model, llama.limits["max_seq_len"]) == ("demo", 2048)


def test_llama_cpp_gives_the_greedy_text_of_our_engine(
    llama: EndpointSession, demo_session: Session
) -> None:
    ours = demo_session.generate(CHAT, **HAIKU).wait()
    theirs = llama.generate(CHAT, **HAIKU).wait(60.0)
    assert theirs.text == ours.text
    assert theirs.finish_reason == ours.finish_reason == "stop"
    assert theirs.input_tokens == ours.input_tokens
    # It counts the token that ends the text, and sends no chunk for it.
    assert theirs.record()["output_tokens"] == len(ours.token_ids)


def test_llama_cpp_gives_probabilities_and_alternatives(
    llama: EndpointSession, demo_session: Session
) -> None:
    ours = demo_session.generate(CHAT, logprobs=True, max_tokens=12).wait()
    theirs = llama.generate(CHAT, top_logprobs=3, max_tokens=12).wait(60.0)
    assert theirs.token_ids == ours.token_ids
    assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-3)
    assert [len(place) for place in theirs.alternatives] == [3] * 12
    for chosen, place in zip(theirs.token_ids, theirs.alternatives, strict=True):
        assert place[0].id == chosen
        assert sum(math.exp(one.logprob) for one in place) <= 1.0 + 1e-6


def test_llama_cpp_completes_texts_and_ids(llama: EndpointSession, demo_session: Session) -> None:
    ours = demo_session.generate("write a haiku", max_tokens=8).wait()
    assert llama.generate("write a haiku", max_tokens=8).wait(60.0).text == ours.text
    ids = ours.token_ids
    more = demo_session.generate(ids, max_tokens=4, ignore_eos=True).wait()
    assert llama.generate(ids, max_tokens=4, ignore_eos=True).wait(60.0).text == more.text


def test_llama_cpp_keeps_to_a_schema(llama: EndpointSession) -> None:
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    text = llama.generate(CHAT, json_schema=schema, max_tokens=60).wait(60.0).text
    assert text.startswith("[")
    assert text.replace(" ", "").strip("[]\n").split(",")[0] in ("true", "false")


def test_llama_cpp_is_free_again_after_stop(llama: EndpointSession) -> None:
    for _ in range(4):  # it has two places
        generation = llama.generate("a", max_tokens=1900, ignore_eos=True)
        until(lambda g=generation: g.chunks > 2)
        began = time.monotonic()
        generation.cancel()
        assert time.monotonic() - began < 0.1
    assert llama.generate(CHAT, **HAIKU).wait(60.0).finish_reason == "stop"


def test_llama_cpp_says_that_a_prompt_is_too_long(llama: EndpointSession) -> None:
    with pytest.raises(RequestError, match=r"\(400\)\. It says: .*2048"):
        llama.generate([5] * 3000).wait(60.0)


def test_transformers_serve_gives_the_greedy_text_of_our_engine(
    served: EndpointSession, demo_session: Session
) -> None:
    ours = demo_session.generate(CHAT, **HAIKU).wait()
    theirs = served.generate(CHAT, **HAIKU).wait(120.0)
    assert theirs.text == ours.text
    assert theirs.phase == "finished"
    # It streams words, counts nothing, and sends no last marker.
    record = theirs.record()
    assert 0 < record["chunks"] < len(ours.token_ids)
    assert record["output_tokens"] is record["tokens_per_second"] is record["usage"] is None


def test_transformers_serve_has_no_completions_and_hides_what_is_wrong(
    served: EndpointSession,
) -> None:
    with pytest.raises(RequestError, match=r"the path /v1/completions not \(404\)"):
        served.generate("a").wait(60.0)
    with (
        Endpoint(served.endpoint.url, "no/such-model").open() as session,
        pytest.raises(SessionError, match="failed with status 500"),
    ):
        session.generate(CHAT).wait(60.0)


def test_sessions_leave_no_thread(llama: EndpointSession) -> None:
    before = set(threading.enumerate())
    for _ in range(10):
        with Endpoint(llama.endpoint.url).open() as session:
            running = [session.generate("a", max_tokens=500, ignore_eos=True) for _ in range(2)]
            until(lambda g=running[0]: g.chunks > 0)
    until(lambda: set(threading.enumerate()) <= before)
