"""The bench's own plain first-fit-decreasing: pods by CPU, then memory, onto the first node with room."""

import numpy as np

from spotopt.bench.packing.data import Case


def first_fit_decreasing(case: Case) -> float:
    """Return its cost in USD per hour; a new node is the kind that is cheapest for the room it has.

    Each pod takes the first open node that accepts and holds it (and keeps its zone spread); equal nodes of
    one pod shape are opened one at a time, as a scheduler does.
    """
    problem = case.problem
    order = np.lexsort((-problem.requests[:, 1], -problem.requests[:, 0]))
    zones = int(problem.zones.max()) + 1
    rate = problem.prices / (problem.rooms[:, 0] / 4000 + problem.rooms[:, 1] / 16000)
    kinds = np.zeros(0, np.int64)
    free = np.zeros((0, problem.rooms.shape[1]), np.int64)
    cost = 0.0
    for shape in order.tolist():
        request, able = problem.requests[shape], problem.fits()[shape]
        placed = np.zeros(zones, np.int64)
        spread = int(problem.skews[shape])
        for _ in range(int(problem.counts[shape])):
            level = placed - placed.min() < spread if spread else np.ones(zones, bool)
            fits = able[kinds] & level[problem.zones[kinds]] & (free >= request).all(axis=1)
            node = int(fits.argmax()) if fits.any() else -1
            if node < 0:
                kind = int(np.where(able & level[problem.zones], rate, np.inf).argmin())
                kinds, free = np.append(kinds, kind), np.vstack([free, problem.rooms[kind]])
                cost += float(problem.prices[kind])
                node = len(kinds) - 1
            free[node] -= request
            placed[problem.zones[kinds[node]]] += 1
    return cost
