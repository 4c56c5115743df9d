"""Find a Chromium or Chrome for the browser tests: `python -m tests.browser.find_chromium [--install]`.

With ``--install`` Debian's package is installed where apt and root are there. Where none can be had, CI=true fails;
elsewhere the browser tests are skipped and this says how to get one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
ADVICE = (
    "No Chromium or Chrome was found, so the browser tests are skipped. Install one (Debian, Ubuntu: "
    "`sudo apt-get install chromium`), or name its path in ASSAY_CHROMIUM, and run `make test` again."
)


def find_chromium() -> str | None:
    """Path of the browser to drive, or None."""
    named = os.environ.get("ASSAY_CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    return found or (str(MAC) if MAC.exists() else None)


def _install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
    ):
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)


def main(argv: list[str]) -> int:
    """Exit status 0: found, or not needed; 1: CI without a browser."""
    if find_chromium() is None and "--install" in argv:
        _install()
    browser = find_chromium()
    if browser is not None:
        print(f"Browser for the tests: {browser}")
        return 0
    print(ADVICE, file=sys.stderr)
    return 1 if os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
