from datetime import timedelta

from simulator.tests.world.standin import machine

PODS = "/api/v1/namespaces/default/pods"


def spot_of_ours(served, number=80, **more):
    tags = {"spotopt:action-id": "a-1", "spotopt:managed": "true"}
    return machine(number, at=served.clock.now(), lifecycle="spot", **({"tags": tags} | more))


def launch(served, launched):
    served.world.room.launch(launched)
    served.pass_time(90)
    return launched


def test_given_a_world_when_asked_then_the_status_counts_nodes_and_pods(control):
    status = control.get("/status").json()

    assert status["ready"] is True
    assert status["clusters"] == [
        {
            "name": "test",
            "account_id": "111122223333",
            "region": "us-east-1",
            "nodes_ready": 3,
            "nodes_total": 3,
            "pods_running": 6,
            "daemon_pods_running": 0,
            "pods_pending": 0,
        }
    ]


def test_given_credentials_when_used_then_they_open_the_cluster(served, control):
    given = control.get("/clusters/test/credentials").json()

    assert given["server"] == f"{served.server.url}/clusters/test"
    with served.client(token=given["token"]) as agent:
        assert agent.get("/api/v1/nodes").status_code == 200
    assert control.get("/clusters/none/credentials").status_code == 404


def test_given_an_interruption_when_asked_for_then_the_metadata_warns_and_the_machine_ends(served, control):
    spot = launch(served, spot_of_ours(served))
    metadata = served.server.url + f"/metadata/{spot.instance_id}/latest/meta-data"
    assert control.get(f"{metadata}/spot/instance-action").status_code == 404

    answer = control.post("/interrupt", json={"instance_id": spot.instance_id})

    assert answer.status_code == 200
    ends_at = (served.clock.now() + timedelta(seconds=120)).strftime("%Y-%m-%dT%H:%M:%SZ")
    warning = control.get(f"{metadata}/spot/instance-action").json()
    assert warning == {"action": "terminate", "time": ends_at}
    served.pass_time(125)
    assert spot.termination_reason == "spot-interruption"
    assert control.get(f"{metadata}/spot/instance-action").status_code == 404


def test_given_a_rebalance_signal_when_asked_for_then_only_the_metadata_changes(served, control):
    spot = launch(served, spot_of_ours(served))
    path = (
        f"{served.server.url}/metadata/{spot.instance_id}/latest/meta-data/events/recommendations/rebalance"
    )
    assert control.get(path).status_code == 404

    control.post("/rebalance", json={"instance_id": spot.instance_id}).raise_for_status()

    assert control.get(path).json()["noticeTime"].endswith("Z")
    served.pass_time(300)
    assert spot.state == "running"


def test_given_an_on_demand_machine_when_interrupted_then_409_and_nothing_happens(served, control):
    first = served.world.room.all()[0]

    answer = control.post("/interrupt", json={"instance_id": first.instance_id})

    assert answer.status_code == 409
    assert first.terminates_at is None
    assert control.post("/interrupt", json={"instance_id": "i-none"}).status_code == 404


def test_given_an_empty_machine_of_ours_when_ten_minutes_pass_then_it_is_an_orphan(served, control):
    spot = launch(served, spot_of_ours(served))
    assert control.get("/launches").json()["orphans"] == []

    served.pass_time(12 * 60)

    (orphan,) = control.get("/launches").json()["orphans"]
    assert orphan["instance_id"] == spot.instance_id


def test_given_a_machine_of_ours_that_never_joins_when_ten_minutes_pass_then_it_is_an_orphan(served, control):
    lost = launch(served, spot_of_ours(served, cluster=None))

    served.pass_time(12 * 60)

    assert [each["instance_id"] for each in control.get("/launches").json()["orphans"]] == [lost.instance_id]


def test_given_one_action_served_twice_when_asked_then_it_is_a_duplicate(served, control):
    one = spot_of_ours(served, 81, client_token="t-1", fleet_id="fleet-1")
    same_fleet = spot_of_ours(served, 82, client_token="t-1", fleet_id="fleet-1")
    served.world.room.launch_many([one, same_fleet])
    assert control.get("/launches").json()["duplicates"] == []

    served.world.room.launch(spot_of_ours(served, 83, client_token="t-2", fleet_id="fleet-2"))

    (duplicate,) = control.get("/launches").json()["duplicates"]
    assert (duplicate["by"], duplicate["value"], len(duplicate["instance_ids"])) == (
        "spotopt:action-id",
        "a-1",
        3,
    )


def test_given_api_faults_when_switched_on_then_they_strike_and_are_counted(served, admin, control):
    control.post("/faults", json={"kube": {"error_rate": 1.0, "codes": [503]}}).raise_for_status()

    answers = [admin.get("/api/v1/nodes").status_code for _ in range(3)]

    assert answers == [503, 503, 503]
    assert control.get("/faults").json()["kube"]["struck"] == {"503": 3}
    control.post("/faults", json={"kube": {"error_rate": 0}}).raise_for_status()
    assert admin.get("/api/v1/nodes").status_code == 200


def test_given_a_fault_nobody_knows_when_switched_on_then_400(control):
    assert control.post("/faults", json={"gravity": False}).status_code == 400
    assert control.post("/faults", content=b"not json").status_code == 400


def test_given_a_killed_node_when_its_kubelet_is_silent_then_the_node_turns_not_ready(served, admin, control):
    first = served.world.room.all()[0]

    control.post("/kill-node", json={"instance_id": first.instance_id}).raise_for_status()
    served.pass_time(60)

    assert control.get("/status").json()["clusters"][0]["nodes_ready"] == 2


def test_given_a_bill_when_asked_for_a_span_then_the_span_is_billed(served, control):
    since, until = "2026-11-01T12:00:00Z", "2026-11-01T13:00:00Z"
    served.pass_time(2 * 3600)

    bill = control.get("/bill", params={"since": since, "until": until}).json()

    assert bill["actual_usd"] == bill["twin_usd"] == "0.576000"
    assert control.get("/bill", params={"since": "yesterday"}).status_code == 400
    assert control.get("/bill", params={"since": "2026-11-01T12:00:00"}).status_code == 400


def test_given_requests_when_asked_for_accesses_then_verbs_and_resources_are_counted(served, admin, control):
    admin.get("/api/v1/nodes")

    accesses = control.get("/clusters/test/accesses").json()["accesses"]

    assert {
        "user": "kubernetes-admin",
        "verb": "list",
        "group": "",
        "resource": "nodes",
        "count": 1,
    } in accesses
