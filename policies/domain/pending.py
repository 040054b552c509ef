"""Says of pending pods why they find no place."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from policies.domain.model import RESOURCE_COUNT, Place, place_of_offer, vector
from policies.domain.obstacles import Hurdle, binding, fixed_hurdles, room_hurdles
from policies.domain.plan import Refusal
from policies.domain.refusals import Code, workload_refusal
from policies.domain.scheduling import Board
from policies.domain.shapes import Offer, Workload


def pending_refusals(
    board: Board, unplaced: Mapping[int, int], allowed: Sequence[Offer]
) -> Iterator[Refusal]:
    """Yield one refusal for each workload with pods left over, with the rule that keeps them out.

    ``unplaced`` counts pods by workload index on the board. The rule is one that excludes every empty node
    of the cluster and of the allowed pools, or else what keeps the pods from the nodes on the board.
    """
    places = [place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(allowed)]
    places += [place for index, place in enumerate(board.places) if board.present[index]]
    for index, count in unplaced.items():
        workload = board.workloads[index]
        pods = f"{count} pending pod{'s' if count > 1 else ''}"
        hurdle = _excluding(workload, places)
        if hurdle is None:
            code, why = board.obstacle_of(index)
            text = f"{pods} find no place on the nodes there will be{why}."
            yield workload_refusal(workload, code, text)
        else:
            is_room = hurdle.code is Code.NO_ROOM_ELSEWHERE
            code = Code.UNPLACEABLE if is_room else hurdle.code
            yield workload_refusal(workload, code, f"{pods} fit on no node: {hurdle.words}.")


def _excluding(workload: Workload, places: Sequence[Place]) -> Hurdle | None:
    """Return the rule that keeps a pod from every one of these places when empty, or None."""
    rooms = np.array([vector(place.room) for place in places], np.int64).reshape(-1, RESOURCE_COUNT)
    hurdles = [*fixed_hurdles(workload, places), *room_hurdles(workload, rooms.T)]
    return binding(hurdles, np.ones(len(places), bool))
