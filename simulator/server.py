"""One HTTP server for all clusters, the metadata and the control; and the loop in which clusters live."""

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus

import uvicorn

from simulator import metadata
from simulator.control import Control, SwitchableFaults
from simulator.web import Request, Response, application, json_response
from simulator.world import World

LONGEST_PAUSE_SECONDS = 5.0
START_SECONDS = 10.0
GRACE_SECONDS = 2
RETRY_SECONDS = 0.5
log = logging.getLogger("simulator")


class KubeServer:
    """Serves a world on 127.0.0.1. Everything about clusters happens in its one loop thread."""

    def __init__(
        self,
        world: World,
        *,
        port: int,
        aws_faults: SwitchableFaults | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._world = world
        self._control = Control(world, kube_url=self.url, aws_faults=aws_faults, stop=stop)
        config = uvicorn.Config(
            application(self.handle),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=75,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="kube", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work = asyncio.Event()

    def start(self) -> None:
        """Listen; return when requests are answered. OSError when the port is taken."""
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_SECONDS * 100)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise OSError(f"The Kubernetes API could not listen on {self.url}.")

    def stop(self) -> None:
        """End the watches, answer what is under way, stop listening."""
        if self._loop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._wind_up)
        self._server.should_exit = True
        self._thread.join(GRACE_SECONDS + 3)

    def handle(self, request: Request) -> Response:
        """Route by the first step of the path: clusters, metadata or control."""
        now = self._world.clock.now()
        match request.path:
            case ("clusters", name, *rest) if name in self._world.clusters:
                found = self._world.clusters[name]
                found.cluster.now = max(found.cluster.now, now)
                response = found.api.handle(request, tuple(rest))
            case ("metadata", *rest):
                response = metadata.handle(self._world.room, request, tuple(rest))
            case ("control", *rest):
                response = self._control.handle(request, tuple(rest))
            case _:
                response = json_response({"error": "not found"}, HTTPStatus.NOT_FOUND)
        if request.method != "GET":
            self._work.set()
        return response

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        for each in self._world.clusters.values():
            each.cluster.wake = self._wake
        living = asyncio.create_task(self._live())
        await self._server.serve()
        self._wind_up()
        await living

    def _wind_up(self) -> None:
        self._world.stopping.set()
        self._work.set()
        for each in self._world.clusters.values():
            each.cluster.store.wake_watches()

    def _wake(self) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._work.set)

    async def _live(self) -> None:
        """Step the world whenever something is due, sleep otherwise."""
        while not self._world.stopping.is_set():
            self._work.clear()
            try:
                self._world.step(self._world.clock.now())
            except Exception:
                log.exception("A step of the world failed; the next one tries again")
                await asyncio.sleep(RETRY_SECONDS)
            due = self._world.next_due()
            pause = LONGEST_PAUSE_SECONDS
            if due is not None:
                remaining = max(due - self._world.clock.now(), timedelta(milliseconds=1))
                pause = min(pause, max(0.005, self._world.clock.wall_seconds(remaining)))
            try:
                await asyncio.wait_for(self._work.wait(), pause)
            except TimeoutError:
                continue
