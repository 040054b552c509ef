"""API doors of clusters, what is in them, and the numbers that need no plan (E022–E039)."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.permissions import SuperAdminsOnly, actor_of, staff_of
from accounts.platform import get_safe_mode, set_safe_mode
from clusters import filters, serializers
from clusters.models import Action, Cluster, Instance, Interruption, NodeGroup, Workload
from clusters.selectors import metrics, registry
from clusters.services import groups
from clusters.services import registry as services
from spotopt.core.openapi import answers, page_of


class ClusterViewSet(ReadOnlyModelViewSet[Cluster]):
    """EKS clusters with their cost, size, health and agent."""

    collection = "clusters"
    serializer_class = serializers.ClusterSerializer
    filterset_class = filters.ClusterFilter
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Cluster]:
        """Return the organization's clusters with their measures."""
        return registry.clusters()

    @extend_schema(
        summary="List clusters", responses=answers(200, page_of("clusters", serializers.ClusterSerializer))
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page of clusters, by name unless ``sort`` says otherwise (``-cost`` for the dearest)."""
        return super().list(request, *args, **kwargs)

    @extend_schema(
        summary="Read a cluster", responses=answers(200, serializers.ClusterDetailSerializer, 404, 410)
    )
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return one cluster with its node groups and load; 410 when it was removed."""
        return Response(serializers.ClusterDetailSerializer(registry.cluster_detail(pk)).data)

    @extend_schema(
        summary="Change a cluster",
        request=serializers.ClusterChangeSerializer,
        responses=answers(200, serializers.ClusterDetailSerializer, 400, 404, 410),
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Change environment, tags or budget; what AWS names stays AWS's."""
        shape = serializers.ClusterChangeSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        services.update_cluster(cluster_id=pk, changes=shape.validated_data, actor=actor_of(request))
        return Response(serializers.ClusterDetailSerializer(registry.cluster_detail(pk)).data)

    @extend_schema(
        summary="Remove a cluster",
        request=serializers.RemovalSerializer,
        responses=answers(204, None, 400, 404, 409, 410),
    )
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Remove one by its typed name; owners only, 409 while work is under way."""
        shape = serializers.RemovalSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        services.remove_cluster(
            cluster_id=pk, typed_name=shape.validated_data["name"], actor=actor_of(request)
        )
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(summary="Sum up all clusters", responses=answers(200, serializers.SummarySerializer))
    @action(detail=False, pagination_class=None, filterset_class=None)
    def summary(self, request: Request) -> Response:
        """Return the organization's totals."""
        return Response(serializers.SummarySerializer(serializers.summary_of(registry.clusters())).data)

    @extend_schema(
        summary="Pause or resume a cluster",
        request=serializers.MaintenanceSerializer,
        responses=answers(200, serializers.ClusterDetailSerializer, 400, 404, 410),
    )
    @action(detail=True, methods=["patch"])
    def maintenance(self, request: Request, pk: UUID) -> Response:
        """Pause: no voluntary act touches the cluster until it is resumed."""
        shape = serializers.MaintenanceSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        services.set_maintenance(
            cluster_id=pk,
            is_paused=shape.validated_data["enabled"],
            reason=shape.validated_data["reason"],
            actor=actor_of(request),
        )
        return Response(serializers.ClusterDetailSerializer(registry.cluster_detail(pk)).data)


class InsideCluster(ListAPIView[Any]):
    """A list inside one cluster; another organization's cluster is not found."""

    @property
    def cluster_id(self) -> UUID:
        """Return the cluster's id once it is known to be ours."""
        return registry.cluster_named(self.kwargs["cluster_id"]).pk


@extend_schema(
    summary="List nodes", responses=answers(200, page_of("nodes", serializers.NodeSerializer), 404)
)
class ClusterNodes(InsideCluster):
    """The living nodes of a cluster, by name."""

    collection = "nodes"
    queryset = Instance.objects.none()
    serializer_class = serializers.NodeSerializer
    filterset_class = filters.NodeFilter

    def get_queryset(self) -> QuerySet[Instance]:
        """Return the nodes."""
        return registry.nodes_of(self.cluster_id)


@extend_schema(
    summary="List node groups",
    responses=answers(200, page_of("node_groups", serializers.NodeGroupSerializer), 404),
)
class ClusterNodeGroups(InsideCluster):
    """The node groups of a cluster, by name."""

    collection = "node_groups"
    queryset = NodeGroup.objects.none()
    serializer_class = serializers.NodeGroupSerializer

    def get_queryset(self) -> QuerySet[NodeGroup]:
        """Return the groups."""
        return registry.node_groups_of(self.cluster_id)


class NodeGroupMinimum(APIView):
    """The minimum size of an Auto Scaling group that plans lowered."""

    @extend_schema(
        summary="Restore a group's minimum", request=None,
        responses=answers(202, serializers.ActionSerializer, 403, 404, 409),
    )  # fmt: skip
    def put(self, request: Request, cluster_id: UUID, group_id: UUID) -> Response:
        """Queue the restoring; AWS launches what is missing, and plans keep the minimum from then on."""
        action = groups.restore_minimum(cluster_id=cluster_id, group_id=group_id, actor=actor_of(request))
        return Response(serializers.ActionSerializer(action).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(summary="Release a group's minimum", responses=answers(204, None, 403, 404))
    def delete(self, request: Request, cluster_id: UUID, group_id: UUID) -> Response:
        """Let plans lower the minimum again."""
        groups.release_minimum(cluster_id=cluster_id, group_id=group_id, actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema(
    summary="List workloads",
    responses=answers(200, page_of("workloads", serializers.WorkloadSerializer), 404),
)
class ClusterWorkloads(InsideCluster):
    """What runs in a cluster, as its agent last reported it."""

    collection = "workloads"
    queryset = Workload.objects.none()
    serializer_class = serializers.WorkloadSerializer
    filterset_class = filters.WorkloadFilter

    def get_queryset(self) -> QuerySet[Workload]:
        """Return the workloads."""
        return registry.workloads_of(self.cluster_id)


@extend_schema(
    summary="List actions", responses=answers(200, page_of("actions", serializers.ActionSerializer), 404)
)
class ClusterActions(InsideCluster):
    """The changes requested for a cluster and what became of them, newest first."""

    collection = "actions"
    queryset = Action.objects.none()
    serializer_class = serializers.ActionSerializer
    filterset_class = filters.ActionFilter

    def get_queryset(self) -> QuerySet[Action]:
        """Return the actions."""
        return registry.actions_of(self.cluster_id)


class InterruptionViewSet(ReadOnlyModelViewSet[Interruption]):
    """What AWS took back, or said it may take."""

    collection = "interruptions"
    queryset = Interruption.objects.none()
    serializer_class = serializers.InterruptionSerializer
    filterset_class = filters.InterruptionFilter
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Interruption]:
        """Return the organization's notices."""
        return registry.interruptions()

    @extend_schema(
        summary="List interruptions",
        responses=answers(200, page_of("interruptions", serializers.InterruptionSerializer), 400),
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page of notices, newest first."""
        return super().list(request, *args, **kwargs)

    @extend_schema(
        summary="Read an interruption", responses=answers(200, serializers.InterruptionSerializer, 404)
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one notice; its acts are the cluster's actions."""
        return super().retrieve(request, *args, **kwargs)


class Composition(APIView):
    """The fleet by family, lifecycle and region."""

    @extend_schema(
        summary="Read the fleet's composition",
        parameters=[serializers.ScopeSerializer],
        responses=answers(200, serializers.CompositionSerializer, 400),
    )
    def get(self, request: Request) -> Response:
        """Return shares of the running nodes in percent; each map sums to 100."""
        scope = serializers.ScopeSerializer.of(request.query_params)
        return Response(serializers.CompositionSerializer(metrics.composition(scope)).data)


class Savings(APIView):
    """The ledger's sum."""

    @extend_schema(
        summary="Read the booked savings",
        parameters=[serializers.ScopeSerializer],
        responses=answers(200, serializers.SavingsSerializer, 400),
    )
    def get(self, request: Request) -> Response:
        """Return what was saved so far, to the last decimal, and until when it is booked."""
        scope = serializers.ScopeSerializer.of(request.query_params)
        return Response(serializers.SavingsSerializer(metrics.savings(scope)).data)


class Timeseries(APIView):
    """Cost, size and load over time."""

    @extend_schema(
        summary="Read cost over time",
        parameters=[serializers.TimeseriesRequestSerializer],
        responses=answers(200, serializers.PointSerializer(many=True), 400),
    )
    def get(self, request: Request) -> Response:
        """Return the mean of each bin; bins that nobody sampled are absent."""
        shape = serializers.TimeseriesRequestSerializer(data=request.query_params)
        shape.is_valid(raise_exception=True)
        period = shape.period()
        points = metrics.timeseries(shape.scope(), start=period.start, end=period.end)
        return Response({"points": serializers.PointSerializer(points, many=True).data, "total": len(points)})


class PlatformSwitches(APIView):
    """The switches of the whole platform; staff only."""

    permission_classes = [SuperAdminsOnly]

    @extend_schema(summary="Read the switches", responses=answers(200, serializers.SafeModeSerializer))
    def get(self, request: Request) -> Response:
        """Return safe mode: off, on (only clean-up and reactions) or freeze (nothing)."""
        return Response({"safe_mode": get_safe_mode()})

    @extend_schema(
        summary="Throw a switch",
        request=serializers.SafeModeSerializer,
        responses=answers(200, serializers.SafeModeSerializer, 400),
    )
    def patch(self, request: Request) -> Response:
        """Change safe mode for every organization at once."""
        shape = serializers.SafeModeSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        return Response(
            {"safe_mode": set_safe_mode(actor=staff_of(request), value=shape.validated_data["safe_mode"])}
        )
