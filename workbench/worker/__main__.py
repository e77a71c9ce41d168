"""Entry of the toolchain side.

    python <this folder> versions PACKAGE...          print {package: version or null} as JSON
    python <this folder> convert --channel FD         convert a checkpoint, where a backend does
    python <this folder> build --channel FD           compile an engine
    python <this folder> session --channel FD         load an engine and generate
    python <this folder> forecast --channel FD        predict how fast an engine would be

Messages are JSON objects, one a line, over the socket with that descriptor, or in a container
over the Unix socket at a path (--connect PATH). The first one that arrives says which backend and
what to do.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

ADAPTERS = {
    "openvino": {"build": "openvino_build", "session": "openvino_session"},
    "tensorrt_llm": {
        "convert": "tensorrt_llm_convert",
        "build": "tensorrt_llm_build",
        "session": "tensorrt_llm_engine",
    },
    "forecast": {"forecast": "forecast"},
    "tensorrt_llm_torch": {"build": "recipe_build", "session": "tensorrt_llm_torch"},
    "transformers": {"build": "recipe_build", "session": "transformers_session"},
}


def main() -> int:
    """Run one role; see the module docstring."""
    parser = argparse.ArgumentParser(prog="worker")
    parser.add_argument("role", choices=["versions", "convert", "build", "session", "forecast"])
    parser.add_argument("packages", nargs="*")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--channel", type=int)
    ends.add_argument("--connect", metavar="PATH")
    arguments = parser.parse_args()
    if arguments.role == "versions":
        print(json.dumps({name: version(name) for name in arguments.packages}))
        return 0
    return serve(arguments.role, arguments.channel, arguments.connect)


def version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    # Takes longer to load than all else here, and no other role asks it.
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def serve(role: str, descriptor: int | None, path: str | None) -> int:
    """Run an adapter; the boundary at which every error becomes a message."""
    from adapters.channel import Channel, Refusal  # type: ignore[import-not-found]

    try:
        channel = Channel.connect(path) if path else Channel(descriptor)
    except BrokenPipeError:
        return 3
    try:
        order = channel.receive()
        if order is not None:
            adapter = ADAPTERS[order["backend"]][role]
            importlib.import_module(f"adapters.{adapter}").run(order, channel)
    except Refusal as refusal:
        channel.send(event="error", message=str(refusal), expected=True)
        return 2
    except BrokenPipeError:
        # Whoever asked is gone: there is nobody to tell, and nothing to finish.
        return 3
    except Exception as error:  # noqa: BLE001 - the boundary
        text = f"{type(error).__name__}: {error}".strip()
        # The message first: on a full disk the log takes no more.
        channel.send(event="error", message=text, expected=False)
        import traceback

        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
