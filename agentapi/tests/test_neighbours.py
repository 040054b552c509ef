"""What pods ask of other pods: selectors become the workloads that they mean."""

from typing import Any

import pytest

from agentapi.agent.neighbours import HOSTNAME, MOST_NEIGHBOURS, Member, Neighbourhood, ties_of
from agentapi.agent.shapes import constraints_of
from agentapi.protocol import Constraints, PodTerm, Spread

ZONE = "topology.kubernetes.io/zone"
HARD = "requiredDuringSchedulingIgnoredDuringExecution"


def term(app: str | None = None, key: str = ZONE, **more: Any) -> dict[str, Any]:
    selector = {"labelSelector": {"matchLabels": {"app": app}}} if app else {}
    return {"topologyKey": key, **selector, **more}


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"podAffinity": {HARD: list(terms)}}}


def apart(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"podAntiAffinity": {HARD: list(terms)}}}


def spread(**more: Any) -> dict[str, Any]:
    return {"topologySpreadConstraints": [{"topologyKey": ZONE, "maxSkew": 1, **more}]}


def port(number: int) -> dict[str, Any]:
    return {"containers": [{"ports": [{"containerPort": 80, "hostPort": number}]}]}


def found(subject: dict[str, Any], namespace: str = "shop", **others: dict[str, Any]) -> Constraints:
    """The constraints of ``web`` beside ``api``, ``db``, ``other/web`` and the daemon set ``logs``."""
    specs = {"api": {}, "db": {}, "logs": {}} | others
    members = [Member("shop/web", namespace, {"app": "web"}, ties_of(subject), is_daemon=False)]
    members += [
        Member(f"shop/{name}", "shop", {"app": name, "tier": "back"}, ties_of(spec), is_daemon=name == "logs")
        for name, spec in specs.items()
    ]
    members.append(Member("other/web", "other", {"app": "web"}, ties_of({}), is_daemon=False))
    own = constraints_of({"labels": {"app": "web"}}, subject, controlled=True)
    return Neighbourhood(members).constrained(0, own)


def test_given_affinity_to_another_workload_when_resolved_then_it_is_named() -> None:
    assert found(near(term("db"))).pod_affinity == (PodTerm(ZONE, ("shop/db",)),)


def test_given_two_affinity_terms_when_resolved_then_only_pods_that_match_both_count() -> None:
    backs = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"tier": "back"}}}

    constraints = found(near(term("api"), backs))

    assert constraints.pod_affinity == (PodTerm(ZONE, ("shop/api",)), PodTerm(HOSTNAME, ("shop/api",)))


def test_given_affinity_to_a_daemon_set_when_resolved_then_it_is_unmodelled() -> None:
    assert found(near(term("logs"))).unmodelled == ("daemon_affinity",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"namespaceSelector": {"matchLabels": {"team": "x"}}}, "namespace_selector"),
        ({"matchLabelKeys": ["pod-template-hash"]}, "match_label_keys"),
    ],
)
def test_given_affinity_that_cannot_be_said_when_resolved_then_it_is_unmodelled(
    more: dict[str, Any], why: str
) -> None:
    assert found(near(term("db", **more))).unmodelled == (why,)


def test_given_anti_affinity_to_its_own_kind_when_resolved_then_its_keys_are_told_apart_from_others() -> None:
    constraints = found(apart(term("web", HOSTNAME), term("db")))

    assert constraints.anti_affinity_keys == (HOSTNAME,)
    assert constraints.pod_anti_affinity == (PodTerm(ZONE, ("shop/db",)),)


@pytest.mark.parametrize(
    ("more", "keys", "others"),
    [
        ({"namespaces": ["other"]}, (), ("other/web",)),
        ({"namespaces": ["other", "shop"]}, (ZONE,), ("other/web",)),
        ({"namespaceSelector": {}}, (ZONE,), ("other/web",)),
        ({"namespaceSelector": {"matchLabels": {"team": "x"}}}, (ZONE,), ("other/web",)),
    ],
)
def test_given_namespaces_in_anti_affinity_when_resolved_then_workloads_there_are_meant(
    more: dict[str, Any], keys: tuple[str, ...], others: tuple[str, ...]
) -> None:
    constraints = found(apart(term("web", **more)))

    assert constraints.anti_affinity_keys == keys
    assert constraints.pod_anti_affinity == (PodTerm(ZONE, others),)
    assert constraints.unmodelled == ()


def test_given_no_selector_in_anti_affinity_when_resolved_then_it_means_no_pod() -> None:
    constraints = found(apart(term()))

    assert (constraints.anti_affinity_keys, constraints.pod_anti_affinity) == ((), ())


def test_given_a_daemon_set_that_keeps_away_when_resolved_then_the_other_is_unmodelled() -> None:
    assert found({}, logs=apart(term("web", HOSTNAME))).unmodelled == ("daemon_anti_affinity",)


def test_given_spread_by_a_shared_label_when_resolved_then_the_others_count_too() -> None:
    rule = found(
        spread(
            labelSelector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}
        )
    )

    assert rule.spread == (Spread(ZONE, 1, counts_own=True, also_counts=("shop/db",)),)


def test_given_spread_that_passes_over_its_own_pods_when_resolved_then_it_says_so() -> None:
    rule = found(spread(labelSelector={"matchLabels": {"app": "db"}}, minDomains=3, nodeTaintsPolicy="Honor"))

    assert rule.spread == (
        Spread(ZONE, 1, min_domains=3, counts_own=False, also_counts=("shop/db",), honors_taints=True),
    )


def test_given_spread_that_counts_a_daemon_set_when_resolved_then_it_is_unmodelled() -> None:
    assert found(spread(labelSelector={})).unmodelled == ("daemon_spread",)


def test_given_a_port_of_the_node_when_resolved_then_users_of_it_are_kept_apart() -> None:
    constraints = found(port(9000), api=port(9000), db=port(9001))

    assert constraints.anti_affinity_keys == (HOSTNAME,)
    assert constraints.pod_anti_affinity == (PodTerm(HOSTNAME, ("shop/api",)),)


def test_given_a_port_that_a_daemon_set_holds_when_resolved_then_it_is_unmodelled() -> None:
    assert found(port(9000), logs=port(9000)).unmodelled == ("daemon_host_port",)


def test_given_a_selector_that_means_hundreds_of_workloads_when_resolved_then_it_is_unmodelled() -> None:
    crowd = {f"w{number}": {} for number in range(MOST_NEIGHBOURS + 1)}
    backs = {"labelSelector": {"matchLabels": {"tier": "back"}}}

    constraints = found(near({"topologyKey": ZONE, **backs}), logs={}, **crowd)

    assert constraints.pod_affinity == (PodTerm(ZONE, ()),)
    assert constraints.unmodelled == ("daemon_affinity", "wide_affinity")
