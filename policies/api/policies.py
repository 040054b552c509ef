"""API doors of policies: the document whole (E056), and knob by knob (E046–E054)."""

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from accounts.permissions import ReadForViewersWriteForMembers, Role, actor_of, has_role, membership_in
from policies.models import PolicyRevision
from policies.selectors.policies import revisions
from policies.serializers import policies as shapes
from policies.services import policies as services
from spotopt.core.openapi import answers, page_of


class ViewersMayPreview(ReadForViewersWriteForMembers):
    """Viewers may preview too: it writes nothing."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Tell whether the caller may ask."""
        if getattr(view, "action", "") != "preview":
            return super().has_permission(request, view)
        return request.user.is_authenticated and has_role(membership_in(request), Role.VIEWER)


class PolicyViewSet(GenericViewSet[PolicyRevision]):
    """The policy of a cluster: one versioned document within a template's boundary."""

    serializer_class = shapes.PolicySerializer
    permission_classes = [ViewersMayPreview]
    lookup_field = "cluster_id"
    lookup_value_converter = "uuid"
    collection = "revisions"
    queryset = PolicyRevision.objects.none()

    def get_queryset(self) -> QuerySet[PolicyRevision]:
        """Return every version that was saved, newest first."""
        return revisions(self.kwargs["cluster_id"])

    @extend_schema(summary="Read a policy", responses=answers(200, shapes.PolicySerializer, 404))
    def retrieve(self, request: Request, cluster_id: UUID) -> Response:
        """Return the policy; a cluster without one shows the defaults as version 0."""
        return Response(shapes.PolicySerializer(services.policy_of(cluster_id)).data)

    @extend_schema(
        summary="Change a policy",
        request=shapes.PolicyChangeSerializer,
        responses=answers(200, shapes.ChangedSerializer, 400, 404, 409),
    )
    def partial_update(self, request: Request, cluster_id: UUID) -> Response:
        """Turn any knobs at once; 409 names the other editor when somebody saved since ``version``."""
        shape = shapes.PolicyChangeSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        policy = services.change_policy(cluster_id=cluster_id, change=shape.change(), actor=actor_of(request))
        return Response(shapes.ChangedSerializer.of(policy))

    @extend_schema(summary="Reset a policy", responses=answers(200, shapes.ChangedSerializer, 404))
    def destroy(self, request: Request, cluster_id: UUID) -> Response:
        """Put every knob back to its default, as a new version."""
        policy = services.reset_policy(cluster_id=cluster_id, actor=actor_of(request))
        return Response(shapes.ChangedSerializer.of(policy))

    @extend_schema(
        summary="List a policy's versions",
        responses=answers(200, page_of("revisions", shapes.RevisionSerializer)),
    )
    @action(detail=True, url_path="revisions")
    def list_revisions(self, request: Request, cluster_id: UUID) -> Response:
        """Return who changed what, newest first."""
        services.policy_of(cluster_id)
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(shapes.RevisionSerializer(page, many=True).data)

    @extend_schema(
        summary="Revert a policy",
        request=shapes.RevertSerializer,
        responses=answers(200, shapes.ChangedSerializer, 404, 409),
    )
    @action(detail=True, methods=["post"])
    def revert(self, request: Request, cluster_id: UUID) -> Response:
        """Say again, as a new version, what an older one said."""
        shape = shapes.RevertSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        policy = services.revert_policy(
            cluster_id=cluster_id, version=shape.validated_data["version"], actor=actor_of(request)
        )
        return Response(shapes.ChangedSerializer.of(policy))

    @extend_schema(
        summary="Preview a policy",
        request=shapes.PreviewRequestSerializer,
        responses=answers(200, shapes.PreviewSerializer, 400, 404, 409),
    )
    @action(detail=False, methods=["post"])
    def preview(self, request: Request) -> Response:
        """Return the document as it would be saved, and what to know before saving it."""
        shape = shapes.PreviewRequestSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        preview = services.preview_policy(
            cluster_id=shape.validated_data["cluster_id"], change=shape.change()
        )
        return Response(shapes.PreviewSerializer(preview).data)


class PolicyKnob(APIView):
    """One slice of a policy."""

    shape: ClassVar[type[shapes.KnobSerializer]]

    def patch(self, request: Request) -> Response:
        """Change the slice; the answer carries the whole document at its new version."""
        shape = self.shape(data=request.data)
        shape.is_valid(raise_exception=True)
        policy = services.change_policy(
            cluster_id=shape.validated_data["cluster_id"], change=shape.change(), actor=actor_of(request)
        )
        return Response(shapes.ChangedSerializer.of(policy))


def _knob(shape: type[shapes.KnobSerializer]) -> type[PolicyKnob]:
    name = shape.__name__.removesuffix("Serializer")
    described = extend_schema(
        operation_id=f"policies_{name.lower()}_partial_update",
        summary=(shape.__doc__ or name).splitlines()[0].rstrip("."),
        request=shape,
        responses=answers(200, shapes.ChangedSerializer, 400, 404, 409),
    )
    return extend_schema_view(patch=described)(type(f"{name}Knob", (PolicyKnob,), {"shape": shape}))


KNOBS = {
    "karpenter": _knob(shapes.KarpenterSerializer),
    "strategy": _knob(shapes.StrategySerializer),
    "binpack": _knob(shapes.BinpackSerializer),
    "fallback": _knob(shapes.FallbackSerializer),
    "spread": _knob(shapes.SpreadSerializer),
    "exclusions": _knob(shapes.ExclusionsSerializer),
    "rightsize": _knob(shapes.RightsizeSerializer),
    "buffer": _knob(shapes.BufferSerializer),
    "constraints": _knob(shapes.ConstraintsSerializer),
    "affinity": _knob(shapes.AffinitySerializer),
}
"""Path under ``/policies/`` → its door."""
