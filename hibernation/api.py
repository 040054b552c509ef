"""API doors of hibernation schedules (E057, E060–E062); what is saved is not carried out yet."""

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.permissions import actor_of
from hibernation import selectors, services
from hibernation import serializers as shapes
from hibernation.models import HibernationSchedule
from spotopt.core.openapi import answers, page_of


class ScheduleViewSet(ReadOnlyModelViewSet[HibernationSchedule]):
    """Weekly schedules, one for each cluster."""

    collection = "schedules"
    serializer_class = shapes.ScheduleSerializer
    lookup_field = "cluster_id"
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[HibernationSchedule]:
        """Return the organization's schedules."""
        return selectors.schedules()

    @extend_schema(
        summary="List schedules", responses=answers(200, page_of("schedules", shapes.ScheduleSerializer))
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page of saved schedules, by cluster name."""
        return super().list(request, *args, **kwargs)

    @extend_schema(summary="Read a schedule", responses=answers(200, shapes.WeekSerializer, 404, 410))
    def retrieve(self, request: Request, cluster_id: UUID) -> Response:
        """Return a cluster's week; one that nobody set is awake throughout."""
        return Response(shapes.WeekSerializer.of(selectors.week_of(cluster_id)))

    @extend_schema(
        summary="Change a schedule",
        request=shapes.ScheduleChangeSerializer,
        responses=answers(200, shapes.WeekSerializer, 400, 404, 410),
    )
    def partial_update(self, request: Request, cluster_id: UUID) -> Response:
        """Change some parts of a cluster's week."""
        shape = shapes.ScheduleChangeSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        saved = services.save_schedule(cluster_id=cluster_id, change=shape.change(), actor=actor_of(request))
        return Response(shapes.WeekSerializer.of(selectors.week(saved)))

    @extend_schema(summary="Clear a schedule", responses=answers(200, shapes.WeekSerializer, 404, 410))
    def destroy(self, request: Request, cluster_id: UUID) -> Response:
        """Make every hour of a cluster's week awake again."""
        saved = services.clear_schedule(cluster_id=cluster_id, actor=actor_of(request))
        return Response(shapes.WeekSerializer.of(selectors.week(saved)))


class ScheduleDoor(APIView):
    """One part of the schedule of the cluster that the body names."""

    shape: ClassVar[type[Any]]

    def _save(self, request: Request) -> Response:
        shape = self.shape(data=request.data)
        shape.is_valid(raise_exception=True)
        saved = services.save_schedule(
            cluster_id=shape.validated_data["cluster_id"], change=shape.change(), actor=actor_of(request)
        )
        return Response({"success": True, **shapes.WeekSerializer.of(selectors.week(saved))})


_ANSWERS = answers(200, shapes.WeekSerializer, 400, 404, 410)


class SetSchedule(ScheduleDoor):
    """The whole week."""

    shape = shapes.ScheduleRequestSerializer

    @extend_schema(summary="Set a schedule", request=shapes.ScheduleRequestSerializer, responses=_ANSWERS)
    def post(self, request: Request) -> Response:
        """Save 168 hours; 400 names the first wrong one."""
        return self._save(request)


class SetTimezone(ScheduleDoor):
    """The zone whose wall time the hours mean."""

    shape = shapes.TimezoneSerializer

    @extend_schema(summary="Set a time zone", request=shapes.TimezoneSerializer, responses=_ANSWERS)
    def patch(self, request: Request) -> Response:
        """Keep the hours' wall-clock meaning in another zone."""
        return self._save(request)


class SetPrewarm(ScheduleDoor):
    """How early nodes start."""

    shape = shapes.PrewarmSerializer

    @extend_schema(summary="Set the soft start", request=shapes.PrewarmSerializer, responses=_ANSWERS)
    def patch(self, request: Request) -> Response:
        """Start nodes some minutes before the first awake hour."""
        return self._save(request)
