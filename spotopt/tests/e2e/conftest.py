"""A server with seeded rows, and a real browser that watches for errors."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from spotopt.management.embedded import free_port
from spotopt.tests.e2e.browser import find
from spotopt.tests.e2e.seed import PASSWORD

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 120
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Serve seeded rows in a process of its own; yield the address."""
    port = free_port()
    log = tmp_path_factory.mktemp("e2e") / "server.log"
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
    }
    with log.open("wb") as output:
        process = subprocess.Popen(  # our own module
            [sys.executable, "-m", "spotopt.tests.e2e.serve", str(port)],
            cwd=ROOT,
            env=inherited,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(address, process, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"The server did not start:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(f"{address}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"The server did not answer in {START_SECONDS} s:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def chromium():
    """Chromium from the PATH, else Playwright's own."""
    found = find()
    assert found is not None, "No Chromium: run `make browser`."
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield launched
        launched.close()


@dataclass
class Visitor:
    """Somebody with a browser window; ``complaints`` is what its console said."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)

    def sign_in(self, email: str) -> "Visitor":
        self.page.goto("/login")
        self.page.fill("[name=email]", email)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("main button[type=submit]")
        self.page.wait_for_url(re.compile(r"/(dashboard|onboarding)"))
        return self

    def open(self, path: str) -> Page:
        response = self.page.goto(path)
        assert response is not None
        assert response.status == 200, f"{path} answered {response.status}"
        return self.page


@pytest.fixture
def visit(server, chromium: Browser):
    """Open windows; each must end without a word on its console."""
    visitors = []

    def begin(width=1440, scheme="light", **options) -> Visitor:
        size = {"width": width, "height": 900}
        context = chromium.new_context(base_url=server, viewport=size, color_scheme=scheme, **options)
        visitor = Visitor(context, context.new_page())
        visitor.page.on("console", lambda message: _note(visitor, message))
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(f"error: {error}"))
        visitors.append(visitor)
        return visitor

    yield begin
    for visitor in visitors:
        visitor.context.close()
    assert [line for visitor in visitors for line in visitor.complaints] == []


LATE = "was preloaded using link preload but not used within a few seconds"
"""Chromium's remark about a busy machine, not about the page."""


def _note(visitor, message):
    if message.type in ("error", "warning") and LATE not in message.text:
        visitor.complaints.append(f"{visitor.page.url} {message.type}: {message.text}")
