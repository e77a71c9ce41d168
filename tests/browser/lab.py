"""A real JupyterLab and notebooks open in a real browser, for tests and benchmarks.

    with Lab(folder, home) as lab, open_chromium() as chromium:
        lab.write_notebook("demo.ipynb", "print('hello')")
        with LabPage(chromium, lab, "demo.ipynb") as page:
            page.run_all()
            page.screenshot(folder / "demo.png")

`LabPage.page` is Playwright's own page for everything that has no method here.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import nbformat
import psutil
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]

# Every process that a Lab starts inherits this variable, so that `stop` finds all of them:
# kernels lead sessions of their own, and detached jobs have no parent any more.
_MARK = "WORKBENCH_TEST_LAB"
_START_TIMEOUT = 60.0  # seconds; about 3 are usual, a busy machine takes more
_TIMEOUT = 60_000  # ms, for everything that a page waits for unless it is told otherwise

_CHROMIUM_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
)

# No news, no update check, no save behind the back of a test that is about saving.
_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}

# Where there is a Node.js, each new page asks it whether JupyterLab ought to be built again.
_PAGE = {"buildCheck": False}

_PANEL = """
  const app = window.jupyterapp;
  const panel = app && [...app.shell.widgets('main')].find((w) => w.context?.path === path);
"""
# The indicator in the toolbar shows "idle" before there is a kernel; running cells at that moment
# opens a dialog. So ask the session itself.
_READY = f"""(path) => {{ {_PANEL}
  const session = panel?.sessionContext;
  const kernel = session?.session?.kernel;
  return Boolean(panel?.context.isReady && session?.isReady
    && kernel?.status === 'idle' && kernel.connectionStatus === 'connected');
}}"""
_RUN_ALL = f"""(path) => {{ {_PANEL}
  app.shell.activateById(panel.id);
  window.runOfAllCells = app.commands.execute('notebook:run-all-cells');
}}"""
_WAIT = """async (timeout) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`cells still run after ${timeout} ms`)), timeout);
  });
  await Promise.race([window.runOfAllCells, late]).finally(() => clearTimeout(timer));
}"""
_ERRORS = f"""(path) => {{ {_PANEL}
  return panel.content.model.toJSON().cells.flatMap((cell) => cell.outputs ?? [])
    .filter((output) => output.output_type === 'error')
    .map((output) => output.traceback.join('\\n'));
}}"""
_EXECUTE = f"""async ([path, code, expressions]) => {{ {_PANEL}
  const kernel = panel.sessionContext.session.kernel;
  const request = {{ code, user_expressions: expressions, store_history: false }};
  return (await kernel.requestExecute(request).done).content;
}}"""


class Lab:
    """A JupyterLab server on a free port of the loopback interface.

    It asks for no token: whoever can connect to the port can run code, so this is for tests only.

    Args:
        folder: what the server shows; notebooks are opened by their path in it.
        home: an empty directory that takes the place of the user's home and holds all settings.
        env: environment variables for the server and its kernels, on top of the present ones.
        options: options of the server on top of ours.

    Attributes:
        url: of the server, without a slash at the end.
        folder: as given.
        environment: the variables that the server and its kernels run with.

    Raises:
        RuntimeError: the server did not start; the message ends with its log.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._mark = uuid.uuid4().hex
        self._log = home / "lab.log"
        self.environment = _environment(home) | {_MARK: self._mark} | dict(env or {})
        config = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "labconfig"
        config.mkdir(parents=True)
        (config / "default_setting_overrides.json").write_text(json.dumps(_SETTINGS))
        (config / "page_config.json").write_text(json.dumps(_PAGE))
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_command(folder, port), *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def write_notebook(self, path: str, *cells: str) -> str:
        """Write a notebook of code cells into the folder and return `path`."""
        notebook = {
            "cells": [_code_cell(f"cell-{number}", source) for number, source in enumerate(cells)],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.folder / path).write_text(json.dumps(notebook))
        return path

    def read_notebook(self, path: str) -> Any:
        """Return a notebook of the folder as it is on disk."""
        return nbformat.read(self.folder / path, as_version=4)

    def trust(self, path: str) -> None:
        """Sign a notebook that did not run in this Lab; it would not show widgets otherwise."""
        self.run("-m", "jupyter", "trust", path)

    def run(self, *arguments: str) -> None:
        """Run Python with these arguments, in the folder and the environment of the server.

        Raises:
            AssertionError: it failed; the message is what it printed.
        """
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return everything that runs because of this server: itself, kernels, detached jobs."""
        found = psutil.process_iter(["environ"])
        return [p for p in found if (p.info["environ"] or {}).get(_MARK) == self._mark]

    def end_server(self) -> None:
        """End the server as a person does; it shuts its kernels down, and jobs go on."""
        self._process.terminate()
        self._process.wait(timeout=20)

    def stop(self) -> None:
        """End the server and everything that it started."""
        family = self.processes()
        self._process.terminate()  # the server shuts its kernels down
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in {*alive, *self.processes()}:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        self._process.wait(timeout=5)

    def _wait_until_up(self) -> None:
        end = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"JupyterLab ended while starting. Its log:\n{self._tail()}")
            try:
                urllib.request.urlopen(f"{self.url}/api/status", timeout=5).close()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(
            f"JupyterLab did not answer within {_START_TIMEOUT:.0f} s. Its log:\n{self._tail()}"
        )

    def _tail(self) -> str:
        return self.log()[-4000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class LabPage:
    """A notebook open in a browser page of its own, with a kernel that is ready.

    Each page has its own browser context and Lab workspace. Two pages on one notebook share its
    kernel, as two tabs do.

    Args:
        chromium: from `open_chromium`.
        lab: the server.
        path: the notebook, relative to the server's folder.
        script: JavaScript that runs in the page before anything else.

    Attributes:
        page: Playwright's page.
        received: payload bytes of the kernel's WebSockets that arrived so far, uncompressed.
        opened: all pages that are open in this process.
    """

    opened: ClassVar[list[LabPage]] = []

    def __init__(self, chromium: Browser, lab: Lab, path: str, script: str = "") -> None:
        self.path = path
        self.received = 0
        self._console: list[str] = []
        context = chromium.new_context(viewport={"width": 1200, "height": 900})
        context.set_default_timeout(_TIMEOUT)
        self.page: Page = context.new_page()
        self.page.add_init_script(script)
        self.opened.append(self)
        self.page.on("websocket", self._count)
        self.page.on("console", lambda said: self._console.append(f"{said.type}: {said.text}"))
        # Leaving a page with unsaved changes asks for confirmation.
        self.page.on("dialog", lambda dialog: dialog.accept())
        workspace = uuid.uuid4().hex
        self.page.goto(f"{lab.url}/lab/workspaces/{workspace}/tree/{path}")
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the notebook is loaded and its kernel idle and connected."""
        # Asked at every frame, as is usual, it would take a fifth of the time of loading.
        self.page.wait_for_function(_READY, arg=self.path, polling=100)

    def run_all(self, timeout: float = 60) -> None:
        """Run all cells and wait for them; `start_all` and `wait_idle` in one."""
        self.start_all()
        self.wait_idle(timeout)

    def start_all(self) -> None:
        """Begin to run all cells and return at once."""
        self.page.evaluate(_RUN_ALL, self.path)

    def wait_idle(self, timeout: float = 60) -> None:
        """Wait until no cell runs and the kernel is idle; threads in it may still work.

        Args:
            timeout: in seconds.

        Raises:
            AssertionError: a cell raised; the message is its traceback.
            playwright.sync_api.Error: cells still run after `timeout`.
        """
        self.page.evaluate(_WAIT, timeout * 1000)
        self.wait_ready()
        errors = self.page.evaluate(_ERRORS, self.path)
        assert not errors, "\n".join(errors)

    def execute(self, code: str) -> None:
        """Run code in the notebook's kernel, outside of any cell."""
        self._execute(code, {})

    def value(self, expression: str) -> Any:
        """Return the value of a Python expression in the kernel; it must fit into JSON."""
        reply = self._execute("import json as _json", {"value": f"_json.dumps({expression})"})
        result = reply["user_expressions"]["value"]
        assert result["status"] == "ok", f"{expression}: {result.get('evalue')}"
        return json.loads(ast.literal_eval(result["data"]["text/plain"]))

    def save(self) -> None:
        """Save the notebook, including the state of its widgets if Lab is set to do so."""
        self._call("await panel.context.save()")

    def reload(self) -> None:
        """Reload the page, as F5 does, and wait for the notebook; changes are not saved."""
        self.page.reload()
        self.wait_ready()

    def scroll_to_end(self) -> None:
        """Scroll to the last cell; Lab renders a cell when it comes into view."""
        self._call("await panel.content.scrollToItem(panel.content.widgets.length - 1)")

    def restart_kernel(self) -> None:
        """Restart the kernel from within the page and wait until it is ready."""
        self._call("await panel.sessionContext.session.kernel.restart()")
        self.wait_ready()

    def set_theme(self, theme: Literal["Light", "Dark"]) -> None:
        """Switch the page to one of JupyterLab's own themes."""
        name = json.dumps(f"JupyterLab {theme}")
        self._call(f"await app.commands.execute('apputils:change-theme', {{ theme: {name} }})")
        light = str(theme == "Light").lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")

    def command(self, name: str, **args: Any) -> None:
        """Execute a command of JupyterLab, for instance "notebook:create-output-view"."""
        self._call(f"await app.commands.execute({json.dumps(name)}, {json.dumps(args)})")

    def screenshot(self, path: Path, selector: str | None = None) -> None:
        """Write a PNG of the page, or of the first element that matches `selector`."""
        if selector is None:
            self.page.screenshot(path=path)
        else:
            self.page.locator(selector).first.screenshot(path=path)

    def shut_down_kernel(self) -> None:
        """End the notebook's kernel, if another page on it has not; its cells keep their output."""
        self._call("await panel.sessionContext.shutdown()")

    def close(self) -> None:
        """Close the page; the kernel goes on, as it does for a user."""
        if self in self.opened:
            self.opened.remove(self)
        self.page.context.close()

    def description(self) -> str:
        """Return what a person would see now, and what the page has told its console."""
        shown = self.page.locator("body").inner_text(timeout=5_000)
        return f"{self.path} shows:\n{shown}\n\nIts console:\n" + "\n".join(self._console[-40:])

    def _call(self, statement: str) -> None:
        self.page.evaluate(f"async (path) => {{ {_PANEL} {statement}; }}", self.path)

    def _execute(self, code: str, expressions: dict[str, str]) -> Any:
        reply = self.page.evaluate(_EXECUTE, [self.path, code, expressions])
        assert reply["status"] == "ok", f"{reply.get('ename')}: {reply.get('evalue')}"
        return reply

    def _count(self, socket: WebSocket) -> None:
        if "/channels" in socket.url:
            socket.on("framereceived", self._add)

    def _add(self, payload: str | bytes) -> None:
        size = len(payload.encode()) if isinstance(payload, str) else len(payload)
        self.received += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start the Chromium of this machine without a window, and end it.

    While it is open an asyncio loop of Playwright's runs in this thread, so `asyncio.run` fails.

    Raises:
        RuntimeError: there is no Chromium on the PATH.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        raise RuntimeError(
            "The browser tests need Chromium, and there is no `chromium` on the PATH. "
            "Install it (Debian: apt-get install chromium), or deselect them: -m 'not browser'."
        )
    # Chromium's sandbox refuses to run as root, which is what a container usually is.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*_CHROMIUM_FLAGS, *sandbox]
        )
        try:
            yield browser
        finally:
            browser.close()


def _code_cell(name: str, source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": name,
        "source": source,
        "metadata": {},
        "execution_count": None,
        "outputs": [],
    }


def _command(folder: Path, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]


def _environment(home: Path) -> dict[str, str]:
    """Return the present environment, with nothing of the user's own Jupyter in it."""
    places = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "WORKBENCH_HOME": home / "workbench",
        "XDG_CACHE_HOME": home / "cache",
        "XDG_CONFIG_HOME": home / "xdg-config",
        "XDG_DATA_HOME": home / "xdg-data",
        # Kernels run in the notebook's folder, where the package is not.
        "PYTHONPATH": REPOSITORY,
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_"))}
    return kept | {name: str(place) for name, place in places.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
