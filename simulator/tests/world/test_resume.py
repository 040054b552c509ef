import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from simulator.fleet import Budget, Workload
from simulator.journal import Journal
from simulator.kube import engine
from simulator.machines import MachineRoom
from simulator.tests.world.standin import (
    HandClock,
    build_world,
    deployment,
    fleet_of,
    free_port,
    live,
    machine,
)

FLEET = fleet_of(
    deployment("web", 6, budget=Budget(min_available=4)),
    Workload("StatefulSet", "default", "db", 2, 100, 128, volume_gib=5),
)
ROOT = Path(__file__).resolve().parents[3]


def picture(world):
    """Everything a client could see, but for versions that only say when."""
    cluster = world.clusters["test"].cluster
    return {
        resource: {key: entry.body for key, entry in cluster.store.page(resource)}
        for resource in ("nodes", "pods", "deployments", "replicasets", "statefulsets", "persistentvolumes")
    }


def copy_of(path, tmp_path, name):
    """What a kill -9 leaves: the files as they are, log included."""
    target = tmp_path / name
    target.mkdir()
    for each in path.parent.glob(f"{path.name}*"):
        shutil.copy(each, target / each.name)
    return target / path.name


def test_given_a_world_when_killed_and_opened_again_then_every_object_is_the_same(tmp_path):
    path = tmp_path / "world.sqlite"
    clock = HandClock()
    world = build_world(FLEET, path=path, clock=clock)
    cluster = world.clusters["test"].cluster
    cluster.delete_pod("default", "db-0", cause="eviction")
    live(cluster, 7)
    clock.instant = cluster.now

    again = build_world(FLEET, path=copy_of(path, tmp_path, "killed"), clock=clock)

    assert picture(again) == picture(world)
    assert again.started_at == world.started_at
    assert again.clusters["test"].availability.totals == world.clusters["test"].availability.totals


def test_given_a_kill_in_the_middle_of_a_roll_when_opened_again_then_it_ends_as_it_would_have(tmp_path):
    path, clock = tmp_path / "world.sqlite", HandClock()
    world = build_world(FLEET, path=path, clock=clock)
    cluster = world.clusters["test"].cluster
    body = cluster.store.get("deployments", "default", "web")
    template = body["spec"]["template"]
    metadata = template["metadata"] | {"annotations": {"restartedAt": "now"}}
    spec = body["spec"] | {"template": template | {"metadata": metadata}}
    cluster.store.put("deployments", body | {"spec": spec})
    live(cluster, 11)

    for number in range(3):
        clock.instant = cluster.now
        world = build_world(FLEET, path=copy_of(path, tmp_path, str(number)), clock=clock)
        cluster, path = world.clusters["test"].cluster, tmp_path / str(number) / path.name
        live(cluster, 6)
    live(cluster, 120)

    status = cluster.store.get("deployments", "default", "web")["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (6, 6, 6)
    uids = [each["metadata"]["uid"] for each in cluster.store.bodies("pods")]
    assert len(set(uids)) == len(uids) == 8


def test_given_a_kill_before_the_birth_was_complete_when_opened_again_then_the_cluster_is_born_anew(tmp_path):
    path, clock = tmp_path / "world.sqlite", HandClock()
    build_world(FLEET, path=path, clock=clock)
    journal = Journal(path)
    journal.write({"seeded/test": None})
    journal.write({"kube/test/pods/default/torn": {"metadata": {"name": "torn"}}})
    journal.close()

    again = build_world(FLEET, path=path, clock=clock)

    assert len(picture(again)["pods"]) == 8


def test_given_machines_when_the_room_is_opened_again_then_it_knows_each_of_them(tmp_path):
    path = tmp_path / "room.sqlite"
    room = MachineRoom(Journal(path))
    clock = HandClock()
    room.launch_many(
        [machine(1, lifecycle="spot"), machine(2), machine(3, taints=[{"key": "a", "effect": "b"}])]
    )
    room.warn(machine(1).instance_id, at=clock.now())
    room.terminate(machine(2).instance_id, reason="user", at=clock.now())

    again = MachineRoom(Journal(path))

    assert again.all() == room.all()
    assert again.next_change_at() == room.next_change_at()


def test_given_a_long_sleep_when_the_world_wakes_then_what_was_due_has_happened(tmp_path):
    path, clock = tmp_path / "world.sqlite", HandClock()
    world = build_world(FLEET, path=path, clock=clock)
    cluster = world.clusters["test"].cluster
    cluster.delete_pod("default", "db-1", cause="eviction")
    cluster.store.flush()

    clock.instant = cluster.now.replace(hour=23)
    again = build_world(FLEET, path=path, clock=clock).clusters["test"].cluster
    engine.step(again, clock.now())
    live(again, 60)

    assert again.store.get("pods", "default", "db-1")["status"]["phase"] == "Running"


class Process:
    """The simulator as its users start it."""

    def __init__(self, state):
        self._aws, self.kube = free_port(), free_port()
        command = [sys.executable, "-m", "simulator", "--state", str(state), "--fleet", "small"]
        command += ["--aws-port", str(self._aws), "--kube-port", str(self.kube)]
        clock = {"wall": time.time(), "origin": time.time(), "rate": 30}
        environment = os.environ | {"SPOTOPT_CLOCK": json.dumps(clock)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self):
        line = self.process.stdout.readline()
        assert json.loads(line)["event"] == "ready"
        return self

    def get(self, path):
        return httpx.get(f"http://127.0.0.1:{self.kube}{path}", timeout=10).json()

    def admin(self, cluster):
        given = self.get(f"/control/clusters/{cluster}/credentials?as=admin")
        headers = {"Authorization": f"Bearer {given['token']}"}
        return httpx.Client(base_url=given["server"], headers=headers, timeout=10)

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(15)
        self.process.stdout.close()
        return code


@pytest.fixture
def processes():
    started = []
    yield started
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()
        each.process.wait(10)


def uids(client, path):
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in client.get(path).json()["items"]}


def test_given_a_running_simulator_when_killed_amid_evictions_then_it_resumes_with_the_same_ids(
    tmp_path, processes
):
    first = Process(tmp_path)
    processes.append(first)
    first.wait_until_ready()
    machines = {each["instance_id"] for each in first.get("/control/machines")["machines"]}
    with first.admin("acme-production") as admin:
        nodes = uids(admin, "/api/v1/nodes")
        name = next(name for name in uids(admin, "/api/v1/namespaces/default/pods") if name.startswith("web"))
        body = {"metadata": {"name": name}}
        path = f"/api/v1/namespaces/default/pods/{name}/eviction"
        assert admin.post(path, json=body).status_code == 201
    assert first.end(signal.SIGKILL) == -signal.SIGKILL

    second = Process(tmp_path)
    processes.append(second)
    second.wait_until_ready()

    assert {each["instance_id"] for each in second.get("/control/machines")["machines"]} == machines
    assert second.get("/control/launches") == {"launches": [], "duplicates": [], "orphans": []}
    with second.admin("acme-production") as admin:
        assert uids(admin, "/api/v1/nodes") == nodes
    assert second.get("/control/availability")["clusters"]["acme-production"]["evictions"] == 1
    bill = second.get("/control/bill")
    assert bill["actual_usd"] == bill["twin_usd"]
    assert second.end(signal.SIGTERM) == 0
