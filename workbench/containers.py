"""Containers: a worker inside an image, with every path the same as outside.

The options were checked against the references of `docker run`, `podman run` and `apptainer exec`.
"""

from __future__ import annotations

import contextlib
import csv
import getpass
import io
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from workbench import files
from workbench.errors import ToolchainError

ENGINES = ("docker", "podman", "apptainer")
"""Programs that run containers, by the names that toolchains are chosen with."""

PASSED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
PASSED_PREFIXES = ("NCCL_", "OMPI_MCA_", "TLLM_", "TRTLLM_")
"""Variables that also mean something inside; the others describe this machine."""

SOCKET_PATH_LIMIT = 100
"""unix(7): an address holds 108 bytes; macOS has 104."""


@dataclass(frozen=True)
class Container:
    """An image and the program that runs it."""

    engine: str
    image: str

    @classmethod
    def parse(cls, text: str) -> Container | None:
        """Return what ENGINE:IMAGE means, or None for a text of another form.

        Raises:
            ToolchainError: No image is named.
        """
        engine, colon, image = text.partition(":")
        if engine not in ENGINES or not colon:
            return None
        if not image:
            raise ToolchainError(f"{text} names no image. Give {engine}:IMAGE.")
        if engine == "apptainer":
            # Absolute, since jobs run elsewhere.
            image = str(Path(image).expanduser().absolute())
        return cls(engine, image)

    def __str__(self) -> str:
        return f"{self.engine}:{self.image}"

    def require(self) -> None:
        """Check what can be checked without starting a container.

        Raises:
            ToolchainError: The program that runs it, or the image file, is missing.
        """
        if shutil.which(self.engine) is None:
            raise ToolchainError(
                f"{self} needs the program {self.engine}, which is not found. Install it, or name "
                "an interpreter instead."
            )
        if self.engine == "apptainer" and not Path(self.image).exists():
            raise ToolchainError(
                f"{self.image} does not exist; apptainer runs an image file. Make one with: "
                f"apptainer pull {self.image} docker://IMAGE"
            )

    @property
    def hint(self) -> str:
        """What to do when it does not run."""
        if self.engine == "apptainer":
            return f"See whether this works: apptainer exec {self.image} python3 --version"
        return f"If the image is not there yet: {self.engine} pull {self.image}"

    def command(
        self,
        arguments: Sequence[str],
        *,
        name: str,
        variables: Mapping[str, str],
        readable: Iterable[Path],
        writable: Iterable[Path],
        gpus: bool,
        published: tuple[str, int] | None = None,
    ) -> list[str]:
        """Return the command that runs `python3 ARGUMENTS` inside.

        Args:
            arguments: What follows python3.
            name: Name of the container, by which it can be killed.
            variables: Environment inside. Apptainer takes it from `environment` instead.
            readable: Files and directories to see, read-only.
            writable: Directories to write in.
            gpus: Whether to pass the GPUs on; asking for them where there are none is an error.
            published: Address and port of this machine at which the port of that number inside is
                reached; no port is, where it is None. Apptainer shares this machine's network.
        """
        home = str(self.home())
        mounts = [f"--mount={mount}" for mount in plan_mounts(readable, writable)]
        if self.engine == "apptainer":
            # Shares network, IPC, limits and user with us anyway. With a namespace for processes
            # nothing is left when its first one ends.
            options = ["--cleanenv", "--pid", "--home", home, "--pwd", home]
            options += ["--nv"] if gpus else []
            return ["apptainer", "exec", *options, *mounts, self.image, "python3", *arguments]
        options = ["--rm", "--init", "--name", name, "--workdir", home, "--entrypoint", "python3"]
        # An image has tens of gigabytes: it comes when the user asks for it, not in between.
        options += ["--pull=never"]
        # What the C++ runtime and MPI need (NVIDIA's instructions for its containers).
        options += ["--ipc=host", *self._limits(), *self._user()]
        # SELinux would forbid the mounts, and podman's GPUs.
        options += ["--security-opt", "label=disable"]
        if gpus:
            docker = self.engine == "docker"
            options += ["--gpus", "all"] if docker else ["--device", "nvidia.com/gpu=all"]
        if published:
            options += ["--publish", _publication(*published)]
        for key, value in variables.items():
            options += ["--env", f"{key}={value}"]
        return [self.engine, "run", *options, *mounts, self.image, *arguments]

    @property
    def shares_network(self) -> bool:
        """Whether a program inside listens on this machine's own addresses."""
        return self.engine == "apptainer"

    @staticmethod
    def home() -> Path:
        """Return the home inside all containers, which keeps their caches."""
        return files.make_folder(files.home() / "container")

    def _limits(self) -> list[str]:
        if self.engine == "podman" and os.getuid() != 0:
            # Without privileges nothing can be raised; this takes all that we have.
            return ["--ulimit", "host"]
        return ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]

    def _user(self) -> list[str]:
        """Return the options that make what is written inside ours outside."""
        if self.engine == "podman":
            # For root podman refuses it, and root is root inside.
            return ["--userns=keep-id"] if os.getuid() != 0 else []
        return ["--user", f"{os.getuid()}:{os.getgid()}"]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the program that starts the container.

        Apptainer passes on what is called APPTAINERENV_...; its --env would split values at
        commas. It sets HOME itself.
        """
        if self.engine != "apptainer":
            return dict(os.environ)
        inside = {f"APPTAINERENV_{key}": variables[key] for key in variables if key != "HOME"}
        return os.environ | inside

    def kill(self, name: str) -> None:
        """Kill the container; killing the program that started it would leave it running."""
        if self.engine == "apptainer":
            return  # a child of its program, in our process group
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # it may be gone already
            subprocess.run(
                [self.engine, "kill", name], capture_output=True, timeout=20, check=False
            )


def variables(quiet: Mapping[str, str], *, online: bool = False) -> dict[str, str]:
    """Return the environment inside a container.

    The user has no name there, and torch asks for it; caches go where they are kept.

    Args:
        quiet: What every worker gets.
        online: Whether it may use the user's access to the hub.
    """
    home = Container.home()
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED
        or name.startswith(PASSED_PREFIXES)
        or (online and name in ("HF_TOKEN", "HF_ENDPOINT"))
    }
    return {
        **quiet,
        **passed,
        "HOME": str(home),
        "USER": _user_name(),
        "LOGNAME": _user_name(),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / ".cache" / "torchinductor"),
    }


def _publication(host: str, port: int) -> str:
    """Return the value of --publish, which takes addresses only: without one it means all.

    Raises:
        ToolchainError: The host's name is none.
    """
    if ":" in host:
        return f"[{host}]:{port}:{port}"
    try:
        return f"{socket.gethostbyname(host)}:{port}:{port}"
    except socket.gaierror as error:
        raise ToolchainError(
            f"{host} is no address at which a container can be published ({error.strerror}). Give "
            "127.0.0.1, or 0.0.0.0."
        ) from None


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # We ourselves may run in a container without a name.
        return "workbench"


class Mount(NamedTuple):
    """A file or directory of this machine that is seen inside."""

    source: Path
    path: Path
    write: bool

    def __str__(self) -> str:
        """Return the value of --mount, a line of CSV for all three programs."""
        fields = ["type=bind", f"source={self.source}", f"destination={self.path}"]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(fields + ([] if self.write else ["ro"]))
        return line.getvalue()


def plan_mounts(readable: Iterable[Path], writable: Iterable[Path]) -> list[Mount]:
    """Return what to mount; each thing has the same path inside.

    What lies inside another one is not mounted again. A checkpoint in the hub's cache consists of
    links to files elsewhere, which are mounted too, one by one: never a directory that nobody
    named.
    """
    chosen = [Mount(path.absolute(), path.absolute(), write=True) for path in writable]
    for path in readable:
        whole = Mount(path.absolute(), path.absolute(), write=False)
        for mount in (whole, *_linked(whole.path)):
            if not any(mount.path.is_relative_to(other.path) for other in chosen):
                chosen.append(mount)
    return chosen


def _linked(folder: Path) -> Iterator[Mount]:
    """Yield the files that links in a directory lead to, where the links look for them."""
    for link in sorted(folder.rglob("*")):
        if link.is_symlink() and link.is_file():
            # Inside, the directories above are no links, so that .. is what it looks like.
            place = Path(os.path.normpath(link.parent / link.readlink()))
            yield Mount(link.resolve(), place, write=False)


class Door:
    """A socket in a private directory, at which the worker inside knocks once."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-"))
        if len(os.fsencode(self.path)) > SOCKET_PATH_LIMIT:
            self.folder.rmdir()
            self.folder = Path(tempfile.mkdtemp(prefix="workbench-", dir="/tmp"))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self.path.chmod(0o600)
        self._socket.listen(1)

    @property
    def path(self) -> Path:
        """Where the worker connects."""
        return self.folder / "channel"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait(self, process: subprocess.Popen[bytes]) -> socket.socket | None:
        """Return the channel to the worker, or None when its process ends without a knock."""
        while True:
            ended = process.poll() is not None
            if select.select([self._socket], [], [], 0 if ended else 0.1)[0]:
                return self._socket.accept()[0]
            if ended:
                return None
