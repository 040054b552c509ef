"""What pods ask of other pods, as the checker reads Kubernetes' rules."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from policies.domain.replay_rules import Host, is_counted
from policies.domain.shapes import PodTerm, SpreadRule, Workload

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


class OtherPods:
    """The rules of some workloads about each other's pods; pods are counted by workload and node."""

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._workloads = workloads
        self._row = {workload.id: row for row, workload in enumerate(workloads)}
        self._enemies = self._enemies_by_key()
        self._hosts: Sequence[Host] = ()
        self._codes: dict[str, Counts] = {}
        self._counted: dict[Hashable, Mask] = {}

    def settle(self, hosts: Sequence[Host]) -> None:
        """Take note of the nodes that are there now."""
        self._hosts = hosts
        self._codes.clear()
        self._counted.clear()

    def has_rules(self, row: int) -> bool:
        """Tell whether other pods matter to where this workload's pods may go."""
        workload = self._workloads[row]
        return bool(
            workload.spread or workload.pod_affinity or workload.on_demand_minimum or self._enemies[row]
        )

    def masks(self, row: int, pods: Counts) -> Iterator[tuple[str, Mask]]:
        """Yield for each rule its violation code and the nodes where it allows one more pod."""
        workload = self._workloads[row]
        for key, enemies in self._enemies[row]:
            yield "anti_affinity", ~self._near(key, pods[enemies].sum(axis=0))
        for rule in workload.spread:
            yield "spread", self._level(row, rule, pods)
        if workload.pod_affinity:
            yield "pod_affinity", self._together(row, workload.pod_affinity, pods)
        if workload.on_demand_minimum:
            spot = np.array([host.spot for host in self._hosts], bool)
            most_on_spot = workload.replicas - workload.on_demand_minimum
            yield "on_demand_minimum", ~spot | (pods[row, spot].sum() < most_on_spot)

    def lonely(self, pods: Counts) -> set[tuple[int, int, str]]:
        """Return (workload, term number, domain) where pods run without the neighbours of a term."""
        found = set()
        for row, workload in enumerate(self._workloads):
            for number, term in enumerate(workload.pod_affinity):
                beside = self._near(term.topology_key, pods[self._rows(term)].sum(axis=0))
                for position in np.flatnonzero((pods[row] > 0) & ~beside).tolist():
                    domain = self._hosts[position].domain(term.topology_key)
                    found.add((row, number, domain or ""))
        return found

    def _rows(self, term: PodTerm) -> list[int]:
        return [self._row[workload_id] for workload_id in term.workload_ids if workload_id in self._row]

    def _enemies_by_key(self) -> list[list[tuple[str, list[int]]]]:
        """Return by workload (topology key, workloads) that it keeps away from, or that keep away from it."""
        enemies: list[dict[str, set[int]]] = [defaultdict(set) for _ in self._workloads]
        for row, workload in enumerate(self._workloads):
            for key in workload.anti_affinity_keys:
                enemies[row][key].add(row)
            for term in workload.pod_anti_affinity:
                for other in self._rows(term):
                    enemies[row][term.topology_key].add(other)
                    enemies[other][term.topology_key].add(row)
        return [[(key, sorted(rows)) for key, rows in sorted(by_key.items())] for by_key in enemies]

    def _code(self, key: str) -> Counts:
        """Return each node's domain as a number from 1; 0 without one."""
        if key not in self._codes:
            numbers: dict[str | None, int] = {None: 0}
            for host in self._hosts:
                numbers.setdefault(host.domain(key), len(numbers))
            self._codes[key] = np.array([numbers[host.domain(key)] for host in self._hosts], np.int64)
        return self._codes[key]

    def _near(self, key: str, wanted: Counts) -> Mask:
        """Return the nodes in whose domain a wanted pod runs."""
        codes = self._code(key)
        occupied = set(codes[wanted > 0].tolist()) - {0}
        return np.isin(codes, sorted(occupied))

    def _together(self, row: int, terms: Sequence[PodTerm], pods: Counts) -> Mask:
        wanted = [pods[self._rows(term)].sum(axis=0) for term in terms]
        labelled = np.all([self._code(term.topology_key) > 0 for term in terms], axis=0)
        is_own = all(row in self._rows(term) for term in terms)
        if is_own and not any(each.any() for each in wanted):
            return np.asarray(labelled)  # the first of its kind may go anywhere
        beside = [self._near(term.topology_key, each) for term, each in zip(terms, wanted, strict=True)]
        return np.asarray(np.all(beside, axis=0))

    def _level(self, row: int, rule: SpreadRule, pods: Counts) -> Mask:
        codes, domains = self._code(rule.topology_key), self._domains_of(row, rule)
        counted = [self._row[key] for key in rule.also_counts if key in self._row]
        counted += [row] if rule.counts_own else []
        carried = dict.fromkeys(codes[domains].tolist(), 0)
        total = pods[counted].sum(axis=0)
        for position in np.flatnonzero((total > 0) & domains).tolist():
            carried[int(codes[position])] += int(total[position])
        if not carried:
            return np.zeros(len(self._hosts), bool)
        least = 0 if len(carried) < rule.min_domains else min(carried.values())
        highest = least + rule.max_skew - int(rule.counts_own)
        crowded = [code for code, count in carried.items() if count > highest]
        return (codes > 0) & ~np.isin(codes, crowded)

    def _domains_of(self, row: int, rule: SpreadRule) -> Mask:
        """Return the nodes that make up the domains of a spread rule."""
        workload = self._workloads[row]
        keys = frozenset(each.topology_key for each in workload.spread)
        selector = frozenset(workload.node_selector.items())
        terms = (workload.requirements, workload.alternatives, workload.tolerations)
        same = (keys, selector, terms, rule.honors_affinity, rule.honors_taints)
        if same not in self._counted:
            self._counted[same] = np.array(
                [
                    is_counted(workload, rule, host) and all(host.domain(key) is not None for key in keys)
                    for host in self._hosts
                ],
                bool,
            )
        return self._counted[same]
