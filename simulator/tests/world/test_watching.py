import json
import threading

import pytest

from simulator.kube import store

PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes"
MERGE = {"content-type": "application/merge-patch+json"}


class Follower:
    """Reads a watch in a thread of its own, until the server ends it."""

    def __init__(self, served, path, **query):
        self.events, self._served = [], served
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(path, query), daemon=True)
        self._thread.start()

    def _read(self, path, query):
        params = {"watch": "true", "timeoutSeconds": "8"} | query
        with self._served.client() as client, client.stream("GET", path, params=params) as answer:
            for line in answer.iter_lines():
                with self._seen:
                    self.events.append(json.loads(line))
                    self._seen.notify_all()

    def until(self, condition):
        with self._seen:
            assert self._seen.wait_for(lambda: condition(self.events), 8), self.events
            return list(self.events)

    def join(self):
        self._thread.join(15)
        assert not self._thread.is_alive()


def eventually(condition):
    deadline = threading.Event()
    for _ in range(100):
        if condition():
            return
        deadline.wait(0.02)
    pytest.fail("It never came true.")


def version_of(client, path):
    return client.get(path).json()["metadata"]["resourceVersion"]


def pod_names(client, app):
    items = client.get(PODS, params={"labelSelector": f"app.kubernetes.io/name={app}"}).json()["items"]
    return [item["metadata"]["name"] for item in items]


def test_given_a_list_when_watching_from_its_version_then_each_change_arrives_once_in_order(served, admin):
    version = version_of(admin, PODS)
    name = pod_names(admin, "free")[0]
    follower = Follower(served, PODS, resourceVersion=version)

    with served.client() as other:
        body = {"metadata": {"name": name}}
        other.post(f"{PODS}/{name}/eviction", json=body).raise_for_status()
    served.pass_time(60)

    events = follower.until(lambda seen: any(each["type"] == "DELETED" for each in seen))
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)
    of_the_evicted = [each["type"] for each in events if each["object"]["metadata"]["name"] == name]
    assert of_the_evicted == ["MODIFIED", "DELETED"]
    added = {each["object"]["metadata"]["name"] for each in events if each["type"] == "ADDED"}
    assert added < set(pod_names(admin, "free"))
    assert len(added) == 1


def test_given_no_version_when_watching_then_all_that_exists_is_added_first(served, admin):
    follower = Follower(served, NODES)

    events = follower.until(lambda seen: len(seen) >= 3)

    assert {each["type"] for each in events} == {"ADDED"}
    assert {each["object"]["kind"] for each in events} == {"Node"}


def test_given_a_selector_when_an_object_leaves_it_then_the_watch_sees_it_deleted(served, admin):
    node = admin.get(NODES).json()["items"][0]["metadata"]["name"]
    query = {"resourceVersion": version_of(admin, NODES), "labelSelector": "team=blue"}
    follower = Follower(served, NODES, **query)

    with served.client() as other:
        for value in ("blue", "red", "blue", None):
            patch = {"metadata": {"labels": {"team": value}}}
            other.patch(f"{NODES}/{node}", json=patch, headers=MERGE).raise_for_status()

    events = follower.until(lambda seen: len(seen) >= 4)
    assert [each["type"] for each in events] == ["ADDED", "DELETED", "ADDED", "DELETED"]


def test_given_a_compacted_version_when_watching_then_an_error_event_with_410_ends_it(
    served, admin, monkeypatch
):
    monkeypatch.setattr(store, "HISTORY", 8)
    old = version_of(admin, NODES)
    node = admin.get(NODES).json()["items"][0]["metadata"]["name"]
    for number in range(20):
        patch = {"metadata": {"labels": {"number": str(number)}}}
        admin.patch(f"{NODES}/{node}", json=patch, headers=MERGE).raise_for_status()

    follower = Follower(served, NODES, resourceVersion=old)

    follower.join()
    (event,) = follower.events
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith(f"too old resource version: {old}")


def test_given_bookmarks_are_allowed_when_nothing_happens_then_one_carries_the_latest_version(
    served, admin, monkeypatch
):
    monkeypatch.setattr("simulator.kube.watching.BOOKMARK_SECONDS", 0.2)
    version = version_of(admin, NODES)
    follower = Follower(served, NODES, resourceVersion=version, allowWatchBookmarks="true")

    events = follower.until(lambda seen: len(seen) >= 1)

    assert events[0]["type"] == "BOOKMARK"
    assert int(events[0]["object"]["metadata"]["resourceVersion"]) >= int(version)
    assert events[0]["object"]["kind"] == "Node"


def test_given_a_timeout_when_it_is_over_then_the_watch_ends_quietly(served, admin):
    follower = Follower(served, NODES, resourceVersion=version_of(admin, NODES), timeoutSeconds="1")

    follower.join()

    assert follower.events == []


def test_given_a_version_from_the_future_when_watching_then_504(admin):
    answer = admin.get(NODES, params={"watch": "1", "resourceVersion": "99999999"})

    assert answer.status_code == 504
    assert answer.json()["message"].startswith("Timeout: Too large resource version")


def test_given_a_client_that_left_when_the_world_goes_on_then_its_watch_is_forgotten(served, admin):
    nodes = served.cluster.store.collections["nodes"]
    with served.client() as other, other.stream("GET", NODES, params={"watch": "true"}) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        eventually(lambda: len(nodes.waiters) == 1)

    eventually(lambda: not nodes.waiters)
    assert nodes.waiters == set()


def test_given_initial_events_are_asked_for_when_watching_then_a_bookmark_marks_their_end(served):
    query = {"sendInitialEvents": "true", "resourceVersion": "0"}
    follower = Follower(served, NODES, allowWatchBookmarks="true", **query)

    events = follower.until(lambda seen: any(each["type"] == "BOOKMARK" for each in seen))

    assert [each["type"] for each in events] == ["ADDED"] * 3 + ["BOOKMARK"]
    assert events[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
