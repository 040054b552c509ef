"""Draws a cluster, its pools and its rules from a seed, and takes single kinds of constraint off again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from policies.domain.policy import Rules
from policies.domain.replay_rules import Host, amounts, barriers, needs
from policies.domain.replay_topology import OtherPods
from policies.domain.shapes import ClusterSnapshot, Node, Offer, Placement, Workload
from spotopt.bench.cases import kinds, world
from spotopt.bench.cases.kinds import Changes, Kind

MOST_KINDS = 4
"""Kinds of constraint in one case, beside the one that the case's number picks."""
DRIFTED_SHARE = 0.1
"""Share of cases whose pods ignored the rules about other pods when they were placed."""
COMMON_SHARE = 0.75
"""Share of nodes that are x86 on-demand nodes without accelerators."""


@dataclass(frozen=True, slots=True)
class Trait:
    """One constraint of a case: which kind changed what."""

    kind: Kind
    part: str
    """``workloads``, ``nodes``, ``pools`` or ``rules``."""
    index: int
    changes: Changes


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the optimizer is given."""

    snapshot: ClusterSnapshot
    offers: tuple[Offer, ...]
    rules: Rules


@dataclass(frozen=True, slots=True)
class Case:
    """One generated case: plain parts, the traits that constrain them, and where the pods are."""

    number: int
    focus: Kind
    """The kind that the case is about."""
    workloads: tuple[Workload, ...]
    nodes: tuple[Node, ...]
    pools: tuple[Offer, ...]
    traits: tuple[Trait, ...]
    placements: tuple[Placement, ...]
    pending: dict[str, int]

    @property
    def kinds(self) -> frozenset[str]:
        """Return the names of the kinds of constraint that it has."""
        return frozenset(trait.kind.name for trait in self.traits)

    def inputs(self, without: str = "") -> Inputs:
        """Return the case as the optimizer sees it, leaving out the traits of one kind."""
        traits = [trait for trait in self.traits if trait.kind.name != without]
        snapshot = ClusterSnapshot(
            cluster_id=f"case-{self.number}",
            cluster_name=f"case-{self.number}",
            region="us-east-1",
            taken_at=world.NOW,
            nodes=_changed(self.nodes, traits, "nodes"),
            workloads=_changed(self.workloads, traits, "workloads"),
            placements=self.placements,
            pending=self.pending,
        )
        rules = _changed((world.rules(),), traits, "rules")[0]
        return Inputs(snapshot, _changed(self.pools, traits, "pools"), rules)


def generate(seed: int, number: int) -> Case:
    """Return case ``number`` of a seed; the same two numbers give the same case."""
    chance = Random(f"{seed}/{number}")  # noqa: S311  # reproducible, not secret
    focus = kinds.ALL[number % len(kinds.ALL)]
    chosen = list(dict.fromkeys((focus, *chance.sample(kinds.ALL, chance.randint(0, MOST_KINDS)))))
    pools = world.offers()
    nodes = tuple(world.node(f"n{i}", _drawn(pools, chance)) for i in range(chance.randint(3, 12)))
    lost = [kind for kind in chosen if kind in kinds.UNPLACEABLE]
    names = [f"w{i}" for i in range(chance.randint(2, 7))]
    workloads = tuple(world.workload(name, chance) for name in names)
    workloads += tuple(replace(world.workload(kind.name, chance), replicas=1) for kind in lost)
    traits: list[Trait] = []
    for kind in chosen:
        if kind in kinds.UNPLACEABLE:
            index = len(names) + lost.index(kind)
            traits.append(Trait(kind, "workloads", index, kind.change(chance, workloads[index], workloads)))
        else:
            traits += _traits_of(kind, chance, (workloads[: len(names)], nodes, pools), traits)
    is_drifted = chance.random() < DRIFTED_SHARE
    placements, pending = _placed(
        _changed(workloads, traits, "workloads"), _changed(nodes, traits, "nodes"), chance, is_drifted
    )
    return Case(number, focus, workloads, nodes, pools, tuple(traits), placements, pending)


def _drawn(pools: Sequence[Offer], chance: Random) -> Offer:
    """Return the pool of a running node: mostly large on-demand nodes, as clusters are before Spotopt."""
    common = [p for p in pools if p.family in ("m5", "c5", "r5") and p.capacity_type == "on_demand"]
    return chance.choice(common if chance.random() < COMMON_SHARE else pools)


def _traits_of(
    kind: Kind,
    chance: Random,
    parts: tuple[Sequence[Workload], Sequence[Node], Sequence[Offer]],
    known: Sequence[Trait],
) -> list[Trait]:
    """Return the kind applied to one or two workloads or nodes, to a third of the pools, or to the rules.

    What another kind has changed already is left as it is.
    """
    workloads, nodes, pools = parts
    subjects: Sequence[Any] = (world.rules(),)
    part, most = "rules", 1
    if kind in kinds.OF_WORKLOADS:
        part, subjects, most = "workloads", workloads, 2
    elif kind in kinds.OF_NODES:
        part, subjects, most = "nodes", nodes, 2
    elif kind in kinds.OF_POOLS:
        part, subjects, most = "pools", pools, len(pools) // 3
    traits = []
    for index in chance.sample(range(len(subjects)), min(most, len(subjects))):
        changes = kind.change(chance, subjects[index], workloads)
        taken = {name for t in known if (t.part, t.index) == (part, index) for name in t.changes}
        if changes and not taken & changes.keys():
            traits.append(Trait(kind, part, index, changes))
    return traits


def _changed(parts: Sequence[Any], traits: Sequence[Trait], part: str) -> tuple[Any, ...]:
    changed = list(parts)
    for trait in traits:
        if trait.part == part:
            changed[trait.index] = replace(changed[trait.index], **trait.changes)
    return tuple(changed)


def _placed(
    workloads: Sequence[Workload], nodes: Sequence[Node], chance: Random, is_drifted: bool
) -> tuple[tuple[Placement, ...], dict[str, int]]:
    """Put each pod on any node that its rules allow (a drifted cluster has ignored those about others)."""
    hosts = [Host(node.id, node, ready=True, taints=node.taints) for node in nodes]
    others = OtherPods(workloads)
    others.settle(hosts)
    free = np.array([amounts(node.allocatable - node.daemon_overhead) for node in nodes])
    pods = np.zeros((len(workloads), len(nodes)), np.int64)
    pending: dict[str, int] = {}
    for row in chance.sample(range(len(workloads)), len(workloads)):
        workload, request = workloads[row], np.array(needs(workloads[row]))
        suits = [not any(barriers(workload, host, tolerant=workload.spot_tolerant)) for host in hosts]
        for _ in range(workload.replicas):
            able = np.array(suits, bool) & (free >= request).all(axis=1)
            for _, mask in () if is_drifted else others.masks(row, pods):
                able &= mask
            if able.any():
                position = chance.choice(np.flatnonzero(able).tolist())
                pods[row, position] += 1
                free[position] -= request
            else:
                pending[workload.id] = pending.get(workload.id, 0) + 1
    placements = tuple(
        Placement(workloads[row].id, nodes[position].id, int(pods[row, position]))
        for row, position in np.argwhere(pods).tolist()
    )
    return placements, pending
