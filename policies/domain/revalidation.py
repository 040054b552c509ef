"""The last look before a wave drains anything: which of its removals may still go."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from policies.domain.consolidation import ready_floor, wave_limit
from policies.domain.eligibility import node_reason, pods_by_node, pods_reason, under_policy, unhealthy_groups
from policies.domain.matching import accepts
from policies.domain.model import DAEMON_KINDS, place_of_node, pod_vector, vector
from policies.domain.plan import Refusal, Removal, Wave
from policies.domain.policy import Rules
from policies.domain.refusals import Code
from policies.domain.scheduling import Board
from policies.domain.shapes import ClusterSnapshot, Node


def recheck_wave(
    *,
    snapshot: ClusterSnapshot,
    wave: Wave,
    launched_node_ids: Mapping[str, str],
    rules: Rules,
    now: datetime,
    begun: frozenset[str] = frozenset(),
) -> tuple[Refusal, ...]:
    """Return one refusal for each removal of the wave that must not go, judged on fresh state.

    Nodes in ``begun`` are being emptied already: they are not judged, but their pods find a place first.

    ``launched_node_ids`` maps a launch's id to the node it became; launches of other waves may be
    among them. A node that is cordoned already may go: a resumed wave finds its own cordons.
    """
    return tuple(_Recheck(snapshot, wave, rules, now).run(launched_node_ids, begun))


class _Recheck:
    def __init__(self, snapshot: ClusterSnapshot, wave: Wave, rules: Rules, now: datetime) -> None:
        snapshot = under_policy(snapshot, rules)
        self._snapshot, self._wave, self._rules, self._now = snapshot, wave, rules, now
        self._nodes = {node.id: node for node in snapshot.nodes}
        self._workloads = {w.id: w for w in snapshot.workloads if w.kind not in DAEMON_KINDS}
        self._pods = pods_by_node(snapshot)
        self._unhealthy = unhealthy_groups(snapshot.nodes)

    def run(self, launched: Mapping[str, str], begun: frozenset[str]) -> list[Refusal]:
        """Judge the removals one after the other, each as if those before it had gone."""
        board = self._board()
        waiting = [removal for removal in self._wave.removals if removal.node_id not in begun]
        column = {place.id: index for index, place in enumerate(board.places)}
        leaving = [index for node_id, index in column.items() if node_id in begun]
        stop = self._reason_to_stop(board, launched) or self._room_for(board, leaving)
        if stop:
            return [_refuse(removal, *stop) for removal in waiting]
        ready = sum(node.ready for node in self._snapshot.nodes)
        refusals: list[Refusal] = []
        gone = len(leaving)
        for removal in waiting:
            reason = self._reason(removal, ready_left=ready - gone - 1, gone=gone)
            if reason is None:
                _, stuck = board.empty(column[removal.node_id])
                if stuck < 0:
                    gone += 1
                    continue
                reason = board.obstacle
            refusals.append(_refuse(removal, *reason))
        return refusals

    def _reason_to_stop(self, board: Board, launched: Mapping[str, str]) -> tuple[Code, str] | None:
        """Return why nothing of the wave may go."""
        for launch in self._wave.launches:
            node = self._nodes.get(launched.get(launch.id, ""))
            if node is None or not node.ready:
                return Code.LAUNCH_NOT_READY, f"The new node {launch.id} of this wave is not ready."
        waiting = self._crowded_out(board)
        if waiting:
            return Code.PODS_PENDING, f"Pods of {waiting} wait for room; nothing is drained meanwhile."
        return None

    def _room_for(self, board: Board, leaving: Sequence[int]) -> tuple[Code, str] | None:
        """Empty the places that are on their way out; return what keeps the first in its place."""
        is_stuck = any(board.empty(place)[1] >= 0 for place in leaving)
        return board.obstacle if is_stuck else None

    def _crowded_out(self, board: Board) -> str:
        """Place pending pods; return a workload that only lacks room for one, or an empty text.

        Pods that the scheduler can place now are in passing; pods that not even an empty node of
        this cluster would take do not wait because of the plan.
        """
        row = {workload.id: index for index, workload in enumerate(board.workloads)}
        for workload_id, count in sorted(self._snapshot.pending.items()):
            if workload_id not in row or count <= 0 or not board.admit(row[workload_id], count):
                continue
            workload = self._workloads[workload_id]
            needs = pod_vector(workload)
            for node in self._snapshot.nodes:
                place = place_of_node(node)
                room = vector(place.room)
                if accepts(workload, place) and all(n <= r for n, r in zip(needs, room, strict=True)):
                    return f"{workload.namespace}/{workload.name}"
        return ""

    def _board(self) -> Board:
        """Return the cluster with the nodes of this wave closed to new pods."""
        leaving = {removal.node_id for removal in self._wave.removals}
        places = [place_of_node(node) for node in self._snapshot.nodes]
        board = Board(list(self._workloads.values()), places, self._pods)
        board.open[[index for index, place in enumerate(places) if place.id in leaving]] = False
        return board

    def _reason(self, removal: Removal, *, ready_left: int, gone: int) -> tuple[Code, str] | None:
        node = self._nodes.get(removal.node_id)
        if node is None or node.instance_id != removal.instance_id:
            return Code.NODE_GONE, "The node is gone, or another instance has its name."
        return (
            node_reason(node, self._rules, self._now)
            or self._group_reason(node)
            or pods_reason([self._workloads.get(key) for key in self._carried(node)], self._rules)
            or self._pace_reason(ready_left, gone)
        )

    def _carried(self, node: Node) -> Sequence[str]:
        return list(self._pods.get(node.id, {}))

    def _group_reason(self, node: Node) -> tuple[Code, str] | None:
        if node.group in self._unhealthy:
            return Code.GROUP_UNHEALTHY, f"More than a fifth of its group {node.group} is not ready."
        return None

    def _pace_reason(self, ready_left: int, gone: int) -> tuple[Code, str] | None:
        floor = ready_floor(self._rules)
        if ready_left < floor:
            return Code.NODE_FLOOR, f"The cluster would fall below {floor} ready nodes."
        limit = wave_limit(len(self._snapshot.nodes), self._rules)
        if gone >= limit:
            return Code.TOO_MANY_AT_ONCE, f"{limit} nodes are being disrupted already; more must wait."
        return None


def _refuse(removal: Removal, code: Code, reason: str) -> Refusal:
    return Refusal("node", removal.node_id, code.value, reason)
