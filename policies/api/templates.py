"""API doors of node templates (E041–E045, E055)."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.permissions import ReadForViewersWriteForMembers, Role, actor_of, has_role, membership_in
from policies.models import NodeTemplate
from policies.selectors.templates import templates
from policies.serializers.templates import (
    CloneSerializer,
    FindingsSerializer,
    StarredSerializer,
    TemplateChangeSerializer,
    TemplateDraftSerializer,
    TemplateExamSerializer,
    TemplateSerializer,
)
from policies.services import templates as services
from spotopt.core.fields import per_month
from spotopt.core.openapi import answers, page_of


class ViewersMayExamine(ReadForViewersWriteForMembers):
    """Viewers may ask the validator too: it writes nothing."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether the caller may ask."""
        if request.method in SAFE_METHODS or view.action != "validate":
            return super().has_permission(request, view)
        return request.user.is_authenticated and has_role(membership_in(request), Role.VIEWER)


class TemplateViewSet(ReadOnlyModelViewSet[NodeTemplate]):
    """Node templates: the boundary around what Spotopt may launch."""

    collection = "templates"
    serializer_class = TemplateSerializer
    permission_classes = [ViewersMayExamine]
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[NodeTemplate]:
        """Return the organization's templates that ``search`` finds."""
        return templates(search=self.request.query_params.get("search", "").replace("\x00", ""))

    @extend_schema(
        summary="List templates",
        parameters=[OpenApiParameter("search", str, description="Part of a name or a family.")],
        responses=answers(200, page_of("templates", TemplateSerializer)),
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page, the default first, then by name."""
        return super().list(request, *args, **kwargs)

    @extend_schema(
        summary="Create a template",
        request=TemplateDraftSerializer,
        responses=answers(201, TemplateSerializer, 400, 409),
    )
    def create(self, request: Request) -> Response:
        """Create one; 409 when the name is taken, 400 when the validator finds an error."""
        shape = TemplateDraftSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        template = services.create_template(draft=shape.draft(), actor=actor_of(request))
        return Response({"success": True, **TemplateSerializer(template).data}, status.HTTP_201_CREATED)

    @extend_schema(
        summary="Change a template",
        request=TemplateChangeSerializer,
        responses=answers(200, TemplateSerializer, 400, 404, 409),
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Change some fields; 409 when somebody saved since ``version``, or for a system template."""
        shape = TemplateChangeSerializer(data=request.data, partial=True)
        shape.is_valid(raise_exception=True)
        template = services.update_template(
            template_id=pk,
            changes=shape.changes(),
            version=shape.validated_data.get("version"),
            actor=actor_of(request),
        )
        return Response(TemplateSerializer(template).data)

    @extend_schema(summary="Delete a template", responses=answers(200, None, 404, 409))
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete one; 409 with the names of the clusters that use it."""
        template = services.delete_template(template_id=pk, actor=actor_of(request))
        return Response({"success": True, "message": f"{template.name} was deleted."})

    @extend_schema(
        summary="Make a template the default", request=None, responses=answers(200, StarredSerializer, 404)
    )
    @action(detail=True, methods=["patch"], url_path="default")
    def default(self, request: Request, pk: UUID) -> Response:
        """Move the star; the same template again changes nothing."""
        starred = services.set_default(template_id=pk, actor=actor_of(request))
        answer = {
            "success": True,
            "previous_default": starred.previous_id,
            "new_default": starred.template.pk,
        }
        return Response(StarredSerializer(answer).data)

    @extend_schema(
        summary="Clone a template",
        request=CloneSerializer,
        responses=answers(201, TemplateSerializer, 404, 409),
    )
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: UUID) -> Response:
        """Return an editable copy; system templates are cloned, never changed."""
        shape = CloneSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        copy = services.clone_template(
            template_id=pk, name=shape.validated_data["name"], actor=actor_of(request)
        )
        return Response(TemplateSerializer(copy).data, status.HTTP_201_CREATED)

    @extend_schema(
        summary="Examine a draft",
        request=TemplateExamSerializer,
        responses=answers(200, FindingsSerializer, 400),
    )
    @action(detail=False, methods=["post"])
    def validate(self, request: Request) -> Response:
        """Return every issue of a draft and its price range; nothing is written."""
        shape = TemplateExamSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        found = services.examine_draft(shape.draft(), region=shape.validated_data.get("region"))
        low, high = found.min_usd_per_hour, found.max_usd_per_hour
        answer = {
            "valid": found.is_valid,
            "warnings": [issue.message for issue in found.issues if issue.severity != "INFO"],
            "issues": found.issues,
            "estimated_cost_range": {
                "min_hourly": low,
                "max_hourly": high,
                "min_monthly": None if low is None else per_month(low),
                "max_monthly": None if high is None else per_month(high),
            },
        }
        return Response(FindingsSerializer(answer).data)
