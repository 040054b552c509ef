"""API doors of optimizer runs and plans (E032, E036)."""

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
from rest_framework.viewsets import GenericViewSet, ReadOnlyModelViewSet

from accounts.permissions import actor_of
from accounts.platform import get_safe_mode
from clusters.selectors.registry import cluster_named
from policies.filters import JobFilter, PlanFilter
from policies.models import OptimizationJob, Plan
from policies.selectors.jobs import jobs, plans, steps
from policies.serializers.plans import (
    ESTIMATED_TIME,
    JobSerializer,
    OptimizeRequestedSerializer,
    PlanDetailSerializer,
    PlanSerializer,
    RefusalSerializer,
    RejectionSerializer,
    StepSerializer,
)
from policies.services import execution, planning
from policies.services.jobs import cancel_job
from spotopt.core.openapi import answers, page_of


class OptimizeNow(APIView):
    """Run the optimizer on a cluster now."""

    @extend_schema(
        summary="Optimize a cluster",
        request=None,
        responses=answers(202, OptimizeRequestedSerializer, 404, 409),
    )
    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Queue a run; 409 names the run or plan under way, 429 says how long the cooldown lasts."""
        job = planning.request_optimization(cluster_id=cluster_id, actor=actor_of(request))
        answer = {
            "job_id": job.pk,
            "status": job.status,
            "estimated_time": ESTIMATED_TIME,
            "dry_run": get_safe_mode() != "off",
        }
        return Response(OptimizeRequestedSerializer(answer).data, status.HTTP_202_ACCEPTED)


@extend_schema(
    summary="List a cluster's optimizer runs", responses=answers(200, page_of("jobs", JobSerializer), 404)
)
class ClusterJobs(ListAPIView[OptimizationJob]):
    """The optimizer runs of a cluster, newest first."""

    collection = "jobs"
    queryset = OptimizationJob.objects.none()
    serializer_class = JobSerializer
    filterset_class = JobFilter

    def get_queryset(self) -> QuerySet[OptimizationJob]:
        """Return the cluster's runs; raise NotFound for another organization's cluster."""
        return jobs(cluster_id=cluster_named(self.kwargs["cluster_id"]).pk)


class JobViewSet(GenericViewSet[OptimizationJob]):
    """Optimizer runs."""

    serializer_class = JobSerializer
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[OptimizationJob]:
        """Return the organization's runs."""
        return jobs()

    @extend_schema(summary="Read an optimizer run", responses=answers(200, JobSerializer, 404))
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return one run with the plan it proposed."""
        return Response(JobSerializer(self.get_object()).data)

    @extend_schema(summary="Cancel an optimizer run", responses=answers(200, JobSerializer, 404, 409))
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Cancel a run: a worker that has it stops before its next step; 409 when it is over."""
        return Response(JobSerializer(cancel_job(job_id=pk, actor=actor_of(request))).data)


class PlanViewSet(ReadOnlyModelViewSet[Plan]):
    """Plans: what an optimizer run proposes, and how far its execution has come."""

    collection = "plans"
    lookup_value_converter = "uuid"
    filterset_class = PlanFilter

    def get_queryset(self) -> QuerySet[Plan]:
        """Return the organization's plans, newest first."""
        return (
            plans().defer("document", "refusals", "constraint_prices") if self.action == "list" else plans()
        )

    def get_serializer_class(self) -> type[PlanSerializer]:
        """Return the short shape for the list, the long one for a single plan."""
        return PlanSerializer if self.action == "list" else PlanDetailSerializer

    @extend_schema(summary="List plans", responses=answers(200, page_of("plans", PlanSerializer)))
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page, newest first; filter by ``cluster_id`` and ``status``."""
        return super().list(request, *args, **kwargs)

    @extend_schema(
        summary="List a plan's steps", responses=answers(200, page_of("steps", StepSerializer), 404)
    )
    @action(detail=True, filterset_class=None)
    def steps(self, request: Request, pk: UUID) -> Response:
        """Return the steps in order, with the state of what carries each out."""
        self.collection = "steps"
        page = self.paginate_queryset(steps(self.get_object().pk))  # type: ignore[arg-type]  # rows of another table
        return self.get_paginated_response(StepSerializer(page, many=True).data)

    @extend_schema(
        summary="List what the optimizer declined",
        responses=answers(200, page_of("refusals", RefusalSerializer), 404),
    )
    @action(detail=True, filterset_class=None)
    def refusals(self, request: Request, pk: UUID) -> Response:
        """Return every refusal with its reason."""
        self.collection = "refusals"
        page = self.paginate_queryset(self.get_object().refusals)
        return self.get_paginated_response(RefusalSerializer(page, many=True).data)

    @extend_schema(
        summary="Approve a plan", request=None, responses=answers(202, PlanDetailSerializer, 404, 409)
    )
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: UUID) -> Response:
        """Start carrying a plan out; 409 when prices moved, or another plan is under way."""
        plan = execution.approve_plan(plan_id=pk, actor=actor_of(request))
        return Response(PlanDetailSerializer(plan).data, status.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="Reject a plan",
        request=RejectionSerializer,
        responses=answers(200, PlanDetailSerializer, 404, 409),
    )
    @action(detail=True, methods=["post"])
    def reject(self, request: Request, pk: UUID) -> Response:
        """Turn a proposal down; nothing in the cluster changes."""
        shape = RejectionSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        plan = execution.reject_plan(
            plan_id=pk, actor=actor_of(request), reason=shape.validated_data["reason"]
        )
        return Response(PlanDetailSerializer(plan).data)

    @extend_schema(
        summary="Stop a plan",
        request=RejectionSerializer,
        responses=answers(202, PlanDetailSerializer, 404, 409),
    )
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: UUID) -> Response:
        """Stop a running plan safely: nothing new starts, cordoned nodes open again."""
        shape = RejectionSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        plan = execution.stop_plan(plan_id=pk, actor=actor_of(request), reason=shape.validated_data["reason"])
        return Response(PlanDetailSerializer(plan).data, status.HTTP_202_ACCEPTED)
