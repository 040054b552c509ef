"""The wire of the fault run: what it keeps back, and what it breaks off."""

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from spotopt.management.embedded import free_port
from spotopt.tests.chaos.wire import Wire

CLUSTER = "7f3c0f0e-6a52-4c1f-9d0b-1f2f3f4f5f6f"
PATH = f"/api/v1/clusters/{CLUSTER}/events"


class Product(ThreadingHTTPServer):
    """Answers when it may, and knows what arrived."""

    daemon_threads = True

    def __init__(self):
        self.arrived, self.may_answer = threading.Semaphore(0), threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.arrived.release()
        self.server.may_answer.wait(20)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args):
        """Keep quiet."""


@pytest.fixture
def product():
    server = Product()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def wire(product):
    wire = Wire(target=f"http://127.0.0.1:{product.server_port}", port=free_port(), seed=1)
    wire.start()
    yield wire
    wire.stop()


@pytest.fixture
def said(wire):
    """Has the agent say something; returns what will be the answer's status."""
    with ThreadPoolExecutor(1) as agent, httpx.Client(base_url=wire.url, timeout=30) as client:
        yield lambda: agent.submit(lambda: client.post(PATH).status_code)


def test_given_a_held_agent_when_released_then_what_it_said_arrives(wire, product, said):
    product.may_answer.set()
    wire.hold(CLUSTER)
    status = said()
    assert not product.arrived.acquire(timeout=0.3)

    wire.release(CLUSTER)

    assert status.result(20) == 202


def test_given_a_request_that_hangs_when_its_agent_is_cut_off_then_the_agent_hears_no_answer(
    wire, product, said
):
    status = said()
    assert product.arrived.acquire(timeout=20)

    wire.cut(CLUSTER, seconds=20)

    assert status.result(20) == 504
    assert wire.witness.struck["partition"] == 1
