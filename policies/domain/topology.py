"""What pods ask of other pods: spread, affinity and anti-affinity, and how many may be on spot.

The rules are those of kube-scheduler's plugins PodTopologySpread and InterPodAffinity, for whole workloads.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.matching import is_domain
from policies.domain.model import HOSTNAME_KEY, ZONE_KEY, BoolArray, FloatArray, IntArray, Place
from policies.domain.refusals import Code
from policies.domain.shapes import CapacityType, SpreadRule, Workload

_Rows = Sequence[int]
"""Indexes of workloads."""


@dataclass(frozen=True, slots=True)
class _Spread:
    domain: IntArray
    counted: _Rows
    own: int
    """1 when the rule counts the workload's own pods, else 0."""
    eligible: BoolArray
    rule: SpreadRule


class Topology:
    """The rules of each workload about pods on one list of places; counts are workload × place."""

    def __init__(self, workloads: Sequence[Workload], places: Sequence[Place]) -> None:
        self._workloads, self._places = workloads, places
        self._row = {workload.id: index for index, workload in enumerate(workloads)}
        self._domains: dict[str, IntArray] = {}
        self._eligible: dict[Hashable, BoolArray] = {}
        self._spot = np.array([place.capacity_type is CapacityType.SPOT for place in places], bool)
        self._spread = [self._spread_of(workload) for workload in workloads]
        self._near = [
            [(t.topology_key, self._rows(t.workload_ids)) for t in w.pod_affinity] for w in workloads
        ]
        self._apart = self._kept_apart()
        self._leaning = self._dependents()
        self.is_ruled = [
            bool(self._spread[i] or self._near[i] or self._apart[i] or w.on_demand_minimum)
            for i, w in enumerate(workloads)
        ]
        """For each workload, whether other pods matter to where its pods may go."""

    def allowed(self, workload: int, counts: IntArray, present: BoolArray) -> BoolArray:
        """Return the places where the rules allow one more pod of the workload."""
        answer = np.ones(len(self._places), bool)
        for _, mask in self.masks(workload, counts, present):
            answer &= mask
        return answer

    def masks(self, workload: int, counts: IntArray, present: BoolArray) -> Iterator[tuple[Code, BoolArray]]:
        """Yield for each rule of the workload its code and the places that it allows."""
        for key, rows in self._apart[workload].items():
            domain = self.domain(key)
            yield Code.ANTI_AFFINITY, _per_domain(domain, _sum(counts, rows))[domain] == 0
        for spread in self._spread[workload]:
            yield Code.SPREAD, _spread_allows(spread, counts, present)
        if self._near[workload]:
            yield Code.POD_AFFINITY, self._beside(workload, counts)
        minimum = self._workloads[workload].on_demand_minimum
        if minimum:
            room = self._workloads[workload].replicas - minimum - int(counts[workload, self._spot].sum())
            yield Code.ON_DEMAND_MINIMUM, ~self._spot | (room > 0)

    def keys(self, workload: int) -> frozenset[str]:
        """Return the topology keys, hostname aside, on which rules about the workload's pods depend."""
        return (self.spread_keys(workload) | self.tied_keys(workload)) - {HOSTNAME_KEY}

    def home(self, workload: int) -> IntArray:
        """Return for each place a number that is equal where the workload's pods may move to and fro.

        Pods that stay among places of one number keep every rule about pods that holds, hostnames aside.
        """
        columns = [self.domain(key) for key in sorted(self.keys(workload))]
        if self._workloads[workload].on_demand_minimum:
            columns.append(self._spot.astype(np.int64))
        if not columns:
            return np.zeros(len(self._places), np.int64)
        return np.unique(np.array(columns), axis=1, return_inverse=True)[1].reshape(-1)

    def spread_keys(self, workload: int) -> frozenset[str]:
        """Return the topology keys over which the workload's own pods are shared out."""
        subject = self._workloads[workload]
        return frozenset({*subject.anti_affinity_keys, *(rule.topology_key for rule in subject.spread)})

    def tied_keys(self, workload: int) -> frozenset[str]:
        """Return the topology keys on which pods of other workloads attract or repel its pods."""
        return frozenset(self._tied(workload))

    def neighbours(self, workload: int, key: str) -> _Rows:
        """Return the workloads near which its pods must be under the key."""
        return [row for near, rows in self._near[workload] if near == key for row in rows]

    def counted(self, workload: int, key: str) -> _Rows:
        """Return the workloads whose pods count when its pods are shared out over the key's domains."""
        others = [
            self._rows(r.also_counts) for r in self._workloads[workload].spread if r.topology_key == key
        ]
        return [workload, *(row for rows in others for row in rows)]

    def rivals(self, key: str) -> dict[int, frozenset[int]]:
        """Return for each workload, if any, the others that may not share a domain of the key with it."""
        found = {one: frozenset(apart.get(key, ())) - {one} for one, apart in enumerate(self._apart)}
        return {one: others for one, others in found.items() if others}

    def deserted(self, moved: int, place: int, counts: IntArray) -> int:
        """Return a workload that has lost its required neighbour ``moved`` beside ``place``, or -1."""
        for dependent, key, rows in self._leaning[moved]:
            domain = self.domain(key)
            here = (domain == domain[place]) & (domain > 0)
            if counts[dependent, here].any() and not _sum(counts, rows)[here].any():
                return dependent
        return -1

    def domain(self, key: str) -> IntArray:
        """Return each place's domain number under a topology key, from 1; 0 where it has none."""
        if key not in self._domains:
            values = [p.zone if key == ZONE_KEY else p.labels.get(key) for p in self._places]
            number = {
                v: index for index, v in enumerate(dict.fromkeys(v for v in values if v is not None), 1)
            }
            self._domains[key] = np.array([0 if v is None else number[v] for v in values], np.int64)
        return self._domains[key]

    def _beside(self, workload: int, counts: IntArray) -> BoolArray:
        """Return the places beside the pods that each affinity term asks for.

        When no such pod runs anywhere, one that fits its own terms may be the first.
        """
        terms = [(self.domain(key), rows) for key, rows in self._near[workload]]
        labelled = np.logical_and.reduce([domain > 0 for domain, _ in terms])
        wanted = [_sum(counts, rows) for _, rows in terms]
        if all(workload in rows for _, rows in terms) and not any(pods.any() for pods in wanted):
            return np.asarray(labelled)
        for (domain, _), pods in zip(terms, wanted, strict=True):
            labelled &= _per_domain(domain, pods)[domain] > 0
        return np.asarray(labelled)

    def _tied(self, workload: int) -> Iterator[str]:
        yield from (key for key, _ in self._near[workload])
        yield from (key for _, key, _ in self._leaning[workload])
        yield from (key for key, rows in self._apart[workload].items() if rows != [workload])

    def _rows(self, workload_ids: Sequence[str]) -> list[int]:
        return [self._row[workload_id] for workload_id in workload_ids if workload_id in self._row]

    def _spread_of(self, workload: Workload) -> list[_Spread]:
        own = [self._row[workload.id]]
        domains = {rule.topology_key: self.domain(rule.topology_key) for rule in workload.spread}
        labelled = np.ones(len(self._places), bool)
        for domain in domains.values():
            labelled &= domain > 0
        return [
            _Spread(
                domains[rule.topology_key],
                [*(own if rule.counts_own else []), *self._rows(rule.also_counts)],
                int(rule.counts_own),
                self._eligible_places(workload, rule) & labelled,
                rule,
            )
            for rule in workload.spread
        ]

    def _eligible_places(self, workload: Workload, rule: SpreadRule) -> BoolArray:
        affinity = (frozenset(workload.node_selector.items()), workload.requirements, workload.alternatives)
        key = (
            affinity if rule.honors_affinity else None,
            workload.tolerations if rule.honors_taints else None,
        )
        if key not in self._eligible:
            places = self._places
            self._eligible[key] = np.fromiter(
                (is_domain(workload, rule, place) for place in places), bool, len(places)
            )
        return self._eligible[key]

    def _kept_apart(self) -> list[dict[str, list[int]]]:
        """Return for each workload, by topology key, the workloads whose pods keep it out of a domain."""
        apart: list[dict[str, set[int]]] = [defaultdict(set) for _ in self._workloads]
        for index, workload in enumerate(self._workloads):
            for key in workload.anti_affinity_keys:
                apart[index][key].add(index)
            for term in workload.pod_anti_affinity:
                for other in self._rows(term.workload_ids):
                    apart[index][term.topology_key].add(other)
                    apart[other][term.topology_key].add(index)
        return [{key: sorted(rows) for key, rows in by_key.items()} for by_key in apart]

    def _dependents(self) -> list[list[tuple[int, str, _Rows]]]:
        """Return for each workload the terms of other workloads that its pods fulfil."""
        leaning: list[list[tuple[int, str, _Rows]]] = [[] for _ in self._workloads]
        for dependent, terms in enumerate(self._near):
            for key, rows in terms:
                for row in rows:
                    leaning[row].append((dependent, key, rows))
        return leaning


def _sum(counts: IntArray, rows: _Rows) -> IntArray:
    """Return the pods of these workloads by place."""
    total: IntArray = counts[rows[0]] if len(rows) == 1 else counts[list(rows)].sum(axis=0)
    return total


def _per_domain(domain: IntArray, pods: IntArray) -> FloatArray:
    """Return pods by domain number; none are counted where there is no domain."""
    totals = np.bincount(domain, weights=pods).astype(np.float64)
    totals[:1] = 0
    return totals


def _spread_allows(spread: _Spread, counts: IntArray, present: BoolArray) -> BoolArray:
    eligible = present & spread.eligible
    allowed: BoolArray = spread.domain > 0
    if not eligible.any():
        return np.zeros_like(allowed)
    carried = _per_domain(spread.domain, _sum(counts, spread.counted) * eligible)
    domains = np.unique(spread.domain[eligible])
    lowest = int(carried[domains].min()) if len(domains) >= spread.rule.min_domains else 0
    return allowed & (carried[spread.domain] + spread.own - lowest <= spread.rule.max_skew)
