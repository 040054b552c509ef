"""API doors of the dashboard's numbers that need risk or plans (E022, E023)."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from clusters.serializers import ScopeSerializer
from policies.selectors import metrics
from policies.serializers.metrics import KpiSerializer, ProjectionRequestSerializer, ProjectionSerializer
from spotopt.core.clock import utcnow
from spotopt.core.openapi import answers


class Kpi(APIView):
    """Spend, booked savings, health, nodes and efficiency."""

    @extend_schema(
        summary="Read the dashboard's cards",
        parameters=[ScopeSerializer],
        responses=answers(200, KpiSerializer, 400),
    )
    def get(self, request: Request) -> Response:
        """Return the cards of the organization, one AWS account or one cluster."""
        found = metrics.kpi(ScopeSerializer.of(request.query_params), now=utcnow())
        return Response(KpiSerializer.of(found))


class Projection(APIView):
    """What could be saved, as a forecast."""

    @extend_schema(
        summary="Read the savings forecast",
        parameters=[ProjectionRequestSerializer],
        responses=answers(200, ProjectionSerializer, 400),
    )
    def get(self, request: Request) -> Response:
        """Return what waits for approval beside what is spent; nothing here was saved yet."""
        shape = ProjectionRequestSerializer(data=request.query_params)
        shape.is_valid(raise_exception=True)
        now = utcnow()
        found = metrics.projection(shape.scope(), since=now - shape.reach(), now=now)
        return Response(ProjectionSerializer.of(found))
