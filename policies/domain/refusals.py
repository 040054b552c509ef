"""Why the optimizer declined something: stable codes and plain sentences."""

from enum import StrEnum

from policies.domain.plan import Refusal
from policies.domain.shapes import Node, Workload


class Code(StrEnum):
    """Stable refusal codes; the screens group and translate by them."""

    # a node is left alone whatever it would save
    PROTECTED = "protected"
    NOT_READY = "not_ready"
    CORDONED = "cordoned"
    TOO_YOUNG = "too_young"
    FALLBACK = "on_demand_fallback"
    EXCLUDED_LABEL = "excluded_label"
    EXCLUDED_TAINT = "excluded_taint"
    EXCLUDED_TYPE = "excluded_instance_type"
    GROUP_UNHEALTHY = "group_unhealthy"
    UNKNOWN_PODS = "unknown_pods"
    PROTECTED_NAMESPACE = "protected_namespace"
    UNMODELLED_RULES = "unmodelled_rules"
    DO_NOT_DISRUPT = "do_not_disrupt"
    BARE_POD = "bare_pod"
    LOCAL_STORAGE = "local_storage"
    SEVERAL_BUDGETS = "several_budgets"
    BUDGET_NEVER_ALLOWS = "budget_never_allows"
    BUDGET_EXHAUSTED = "budget_exhausted"
    CONSOLIDATION_OFF = "consolidation_off"
    # a node could go but stays
    WORTH_KEEPING = "worth_keeping"
    NO_ROOM_ELSEWHERE = "no_room_elsewhere"
    NODE_SELECTION = "node_selection"
    TAINTS = "taints"
    VOLUME_ZONE = "volume_zone"
    CAPACITY_TYPE = "capacity_type"
    SPREAD = "spread"
    ANTI_AFFINITY = "anti_affinity"
    POD_AFFINITY = "pod_affinity"
    ON_DEMAND_MINIMUM = "on_demand_minimum"
    NEIGHBOUR_NEEDED = "neighbour_needed"
    NODE_FLOOR = "node_floor"
    LAST_IN_ZONE = "last_in_zone"
    HEADROOM = "headroom"
    ON_DEMAND_BASE = "on_demand_base"
    SPOT_TO_SPOT = "spot_to_spot"
    # a pool may not be bought from
    POOL_FAMILY = "pool_family"
    POOL_SIZE = "pool_size"
    POOL_ARCHITECTURE = "pool_architecture"
    POOL_CAPACITY_TYPE = "pool_capacity_type"
    POOL_BURSTABLE = "pool_burstable"
    POOL_PRICE = "pool_price"
    POOL_RISK = "pool_risk"
    POOL_BACK_OFF = "pool_back_off"
    # workloads and the whole cluster
    UNPLACEABLE = "unplaceable"
    NOTHING_CHEAPER = "nothing_cheaper"
    SAVING_TOO_SMALL = "saving_too_small"
    DISRUPTS_TOO_MUCH = "disrupts_too_much"
    PLAN_UNSAFE = "plan_unsafe"
    # at the last look before a wave
    NODE_GONE = "node_gone"
    LAUNCH_NOT_READY = "launch_not_ready"
    PODS_PENDING = "pods_pending"
    TOO_MANY_AT_ONCE = "too_many_at_once"


NO_PLACE = frozenset(
    {
        Code.NO_ROOM_ELSEWHERE,
        Code.NODE_SELECTION,
        Code.TAINTS,
        Code.VOLUME_ZONE,
        Code.CAPACITY_TYPE,
        Code.SPREAD,
        Code.ANTI_AFFINITY,
        Code.POD_AFFINITY,
        Code.ON_DEMAND_MINIMUM,
    }
)
"""Why a pod finds no place; another purchase may help."""


def node_refusal(node: Node, code: Code, reason: str) -> Refusal:
    """Return why ``node`` stays."""
    return Refusal("node", node.id, code.value, reason)


def workload_refusal(workload: Workload, code: Code, reason: str) -> Refusal:
    """Return why ``workload`` is left alone."""
    return Refusal("workload", f"{workload.namespace}/{workload.name}", code.value, reason)
