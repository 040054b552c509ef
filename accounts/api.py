"""The accounts API: sign up and in, link AWS accounts, settings of one's own."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import logout, update_session_auth_hash
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.authentication import SessionScheme
from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from accounts import selectors, services
from accounts import serializers as shapes
from accounts.domain import trust_policy
from accounts.domain.roles import organization_of
from accounts.models import Account
from accounts.permissions import AnyMember, OwnersOnly, actor_of, membership_in, origin_of, self_of, user_of
from spotopt.core.problems import problem_response


class TokenScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call]  # the library is not typed
    """Describes the bearer token in the OpenAPI document."""

    target_class = "accounts.authentication.OrganizationJWTAuthentication"
    name = "token"


class SessionCookieScheme(SessionScheme):  # type: ignore[no-untyped-call]  # the library is not typed
    """Describes the browser's session in the OpenAPI document."""

    target_class = "accounts.authentication.OrganizationSessionAuthentication"
    name = "session"


PROBLEM = OpenApiResponse(shapes.ProblemSerializer, description="A problem document (RFC 9457).")
_NEVER_STORED = {"Cache-Control": "no-store"}


def _read(shape: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """Return the valid body of a request, or let the handler answer what is wrong with it."""
    body = shape(data=request.data)
    body.is_valid(raise_exception=True)
    valid: dict[str, Any] = body.validated_data
    return valid


class SignUp(APIView):
    """Create an organization."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        request=shapes.SignUpSerializer,
        responses={201: shapes.SignedUpSerializer, 400: PROBLEM, 409: PROBLEM, 429: PROBLEM},
        tags=["auth"],
    )
    def post(self, request: Request) -> Response:
        """Create a person, their organization and a placeholder account; answer tokens."""
        body = _read(shapes.SignUpSerializer, request)
        made = services.sign_up(**body, origin=origin_of(request))
        answer = asdict(services.issue_tokens(made.user, made.membership)) | {
            "user_id": made.user.pk,
            "org_id": made.organization.pk,
            "account_id": made.account.pk,
            "redirect_path": selectors.gateway_of(made.user, made.membership).redirect_path,
        }
        return Response(
            shapes.SignedUpSerializer(answer).data, status=status.HTTP_201_CREATED, headers=_NEVER_STORED
        )


class Token(APIView):
    """Sign in."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        request=shapes.SignInSerializer,
        responses={200: shapes.TokensSerializer, 401: PROBLEM, 403: PROBLEM, 429: PROBLEM},
        tags=["auth"],
    )
    def post(self, request: Request) -> Response:
        """Exchange an address and a password for tokens; ten attempts a minute, then a lock."""
        body = _read(shapes.SignInSerializer, request)
        who = services.sign_in(**body, origin=origin_of(request))
        tokens = services.issue_tokens(who.user, who.membership)
        return Response(shapes.TokensSerializer(tokens).data, headers=_NEVER_STORED)


class TokenRefresh(APIView):
    """Stay signed in."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        request=shapes.RefreshSerializer,
        responses={200: shapes.TokensSerializer, 401: PROBLEM},
        tags=["auth"],
    )
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair; the old one never works again."""
        tokens = services.rotate_tokens(**_read(shapes.RefreshSerializer, request))
        return Response(shapes.TokensSerializer(tokens).data, headers=_NEVER_STORED)


class Logout(APIView):
    """Sign out."""

    permission_classes = (AllowAny,)

    @extend_schema(request=shapes.LogoutSerializer, responses={200: shapes.DoneSerializer}, tags=["auth"])
    def post(self, request: Request) -> Response:
        """End the browser session and revoke the refresh token; a second call answers the same."""
        refresh = _read(shapes.LogoutSerializer, request).get("refresh")
        if refresh:
            services.revoke_token(refresh=refresh)
        logout(request._request)  # noqa: SLF001  # sessions belong to Django's request
        return _done("You are signed out.")


class Me(APIView):
    """The signed-in person."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(responses={200: shapes.PersonSerializer, 401: PROBLEM}, tags=["auth"])
    def get(self, request: Request) -> Response:
        """Return who you are, your organization and role, and where the product would send you."""
        person = selectors.person_of(user_of(request), membership_in(request))
        return Response(shapes.PersonSerializer(person).data)


class ChangePassword(APIView):
    """One's own password."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(
        request=shapes.ChangePasswordSerializer,
        responses={200: shapes.DoneSerializer, 400: PROBLEM},
        tags=["auth"],
    )
    def post(self, request: Request) -> Response:
        """Replace your password; other sessions and every token issued before end."""
        body = _read(shapes.ChangePasswordSerializer, request)
        user = services.change_password(actor=self_of(request), **body)
        if request.auth is None:
            update_session_auth_hash(request._request, user)  # noqa: SLF001  # keep this session
        return _done("Your password is changed. Other sessions ended.")


class Profile(APIView):
    """One's own profile."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(responses={200: shapes.ProfileSerializer}, tags=["settings"])
    def get(self, request: Request) -> Response:
        """Return your address and name."""
        return Response(shapes.ProfileSerializer(user_of(request)).data)

    @extend_schema(
        request=shapes.ProfileSerializer,
        responses={200: shapes.ProfileSerializer, 400: PROBLEM},
        tags=["settings"],
    )
    def patch(self, request: Request) -> Response:
        """Change your name."""
        name = _read(shapes.ProfileSerializer, request).get("name", user_of(request).name)
        user = services.update_profile(actor=self_of(request), name=name)
        return Response(shapes.ProfileSerializer(user).data)


class Link(APIView):
    """Start linking an AWS account."""

    @extend_schema(
        request=shapes.LinkSerializer,
        responses={201: shapes.LinkStartedSerializer, 400: PROBLEM, 403: PROBLEM, 409: PROBLEM, 429: PROBLEM},
        tags=["connect"],
    )
    def post(self, request: Request) -> Response:
        """Reserve the account and return its external id and the CloudFormation template to launch."""
        started = services.start_link(actor=actor_of(request), **_read(shapes.LinkSerializer, request))
        body = shapes.LinkStartedSerializer(
            {
                "account": started.account,
                "external_id": started.external_id,
                "role_name": started.role_name,
                "trusted_account_id": settings.PLATFORM_AWS_ACCOUNT_ID,
                "launch_stack_url": started.launch_stack_url,
                "template_url": started.template_url,
                "template_version": started.template_version,
                "template_sha256": started.template_sha256,
            }
        )
        return Response(body.data, status=status.HTTP_201_CREATED)


class SkipOnboarding(APIView):
    """Leave the wizard."""

    @extend_schema(request=None, responses={200: shapes.DoneSerializer, 403: PROBLEM}, tags=["connect"])
    def post(self, request: Request) -> Response:
        """Go to the dashboard from now on; accounts can be linked later."""
        services.skip_onboarding(actor=actor_of(request))
        return _done("You can link an account in the settings whenever you like.")


class Accounts(ListAPIView[Account]):
    """The organization's AWS accounts."""

    serializer_class = shapes.AccountSerializer
    collection = "accounts"

    def get_queryset(self) -> QuerySet[Account]:
        return selectors.linked_accounts()

    @extend_schema(tags=["settings"])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the linked AWS accounts, oldest first."""
        return self.list(request, *args, **kwargs)


class AccountDisconnection(APIView):
    """The end of a link."""

    permission_classes = (OwnersOnly,)

    @extend_schema(
        request=shapes.DisconnectSerializer,
        responses={202: shapes.DisconnectedSerializer, 400: PROBLEM, 404: PROBLEM, 409: PROBLEM},
        tags=["settings"],
    )
    def delete(self, request: Request, account_id: UUID) -> Response:
        """Stop using an account (owners only); repeat its alias in `confirmation`. Its history stays."""
        body = _read(shapes.DisconnectSerializer, request)
        left = services.disconnect(actor=actor_of(request), account_id=account_id, **body)
        return Response(shapes.DisconnectedSerializer(left).data, status=status.HTTP_202_ACCEPTED)


class AccountDetail(APIView):
    """One AWS account."""

    @extend_schema(responses={200: shapes.AccountSerializer, 404: PROBLEM}, tags=["settings"])
    def get(self, request: Request, account_id: UUID) -> Response:
        """Return one account with the result of its last permission check."""
        return Response(shapes.AccountSerializer(selectors.account_by_id(account_id)).data)

    @extend_schema(
        request=shapes.RenameSerializer,
        responses={200: shapes.AccountSerializer, 400: PROBLEM, 404: PROBLEM},
        tags=["settings"],
    )
    def patch(self, request: Request, account_id: UUID) -> Response:
        """Give the account another display name."""
        body = _read(shapes.RenameSerializer, request)
        account = services.rename_account(actor=actor_of(request), account_id=account_id, **body)
        return Response(shapes.AccountSerializer(account).data)


class Context(APIView):
    """Which AWS account one looks at."""

    permission_classes = (AnyMember,)

    @extend_schema(
        request=shapes.ContextSerializer,
        responses={200: shapes.ContextSetSerializer, 404: PROBLEM},
        tags=["settings"],
    )
    def patch(self, request: Request) -> Response:
        """Look at one account, or at all of them with null; kept for your membership."""
        account = services.switch_context(actor=actor_of(request), **_read(shapes.ContextSerializer, request))
        return Response(shapes.ContextSetSerializer({"success": True, "active_account": account}).data)


class Team(APIView):
    """The organization's people."""

    @extend_schema(responses={200: shapes.TeamSerializer}, tags=["settings"])
    def get(self, request: Request) -> Response:
        """List everybody in the organization, owners first."""
        members = selectors.team_of(organization_of(actor_of(request)))
        return Response(shapes.TeamSerializer({"members": members, "total": len(members)}).data)


@require_safe
def connect_template(request: HttpRequest, mode: str) -> HttpResponse:
    """Serve the CloudFormation template of a mode: public, the same for everybody, exactly as announced."""
    if mode not in trust_policy.MODES:
        return problem_response(404, "not-found", "There is no such template.")
    template = trust_policy.render(mode=mode, platform_account_id=settings.PLATFORM_AWS_ACCOUNT_ID)
    if request.GET.get("sha256", template.sha256) != template.sha256:
        return problem_response(410, "gone", "This template was replaced. Start linking the account again.")
    return HttpResponse(
        template.body,
        content_type="application/json",
        headers={"ETag": f'"{template.sha256}"', "Cache-Control": "public, max-age=300"},
    )


def _done(message: str) -> Response:
    return Response(shapes.DoneSerializer({"success": True, "message": message}).data)
