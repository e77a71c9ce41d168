"""A stand-in for docker's client and daemon: strict about options, honest about mounts.

It knows the options that docker's own reference has for what we give, refuses every other, and
runs the command on this machine as docker would: with nothing of the caller's environment, in a
session of its own that killing the client does not reach, and with an audit hook under which
files outside the image and the mounts do not exist. What C++ opens is not seen by the hook.

    STANDIN_STATE    folder for the names of containers and the list of kills
    STANDIN_PYTHON   what python3 is inside the image
    STANDIN_IMAGE    the one image that is there
    STANDIN_TOOLKIT  set where NVIDIA's container toolkit is there
"""

from __future__ import annotations

import argparse
import csv
import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["STANDIN_STATE"])
PYTHON = Path(os.environ["STANDIN_PYTHON"])

# The image: the system and the interpreter with its packages.
IMAGE = ["/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/bin", str(PYTHON.parents[1])]

INSIDE = """
import os, runpy, sys

SEEN, WRITABLE = {seen!r}, {writable!r}

def hook(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, bytes)):
        return
    path = os.path.abspath(os.fsdecode(arguments[0]))
    flags = arguments[2] if isinstance(arguments[2], int) else 0
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    inside = lambda places: any(path == p or path.startswith(p + "/") for p in places)
    if not inside(SEEN):
        raise FileNotFoundError(2, "No such file or directory", path)
    if writes and not inside(WRITABLE):
        raise OSError(30, "Read-only file system", path)

sys.argv = {arguments!r}
# As an interpreter does for a script.
sys.path.insert(0, os.path.dirname(sys.argv[0]))
sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> int:
    verb, *words = sys.argv[1:]
    return {"run": run, "kill": kill}[verb](words)


def run(words: list[str]) -> int:
    options = parse(words)
    mounts = [mount(text) for text in options.mount]
    if options.image != os.environ["STANDIN_IMAGE"]:
        return fail(f"Error response from daemon: No such image: {options.image}")
    if options.gpus and "STANDIN_TOOLKIT" not in os.environ:
        return fail('could not select device driver "" with capabilities: [[gpu]].')
    assert options.pull == "never"
    assert options.rm
    assert options.init
    assert options.ipc == "host"
    assert options.user == f"{os.getuid()}:{os.getgid()}"
    assert options.entrypoint == "python3"
    seen = [path for path, _ in mounts]
    writable = [path for path, write in mounts if write]
    for word in options.arguments:
        assert not word.startswith("/") or within(word, seen), f"{word} is not mounted"
    assert within(options.workdir, writable)
    variables = dict(text.split("=", 1) for text in options.env)
    assert within(variables["HOME"], writable)
    if options.publish:
        # ADDRESS:PORT:PORT, since without an address it means all of this machine's; and what
        # listens inside on its own 127.0.0.1 is reached by nobody.
        address = options.publish.rsplit(":", 2)[0]
        ipaddress.ip_address(address.strip("[]"))
        with (STATE / "published").open("a") as published:
            published.write(f"{address}\n")
        assert options.arguments[options.arguments.index("--host") + 1] == "0.0.0.0"
    name = STATE / options.name
    code = INSIDE.format(
        seen=[*seen, *IMAGE, str(Path(sys.base_prefix))],
        # Also /dev/null and the like.
        writable=[*writable, "/dev"],
        arguments=options.arguments,
    )
    process = subprocess.Popen(
        [PYTHON, "-c", code],
        env={"PATH": f"{PYTHON.parent}:/usr/bin:/bin", **variables},
        cwd=options.workdir,
        start_new_session=True,
    )
    name.write_text(str(process.pid))
    # docker run hands signals on (--sig-proxy, which is on unless told otherwise).
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    name.unlink()
    return 128 - status if status < 0 else status


def kill(words: list[str]) -> int:
    (name,) = words
    with (STATE / "kills").open("a") as kills:
        kills.write(f"{name}\n")
    try:
        os.killpg(int((STATE / name).read_text()), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return fail(f"No such container: {name}")
    return 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="docker run", allow_abbrev=False)
    for flag in ("--rm", "--init"):
        parser.add_argument(flag, action="store_true")
    for option in ("--name", "--workdir", "--entrypoint", "--pull", "--ipc", "--user"):
        parser.add_argument(option)
    for option in ("--gpus", "--publish"):
        parser.add_argument(option)
    for option in ("--ulimit", "--security-opt", "--env", "--mount"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def mount(text: str) -> tuple[str, bool]:
    """Return the path inside, and whether it can be written to."""
    (fields,) = csv.reader([text])
    values = dict(field.partition("=")[::2] for field in fields)
    assert set(values) <= {"type", "source", "destination", "ro"}, values
    assert values["type"] == "bind"
    assert Path(values["source"]).exists(), f"bind source path does not exist: {values['source']}"
    return values["destination"], "ro" not in values


def within(path: str, places: list[str]) -> bool:
    return any(Path(path).is_relative_to(place) for place in places)


def fail(sentence: str) -> int:
    print(f"docker: {sentence}\n\nRun 'docker run --help' for more information", file=sys.stderr)
    return 125


if __name__ == "__main__":
    sys.exit(main())
