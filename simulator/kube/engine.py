"""Drives one cluster through time: controllers until nothing moves, scheduler, Karpenter, the journal."""

from datetime import datetime, timedelta

from simulator.kube import disruption, karpenter, kubelet, nodes, ordered, replicas, scheduler
from simulator.kube.cluster import Cluster

RECONCILERS = {
    "machines": lambda cluster, _, name: nodes.reconcile_machine(cluster, name),
    "nodes": lambda cluster, _, name: nodes.reconcile_node(cluster, name),
    "pods": kubelet.reconcile_pod,
    "replicasets": replicas.reconcile_replicaset,
    "deployments": replicas.reconcile_deployment,
    "statefulsets": ordered.reconcile_statefulset,
    "daemonsets": ordered.reconcile_daemonset,
    "poddisruptionbudgets": disruption.reconcile_budget,
    "nodepools": lambda *_: None,  # Karpenter looks at everything at each step
}


def step(cluster: Cluster, now: datetime) -> None:
    """Do everything that is due at an instant; time never runs backwards. Durable when it returns."""
    cluster.now = max(cluster.now, now)
    cluster.take_due()
    while True:
        settle(cluster)
        if not scheduler.run(cluster) and not cluster.queue:
            break
    karpenter.run(cluster)
    cluster.store.flush()


def settle(cluster: Cluster) -> None:
    """Run the controllers until none has anything to do."""
    while cluster.queue:
        resource, namespace, name = next(iter(cluster.queue))
        del cluster.queue[resource, namespace, name]
        RECONCILERS[resource](cluster, namespace, name)


def run_until(cluster: Cluster, end: datetime, *, stride: timedelta) -> None:
    """Live through the time to `end`, looking at least every stride where something is due."""
    while (due := cluster.next_due()) is not None and due < end:
        step(cluster, min(end, max(due, cluster.now + stride)))
    step(cluster, end)
