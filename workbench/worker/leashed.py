"""Runs a server inside a container on a leash: it ends when whoever started it is gone.

    python <this file> SOCKET PROGRAM FLAGS...

Nothing is ever said on the socket. Its other end closes when the job that holds it ends, in
whatever way; a container would otherwise outlive a job that was killed outright.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading

PATIENCE = 3.0
"""Seconds that a server has to end when it is asked; less than who started it waits."""


def main() -> int:
    """Run the server until it ends, the leash is let go, or this process is asked to end."""
    path, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, on_term)
    with socket.socket(socket.AF_UNIX) as leash:
        try:
            leash.connect(path)
        except OSError:
            return 3  # whoever started it is gone by now
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"{command[0]} cannot be started in this image: {error.strerror}.", flush=True)
            return 127
        threading.Thread(target=end_with, args=(leash, process), daemon=True).start()
        try:
            status = process.wait()
        finally:
            end(process)
    return 128 - status if status < 0 else status


def on_term(*_: object) -> None:
    """Leave through what tidies up."""
    sys.exit(128 + signal.SIGTERM)


def end_with(leash: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """End the server when the other end of the leash is gone (runs in a thread)."""
    with contextlib.suppress(OSError):  # a leash that was reset is gone as well
        leash.recv(1)
    end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and kill it when it does not; what it started goes with us."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
