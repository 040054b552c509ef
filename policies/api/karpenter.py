"""API doors of Karpenter: what it is to be told in a cluster, and having it told."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.permissions import actor_of
from clusters.selectors.registry import cluster_named
from policies.selectors.karpenter import karpenter_of
from policies.serializers.karpenter import ApplySerializer, KarpenterViewSerializer
from policies.services.karpenter import apply_steering
from spotopt.core.openapi import answers


class ClusterKarpenter(APIView):
    """Karpenter in one cluster."""

    @extend_schema(summary="Read a cluster's Karpenter", responses=answers(200, KarpenterViewSerializer, 404))
    def get(self, request: Request, cluster_id: UUID) -> Response:
        """Return each node pool, what Karpenter is to be told beside it, and what came of it."""
        return Response(KarpenterViewSerializer(karpenter_of(cluster_id)).data)


class ApplySteering(APIView):
    """Have our node pool applied."""

    @extend_schema(
        summary="Apply our node pool",
        request=ApplySerializer,
        responses=answers(202, KarpenterViewSerializer, 400, 404, 409),
    )
    def post(self, request: Request, cluster_id: UUID, steering_id: UUID) -> Response:
        """Have the agent apply the object with this fingerprint; 409 when another one is wanted by now."""
        cluster_named(cluster_id)
        wanted = ApplySerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        apply_steering(
            cluster_id=cluster_id,
            steering_id=steering_id,
            fingerprint=wanted.validated_data["fingerprint"],
            actor=actor_of(request),
        )
        return Response(KarpenterViewSerializer(karpenter_of(cluster_id)).data, status.HTTP_202_ACCEPTED)
