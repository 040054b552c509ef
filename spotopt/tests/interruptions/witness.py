"""A witness at the Kubernetes API: when nodes close, and which pods are where."""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

Body = Mapping[str, Any]


class Witness:
    """Watches the nodes of one cluster from a thread; its clock is the wall's, as the instance's is."""

    def __init__(self, server: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=server, headers=headers, timeout=60)
        self.closed_at: dict[str, float] = {}
        self.ready_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()

    def pods_on(self, nodes: Iterable[str]) -> dict[str, str]:
        """Return the node of each pod that has to leave the nodes, by uid."""
        wanted = set(nodes)
        found = self._list("/api/v1/pods")
        return {
            pod["metadata"]["uid"]: pod["spec"]["nodeName"]
            for pod in found["items"]
            if pod["spec"].get("nodeName") in wanted and not _stays(pod)
        }

    def pending(self) -> int:
        """Return how many pods wait for a node."""
        return sum(pod["status"].get("phase") == "Pending" for pod in self._list("/api/v1/pods")["items"])

    def _list(self, path: str) -> Any:
        answer = self._http.get(path)
        answer.raise_for_status()
        return answer.json()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch_once()
            except httpx.HTTPError:
                time.sleep(0.2)

    def _watch_once(self) -> None:
        listed = self._list("/api/v1/nodes")
        for node in listed["items"]:
            self._look(node)
        query = {
            "watch": "true",
            "resourceVersion": listed["metadata"]["resourceVersion"],
            "timeoutSeconds": 50,
        }
        with self._http.stream("GET", "/api/v1/nodes", params=query) as events:
            for line in events.iter_lines():
                if self._stopping.is_set():
                    return
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._look(event["object"])

    def _look(self, node: Body) -> None:
        name, now = node["metadata"]["name"], time.time()
        if node["spec"].get("unschedulable"):
            self.closed_at.setdefault(name, now)
        ready = [each for each in node["status"].get("conditions", ()) if each["type"] == "Ready"]
        if ready and ready[0]["status"] == "True":
            self.ready_at.setdefault(name, now)


def seconds_of(instant: str) -> float:
    """Return an ISO 8601 instant in seconds since the epoch."""
    return datetime.fromisoformat(instant).astimezone(UTC).timestamp()


def _stays(pod: Body) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    is_over = pod["status"].get("phase") in ("Succeeded", "Failed")
    return is_over or any(owner["kind"] == "DaemonSet" for owner in owners)
