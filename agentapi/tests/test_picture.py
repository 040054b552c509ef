import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agentapi.agent.facts import VolumeFact, volume_fact
from agentapi.agent.kube import Kube
from agentapi.agent.picture import draw
from agentapi.agent.quantities import MOST, mib, mib_below, millis
from agentapi.agent.shapes import Request, constraints_of, keeps_local_data, request_of
from agentapi.agent.view import View
from agentapi.protocol import Requirement, Spread, State, Toleration
from agentapi.tests.worlds import fast_world
from simulator.fleet import Budget, Workload
from simulator.tests.world.standin import deployment

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def container(cpu, memory, **more):
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1000),
        ("250m", 250),
        ("0.1", 100),
        ("1500000n", 2),
        ("2k", 2_000_000),
        ("1e3", 1_000_000),
        ("1E", MOST),
        ("9e18", MOST),
        ("0", 0),
    ],
)
def test_given_a_cpu_quantity_when_read_then_millis_rounded_up(text, expected):
    assert millis(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1Gi", 1024), ("128Mi", 128), ("1M", 1), ("1", 1), ("1500Ki", 2), ("128974848", 123)],
)
def test_given_a_memory_quantity_when_read_then_mib_rounded_up(text, expected):
    assert mib(text) == expected


def test_given_room_when_read_then_it_is_rounded_down():
    assert mib_below("1500Ki") == 1


@pytest.mark.parametrize("text", ["", "x", "1Q", "Mi", "1..2"])
def test_given_no_quantity_when_read_then_it_is_refused(text):
    with pytest.raises(ValueError, match="not a quantity"):
        millis(text)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": [container("100m", "64Mi"), container("200m", "64Mi")]}, Request(300, 128)),
        (
            {"containers": [container("100m", "64Mi")], "initContainers": [container("1", "32Mi")]},
            Request(1000, 64),
        ),
        (
            {
                "containers": [container("100m", "64Mi")],
                "initContainers": [
                    container("50m", "16Mi", restartPolicy="Always"),
                    container("500m", "8Mi"),
                ],
            },
            Request(550, 80),
        ),
        (
            {"containers": [container("100m", "64Mi")], "overhead": {"cpu": "10m", "memory": "1Mi"}},
            Request(110, 65),
        ),
        (
            {"containers": [{"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "2"}}}]},
            Request(1000, 0, 2),
        ),
        (
            {"containers": [{"resources": {"requests": {"ephemeral-storage": "2Gi"}}}]},
            Request(ephemeral_mib=2048),
        ),
        ({"containers": [{}]}, Request()),
    ],
)
def test_given_a_pod_when_its_request_is_read_then_it_is_what_the_scheduler_reserves(spec, expected):
    assert request_of(spec) == expected


HARD = "requiredDuringSchedulingIgnoredDuringExecution"


def test_given_a_pod_with_every_rule_when_read_then_each_constraint_is_there():
    spec = {
        "nodeSelector": {"pool": "a"},
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
            {"key": "team", "value": "x", "effect": "NoSchedule"},
        ],
        "topologySpreadConstraints": [
            {"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"},
            {"topologyKey": HOST, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
        ],
        "affinity": {
            "nodeAffinity": {
                HARD: {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "arch", "operator": "In", "values": ["arm64"]}]},
                        {"matchExpressions": [{"key": "old", "operator": "Exists"}]},
                    ]
                }
            },
        },
        "terminationGracePeriodSeconds": 90,
    }

    found = constraints_of({"labels": {"app": "web"}}, spec, controlled=True)

    assert found.node_selector == {"pool": "a"}
    assert found.requirements == ()
    assert found.alternatives == ((Requirement("arch", "In", ("arm64",)),), (Requirement("old", "Exists"),))
    assert found.tolerations == (Toleration("team", "Equal", "x", "NoSchedule"),)
    assert found.spread == (Spread(ZONE, 1),)
    assert found.unmodelled == ()
    assert (found.grace_seconds, found.spot_tolerant, found.do_not_disrupt) == (90, True, False)


def test_given_a_single_affinity_term_when_read_then_its_expressions_must_all_hold():
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
    spec = {"affinity": {"nodeAffinity": {HARD: {"nodeSelectorTerms": terms}}}}

    found = constraints_of({}, spec, controlled=True)

    assert found.requirements == (Requirement("metadata.name", "In", ("n1",)),)
    assert found.alternatives == ()


@pytest.mark.parametrize(
    ("spec", "unmodelled"),
    [
        ({"schedulerName": "volcano"}, "scheduler"),
        ({"resourceClaims": [{"name": "gpu"}]}, "resource_claims"),
        ({"containers": [container("1", "1Gi") | {"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}]},
         "resource hugepages-2Mi"),
    ],
)  # fmt: skip
def test_given_a_rule_that_nothing_models_when_read_then_it_is_named(spec, unmodelled):
    assert constraints_of({}, spec, controlled=True).unmodelled == (unmodelled,)


@pytest.mark.parametrize(
    ("mark", "kept", "unmodelled"),
    [
        ("2", "2", ()),
        ("50%", "50%", ()),
        ("some", "", ("on_demand_pods",)),
        ("150%", "", ("on_demand_pods",)),
    ],
)
def test_given_a_part_that_must_be_on_demand_when_read_then_it_is_a_number_or_a_share(mark, kept, unmodelled):
    found = constraints_of({"annotations": {"spotopt.io/on-demand-pods": mark}}, {}, controlled=True)

    assert (found.on_demand, found.unmodelled) == (kept, unmodelled)


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        ([], VolumeFact("us-east-1a", is_tied=False)),
        ([("topology.ebs.csi.aws.com/zone", ["us-east-1b"])], VolumeFact("us-east-1b", is_tied=False)),
        ([("topology.kubernetes.io/zone", ["a", "b"])], VolumeFact("", is_tied=True)),
        ([("kubernetes.io/hostname", ["n1"])], VolumeFact("", is_tied=True)),
        ([("topology.kubernetes.io/zone", None)], VolumeFact("", is_tied=True)),
    ],
)
def test_given_a_volume_when_read_then_its_zone_or_its_tie_to_nodes_is_seen(affinity, expected):
    expressions = [
        {"key": key, "operator": "In", "values": values} if values else {"key": key, "operator": "Exists"}
        for key, values in affinity
    ]
    terms = [{"matchExpressions": expressions}]
    spec = {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}} if affinity else {}

    assert volume_fact({"metadata": {"labels": {ZONE: "us-east-1a"}}, "spec": spec}) == expected


@pytest.mark.parametrize(
    ("metadata", "spec"),
    [
        ({"annotations": {"spotopt.io/spot": "false"}}, {}),
        ({"labels": {"spotopt.io/capacity-type": "on-demand"}}, {}),
        ({}, {"nodeSelector": {"karpenter.sh/capacity-type": "on-demand"}}),
        ({}, {"nodeSelector": {"eks.amazonaws.com/capacityType": "ON_DEMAND"}}),
        *(
            (
                {},
                {
                    "affinity": {
                        "nodeAffinity": {
                            HARD: {
                                "nodeSelectorTerms": [
                                    {
                                        "matchExpressions": [
                                            {
                                                "key": "karpenter.sh/capacity-type",
                                                "operator": operator,
                                                "values": values,
                                            }
                                        ]
                                    }
                                ]
                            }
                        }
                    }
                },
            )
            for operator, values in (("In", ["on-demand"]), ("NotIn", ["spot"]))
        ),
    ],
)
def test_given_a_pod_that_must_be_on_demand_when_read_then_it_does_not_tolerate_spot(metadata, spec):
    assert constraints_of(metadata, spec, controlled=True).spot_tolerant is False


@pytest.mark.parametrize(
    ("annotations", "volume", "expected"),
    [
        ({}, {"emptyDir": {}}, True),
        ({}, {"hostPath": {"path": "/var"}}, True),
        ({}, {"configMap": {"name": "c"}}, False),
        ({"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}, {"emptyDir": {}}, False),
    ],
)
def test_given_volumes_when_asked_then_local_data_is_seen(annotations, volume, expected):
    assert keeps_local_data(annotations, {"volumes": [volume]}) is expected


@asynccontextmanager
async def seen(world, tmp_path):
    kube = await Kube.connect(world.settings(tmp_path))
    view = View(kube, world.clock)
    tasks = [asyncio.ensure_future(each.run()) for each in view.reflectors]
    try:
        await asyncio.wait_for(view.synced(), 10)
        yield view
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kube.close()


async def eventually(look, seconds=5.0):
    for _ in range(int(seconds / 0.02)):
        if found := look():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


@pytest.mark.asyncio
async def test_given_a_cluster_when_drawn_then_everything_is_counted_once(tmp_path):
    workloads = (
        deployment("web", 4, cpu_millis=250, memory_mib=300, budget=Budget(max_unavailable=1)),
        Workload("DaemonSet", "default", "logs", 0, 50, 64, tolerations=({"operator": "Exists"},)),
        Workload("StatefulSet", "default", "db", 1, 500, 512, volume_gib=10),
        Workload("Pod", "default", "alone", 1, 100, 128),
    )
    with fast_world(*workloads) as world:
        async with seen(world, tmp_path) as view:
            await view.measure()
            state = draw(view, State())

    rows = state.workloads
    assert set(rows) == {
        "default/Deployment/web", "default/DaemonSet/logs", "default/StatefulSet/db", "default/Pod/alone",
    }  # fmt: skip
    web = rows["default/Deployment/web"]
    assert (web.replicas, web.ready_replicas, web.cpu_request_millis, web.memory_request_mib) == (
        4,
        4,
        250,
        300,
    )
    assert (web.budget_count, web.budget_allows, web.budget_minimum) == (1, 1, 3)
    assert web.cpu_used_millis
    db = rows["default/StatefulSet/db"]
    assert db.constraints.zonal_volumes
    assert db.constraints.pinned_zone.startswith("us-east-1")
    assert rows["default/Pod/alone"].constraints.controlled is False
    assert "default/DaemonSet/logs" not in state.placements
    assert sum(state.placements["default/Deployment/web"].values()) == 4
    assert (state.pods, state.pending_pods) == (9, 0)
    assert sum(node.pod_count for node in state.nodes.values()) == 9
    for node in state.nodes.values():
        assert (node.daemon_pods, node.daemon_cpu_millis, node.daemon_memory_mib) == (1, 50, 64)
        assert node.instance_id.startswith("i-")
        assert node.ephemeral_allocatable_mib == 83_873_772 // 1024
        assert node.ready
    assert sum(node.cpu_requested_millis for node in state.nodes.values()) == 4 * 250 + 3 * 50 + 500 + 100


@pytest.mark.asyncio
async def test_given_a_node_that_is_cordoned_when_watched_then_the_view_changes_and_says_so(tmp_path):
    with fast_world(deployment("web", 2)) as world:
        async with seen(world, tmp_path) as view:
            view.changed.clear()
            name = world.busiest()
            with world.served.client() as admin:
                patch = {"Content-Type": "application/merge-patch+json"}
                admin.patch(f"/api/v1/nodes/{name}", json={"spec": {"unschedulable": True}}, headers=patch)

            await asyncio.wait_for(view.changed.wait(), 5)

            assert (await eventually(lambda: draw(view, State()).nodes[name].unschedulable)) is True


@pytest.mark.asyncio
async def test_given_use_that_hardly_moved_when_drawn_again_then_the_report_is_the_same(tmp_path):
    with fast_world(deployment("web", 2)) as world:
        async with seen(world, tmp_path) as view:
            await view.measure()
            first = draw(view, State())
            view.node_usage = {
                name: replace(use, cpu_millis=round(use.cpu_millis * 1.05))
                for name, use in view.node_usage.items()
            }

            assert draw(view, first).nodes == first.nodes
