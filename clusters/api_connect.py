"""API doors of the connection to AWS: verify a role, follow a scan, ask for another."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.permissions import actor_of
from clusters.models import Cluster, DiscoveryRun
from clusters.selectors import discovery
from clusters.services import linking, scanning
from clusters.services.linking import Verification
from spotopt.core.fields import Instant, RowSerializer
from spotopt.core.openapi import answers


class VerifyRequestSerializer(serializers.Serializer[Any]):
    """The account's row and the role that its stack made; an external id is never taken from a caller."""

    account_id = serializers.UUIDField(help_text="Id of the account's row, from /connect/link.")
    role_arn = serializers.CharField(max_length=255)


class PermissionSerializer(serializers.Serializer[Any]):
    """One permission; ``granted`` is null when AWS offers no way to find out."""

    action = serializers.CharField()
    granted = serializers.BooleanField(source="is_granted", allow_null=True)
    needed_for = serializers.CharField(source="purpose")
    note = serializers.CharField()


class CountSerializer(serializers.Serializer[Any]):
    """A first look at one region."""

    instances = serializers.IntegerField(source="instances_seen")
    clusters = serializers.IntegerField(source="clusters_seen")
    is_partial = serializers.BooleanField(help_text="There may be more than was counted.")


class VerificationSerializer(serializers.Serializer[Any]):
    """A proved link (F014)."""

    status = serializers.SerializerMethodField(help_text="verified")
    message = serializers.SerializerMethodField()
    account_status = serializers.CharField(source="account.status")
    discovered_resources = CountSerializer(source="*")
    permissions = PermissionSerializer(many=True)

    def get_status(self, _: Verification) -> str:
        """Return the one outcome that is not a problem document."""
        return "verified"

    def get_message(self, verified: Verification) -> str:
        """Say what happens next."""
        return "The role works. The scan has started." if verified.run else "The role works."


class ScanSerializer(RowSerializer):
    """A scan and how far it is (F015)."""

    account_status = serializers.CharField(source="account.status", read_only=True)
    message = serializers.SerializerMethodField()

    class Meta:
        model = DiscoveryRun
        fields = [
            "id", "account_id", "account_status", "trigger", "status", "progress", "current_region",
            "regions_total", "regions_done", "clusters_found", "instances_found", "new_count",
            "changed_count", "terminated_count", "errors", "message", "started_at", "finished_at",
        ]  # fmt: skip

    def get_message(self, run: DiscoveryRun) -> str:
        """Say it in a sentence."""
        return scanning.sentence_about(run)


class FoundClusterSerializer(RowSerializer):
    """An EKS cluster as the last scan saw it."""

    managed = serializers.BooleanField(source="agent_installed", read_only=True)

    class Meta:
        model = Cluster
        fields = ["id", "name", "arn", "region", "status", "k8s_version", "environment", "managed", "tags"]


class DiscoverySerializer(serializers.Serializer[Any]):
    """The clusters of an account and the age of the answer (F044)."""

    clusters = FoundClusterSerializer(many=True)
    total = serializers.SerializerMethodField()
    refreshed_at = Instant(allow_null=True)
    skipped = serializers.DictField(child=serializers.CharField(), help_text="Reason by region not read.")

    def get_total(self, found: discovery.Discovery) -> int:
        """Return how many clusters there are."""
        return len(found.clusters)


class DiscoverQuerySerializer(serializers.Serializer[Any]):
    """Which account, and which of its regions; all without any."""

    account_id = serializers.UUIDField()
    regions = serializers.ListField(child=serializers.CharField(max_length=50), required=False, default=list)


class DiscoverRequestSerializer(serializers.Serializer[Any]):
    """Which account to scan."""

    account_id = serializers.UUIDField()


class Verify(APIView):
    """Prove a role."""

    @extend_schema(
        summary="Verify an AWS role",
        request=VerifyRequestSerializer,
        responses=answers(200, VerificationSerializer, 400, 404, 409, 502, 503),
        tags=["connect"],
    )
    def post(self, request: Request) -> Response:
        """Assume the role, try its permissions, and start the first scan."""
        shape = VerifyRequestSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        verified = linking.verify_account(actor=actor_of(request), **shape.validated_data)
        return Response(VerificationSerializer(verified).data)


class Validate(APIView):
    """Look at a linked account's permissions again."""

    @extend_schema(
        summary="Check an account's permissions",
        request=None,
        responses=answers(200, VerificationSerializer, 400, 404, 409, 502, 503),
        tags=["connect"],
    )
    def post(self, request: Request, account_id: UUID) -> Response:
        """Return each permission's result; the account keeps its status."""
        verified = linking.validate_account(account_id=account_id, actor=actor_of(request))
        return Response(VerificationSerializer(verified).data)


class Scan(APIView):
    """The newest scan of an account."""

    @extend_schema(summary="Follow a scan", responses=answers(200, ScanSerializer, 404), tags=["connect"])
    def get(self, request: Request, account_id: UUID) -> Response:
        """Return progress and counts; poll it, or listen to the topic ``scan``."""
        return Response(ScanSerializer(discovery.latest_run(account_id)).data)


class Resync(APIView):
    """Scan an account now."""

    @extend_schema(
        summary="Scan an account again",
        request=None,
        responses=answers({200: ScanSerializer, 202: ScanSerializer}, None, 404, 409),
        tags=["connect"],
    )
    def post(self, request: Request, account_id: UUID) -> Response:
        """Start a scan (202), or return the one that is under way (200); once in five minutes."""
        run, is_new = scanning.resync(account_id=account_id, actor=actor_of(request))
        code = status.HTTP_202_ACCEPTED if is_new else status.HTTP_200_OK
        return Response(ScanSerializer(run).data, status=code)


class Discover(APIView):
    """The EKS clusters of an account."""

    @extend_schema(
        summary="List an account's EKS clusters",
        parameters=[
            OpenApiParameter("account_id", UUID, required=True),
            OpenApiParameter("regions", str, many=True),
        ],
        responses=answers(200, DiscoverySerializer, 400, 404),
        tags=["connect"],
    )
    def get(self, request: Request) -> Response:
        """Return what the last scan found."""
        query = DiscoverQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        return Response(DiscoverySerializer(discovery.discovered(**query.validated_data)).data)

    @extend_schema(
        summary="Look for EKS clusters again",
        request=DiscoverRequestSerializer,
        responses=answers(202, ScanSerializer, 400, 404, 409),
        tags=["connect"],
    )
    def post(self, request: Request) -> Response:
        """Start a scan of the account, at most one a minute."""
        shape = DiscoverRequestSerializer(data=request.data)
        shape.is_valid(raise_exception=True)
        run = scanning.rediscover(actor=actor_of(request), **shape.validated_data)
        return Response(ScanSerializer(run).data, status=status.HTTP_202_ACCEPTED)
