"""API doors of what-ifs."""

from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from accounts.permissions import actor_of
from clusters.selectors.registry import cluster_named
from policies.models import WhatIf
from policies.selectors.whatif import what_ifs
from policies.serializers.whatif import WhatIfRequestSerializer, WhatIfSerializer
from policies.services.comparison import request_what_if
from policies.services.jobs import cancel_what_if
from spotopt.core.openapi import answers, page_of


class ClusterWhatIfs(ListAPIView[WhatIf]):
    """What a cluster would cost under other rules, prices or commitments."""

    collection = "what_ifs"
    queryset = WhatIf.objects.none()
    serializer_class = WhatIfSerializer
    filterset_class = None

    def get_queryset(self) -> QuerySet[WhatIf]:
        """Return the cluster's what-ifs; raise NotFound for another organization's cluster."""
        return what_ifs(cluster_id=cluster_named(self.kwargs["cluster_id"]).pk)

    @extend_schema(
        summary="List a cluster's what-ifs",
        responses=answers(200, page_of("what_ifs", WhatIfSerializer), 404),
    )
    def get(self, request: Request, cluster_id: UUID) -> Response:
        """Return a page, newest first."""
        return self.list(request)

    @extend_schema(
        summary="Ask what a cluster would cost",
        request=WhatIfRequestSerializer,
        responses=answers(202, WhatIfSerializer, 400, 404, 409),
    )
    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Queue the comparison; 409 names the one under way."""
        cluster_named(cluster_id)
        shape = WhatIfRequestSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        what_if = request_what_if(cluster_id=cluster_id, drafts=shape.drafts(), actor=actor_of(request))
        return Response(WhatIfSerializer(what_if).data, status.HTTP_202_ACCEPTED)


class WhatIfViewSet(GenericViewSet[WhatIf]):
    """What-ifs, one by one."""

    serializer_class = WhatIfSerializer
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[WhatIf]:
        """Return the organization's what-ifs."""
        return what_ifs()

    @extend_schema(summary="Read a what-if", responses=answers(200, WhatIfSerializer, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return the scenarios side by side, as far as they are computed."""
        return Response(WhatIfSerializer(self.get_object()).data)

    @extend_schema(summary="Cancel a what-if", responses=answers(200, WhatIfSerializer, 404, 409))
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Stop the computation before its next step; what was found stays."""
        return Response(WhatIfSerializer(cancel_what_if(what_if_id=pk, actor=actor_of(request))).data)
