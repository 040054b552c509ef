"""What lists of the clusters API can be narrowed to and sorted by."""

from django.db.models import Q, QuerySet
from django_filters import rest_framework as filters

from clusters.domain.contact import CONNECTED_WITHIN
from clusters.models import Action, Cluster, Instance, Interruption, Workload
from spotopt.core.clock import utcnow


class ClusterFilter(filters.FilterSet):
    """Clusters by account, place, environment, agent and words."""

    account = filters.UUIDFilter(field_name="account_id")
    search = filters.CharFilter(method="by_words", help_text="Part of a name, region, ARN or tag value.")
    agent = filters.ChoiceFilter(
        method="by_agent", choices=[(state, state) for state in ("connected", "lost", "never")]
    )
    lifecycle = filters.ChoiceFilter(field_name="status", choices=Cluster.Status.choices)
    sort = filters.OrderingFilter(
        fields={
            "name": "name",
            "region": "region",
            "usd_per_hour": "cost",
            "node_total": "nodes",
            "spot_total": "spot",
            "pod_count": "pods",
            "usd_booked": "savings",
        }
    )

    class Meta:
        model = Cluster
        fields = ["region", "environment", "maintenance_mode"]

    def by_words(self, rows: QuerySet[Cluster], _name: str, text: str) -> QuerySet[Cluster]:
        """Narrow to clusters that the text is found in."""
        found = Q(name__icontains=text) | Q(region__icontains=text) | Q(arn__icontains=text)
        return rows.filter(found | Q(tags__icontains=text))

    def by_agent(self, rows: QuerySet[Cluster], _name: str, state: str) -> QuerySet[Cluster]:
        """Narrow to clusters whose agent is in touch, silent, or was never heard."""
        if state == "never":
            return rows.filter(last_heartbeat_at=None)
        since = utcnow() - CONNECTED_WITHIN
        if state == "connected":
            return rows.filter(last_heartbeat_at__gt=since)
        return rows.filter(last_heartbeat_at__lte=since)


class NodeFilter(filters.FilterSet):
    """Nodes by lifecycle, type, zone, readiness and words."""

    search = filters.CharFilter(method="by_words", help_text="Part of a node's name or instance id.")
    sort = filters.OrderingFilter(
        fields={
            "node_name": "name",
            "instance_type": "type",
            "price": "price",
            "launched_at": "age",
            "az": "zone",
        }
    )

    class Meta:
        model = Instance
        fields = ["lifecycle", "instance_type", "az", "is_ready", "is_cordoned"]

    def by_words(self, rows: QuerySet[Instance], _name: str, text: str) -> QuerySet[Instance]:
        """Narrow to nodes that the text is found in."""
        return rows.filter(Q(node_name__icontains=text) | Q(instance_id__icontains=text))


class WorkloadFilter(filters.FilterSet):
    """Workloads by namespace, kind and words."""

    search = filters.CharFilter(field_name="key", lookup_expr="icontains")
    sort = filters.OrderingFilter(
        fields={
            "key": "name",
            "replicas": "replicas",
            "cpu_request_millis": "cpu",
            "memory_request_mib": "memory",
        }
    )

    class Meta:
        model = Workload
        fields = ["namespace", "kind"]


class ActionFilter(filters.FilterSet):
    """Actions by status, kind and plan."""

    status = filters.MultipleChoiceFilter(choices=Action.Status.choices)

    class Meta:
        model = Action
        fields = ["status", "kind", "plan_id"]


class InterruptionFilter(filters.FilterSet):
    """Notices by cluster, kind, status, pool and time."""

    cluster_id = filters.UUIDFilter()
    status = filters.MultipleChoiceFilter(choices=Interruption.Status.choices)
    since = filters.IsoDateTimeFilter(field_name="noticed_at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="noticed_at", lookup_expr="lt")

    class Meta:
        model = Interruption
        fields = ["kind", "source", "zone_id", "instance_type"]
