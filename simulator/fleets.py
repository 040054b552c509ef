"""The fleets of a new world: demo (three living clusters), small, many, spot, karpenter, bench and large."""

from collections.abc import Callable

from simulator.fleet import (
    Account,
    BareInstances,
    Budget,
    Cluster,
    Group,
    NodePool,
    StartingFleet,
    Usage,
    Workload,
)
from simulator.many import many_clusters

CUSTOMER = "111122223333"
EVERYWHERE = ({"operator": "Exists"},)
DO_NOT_DISRUPT = {"karpenter.sh/do-not-disrupt": "true"}
NOT_SAFE_TO_EVICT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
STEADY = Usage(cpu_share=0.5, cpu_swing=0.05, memory_share=0.7)
IDLE = Usage(cpu_share=0.12, cpu_swing=0.05, memory_share=0.3)
HALF = Budget(min_available="50%")
ONE_OUT = Budget(max_unavailable=1)


def starting_fleet(name: str, seed: int = 1) -> StartingFleet:
    """The fleet of this name; ValueError names the ones there are. Only `many` depends on the seed."""
    if name not in FLEET_NAMES:
        raise ValueError(f"There is no fleet {name!r}; there are {', '.join(FLEET_NAMES)}.")
    if name == "many":
        return StartingFleet(name=name, accounts=(Account(CUSTOMER, many_clusters(seed)),))
    return StartingFleet(name=name, accounts=FLEETS[name]())


def _deployment(namespace: str, name: str, replicas: int, cpu: int, memory: int, **more: object) -> Workload:
    return Workload("Deployment", namespace, name, replicas, cpu, memory, **more)  # type: ignore[arg-type]


def _stateful(namespace: str, name: str, replicas: int, cpu: int, memory: int, **more: object) -> Workload:
    return Workload("StatefulSet", namespace, name, replicas, cpu, memory, **more)  # type: ignore[arg-type]


def _system() -> tuple[Workload, ...]:
    """What runs in kube-system of every EKS cluster, and one log collector."""
    daemon = {"tolerations": EVERYWHERE, "priority_class": "system-node-critical"}
    addon = {"priority_class": "system-cluster-critical"}
    return (
        Workload("DaemonSet", "kube-system", "aws-node", 0, 50, 64, **daemon),  # type: ignore[arg-type]
        Workload("DaemonSet", "kube-system", "kube-proxy", 0, 100, 64, **daemon),  # type: ignore[arg-type]
        Workload("DaemonSet", "kube-system", "ebs-csi-node", 0, 30, 120, **daemon),  # type: ignore[arg-type]
        Workload(
            "DaemonSet", "observability", "fluent-bit", 0, 100, 128, tolerations=EVERYWHERE, empty_dir=True
        ),
        _deployment("kube-system", "coredns", 2, 100, 70, budget=ONE_OUT, spread_zones=True, **addon),
        _deployment("kube-system", "metrics-server", 2, 100, 200, budget=ONE_OUT, empty_dir=True, **addon),
        _deployment("kube-system", "ebs-csi-controller", 2, 60, 240, budget=ONE_OUT, empty_dir=True, **addon),
    )


def _production() -> Cluster:
    return Cluster(
        name="acme-production",
        region="us-east-1",
        k8s_version="1.33",
        environment="production",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        groups=(
            Group("production-general", "asg", "m5.2xlarge", 24, 6, 40),
            Group("production-services", "asg", "m5.xlarge", 16, 3, 30),
            Group("production-compute", "managed", "c5.4xlarge", 10, 2, 20),
            Group("production-memory", "managed", "r5.2xlarge", 8, 2, 16, labels={"acme.io/pool": "memory"}),
        ),
        workloads=(*_system(), *_production_services(), *_production_data()),
    )


def _production_services() -> tuple[Workload, ...]:
    on_demand = {"eks.amazonaws.com/capacityType": "ON_DEMAND"}
    return (
        _deployment("shop", "storefront", 12, 1000, 1536, budget=HALF, spread_zones=True),
        _deployment("shop", "catalog", 8, 1000, 2048, budget=HALF, spread_zones=True),
        _deployment("shop", "cart", 6, 750, 1024, budget=Budget(min_available=4), spread_zones=True),
        _deployment("shop", "checkout", 6, 1000, 1536, budget=Budget(min_available=4), spread_hosts=True),
        _deployment("shop", "pricing", 4, 1500, 1024, budget=ONE_OUT, usage=STEADY),
        _deployment("shop", "recommendations", 6, 2000, 4096, budget=HALF),
        _deployment("shop", "images", 5, 1500, 2048, empty_dir=True, usage=IDLE),
        _deployment("shop", "reviews", 3, 500, 768, budget=ONE_OUT, usage=IDLE),
        _deployment("shop", "promotions", 3, 500, 768, usage=IDLE),
        _deployment(
            "payments", "payments-api", 4, 1000, 1536, budget=Budget(min_available=3), on_demand_only=True
        ),
        _deployment("payments", "fraud-scoring", 4, 2000, 3072, budget=ONE_OUT),
        _deployment(
            "payments", "settlement", 1, 500, 1024, budget=Budget(min_available=1), on_demand_only=True
        ),
        _deployment("payments", "webhooks", 4, 500, 512, budget=HALF),
        _deployment("identity", "sessions", 5, 500, 1024, budget=Budget(min_available=3), spread_zones=True),
        _deployment("identity", "accounts-api", 4, 750, 1024, budget=HALF),
        _deployment(
            "identity", "keycloak", 2, 1000, 2048, budget=ONE_OUT, spread_hosts=True, grace_seconds=60
        ),
        _deployment("search", "search-api", 6, 1500, 3072, budget=HALF, spread_zones=True, usage=STEADY),
        _deployment("search", "indexer", 3, 2000, 4096, usage=STEADY, grace_seconds=90),
        _deployment("notifications", "email", 3, 250, 512, usage=IDLE),
        _deployment("notifications", "push", 4, 500, 512, budget=ONE_OUT),
        _deployment("notifications", "templates", 2, 250, 256, usage=IDLE),
        _deployment("platform", "gateway", 6, 1000, 1024, budget=Budget(min_available=4), spread_zones=True),
        _deployment(
            "platform", "ingress-nginx", 4, 500, 1024, budget=HALF, spread_hosts=True, grace_seconds=120
        ),
        _deployment("platform", "feature-flags", 3, 250, 384, budget=ONE_OUT),
        _deployment("platform", "admin-console", 2, 500, 1024, usage=IDLE),
        _deployment("platform", "license-server", 1, 250, 512, node_selector=on_demand),
        _deployment("platform", "scheduler", 1, 500, 768, annotations=NOT_SAFE_TO_EVICT),
        _deployment("observability", "prometheus-adapter", 2, 250, 512, budget=ONE_OUT),
        _deployment("observability", "grafana", 2, 250, 512, usage=IDLE),
        _deployment("observability", "otel-collector", 4, 1000, 2048, empty_dir=True),
    )


def _production_data() -> tuple[Workload, ...]:
    memory_pool = {"acme.io/pool": "memory"}
    return (
        _stateful("data", "kafka", 3, 2000, 8192, budget=ONE_OUT, spread_zones=True, spread_hosts=True,
                  volume_gib=200, grace_seconds=120, usage=STEADY),
        _stateful("data", "redis", 3, 1000, 6144, budget=ONE_OUT, volume_gib=20, spread_zones=True,
                  usage=STEADY),
        _stateful("search", "opensearch", 6, 2000, 12288, budget=ONE_OUT, spread_zones=True, volume_gib=300,
                  grace_seconds=120, usage=STEADY),
        _stateful("data", "rabbitmq", 3, 500, 2048, budget=ONE_OUT, spread_zones=True, volume_gib=20),
        _stateful("observability", "prometheus", 2, 1500, 10240, budget=ONE_OUT, volume_gib=100,
                  usage=STEADY),
        _deployment("analytics", "query-engine", 4, 3000, 16384, node_selector=memory_pool, usage=STEADY),
        _deployment("analytics", "feature-store", 2, 1500, 12288, node_selector=memory_pool, budget=ONE_OUT),
        _deployment("analytics", "reports", 3, 1000, 3072, usage=IDLE),
        _deployment("analytics", "event-router", 5, 1000, 1536, budget=HALF),
        _deployment("analytics", "enrichment", 8, 1500, 2048, usage=STEADY),
        Workload("Pod", "analytics", "reindex-2024", 1, 2000, 4096, annotations=DO_NOT_DISRUPT),
        Workload("Pod", "platform", "debug-shell", 1, 100, 128, usage=IDLE),
    )  # fmt: skip


def _staging() -> Cluster:
    return Cluster(
        name="acme-staging",
        region="us-east-1",
        k8s_version="1.33",
        environment="staging",
        zones=("us-east-1a", "us-east-1b"),
        groups=(
            Group("staging-general", "asg", "m5.2xlarge", 14, 2, 24),
            Group("staging-small", "managed", "m5.xlarge", 8, 1, 20),
            Group("staging-compute", "asg", "c5.2xlarge", 4, 1, 10),
        ),
        workloads=(
            *_system(),
            _deployment("shop", "storefront", 4, 1000, 1536, budget=HALF, spread_zones=True),
            _deployment("shop", "catalog", 4, 1000, 2048, budget=HALF),
            _deployment("shop", "cart", 3, 750, 1024, budget=ONE_OUT),
            _deployment("shop", "checkout", 3, 1000, 1536, budget=ONE_OUT, spread_hosts=True),
            _deployment("shop", "recommendations", 3, 2000, 4096, usage=IDLE),
            _deployment("shop", "images", 2, 1500, 2048, empty_dir=True, usage=IDLE),
            _deployment("payments", "payments-api", 2, 1000, 1536, budget=ONE_OUT),
            _deployment("payments", "fraud-scoring", 2, 2000, 3072, usage=IDLE),
            _deployment("identity", "sessions", 2, 500, 1024, budget=ONE_OUT),
            _deployment("identity", "keycloak", 1, 1000, 2048, budget=Budget(min_available=1)),
            _deployment("search", "search-api", 3, 1500, 3072, usage=IDLE),
            _deployment("platform", "gateway", 3, 1000, 1024, budget=HALF, spread_zones=True),
            _deployment("platform", "ingress-nginx", 2, 500, 1024, budget=ONE_OUT, spread_hosts=True),
            _deployment("platform", "load-generator", 4, 1500, 1024, usage=IDLE),
            _deployment("ci", "runners", 6, 2000, 4096, annotations=NOT_SAFE_TO_EVICT, empty_dir=True),
            _stateful("data", "kafka", 3, 1000, 4096, budget=ONE_OUT, spread_zones=True, volume_gib=50),
            _stateful("data", "redis", 2, 500, 2048, budget=ONE_OUT, spread_zones=True, volume_gib=10),
            _stateful("data", "postgres", 1, 1000, 4096, volume_gib=50, on_demand_only=True),
        ),
    )


def _development() -> Cluster:
    return Cluster(
        name="acme-development",
        region="eu-west-1",
        k8s_version="1.32",
        environment="development",
        zones=("eu-west-1a", "eu-west-1b"),
        groups=(
            Group("development-general", "asg", "m5.xlarge", 11, 1, 20),
            Group("development-large", "managed", "r5.2xlarge", 5, 1, 10),
        ),
        workloads=(
            *_system(),
            _deployment("team-shop", "storefront", 2, 500, 1024, usage=IDLE),
            _deployment("team-shop", "catalog", 2, 500, 1024, usage=IDLE),
            _deployment("team-shop", "checkout", 2, 500, 1024, usage=IDLE, budget=ONE_OUT),
            _deployment("team-payments", "payments-api", 2, 500, 1024, usage=IDLE),
            _deployment("team-payments", "fraud-scoring", 2, 1000, 2048, usage=IDLE),
            _deployment("team-search", "search-api", 3, 1000, 2048, usage=IDLE),
            _deployment("team-data", "notebooks", 4, 2000, 8192, usage=IDLE, empty_dir=True),
            _deployment("team-data", "airflow", 2, 1000, 3072, usage=IDLE),
            _deployment("tools", "registry-cache", 1, 500, 1024, budget=Budget(min_available=1)),
            _deployment("tools", "preview-environments", 8, 500, 768, usage=IDLE),
            _stateful("team-data", "postgres", 2, 500, 2048, volume_gib=20, spread_zones=True),
            Workload("Pod", "tools", "migration", 1, 500, 512, annotations=DO_NOT_DISRUPT),
        ),
    )


def _small_cluster(name: str, environment: str, zones: tuple[str, ...], nodes: int) -> Cluster:
    return Cluster(
        name=name,
        region="us-east-1",
        k8s_version="1.33",
        environment=environment,
        zones=zones,
        groups=(
            Group(f"{environment}-general", "asg", "m5.xlarge", nodes - 2, 1, 12),
            Group(f"{environment}-managed", "managed", "m5.large", 2, 1, 6),
        ),
        workloads=(
            *_system(),
            _deployment("default", "web", 4, 500, 1024, budget=Budget(min_available=3)),
            _deployment("default", "api", 3, 500, 512, budget=ONE_OUT, spread_zones=True),
            _deployment("default", "single", 1, 250, 256, budget=Budget(min_available=1)),
            _deployment("default", "steady", 1, 250, 256, on_demand_only=True),
            _deployment("batch", "worker", 2, 500, 512, empty_dir=True),
            _stateful("data", "redis", 2, 250, 1024, budget=ONE_OUT, spread_zones=True, volume_gib=10),
            Workload("Pod", "batch", "precious", 1, 250, 256, annotations=DO_NOT_DISRUPT),
        ),
    )


def _demo() -> tuple[Account, ...]:
    return (Account(CUSTOMER, (_production(), _staging(), _development())),)


def _small() -> tuple[Account, ...]:
    zones = ("us-east-1a", "us-east-1b", "us-east-1c")
    return (
        Account(
            CUSTOMER,
            (
                _small_cluster("acme-production", "production", zones, 8),
                _small_cluster("acme-staging", "staging", zones[:2], 6),
                _small_cluster("acme-development", "development", zones[:2], 5),
            ),
        ),
    )


def _bench() -> tuple[Account, ...]:
    """Two thousand instances in three regions, no clusters: what a scan has to read."""
    regions = {"us-east-1": "m5.large", "us-west-2": "c5.xlarge", "eu-west-1": "r5.large"}
    counts = {"us-east-1": 800, "us-west-2": 600, "eu-west-1": 600}
    return (
        Account(
            CUSTOMER,
            (),
            tuple(
                BareInstances(region, (f"{region}a", f"{region}b"), instance_type, counts[region])
                for region, instance_type in regions.items()
            ),
        ),
    )


def _large() -> tuple[Account, ...]:
    """One cluster of 500 nodes and 15,000 pods: what an agent has to carry."""
    services = tuple(
        _deployment(
            f"team-{number % 20:02}",
            f"service-{number:03}",
            52,
            100,
            256,
            budget=HALF if number % 2 else None,
            spread_zones=number % 5 == 0,
        )
        for number in range(250)
    )
    cluster = Cluster(
        name="acme-large",
        region="us-east-1",
        k8s_version="1.33",
        environment="production",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        groups=(Group("large-general", "asg", "m5.2xlarge", 500, 50, 800),),
        workloads=(*_system(), *services),
    )
    return (Account(CUSTOMER, (cluster,)),)


def _spot() -> tuple[Account, ...]:
    """One cluster of 300 spot nodes and 3,000 pods, rather full: what an interruption storm has to move."""
    budgets = (HALF, None, Budget(max_unavailable="10%"), None, ONE_OUT)
    services = tuple(
        _deployment(
            f"team-{number % 15:02}",
            f"service-{number:03}",
            20,
            320,
            900,
            budget=budgets[number % len(budgets)],
            spread_zones=number % 5 == 0,
        )
        for number in range(150)
    )
    types = ("m5.xlarge", "m5a.xlarge", "m6i.xlarge", "m6a.xlarge", "m5d.xlarge", "m4.xlarge")
    cluster = Cluster(
        name="acme-spot",
        region="us-east-1",
        k8s_version="1.33",
        environment="production",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        groups=tuple(
            Group(f"spot-{kind.replace('.', '-')}", "asg", kind, 50, 0, 200, lifecycle="spot")
            for kind in types
        ),
        workloads=(*_system(), *services),
    )
    return (Account(CUSTOMER, (cluster,)),)


def _karpenter() -> tuple[Account, ...]:
    """One cluster whose services run on nodes that Karpenter launches, on demand or on spot."""
    families = tuple(f"{letter}{rest}" for letter in "mcr" for rest in ("5", "5a", "6i", "6a"))
    cluster = Cluster(
        name="acme-karpenter",
        region="us-east-1",
        k8s_version="1.33",
        environment="production",
        zones=("us-east-1a", "us-east-1b", "us-east-1c"),
        groups=(Group("karpenter-system", "managed", "m5.xlarge", 3, 3, 6),),
        workloads=(
            *_system(),
            _deployment("shop", "storefront", 8, 1000, 1536, budget=HALF),
            _deployment("shop", "catalog", 6, 1000, 2048, budget=HALF),
            _deployment("shop", "search", 4, 1500, 3072, budget=ONE_OUT),
            _deployment("batch", "workers", 10, 500, 1024, usage=STEADY),
        ),
        karpenter=(NodePool("default", families, cpu_limit=200),),
    )
    return (Account(CUSTOMER, (cluster,)),)


FLEETS: dict[str, Callable[[], tuple[Account, ...]]] = {
    "demo": _demo,
    "small": _small,
    "bench": _bench,
    "large": _large,
    "spot": _spot,
    "karpenter": _karpenter,
}
FLEET_NAMES = tuple(sorted([*FLEETS, "many"]))
