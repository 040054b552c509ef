"""Never too much in one place: what a pool may carry so that its loss is bearable."""

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray


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


def within_share(spent: FloatArray, prices: FloatArray, share: float, total: float) -> BoolArray:
    """Return which pools may take one more node at ``prices``, so that none costs more than its share.

    ``spent`` is what each pool costs already and ``total`` what all will, in USD per hour. A pool that costs
    nothing yet may take one node of any price, for a node cannot be divided.
    """
    answer: BoolArray = (spent <= 0) | (spent + prices <= share * total)
    return answer
