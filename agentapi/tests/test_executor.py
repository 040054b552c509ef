import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from agentapi.agent.backend import Refused, Unreachable
from agentapi.agent.executor import SILENCE_SECONDS
from agentapi.agent.facts import CORDONED_BY
from agentapi.agent.rules import Exclusions
from agentapi.tests.workbench import Bench, bench
from simulator.fleet import Budget
from simulator.kube.rbac import RIGHTSIZING_AGENT
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio

STUCK = deployment("single", 1, budget=Budget(min_available=1))


async def test_given_a_signed_command_when_accepted_then_it_is_done_shown_and_then_reported(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.result) == ("completed", {"changed": True})
        assert not it.is_open(command)
        assert it.shown == [{}]
        assert it.journal.known_actions == ()


async def test_given_a_reaction_when_the_node_is_closed_then_the_word_waits_for_no_snapshot(tmp_path):
    async with bench(tmp_path) as it:
        result = await it.carry_out(it.command(is_voluntary=False))

        assert result.status == "completed"
        assert it.shown == []


async def test_z10_given_one_command_twice_in_an_answer_when_accepted_then_it_is_taken_on_once(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command()

        it.executor.accept(command, command)

        assert it.executor.running_actions == (command.action_id,)
        assert [facts["code"] for _, _, facts in it.told] == ["replayed"]
        await it.executor.stop()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: replace(c, payload=c.payload | {"node_name": "other"}), "bad_signature"),
        (lambda c: replace(c, signature=""), "bad_signature"),
        (lambda c: replace(c, action_type="uncordon_node"), "bad_signature"),
        (lambda c: replace(c, expires_at=c.expires_at + timedelta(hours=1)), "bad_signature"),
    ],
)
async def test_z10_given_a_forged_command_when_accepted_then_nothing_is_done_and_it_is_reported(
    change, code, tmp_path
):
    async with bench(tmp_path) as it:
        genuine = it.command()

        result = await it.carry_out(change(genuine))

        assert (result.status, result.error_code) == ("failed", code)
        assert it.is_open(genuine)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cluster_id": "cluster-2"}, "wrong_cluster"),
        ({"agent_id": "agent-of-another"}, "wrong_agent"),
        ({"lifetime": timedelta(seconds=-1)}, "expired"),
        ({"action_type": "delete_node"}, "unknown_action"),
        ({"payload": {}}, "invalid_payload"),
        ({"payload": {"node_name": "../pods", "instance_id": "i-1"}}, "invalid_payload"),
        ({"payload": {"node_name": "gone", "instance_id": "i-0123456789abcdef0"}}, "node_gone"),
    ],
)
async def test_z33_given_a_signed_command_that_is_not_for_here_and_now_when_accepted_then_it_is_refused(
    fields, code, tmp_path
):
    async with bench(tmp_path) as it:
        result = await it.carry_out(it.command(**fields))

        assert (result.status, result.error_code) == ("failed", code)
        assert all("unschedulable" not in n["spec"] for n in it.world.body("/api/v1/nodes")["items"])


async def test_given_a_command_that_was_done_when_it_comes_again_then_it_is_not_done_again(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command()
        await it.carry_out(command)
        await it.carry_out(it.command("uncordon_node", action_id="action-2", nonce="nonce-2"))
        it.product.results.clear()

        assert await it.carry_out(command) is None
        assert it.is_open(command)


async def test_z10_given_a_restart_when_an_old_command_is_replayed_then_it_is_refused(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command("uncordon_node")
        await it.carry_out(command)
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.accept(command)

        assert [facts["code"] for _, _, facts in restarted.told] == ["replayed"]
        assert restarted.journal.known_actions == (command.action_id,)  # so it does not come once more


async def test_given_a_crash_in_a_drain_when_restarted_then_the_drain_is_finished(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command("drain_node")
        it.journal.take(command, it.world.clock.seconds())
        it.journal.save()
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].status == "completed"
        assert it.world.pods_on(command.payload["node_name"]) == set()


async def test_given_a_crash_when_restarted_after_the_end_then_the_node_is_released_and_it_is_reported(
    tmp_path,
):
    async with bench(tmp_path) as it:
        cordon = it.command(action_id="action-0", nonce="nonce-0")
        await it.carry_out(cordon)
        late = it.command("drain_node", lifetime=timedelta(seconds=-1))
        it.journal.take(late, it.world.clock.seconds())
        it.journal.save()
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].error_code == "interrupted"
        assert it.is_open(late)


async def test_given_a_drain_under_way_when_stopped_then_the_node_is_released_and_it_is_reported(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        command = it.command("drain_node")
        it.executor.accept(command)
        await asyncio.sleep(0.3)
        assert not it.is_open(command)

        await it.executor.stop()
        await it.executor.send_results()

        assert it.product.results["action-1"].error_code == "interrupted"
        assert it.is_open(command)
        assert CORDONED_BY not in it.world.node(command.payload["node_name"])["metadata"].get(
            "annotations", {}
        )


async def test_given_an_error_that_nobody_foresaw_in_a_drain_then_the_node_is_released_and_it_is_reported(
    tmp_path,
):
    async with bench(tmp_path) as it:

        async def surprise(*_, **__):
            raise LookupError("surprise")

        it.kube.list = surprise
        command = it.command("drain_node")

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "internal")
        assert "surprise" in result.error_message
        assert it.is_open(command)


async def test_given_a_blocked_drain_when_its_time_is_over_then_it_says_what_blocked_it(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        command = it.command("drain_node")
        command = it.command("drain_node", payload={**command.payload, "timeout_seconds": 30})

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "eviction_blocked")
        assert result.result["uncordoned"] is True
        assert it.is_open(command)


async def test_given_dry_run_when_commanded_then_nothing_is_done_and_it_counts_as_failed(tmp_path):
    async with bench(tmp_path, dry_run=True) as it:
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "dry_run")
        assert it.is_open(command)


async def test_given_a_silent_product_when_a_command_begins_then_it_is_not_begun(tmp_path):
    async with bench(tmp_path) as it:
        it.product.silent_for = SILENCE_SECONDS + 1
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "backend_silent")
        assert it.is_open(command)


async def test_given_a_product_that_is_away_when_done_then_the_result_waits_for_it_even_over_a_restart(
    tmp_path,
):
    async with bench(tmp_path) as it:
        it.product.away = True
        with pytest.raises(Unreachable):
            await it.carry_out(it.command())
        restarted = Bench(it.world, it.kube, tmp_path)

        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].status == "completed"
        assert restarted.journal.known_actions == ()


async def test_given_a_product_that_knows_better_when_reported_then_the_result_is_dropped(tmp_path):
    async with bench(tmp_path) as it:
        it.product.refusal = Refused(410, "", "over")

        await it.carry_out(it.command())

        assert it.journal.known_actions == ()


async def test_given_a_key_that_expired_when_reported_then_the_result_waits_for_the_next_key(tmp_path):
    async with bench(tmp_path) as it:
        it.product.refusal = Refused(401, "key_expired", "This key has expired.")
        with pytest.raises(Refused):
            await it.carry_out(it.command())
        assert it.journal.known_actions == ("action-1",)

        it.product.refusal = None
        await it.executor.send_results()

        assert it.journal.known_actions == ()


def payload_of(it, **more):
    return {**it.command().payload, **more}


async def test_z10_given_a_replay_or_a_forgery_when_accepted_then_the_product_is_told(tmp_path):
    async with bench(tmp_path) as it:
        genuine = it.command("uncordon_node")
        await it.carry_out(genuine)
        it.executor.accept(genuine)
        it.executor.accept(replace(it.command(action_id="action-2", nonce="n-2"), signature="AAAA"))

        told = [(kind, severity, facts["action_id"], facts["code"]) for kind, severity, facts in it.told]
        assert told == [
            ("command_refused", "critical", "action-1", "replayed"),
            ("command_refused", "critical", "action-2", "bad_signature"),
        ]


@pytest.mark.parametrize("kind", ["cordon_node", "soft_cordon_node", "drain_node", "label_node"])
async def test_z23_given_a_node_that_the_policy_excludes_when_commanded_then_only_necessity_counts(
    kind, tmp_path
):
    excluded = Exclusions(node_labels={"kubernetes.io/os": "linux"})
    async with bench(tmp_path, exclusions=lambda: excluded) as it:
        payload = payload_of(it, labels={"acme.io/a": "b"})

        result = await it.carry_out(it.command(kind, payload=payload))
        claimed = it.command(kind, payload=payload, action_id="action-2", nonce="n-2", is_voluntary=False)
        baseless = await it.carry_out(claimed)
        it.warned.add(payload["instance_id"])
        needed = await it.carry_out(
            it.command(kind, payload=payload, action_id="action-3", nonce="n-3", is_voluntary=False)
        )

        assert (result.status, result.error_code) == ("failed", "excluded_node")
        assert (baseless.status, baseless.error_code) == ("failed", "excluded_node")
        assert needed.status == "completed"


async def test_given_labels_when_commanded_then_they_are_set_and_removed_but_never_reserved_ones(tmp_path):
    async with bench(tmp_path) as it:
        name = it.command().payload["node_name"]

        def order(number, **payload):
            return it.command(
                "label_node", action_id=f"a-{number}", nonce=f"n-{number}", payload=payload_of(it, **payload)
            )

        first = await it.carry_out(order(1, labels={"acme.io/a": "1", "acme.io/b": "2"}))
        second = await it.carry_out(order(2, remove=["acme.io/a"]))
        third = await it.carry_out(order(3, remove=["acme.io/a"], labels={"acme.io/b": "2"}))
        reserved = await it.carry_out(order(4, labels={"topology.kubernetes.io/zone": "elsewhere"}))

        changed = [result.result.get("changed") for result in (first, second, third)]
        assert changed == [True, True, False]
        labels = it.world.node(name)["metadata"]["labels"]
        assert ("acme.io/a" in labels, labels["acme.io/b"]) == (False, "2")
        assert reserved.error_code == "reserved_label"
        assert labels["topology.kubernetes.io/zone"] != "elsewhere"


async def test_given_a_pod_when_its_eviction_is_commanded_then_only_where_it_was_meant(tmp_path):
    async with bench(tmp_path) as it:
        name = it.world.busiest()
        pod = min(it.world.pods_on(name))
        other = next(each for each in it.world.names() if each != name)
        payload = {**it.command().payload, "namespace": "default", "pod_name": pod}
        elsewhere = {**payload, "node_name": other}

        wrong = await it.carry_out(it.command("evict_pod", payload=elsewhere))
        done = await it.carry_out(it.command("evict_pod", payload=payload, action_id="a-2", nonce="n-2"))

        assert wrong.error_code == "node_mismatch"
        assert (done.status, done.result) == ("completed", {"evicted": 1})
        assert pod not in it.world.pods_on(name)


RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
WEB = {
    "namespace": "default",
    "kind": "Deployment",
    "name": "web",
    "container": "web",
    "resources": RESOURCES,
}


async def test_given_new_resources_when_commanded_then_the_workload_asks_for_them_and_the_old_are_told(
    tmp_path,
):
    async with bench(tmp_path, user=RIGHTSIZING_AGENT) as it:
        path = "/apis/apps/v1/namespaces/default/deployments/web"
        [container] = it.world.body(path)["spec"]["template"]["spec"]["containers"]
        named = {**WEB, "container": container["name"]}

        result = await it.carry_out(it.command("update_deployment", payload=named))
        other = {"requests": {"cpu": "60m"}}
        again = {**named, "before": container["resources"], "resources": other}
        outdated = await it.carry_out(
            it.command("update_deployment", payload=again, action_id="a-2", nonce="n-2")
        )

        [changed] = it.world.body(path)["spec"]["template"]["spec"]["containers"]
        assert changed == {**container, "resources": {**container["resources"], **changed["resources"]}}
        assert changed["resources"]["requests"] == RESOURCES["requests"]
        assert result.result == {"before": container["resources"], "after": RESOURCES}
        assert outdated.error_code == "changed_meanwhile"


async def test_z33_given_resources_that_must_not_be_set_when_commanded_then_nothing_changes(tmp_path):
    refusals = (
        ({"namespace": "kube-system"}, "protected_namespace"),
        ({"namespace": "../../secrets"}, "invalid_payload"),
        ({"kind": "Secret"}, "invalid_payload"),
        ({"name": "gone"}, "workload_gone"),
        ({"container": "sidecar"}, "container_gone"),
        ({"resources": {}}, "invalid_payload"),
        ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, "invalid_payload"),
        ({"resources": {"requests": {"cpu": "much"}}}, "invalid_payload"),
        ({"resources": {"requests": {"cpu": "0"}}}, "invalid_payload"),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "invalid_payload"),
        ({}, "forbidden"),  # this agent was not given the right to change workloads
    )
    async with bench(tmp_path) as it:
        before = it.world.body("/apis/apps/v1/deployments")["items"]

        found = []
        for number, (change, _) in enumerate(refusals):
            names = {"action_id": f"action-{number}", "nonce": f"nonce-{number}"}
            result = await it.carry_out(it.command("update_deployment", payload=WEB | change, **names))
            found.append((change, result.error_code))

        assert found == list(refusals)
        after = it.world.body("/apis/apps/v1/deployments")["items"]
        assert [each["spec"] for each in after] == [each["spec"] for each in before]
