"""A server of OpenAI's API that replays canned tokens: one a step to each request that runs.

    python tests/servers/replaying.py SECONDS_A_STEP

It prints its address. As with `tests.replay` steps keep to a schedule: one that comes late is
followed by the next at its own time. One thread does it all, so that it costs little beside what is
measured; each request has a connection of its own, which the server closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


def frame(value: object) -> bytes:
    """Return an event as one chunk of the transfer."""
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunk(text: str, reason: str | None = None) -> dict[str, object]:
    """Return what vLLM sends for a token."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    about = {"id": "cmpl-0", "object": "text_completion", "created": 1790000000, "model": "m"}
    return {**about, "choices": [choice], "usage": None}


TOKEN = frame(chunk(" when"))


def ending(prompt: int, tokens: int) -> bytes:
    """Return what follows the last token."""
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
    last = {**chunk(""), "choices": [], "usage": usage}
    return frame(chunk("", "length")) + frame(last) + frame(b"[DONE]") + b"0\r\n\r\n"


class Replaying:
    """What runs: a connection with the tokens that it has still to get, and what ends it."""

    def __init__(self) -> None:
        self.running: dict[asyncio.StreamWriter, tuple[int, bytes]] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a request up; its tokens come with the steps."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if head.startswith("get"):
            data = json.dumps({"object": "list", "data": [{"id": "m"}]}).encode()
            about = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            writer.write(about.encode() + data)
            writer.close()
            return
        asked = json.loads(body)
        writer.write(HEAD)
        tokens = asked["max_tokens"]
        self.running[writer] = tokens, ending(len(asked["prompt"]), tokens)

    def step(self) -> None:
        """Give each request that runs a token."""
        for writer, (left, end) in list(self.running.items()):
            writer.write(TOKEN if left > 1 else TOKEN + end)
            if left > 1 and not writer.is_closing():
                self.running[writer] = left - 1, end
            else:
                del self.running[writer]
                writer.close()


async def main(pace: float) -> None:
    """Serve until whoever started it closes standard input."""
    replaying = Replaying()
    server = await asyncio.start_server(replaying.answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    following = loop.time()
    while not over.done():
        following += pace
        await asyncio.sleep(max(0.0, following - loop.time()))
        replaying.step()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(float(sys.argv[1])))
