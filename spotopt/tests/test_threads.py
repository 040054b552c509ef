import asyncio
import threading

from asgiref.sync import sync_to_async

from spotopt.core.threads import BoundedThreads

THREADS = 2


class Application:
    """Notes which threads served, how many at once, and what bodies they saw."""

    def __init__(self):
        self.threads, self.bodies, self.at_once, self.most = set(), [], 0, 0

    async def __call__(self, scope, receive, send):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        first, second = [await sync_to_async(threading.get_ident)() for _ in range(2)]
        assert first == second
        self.threads.add(first)
        self.bodies.append((await receive())["body"])
        await asyncio.sleep(0)
        self.at_once -= 1


async def _request(served, path, body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    await served({"type": "http", "path": path}, receive, None)


def _serve(served, path, count):
    async def everyone():
        await asyncio.gather(*(_request(served, path, bytes([n])) for n in range(count)))

    asyncio.run(everyone())


def test_given_more_requests_than_threads_when_served_then_each_keeps_one_thread_and_the_rest_wait():
    application = Application()
    served = BoundedThreads(application, count=THREADS, except_for=lambda path: path == "/wait")

    _serve(served, "/", 20)

    assert application.most == THREADS
    assert len(application.threads) == THREADS
    assert sorted(application.bodies) == [bytes([n]) for n in range(20)]


def test_given_a_path_that_waits_when_served_then_it_takes_no_turn():
    application = Application()
    served = BoundedThreads(application, count=THREADS, except_for=lambda path: path == "/wait")

    _serve(served, "/wait", 5)

    assert application.most > THREADS


def test_given_a_client_that_sends_slowly_when_others_come_then_they_are_served_meanwhile():
    application = Application()
    served = BoundedThreads(application, count=1, except_for=lambda path: False)

    async def slow_and_quick():
        rest = asyncio.Event()

        async def receive():
            await rest.wait()
            return {"type": "http.request", "body": b"slow", "more_body": False}

        slow = asyncio.create_task(served({"type": "http", "path": "/"}, receive, None))
        await asyncio.sleep(0)
        await _request(served, "/", b"quick")
        rest.set()
        await slow

    asyncio.run(slow_and_quick())

    assert application.bodies == [b"quick", b"slow"]
