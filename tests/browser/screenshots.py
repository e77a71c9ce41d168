"""The pictures of the documentation, taken from the real thing.

    python -m tests.browser.screenshots [--theme Dark] [--width 1000] [OUTPUT]

Runs the tour in a real JupyterLab with a store of its own and takes a picture of its panels.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.browser.lab import REPOSITORY, Lab, LabPage, open_chromium


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", type=Path, default=REPOSITORY / "notebooks/tour.png")
    parser.add_argument("--theme", choices=["Light", "Dark"], default="Light")
    parser.add_argument("--width", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, home = Path(scratch) / "notebooks", Path(scratch) / "home"
        folder.mkdir()
        home.mkdir()
        shutil.copy(REPOSITORY / "notebooks" / "00_tour.ipynb", folder)
        environment = {"WORKBENCH_HOME": str(home / "store")}
        with (
            Lab(folder, home, environment) as lab,
            open_chromium() as chromium,
            LabPage(chromium, lab, "00_tour.ipynb") as page,
        ):
            # Tall enough for all panels: Lab renders only what is in view.
            page.page.set_viewport_size({"width": options.width, "height": 2150})
            page.set_theme(options.theme)
            page.command("application:toggle-left-area")
            page.run_all()
            while not page.value("stream.record is not None"):
                time.sleep(0.5)
            page.command("notebook:hide-all-cell-code")
            page.page.get_by_role("heading", name="Choose").scroll_into_view_if_needed()
            page.page.locator(".jp-WindowedPanel-outer").evaluate("e => e.scrollTop = 325")
            page.page.wait_for_timeout(1500)
            page.screenshot(options.output, ".jp-WindowedPanel-outer")
            page.shut_down_kernel()


if __name__ == "__main__":
    main()
