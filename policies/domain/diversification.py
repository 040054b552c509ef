"""Never too much in one place: what a pool may carry so that its loss is bearable."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray

Item = TypeVar("Item")


def pools_needed(replicas: int, minimum: int) -> int | None:
    """Return over how many pools the pods must be spread so that losing any one leaves the minimum.

    None when no number is enough, because the workload cannot spare a single pod.
    """
    spare = replicas - minimum
    return -(-replicas // spare) if spare > 0 else None


def allowances(replicas: IntArray, minimums: IntArray, placed: IntArray) -> IntArray:
    """Return how many more pods of each workload each pool may carry (workloads × pools).

    The loss of one pool must leave the minimum: a pool never carries more than replicas − minimum.
    ``placed`` counts the pods that are there already, in the same form as the answer.
    """
    spare = np.maximum(replicas - minimums, 0)
    left: IntArray = np.maximum(spare[:, None] - placed, 0)
    return left


def within_share(held: FloatArray, more: FloatArray, share: float, total: float) -> BoolArray:
    """Return which pools may take one more node that counts ``more``, so that none has more than its share.

    ``held`` is what each pool has already and ``total`` what all will, in nodes or in USD per hour. A pool
    that has nothing yet may take one node of any size, for a node cannot be divided.
    """
    answer: BoolArray = (held <= 0) | (held + more <= share * total)
    return answer


def first_of_each(items: Iterable[Item], cell: Callable[[Item], Hashable]) -> Iterator[Item]:
    """Yield the first item of each cell, in order: of pools that run dry together one is enough."""
    seen: set[Hashable] = set()
    for item in items:
        if cell(item) not in seen:
            seen.add(cell(item))
            yield item
