"""Twenty small clusters, each drawn at random from a seed: for runs that need many different ones."""

from random import Random

from simulator.fleet import Budget, Cluster, Group, Workload

CLUSTERS = 20
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
NODE_TYPES = ("m5.large", "m5.xlarge", "c5.xlarge", "r5.large")
EVERYWHERE = ({"operator": "Exists"},)


def many_clusters(seed: int, count: int = CLUSTERS) -> tuple[Cluster, ...]:
    """The clusters of a seed; the first ones are the same for any count."""
    return tuple(_cluster(Random(f"{seed}/{number}"), number) for number in range(count))  # noqa: S311 - seeded


def _cluster(random: Random, number: int) -> Cluster:
    name = f"cluster-{number:02}"
    zones = ZONES[: random.choice((2, 3))]
    groups = (
        Group(f"{name}-general", "asg", random.choice(NODE_TYPES), random.randint(4, 6), 1, 16),
        Group(f"{name}-managed", "managed", random.choice(NODE_TYPES), random.randint(1, 2), 1, 6),
    )
    workloads = (*_system(), *(_workload(random, index) for index in range(random.randint(5, 8))))
    return Cluster(name, "us-east-1", "1.33", "staging", zones, groups, workloads)


def _system() -> tuple[Workload, ...]:
    return (
        Workload("DaemonSet", "kube-system", "kube-proxy", 0, 100, 64, tolerations=EVERYWHERE),
        Workload("Deployment", "kube-system", "coredns", 2, 100, 70, budget=Budget(max_unavailable=1)),
    )


def _workload(random: Random, index: int) -> Workload:
    replicas = random.choice((1, 2, 2, 3, 4))
    is_stateful = random.random() < 0.2  # noqa: PLR2004 - one in five
    return Workload(
        kind="StatefulSet" if is_stateful else "Deployment",
        namespace="default",
        name=f"service-{index}",
        replicas=replicas,
        cpu_millis=random.choice((250, 500, 900)),
        memory_mib=random.choice((256, 512, 1024)),
        budget=_budget(random, replicas),
        spread_zones=random.random() < 0.3,  # noqa: PLR2004 - three in ten
        spread_hosts=random.random() < 0.2,  # noqa: PLR2004 - one in five
        grace_seconds=random.choice((5, 30, 60)),
    )


def _budget(random: Random, replicas: int) -> Budget | None:
    choices = [None, Budget(max_unavailable=1), Budget(min_available="50%")]
    if replicas > 1:
        choices.append(Budget(min_available=replicas - 1))
    return random.choice(choices)
