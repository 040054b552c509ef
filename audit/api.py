"""API doors of the record (E025, E064, E065, E068); everybody in the organization reads, nobody writes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.generics import ListAPIView
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from audit import selectors, serializers
from audit.filters import EventFilter
from audit.models import AuditLog
from spotopt.core.clock import utcnow
from spotopt.core.openapi import answers, page_of


class EventViewSet(ReadOnlyModelViewSet[AuditLog]):
    """Immutable events, newest first."""

    collection = "logs"
    serializer_class = serializers.EventSerializer
    filterset_class = EventFilter
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[AuditLog]:
        """Return the organization's events."""
        return selectors.events()

    @extend_schema(
        summary="List events", responses=answers(200, page_of("logs", serializers.EventSerializer), 400)
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page; dates are UTC days unless they carry an offset."""
        return super().list(request, *args, **kwargs)

    @extend_schema(summary="Read an event", responses=answers(200, serializers.EventDetailSerializer, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return one event with what it changed and its place in the chain."""
        return Response(serializers.EventDetailSerializer(selectors.event_by_id(pk)).data)

    @extend_schema(
        summary="Read what an event changed", responses=answers(200, serializers.DiffSerializer, 404)
    )
    @action(detail=True)
    def diff(self, request: Request, pk: UUID) -> Response:
        """Return before, after and each field that differs."""
        return Response(serializers.DiffSerializer.of(selectors.event_by_id(pk)))

    @extend_schema(summary="Verify the chain", responses=answers(200, serializers.ChainSerializer))
    @action(detail=False, pagination_class=None, filterset_class=None)
    def verify(self, request: Request) -> Response:
        """Re-compute every hash and name the first event that is missing, moved or altered."""
        found = selectors.chain_state()
        answer = {"ok": found.broken_at is None, "rows": found.rows, "first_bad_seq": found.broken_at}
        return Response(serializers.ChainSerializer(answer).data)

    @extend_schema(
        summary="Sum up the record",
        parameters=[serializers.PeriodSerializer],
        responses=answers(200, serializers.RecordSummarySerializer, 400),
    )
    @action(detail=False, pagination_class=None, filterset_class=None)
    def summary(self, request: Request) -> Response:
        """Return how much happened, by whom, and how much of it succeeded."""
        shape = serializers.PeriodSerializer(data=request.query_params)
        shape.is_valid(raise_exception=True)
        now = utcnow()
        found = selectors.record_summary(start=now - timedelta(days=shape.validated_data["days"]), end=now)
        return Response(serializers.RecordSummarySerializer(found).data)


class FeedPages(LimitOffsetPagination):
    """The documented envelope of the feed."""

    default_limit = 50
    max_limit = 100

    def get_paginated_response(self, data: Any) -> Response:
        """Return the events and how many there are."""
        return Response({"events": data, "total": self.count})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe the envelope in the OpenAPI document."""
        return {"type": "object", "properties": {"events": schema, "total": {"type": "integer"}}}


@extend_schema(
    summary="Read the live feed", responses=answers(200, serializers.ActivitySerializer(many=True))
)
class LiveActivity(ListAPIView[AuditLog]):
    """What happened last, in plain English."""

    serializer_class = serializers.ActivitySerializer
    pagination_class = FeedPages
    filter_backends: list[Any] = []

    def get_queryset(self) -> QuerySet[AuditLog]:
        """Return the organization's events, newest first."""
        return selectors.events()
