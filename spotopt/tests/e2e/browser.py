"""Find a Chromium for the browser tests, or install one: `python -m spotopt.tests.e2e.browser`.

One on the PATH serves first, then Playwright's own, then (for root on Debian) the distribution's package.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of a Chromium that is here, or None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install() -> str | None:
    """Install a Chromium and return its path; None when neither way works."""
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if found := find():
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], env=quiet, check=False)  # noqa: S607  # found on the PATH
        subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], env=quiet, check=False)  # noqa: S607
    return find()


def main() -> int:
    """Print the browser that the tests will use; fail when there is none."""
    path = find() or install()
    if path is None:
        sys.stderr.write("No Chromium is here and none could be installed: put one on the PATH.\n")
        return 1
    sys.stdout.write(f"Browser tests use {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
