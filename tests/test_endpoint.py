"""Endpoints against a scripted server: what each server may send, and what may go wrong."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import until
from tests.servers.scripted import DONE, STREAM, Connection, Script, delta, event, scripted
from workbench.endpoint import Endpoint, EndpointSession
from workbench.endpoint_calls import Caller, Patience, body_of
from workbench.endpoint_clock import Clock
from workbench.endpoint_route import Route
from workbench.errors import InputError, RequestError, SessionError, SpecError
from workbench.generation import Alternative
from workbench.sse import LONGEST, EventReader

CHAT = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 5}
SECRET = "sk-0123456789abcdef"


def answering(*pieces: bytes, end: bool = True) -> Script:
    return lambda connection: connection.stream(*pieces, end=end)


def generate(script: Script, prompt: Any = CHAT, patience: Patience | None = None, **options: Any):
    """Return the generation that a script answers, when it is over, and the server."""
    with scripted(script) as server:
        endpoint = Endpoint(server.url, patience=patience or Patience())
        with endpoint.open() as session:
            generation = session.generate(prompt, **options)
            assert generation.finished.wait(20.0)
        server.until.set()
        assert server.errors == []
    return generation, server


def error_of(script: Script, patience: Patience | None = None, **options: Any) -> Exception:
    generation, _ = generate(script, patience=patience, **options)
    assert generation.phase == "failed"
    assert generation.error is not None
    return generation.error


def test_a_chat_stream_becomes_text_with_what_the_server_counted() -> None:
    generation, server = generate(
        answering(
            event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}),
            delta("Hello"),
            delta(" big world"),
            delta(reason="stop"),
            event({"choices": [], "usage": USAGE}),
            DONE,
        )
    )
    record = generation.record()
    assert [d.text for d in generation] == ["Hello", " big world"]
    assert record["text"] == "Hello big world"
    assert (record["finish_reason"], record["input_tokens"]) == ("stop", 3)
    assert (record["stamped"], record["chunks"], record["output_tokens"]) == ("chunk", 2, 5)
    assert record["usage"] == USAGE
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[0].body["messages"] == CHAT
    assert server.asked[0].body["stream_options"] == {"include_usage": True}


def test_a_prompt_or_ids_go_to_the_other_path() -> None:
    script = answering(event({"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]}))
    for prompt in ("once", [5, 6]):
        generation, server = generate(script, prompt, max_tokens=1)
        assert (generation.text, generation.finish_reason) == ("x", "length")
        assert server.asked[0].path == "/v1/completions"
        assert server.asked[0].body["prompt"] == prompt


def test_without_a_count_there_are_no_tokens_a_second() -> None:
    generation, _ = generate(answering(delta("a b c"), delta(" d"), delta(reason="stop"), DONE))
    record = generation.record()
    assert record["output_tokens"] is None
    assert record["tokens_per_second"] is None
    assert record["ttft"] > 0
    assert len(record["itl_seconds"]) == 1


def test_speed_counts_tokens_and_not_chunks() -> None:
    generation, _ = generate(
        answering(
            delta("a b c"),
            delta(" d e"),
            delta(reason="stop"),
            event({"choices": [], "usage": USAGE}),
        )
    )
    timings = generation.timings
    assert timings.tokens_per_second == pytest.approx(4 / (timings.tokens[1] - timings.tokens[0]))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_characters_and_line_ends_may_be_cut_anywhere(size: int) -> None:
    text = "Grüße, 日本 🙂 \u2028 <b>\\n"
    whole = b": ping\r\n\r\n" + (delta(text) + delta(reason="stop") + DONE).replace(b"\n", b"\r\n")
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    generation, _ = generate(answering(*pieces))
    assert (generation.text, generation.phase) == (text, "finished")


def test_an_event_may_have_several_data_lines_and_cr_alone() -> None:
    reader = EventReader()
    assert reader.feed(b"\xef\xbb\xbfid: 1\rdata: a\rdata:b\r") == []
    assert [e.data for e in reader.feed(b"\revent: error\r\ndata: c\r\n\r\n")] == ["a\nb", "c"]
    assert [(e.name, e.data) for e in reader.feed(b"data: d\n")] == []
    assert [e.data for e in reader.end()] == ["d"]


def test_crlf_is_one_line_end() -> None:
    assert [e.data for e in EventReader().feed(b"data: a\r\ndata: b\r\n\r\n")] == ["a\nb"]


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    reader = EventReader()
    half = b"x" * (LONGEST // 2)
    assert reader.feed(half) == []
    assert reader.feed(half) == []
    with pytest.raises(ValueError, match="more than 16 MiB"):
        reader.feed(b"x")


def test_what_is_no_text_changes_nothing() -> None:
    generation, _ = generate(
        answering(
            event({"choices": [], "prompt_filter_results": []}),
            event({"id": "x"}),
            event({"choices": None}),
            delta(""),
            delta("a"),
            event({"choices": [{"index": 1, "delta": {"content": "of another"}}]}),
            delta(reason="length"),
            DONE,
        )
    )
    assert (generation.text, generation.chunks) == ("a", 1)


def test_thoughts_are_text_in_their_place() -> None:
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm. "}}]})
    generation, _ = generate(answering(thought, delta("Yes"), delta(reason="stop"), DONE))
    assert generation.text == "hm. Yes"


@pytest.mark.parametrize("last", [(), (b"data: [DONE]",), (b"data: [DONE]\n",)])
def test_the_last_marker_may_be_missing_or_cut(last: tuple[bytes, ...]) -> None:
    generation, _ = generate(answering(delta("a"), delta(reason="stop"), *last))
    assert (generation.text, generation.finish_reason) == ("a", "stop")


def test_a_marker_without_a_reason_ends_for_an_unknown_one() -> None:
    generation, _ = generate(answering(delta("a"), DONE))
    assert (generation.phase, generation.finish_reason) == ("finished", "unknown")


def test_an_unclean_end_after_the_reason_loses_nothing() -> None:
    generation, _ = generate(answering(delta("a"), delta(reason="stop"), end=False))
    assert (generation.text, generation.finish_reason) == ("a", "stop")


def test_log_probabilities_and_alternatives_in_both_notations() -> None:
    new = {
        "content": [
            {
                "token": "a",
                "logprob": -0.5,
                "id": 7,
                "top_logprobs": [
                    {"token": "a", "logprob": -0.5, "id": 7},
                    {"token": "b", "logprob": -1.5, "id": 8},
                ],
            }
        ]
    }
    generation, server = generate(
        answering(delta("a", logprobs=new), delta(reason="stop"), DONE), top_logprobs=2
    )
    assert (generation.logprobs, generation.token_ids) == ([-0.5], [7])
    assert generation.alternatives == [(Alternative(7, "a", -0.5), Alternative(8, "b", -1.5))]
    assert generation.record()["output_tokens"] == 1
    assert server.asked[0].body["top_logprobs"] == 2

    old = {
        "tokens": ["a", "c"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"b": -1.5, "a": -0.5}, None],
        "text_offset": [0, 1],
    }
    chunk = event({"choices": [{"text": "ac", "logprobs": old, "finish_reason": "stop"}]})
    generation, server = generate(answering(chunk, DONE), "x", logprobs=True)
    assert generation.logprobs == [-0.5, -0.25]
    assert generation.alternatives[0] == (
        Alternative(None, "a", -0.5),
        Alternative(None, "b", -1.5),
    )
    assert server.asked[0].body["logprobs"] == 1


def test_sampling_is_sent_in_the_words_of_the_protocol() -> None:
    _, server = generate(
        answering(delta(reason="stop"), delta("x"), DONE),
        temperature=0.5,
        top_k=4,
        stop="END",
        seed=3,
        max_tokens=9,
        json_schema={"type": "object"},
    )
    body = server.asked[0].body
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    sent = {name: body[name] for name in ("temperature", "top_k", "stop", "seed", "max_tokens")}
    assert sent == {"temperature": 0.5, "top_k": 4, "stop": ["END"], "seed": 3, "max_tokens": 9}
    # What only some servers know is sent only where it is asked for.
    assert not {"min_p", "repetition_penalty", "ignore_eos", "logprobs"} & set(body)


def test_what_the_protocol_lacks_is_refused_with_the_reason() -> None:
    with scripted(answering()) as server, Endpoint(server.url).open() as session:
        with pytest.raises(RequestError, match="regex: OpenAI's protocol has no field for it"):
            session.generate("a", regex="a+")
        with pytest.raises(SpecError, match="Did you mean 'temperature'"):
            session.generate("a", temprature=1)
        assert (server.asked, session.active) == ([], 0)


def test_without_stream_options_it_is_asked_again_and_only_then() -> None:
    def script(connection: Connection) -> None:
        if "stream_options" in connection.body:
            connection.answer("400 Bad Request", b'{"detail": "unknown field: stream_options"}')
        else:
            connection.stream(delta("a"), delta(reason="stop"), DONE)

    generation, server = generate(script)
    assert (generation.text, generation.usage, len(server.asked)) == ("a", None, 2)


def status(line: str, body: bytes = b"", *headers: str, kind: str = "application/json") -> Script:
    return lambda connection: connection.answer(line, body, *headers, kind=kind)


OPENAI_ERROR = b'{"error": {"message": "too long a prompt", "code": 400}}'


@pytest.mark.parametrize(
    ("script", "kind", "sentence"),
    [
        (status("400 Bad Request", OPENAI_ERROR), RequestError, "(400). It says: too long a"),
        (status("422 No", b'{"detail": [{"loc": "x"}]}'), RequestError, 'says: [{"loc": "x"}]'),
        (status("401 Unauthorized"), RequestError, "refuses requests without a key; name the"),
        (status("404 Not Found"), RequestError, "has no /v1/chat/completions (404). Give a plain"),
        (
            status("429 Too Many", OPENAI_ERROR, "Retry-After: 90"),
            RequestError,
            "(429). It asks to wait 1 min 30 s. Nothing is sent again by itself. It says: too",
        ),
        (
            status("429 Too Many", b"", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"),
            RequestError,
            "to wait until Wed, 21 Oct 2026 07:28:00 GMT.",
        ),
        (
            status("502 Bad", b"<html><style>p{}</style><p>no upstream</p>", kind="text/html"),
            SessionError,
            "failed with status 502. It says: no upstream",
        ),
        (
            status("307 Temporary", b"", "Location: http://elsewhere.test/v1"),
            SessionError,
            "sends on to http://elsewhere.test/v1 (307), which is not followed",
        ),
        (
            status("200 OK", b'{"choices": []}'),
            RequestError,
            "answered with application/json instead of a stream of events",
        ),
        (answering(event({"error": {"message": "out of memory"}})), SessionError, "out of memory"),
        (
            answering(b'event: error\ndata: {"object": "error", "message": "boom"}\n\n'),
            SessionError,
            "reports an error: boom",
        ),
        (answering(event("nonsense")), SessionError, "sent what is no chunk: nonsense"),
        (answering(event([1])), SessionError, "sent what is no chunk: [1]"),
        (answering(event({"choices": [{"text": 5}]})), SessionError, "sent what is no chunk"),
        (answering(delta("a"), delta("b")), SessionError, "broke off after 2 chunks"),
        (answering(delta("a"), end=False), SessionError, "broke off after 1 chunks"),
        (
            answering(delta("a"), b'data: {"choi', end=False),
            SessionError,
            "broke off after 1 chunks, before its end (the server closed the connection",
        ),
        (
            lambda c: c.send(
                STREAM.replace(b"Transfer-Encoding: chunked", b"Content-Length: 999") + delta("a")
            ),
            SessionError,
            "broke off after 1 chunks, before its end (the server closed the connection",
        ),
        (answering(), SessionError, "closed the stream without a single token"),
        (lambda c: c.send(b"SSH-2.0-x\r\n"), SessionError, "what came is no answer of HTTP/1.1"),
        (lambda _: None, SessionError, "Remote end closed connection without response"),
    ],
)
def test_what_a_server_may_answer_is_a_sentence(
    script: Script, kind: type[Exception], sentence: str
) -> None:
    error = error_of(script)
    assert isinstance(error, kind)
    assert sentence in str(error)


def test_informational_answers_are_passed_over() -> None:
    def script(connection: Connection) -> None:
        for line in (b"100 Continue", b"102 Processing", b"103 Early Hints\r\nLink: </x>"):
            connection.send(b"HTTP/1.1 " + line + b"\r\n\r\n")
        connection.stream(delta("a"), delta(reason="stop"), DONE)

    assert generate(script)[0].text == "a"


def test_a_refusal_before_the_body_is_read_is_told() -> None:
    too_long = [{"role": "user", "content": "x" * (16 << 20)}]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            end, _ = listener.accept()
            with end:
                end.recv(1)
                end.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

        thread = threading.Thread(target=refuse)
        thread.start()
        caller = Caller(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", None, Patience())
        with caller.connection() as connection:
            connection.connect()
            connection.send_request("POST", "chat/completions", {}, json.dumps(too_long).encode())
            answer = connection.answer()
            assert (answer.status, body_of(answer)) == (413, b"no")
        thread.join(10.0)


def test_the_text_before_a_break_is_kept() -> None:
    generation, _ = generate(answering(delta("so far"), end=False))
    assert generation.text == generation.record()["text"] == "so far"
    with pytest.raises(SessionError, match="The text so far is kept"):
        generation.wait()


def test_an_unknown_model_is_named_with_those_that_there_are() -> None:
    with (
        scripted(status("404 Not Found", OPENAI_ERROR), ["big", "small"]) as server,
        Endpoint(server.url, "bgi").open() as session,
        pytest.raises(RequestError, match=r"no model 'bgi' \(404\); it has big, small\. It says"),
    ):
        session.generate(CHAT).wait(20.0)


def test_the_only_model_needs_no_name_and_several_do() -> None:
    with scripted(answering(), ["one"]) as server, Endpoint(server.url).open() as session:
        assert session.model == "one"
    with (
        scripted(answering(), ["one", "two"]) as server,
        pytest.raises(InputError, match=r"Name the model .* it has one, two"),
    ):
        Endpoint(server.url).open()


def test_a_server_without_a_list_is_opened_all_the_same() -> None:
    with (
        scripted(status("500 Internal"), models=None) as server,
        Endpoint(server.url, "m").open() as session,
    ):
        assert session.facts["models"] is None


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_refused_and_unresolved_are_told_apart() -> None:
    with pytest.raises(SessionError, match=r"Nothing listens at .* the connection was refused"):
        Endpoint(f"http://127.0.0.1:{closed_port()}").open()
    with pytest.raises(SessionError, match=r"There is no host nowhere\.invalid"):
        Endpoint("http://nowhere.invalid").open()


def test_a_server_that_ends_between_two_requests_is_a_sentence() -> None:
    with scripted(answering()) as server:
        session = Endpoint(server.url).open()
    with pytest.raises(SessionError, match="the connection was refused"):
        session.generate(CHAT).wait(20.0)
    session.close()


def self_signed(folder: Path, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_certificates_are_verified_and_may_be_of_an_own_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = answering(delta("safe"), delta(reason="stop"), DONE)
    with scripted(script, tls=self_signed(tmp_path)) as server:
        with pytest.raises(SessionError, match=r"cannot be verified: .*SSL_CERT_FILE"):
            Endpoint(server.url).open()
        with pytest.raises(SessionError, match=r"failed|disconnected|answer"):
            Endpoint(server.url.replace("https", "http"), "m").open()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        with Endpoint(server.url).open() as session:
            assert session.generate(CHAT).wait(20.0).text == "safe"
            stalled = threading.Event()
            server._script = lambda c: (c.stream(delta("a"), end=False), stalled.wait(20.0))
            generation = session.generate(CHAT)
            until(lambda: generation.text == "a")
            generation.cancel()
            assert generation.wait(1.0).phase == "stopped"
            stalled.set()
    with scripted(script) as server, pytest.raises(SessionError, match="does not speak TLS"):
        Endpoint(server.url.replace("http", "https")).open()


def test_what_is_not_for_this_machine_goes_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with scripted(answering(delta("far"), delta(reason="stop"), DONE)) as proxy:
        place = proxy.url.removeprefix("http://").removesuffix("/v1")
        monkeypatch.setenv("http_proxy", f"http://me:pass%20word@{place}")
        with Endpoint("http://model.test:8000").open() as session:
            assert session.generate(CHAT).wait(20.0).text == "far"
        (asked,) = proxy.asked
        monkeypatch.setenv("no_proxy", "model.test")
        with pytest.raises(SessionError, match=r"There is no host model\.test"):
            Endpoint("http://model.test:8000").open()
    assert asked.path == "http://model.test:8000/v1/chat/completions"
    assert asked.headers["host"] == "model.test:8000"
    assert asked.headers["proxy-authorization"] == "Basic bWU6cGFzcyB3b3Jk".lower()


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an address the proxy for all that is not of this machine."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def set_proxy(url: str) -> None:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)

    return set_proxy


@pytest.mark.parametrize(
    ("proxy", "sentence"),
    [
        ("socks5://127.0.0.1:1080", r"of the kind socks5 for model\.test"),
        (
            "http://me:hunter2@proxy.test:31x8",
            r"a proxy for model\.test whose host or port is none",
        ),
        ("http://[::1", r"a proxy for model\.test whose host or port is none"),
        ("http://my proxy:3128", "'my proxy' is no name of a host"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_sentence(
    through: Callable[[str], None], proxy: str, sentence: str
) -> None:
    through(proxy)
    with pytest.raises(InputError, match=sentence) as caught:
        Endpoint("https://model.test").open()
    assert "hunter2" not in str(caught.value)


def test_what_a_proxy_fails_at_is_told_of_the_proxy(through: Callable[[str], None]) -> None:
    port = closed_port()
    through(f"http://me:hunter2@127.0.0.1:{port}")
    for url in ("http://model.test", "https://model.test"):
        with pytest.raises(SessionError) as caught:
            Endpoint(url).open()
        assert str(caught.value).startswith(
            f"Nothing listens at 127.0.0.1:{port} (the proxy that the environment names for {url}"
        )
        assert "hunter2" not in str(caught.value)
    through("http://nowhere.invalid:3128")
    with pytest.raises(SessionError, match=r"There is no host nowhere\.invalid,"):
        Endpoint("http://model.test").open()
    with scripted(lambda c: c.send(b"SSH-2.0-x\r\n")) as proxy:
        through(proxy.url.removesuffix("/v1"))
        with pytest.raises(SessionError, match="what the proxy answers is no HTTP"):
            Endpoint("https://model.test").open()
    assert proxy.asked[0].path == "model.test:443"


def test_a_connection_can_be_shut_while_a_proxy_makes_it(through: Callable[[str], None]) -> None:
    with scripted(lambda c: c.until.wait(20.0)) as proxy:
        through(proxy.url.removesuffix("/v1"))
        caller = Caller("https://model.test/v1", None, Patience(connect=1.0))
        with (
            caller.connection(lambda end: end.shutdown(socket.SHUT_RDWR)) as connection,
            pytest.raises(BrokenPipeError),
        ):
            connection.connect()


@pytest.mark.parametrize(
    ("place", "sent"),
    [
        ("bücher:8000", "xn--bcher-kva:8000"),
        ("日本.example", "xn--wgv71a.example"),
        ("[::1]:8000", "[::1]:8000"),
        ("[::1]", "[::1]"),
    ],
)
def test_a_host_is_sent_in_ascii_and_its_port_as_it_is(place: str, sent: str) -> None:
    assert Route.to(f"http://{place}/v1").parts.netloc == sent


@pytest.mark.parametrize("host", ["my host", "a\x7fb", "a..b", "x" * 64])
def test_what_is_no_host_is_refused_before_anything_is_sent(host: str) -> None:
    with pytest.raises(InputError, match=r"is no name of a host\. Check the URL"):
        Endpoint(f"http://{host}:8000", "m").open()


class _Hesitant(ssl.SSLContext):
    """Agrees on the encryption after a while."""

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        threading.Event().wait(0.3)
        return super().wrap_socket(*args, **options)


def test_connecting_lasts_until_the_encryption_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = self_signed(tmp_path, _Hesitant)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with (
        scripted(answering(delta("a"), delta(reason="stop"), DONE), tls=context) as server,
        Endpoint(server.url).open() as session,
    ):
        record = session.generate(CHAT).wait(20.0).record()
    assert record["engine_metrics"]["connect_seconds"] >= 0.2


def _plain_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", _plain_deflate)],
    ids=["gzip", "deflate", "deflate without a head"],
)
def test_a_packed_stream_is_read_all_the_same(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(delta("a") + delta(reason="stop") + DONE)

    def script(connection: Connection) -> None:
        head = STREAM.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {coding}\r\n\r\n".encode())
        connection.send(head)
        connection.piece(packed[:20])
        connection.piece(packed[20:])
        connection.send(b"0\r\n\r\n")

    assert generate(script)[0].text == "a"


def stalling(*pieces: bytes) -> Script:
    def script(connection: Connection) -> None:
        if pieces:
            connection.stream(*pieces, end=False)
        connection.until.wait(20.0)

    return script


SHORT = Patience(connect=5.0, first_token=0.3, between_tokens=0.3)
LONG_FIRST = Patience(first_token=300.0, between_tokens=0.3)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (stalling(), "sent no token within 300 ms (patience.first_token)"),
        (stalling(b": ping\n\n", delta("")), "sent no token within 300 ms"),
        (stalling(delta("a")), "sent nothing for 300 ms after 1 chunks (patience.between_tokens)"),
    ],
)
def test_who_says_nothing_is_not_waited_for(script: Script, sentence: str) -> None:
    assert sentence in str(error_of(script, SHORT))


def test_patience_counts_from_token_to_token() -> None:
    def script(connection: Connection) -> None:
        connection.stream(end=False)
        for _ in range(8):
            connection.piece(delta("a"))
            connection.until.wait(0.1)
        connection.piece(delta(reason="stop") + DONE)

    generation, _ = generate(script, patience=Patience(between_tokens=0.6))
    assert (generation.text, generation.phase) == ("a" * 8, "finished")


def _clocks(before: set[threading.Thread]) -> list[threading.Thread]:
    now = set(threading.enumerate()) - before
    return [thread for thread in now if thread.name == "workbench-clock"]


def test_one_clock_watches_all_requests_each_by_its_own_time() -> None:
    before, waited = set(threading.enumerate()), []

    def send(session: EndpointSession) -> None:
        began = time.monotonic()
        generation = session.generate(CHAT)
        generation.when_finished(lambda _: waited.append(time.monotonic() - began))
        until(lambda: time.monotonic() - began > 0.1)

    with scripted(stalling()) as server, Endpoint(server.url, patience=SHORT).open() as session:
        for _ in range(3):
            send(session)
        assert len(_clocks(before)) == 1
        until(lambda: len(waited) == 3)
        server.until.set()
    assert min(waited) >= 0.3


class _Due:
    """A request whose time is up after some seconds, whoever looks."""

    def __init__(self, seconds: float) -> None:
        self.until, self.looks = time.monotonic() + seconds, 0

    def check_time(self) -> float:
        self.looks += 1
        return self.until - time.monotonic()


def test_a_clock_looks_at_all_when_the_first_of_them_is_due() -> None:
    before = set(threading.enumerate())
    late, soon, later = (_Due(seconds) for seconds in (60.0, 0.1, 90.0))
    clock = Clock(0.05)
    for one in (late, soon, later):
        clock.watch(one)
    until(lambda: soon.looks > 1)
    assert late.looks > 1
    assert later.looks > 1
    for one in (late, soon, later):
        clock.forget(one)
    clock.join(10.0)
    assert _clocks(before) == []


class _Complaint(_Due):
    """A request of which somebody is told that it ended, and raises."""

    def check_time(self) -> float:
        if not self.looks:
            self.looks += 1
            raise ValueError
        return super().check_time()


def test_a_clock_goes_on_when_somebody_who_is_told_of_an_end_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    ended, soon = _Complaint(60.0), _Due(0.1)
    clock = Clock(0.05)
    clock.watch(ended)
    clock.watch(soon)
    until(lambda: soon.looks > 1 and raised)
    clock.forget(ended)
    clock.forget(soon)
    clock.join(10.0)
    assert len(raised) == 1


def test_patience_for_the_first_token_ends_with_it() -> None:
    assert "sent nothing for 300 ms" in str(error_of(stalling(delta("a")), LONG_FIRST))


def test_pings_do_not_count_as_tokens() -> None:
    def script(connection: Connection) -> None:
        connection.stream(delta("a"), end=False)
        while not connection.until.wait(0.02):
            connection.piece(b": ping\n\n")

    with scripted(script) as server, Endpoint(server.url, patience=SHORT).open() as session:
        generation = session.generate(CHAT)
        assert generation.finished.wait(20.0)
        server.until.set()
    assert "sent nothing for 300 ms" in str(generation.error)


def test_a_connection_that_stays_open_after_the_end_is_left() -> None:
    generation, _ = generate(stalling(delta("a"), delta(reason="stop")), patience=SHORT)
    assert (generation.phase, generation.finish_reason) == ("finished", "stop")


@pytest.mark.parametrize("pieces", [(), (delta("a"),)], ids=["before the answer", "in the stream"])
def test_stop_closes_the_connection_at_once(pieces: tuple[bytes, ...]) -> None:
    seen: list[bool] = []

    def script(connection: Connection) -> None:
        if pieces:
            connection.stream(*pieces, end=False)
        seen.append(connection.closed_by_client())

    with scripted(script) as server, Endpoint(server.url).open() as session:
        generation = session.generate(CHAT)
        until(lambda: len(server.asked) == 1 and (not pieces or generation.text == "a"))
        began = time.monotonic()
        generation.cancel()
        assert generation.finished.is_set()
        assert time.monotonic() - began < 0.1
        until(lambda: seen == [True])
        assert time.monotonic() - began < 1.0
        assert (generation.phase, generation.finish_reason) == ("stopped", "cancelled")
        assert session.active == 0


def test_leaving_the_loop_stops() -> None:
    with scripted(stalling(delta("a"))) as server, Endpoint(server.url).open() as session:
        generation = session.generate(CHAT)
        for _ in generation:
            break
        assert generation.phase == "stopped"
        server.until.set()


def test_closing_ends_what_runs_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with scripted(stalling(delta("a"))) as server:
        session = Endpoint(server.url).open()
        generations = [session.generate(CHAT) for _ in range(3)]
        until(lambda: all(g.text == "a" for g in generations))
        assert session.active == 3
        session.close()
        session.close()
        assert session.closed
        assert [g.phase for g in generations] == ["failed"] * 3
        with pytest.raises(SessionError, match="was closed while this generation ran"):
            generations[0].wait()
        with pytest.raises(SessionError, match="Open the endpoint again"):
            session.generate(CHAT)
        server.until.set()
    until(lambda: set(threading.enumerate()) <= before)


def test_the_key_is_sent_and_told_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_KEY", SECRET)
    echo = json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode()
    shown: list[str] = []
    for script in (
        answering(delta("a"), delta(reason="stop"), DONE),
        status("401 Unauthorized", echo),
        status("500 Oops", echo),
        status("429 Wait", echo),
        status("200 OK", echo),
        answering(event(json.loads(echo))),
        answering(event(f"no json {SECRET}")),
    ):
        with scripted(script) as server:
            endpoint = Endpoint(server.url, key_env="SOME_KEY")
            with endpoint.open() as session:
                generation = session.generate(CHAT)
                assert generation.finished.wait(20.0)
                shown += map(repr, (endpoint, session, session.facts, generation))
                shown += [repr(vars(session)), endpoint.curl(CHAT)]
                shown += [str(generation.error), json.dumps(generation.record())]
            assert server.asked[0].headers["authorization"] == f"Bearer {SECRET}".lower()
    shown += [*capfd.readouterr(), caplog.text]
    assert not [text for text in shown if SECRET in text]
    assert '"Authorization: Bearer $SOME_KEY"' in shown[5]


@pytest.mark.parametrize("value", [None, "", "two words", "sk-schlüssel", f"{SECRET}\nX: y"])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with scripted(answering()) as server, pytest.raises(InputError) as caught:
        Endpoint(server.url, "m", key_env="SOME_KEY").open()
    assert "SOME_KEY" in str(caught.value)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://host/v1", "is no URL of http or https"),
        ("host:8000", "is no URL of http or https"),
        ("file:///etc/passwd", "is no URL of http or https"),
        ("http://", "is no URL"),
        ("http://host:port", "is no URL"),
        ("https://me:hunter2@host/v1", "carries a user, a password"),
        ("https://host/v1?api-key=hunter2", "carries a user, a password, a query"),
    ],
)
def test_what_is_no_address_or_carries_a_secret_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint(url)
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/openai/v1/", "https://h/openai/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
    ],
)
def test_addresses_as_people_copy_them_are_understood(url: str, base: str) -> None:
    assert Endpoint(url).url == base


def test_texts_that_cross_a_network_unencrypted_are_remarked() -> None:
    assert "unencrypted" in Endpoint("http://example.test", key_env="K").exposed
    assert Endpoint("https://example.test", key_env="K").exposed == ""
    assert Endpoint("http://127.0.0.1:8000").exposed == ""


def test_the_curl_line_asks_the_same() -> None:
    with scripted(answering(delta("a"), delta(reason="stop"), DONE)) as server:
        endpoint = Endpoint(server.url, "m")
        with endpoint.open() as session:
            generation = session.generate(CHAT, temperature=0.5).wait(20.0)
        line = endpoint.curl(CHAT, generation.sampling)
        answer = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=20)
    assert b'"content": "a"' in answer.stdout
    assert server.asked[0].body == server.asked[1].body
