"""Read what pods ask of other pods, and find the workloads that their label selectors mean."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentapi.agent.labels import selects
from agentapi.protocol import Constraints, PodTerm

Body = Mapping[str, Any]
HOSTNAME = "kubernetes.io/hostname"
MOST_NEIGHBOURS = 200
"""Workloads that one rule of affinity or spread may mean; wider ones would swell every report."""
_HARD = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Term:
    """A required (anti-)affinity term: a topology key, and which pods it looks for."""

    topology_key: str
    selector: Body | None
    namespaces: tuple[str, ...] = ()
    """Empty for the pod's own namespace."""
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class Ties:
    """What a pod asks of other pods, in the words of its specification."""

    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    spread: tuple[Body | None, ...] = ()
    """The selectors of its hard topology-spread constraints, in their order."""
    host_ports: frozenset[str] = frozenset()
    unmodelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One workload among which selectors choose."""

    key: str
    namespace: str
    labels: Mapping[str, str]
    ties: Ties
    is_daemon: bool


def ties_of(spec: Body) -> Ties:
    """Return what a pod's specification asks of other pods; what only prefers is left out.

    Anti-affinity with a namespace selector counts for every namespace, and without its label keys, which
    forbids more than Kubernetes does; affinity of this kind is unmodelled.
    """
    affinity = spec.get("affinity") or {}
    near = (affinity.get("podAffinity") or {}).get(_HARD) or ()
    apart = (affinity.get("podAntiAffinity") or {}).get(_HARD) or ()
    return Ties(
        affinity=tuple(_term(each) for each in near),
        anti_affinity=tuple(_term(each) for each in apart),
        spread=tuple(each.get("labelSelector") for each in hard_spread(spec)),
        host_ports=frozenset(_host_ports(spec)),
        unmodelled=tuple(dict.fromkeys(name for each in near for name in _beyond(each))),
    )


def hard_spread(spec: Body) -> list[Body]:
    """Return the topology-spread constraints that a pod cannot be scheduled against."""
    rules = spec.get("topologySpreadConstraints") or ()
    return [each for each in rules if each.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]


def _term(body: Body) -> Term:
    return Term(
        topology_key=body["topologyKey"],
        selector=body.get("labelSelector"),
        namespaces=tuple(body.get("namespaces") or ()),
        everywhere=body.get("namespaceSelector") is not None,
    )


def _beyond(term: Body) -> Iterator[str]:
    if term.get("namespaceSelector"):
        yield "namespace_selector"
    if term.get("matchLabelKeys") or term.get("mismatchLabelKeys"):
        yield "match_label_keys"


def _host_ports(spec: Body) -> Iterator[str]:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield f"{port.get('protocol') or 'TCP'}:{port['hostPort']}"


@dataclass(slots=True)
class _Bonds:
    """What was found for one workload."""

    own_keys: set[str] = field(default_factory=set)
    apart: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Topology key → other workloads."""
    unmodelled: set[str] = field(default_factory=set)


class Neighbourhood:
    """The workloads of a cluster, and what each asks of the others."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._by_label: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        self._by_namespace: dict[str, list[int]] = defaultdict(list)
        for index, member in enumerate(members):
            self._by_namespace[member.namespace].append(index)
            for key, value in member.labels.items():
                self._by_label[member.namespace, key, value].append(index)
        self._bonds = [_Bonds() for _ in members]
        for index, member in enumerate(members):
            for term in member.ties.anti_affinity:
                self._keep_apart(
                    index, term.topology_key, self._matches(member, term), "daemon_anti_affinity"
                )
        self._separate_ports()

    def constrained(self, index: int, constraints: Constraints) -> Constraints:
        """Return a workload's constraints with those about other pods added."""
        member, bonds = self._members[index], self._bonds[index]
        affinity = self._affinity(index)
        counted = [self._matches(member, Term("", selector)) for selector in member.ties.spread]
        spread = [
            replace(rule, counts_own=index in matched, also_counts=self._keys(matched - {index}))
            for rule, matched in zip(constraints.spread, counted, strict=True)
        ]
        unmodelled = {*constraints.unmodelled, *member.ties.unmodelled, *bonds.unmodelled}
        unmodelled |= {f"{why}_affinity" for why in self._strangers(affinity.values())}
        unmodelled |= {f"{why}_spread" for why in self._strangers(counted)}
        return replace(
            constraints,
            spread=tuple(spread),
            anti_affinity_keys=tuple(sorted(bonds.own_keys)),
            pod_affinity=tuple(PodTerm(key, self._keys(matched)) for key, matched in affinity.items()),
            pod_anti_affinity=tuple(
                PodTerm(key, tuple(sorted(rest))) for key, rest in sorted(bonds.apart.items())
            ),
            unmodelled=tuple(sorted(unmodelled)),
        )

    def _affinity(self, index: int) -> dict[str, set[int]]:
        """Return by topology key the workloads beside which a pod must run.

        Kubernetes counts the pods that match all terms at once, for each of them.
        """
        member = self._members[index]
        matched = [self._matches(member, term) for term in member.ties.affinity]
        return {term.topology_key: set.intersection(*matched) for term in member.ties.affinity}

    def _strangers(self, found: Iterable[set[int]]) -> Iterator[str]:
        """Yield why a rule about what was found cannot be planned with."""
        for matched in found:
            if len(matched) > MOST_NEIGHBOURS:
                yield "wide"
            if any(self._members[index].is_daemon for index in matched):
                yield "daemon"

    def _keep_apart(self, index: int, key: str, matched: set[int], because: str) -> None:
        member, bonds = self._members[index], self._bonds[index]
        for other in matched:
            foreign = self._members[other]
            if other == index:
                bonds.own_keys.add(key)
            elif foreign.is_daemon or member.is_daemon:
                self._bonds[index].unmodelled.add(because)
                self._bonds[other].unmodelled.add(because)
            else:
                bonds.apart[key].add(foreign.key)

    def _separate_ports(self) -> None:
        """Two pods that want the same port of their node cannot share one."""
        users: dict[str, set[int]] = defaultdict(set)
        for index, member in enumerate(self._members):
            for port in member.ties.host_ports:
                users[port].add(index)
        for sharing in users.values():
            for index in sharing:
                self._keep_apart(index, HOSTNAME, sharing, "daemon_host_port")

    def _matches(self, member: Member, term: Term) -> set[int]:
        namespaces: Iterable[str] = term.namespaces or (member.namespace,)
        if term.everywhere:
            namespaces = self._by_namespace.keys()
        return {
            index
            for namespace in namespaces
            for index in self._candidates(namespace, term.selector)
            if selects(term.selector, self._members[index].labels)
        }

    def _candidates(self, namespace: str, selector: Body | None) -> Sequence[int]:
        """Return the workloads of a namespace that a selector may choose; few when it names a label."""
        wanted = (selector or {}).get("matchLabels") or {}
        found = [self._by_label.get((namespace, key, value), []) for key, value in wanted.items()]
        return min(found, key=len) if found else self._by_namespace.get(namespace, [])

    def _keys(self, indexes: set[int]) -> tuple[str, ...]:
        """Return the workloads' keys; too many to plan with are not told."""
        return tuple(sorted(self._members[i].key for i in indexes)) if len(indexes) <= MOST_NEIGHBOURS else ()
