import json
import re
from dataclasses import dataclass
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, get_resolver

from accounts.models import Account
from agentapi.services.keys import create_key
from clusters.models import Cluster
from conftest import _organization
from spotopt.core.actor import Actor
from spotopt.core.live import group_of
from spotopt.core.tenancy import tenant
from spotopt.routing import websocket_urlpatterns
from spotopt.tests.sweep_world import build, fingerprint, tenant_models

MARKER = "zqacme"

PUBLIC = {
    "": "the gateway: sends everybody on to where they belong",
    "healthz": "probe of the load balancer",
    "readyz": "probe of the load balancer",
    "login": "the way in",
    "signup": "the way in",
    "logout": "signing out twice is no error",
    "styleguide/": "the parts of the design, in development only; holds no data",
    "connect/template/<slug:mode>.json": "read by AWS CloudFormation; the same for everybody",
    "api/v1/auth/signup": "the way in",
    "api/v1/auth/token": "the way in",
    "api/v1/auth/token/refresh": "proves itself by the token in its body",
    "api/v1/auth/logout": "signing out twice is no error",
    "no-organization": "tells people without a team what to do; the same for everybody",
    "admin/login/": "the way in for staff",
    "admin/logout/": "signing out twice is no error",
}
"""Paths that answer people who did not sign in, each with its reason."""

PARAMETERS = {
    "account_id": "accounts.Account",
    "action_id": "clusters.Action",
    "cluster_id": "clusters.Cluster",
    "event_id": "audit.AuditLog",
    "group_id": "clusters.NodeGroup",
    "key_id": "agentapi.APIKey",
    "node_id": "clusters.Instance",
    "job_id": "policies.OptimizationJob",
    "plan_id": "policies.Plan",
    "steering_id": "policies.PoolSteering",
    "template_id": "policies.NodeTemplate",
    "what_if_id": "policies.WhatIf",
}
"""Whose id each path parameter is; a new name needs a line, or the sweep fails."""

PLAIN = {"mode": "full_access", "version": "1"}
"""Path parameters that name no row."""

PRIMARY_KEYS = {
    "api/v1/audit": "audit.AuditLog",
    "api/v1/clusters": "clusters.Cluster",
    "api/v1/interruptions": "clusters.Interruption",
    "api/v1/jobs": "policies.OptimizationJob",
    "api/v1/plans": "policies.Plan",
    "api/v1/templates": "policies.NodeTemplate",
    "api/v1/what-ifs": "policies.WhatIf",
}
"""Whose id a router's ``pk`` is, by the resource's path."""

PLATFORM = ("api/v1/admin/", "api/v1/lab/", "admin/")
"""Staff only: no tenant's ids in their paths."""


def _routes(patterns, prefix=""):
    for pattern in patterns:
        route = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix(r"\Z")
        if isinstance(pattern, URLPattern):
            yield route, pattern.callback
        else:
            yield from _routes(pattern.url_patterns, route)


def _methods(view):
    if actions := getattr(view, "actions", None):
        return sorted(actions)
    handler = getattr(view, "cls", None) or getattr(view, "view_class", None)
    if handler is None:
        return ["get", "post"]
    return [name for name in ("get", "post", "put", "patch", "delete") if hasattr(handler, name)]


ROUTES = dict(_routes(get_resolver().url_patterns))
PRODUCT = sorted(route for route in ROUTES if not route.startswith("admin/"))
CALLS = [(route, method) for route in PRODUCT for method in _methods(ROUTES[route])]
STAFF_SITE = sorted(route for route in ROUTES if route.startswith("admin/"))
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^()]*(?:\([^()]*\)[^()]*)*\)")


def _id_for(route, name, rows):
    if name in PLAIN:
        return PLAIN[name]
    if route.startswith(PLATFORM):
        return str(uuid4())
    if name == "pk":
        owners = [label for resource, label in PRIMARY_KEYS.items() if route.startswith(f"{resource}/")]
        assert len(owners) == 1, f"{route}: name its resource in PRIMARY_KEYS."
        return str(rows[owners[0]].pk)
    assert name in PARAMETERS, f"{route}: name the parameter {name!r} in PARAMETERS."
    return str(rows[PARAMETERS[name]].pk)


def _path(route, rows):
    return "/" + _PARAMETER.sub(lambda match: _id_for(route, match[1] or match[2], rows), route)


def _body(rows):
    """A body that names the first organization's rows in every way that some endpoint reads."""
    account, cluster, template = (
        str(rows[label].pk) for label in ("accounts.Account", "clusters.Cluster", "policies.NodeTemplate")
    )
    return {
        "account_id": account,
        "account": account,
        "alias": "x",
        "cluster_id": cluster,
        "cluster": cluster,
        "enabled": True,
        "confirmation": rows["accounts.Account"].alias,
        "name": "x",
        "reason": "x",
        "role_arn": "arn:aws:iam::123412341234:role/SpotOptimizerRole",
        "template_id": template,
        "template": template,
        "version": 1,
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got, and what was stored before it was undone."""

    path: str
    status: int
    location: str
    text: str
    stored: dict[str, str]


@pytest.fixture
def world(acme, monkeypatch):
    """The first organization's rows; long polls see them too, because they share the test's connection."""

    async def here(work, *args, **kwargs):
        return await sync_to_async(work)(*args, **kwargs)

    monkeypatch.setattr("agentapi.services.waiting.in_database", here)
    cache.clear()
    return build(acme, MARKER)


def _send(client, method, path, rows, **headers):
    """Send one request and undo whatever it did, but for what it answered."""
    with transaction.atomic():
        as_json = path.startswith("/api/")
        body = _body(rows)
        if method == "get":
            answer = client.get(path, headers=headers)
        elif as_json:
            answer = client.generic(
                method.upper(), path, json.dumps(body), content_type="application/json", headers=headers
            )
        else:
            answer = client.generic(
                method.upper(), path, "&".join(f"{key}={value}" for key, value in body.items()),
                content_type="application/x-www-form-urlencoded", headers=headers,
            )  # fmt: skip
        content = answer.getvalue() if answer.streaming else answer.content
        stored = fingerprint(rows["clusters.Cluster"].organization)
        transaction.set_rollback(True)
    return Answer(
        path, answer.status_code, answer.headers.get("Location", ""), content.decode(errors="replace"), stored
    )


def _visitors(stranger):
    """Everybody who has no business with the first organization, each with the headers they send."""
    browser = Client(raise_request_exception=False)
    key = _key_of_another_cluster(stranger.owned_organizations.get())
    return [
        ("nobody", Client(raise_request_exception=False), {}),
        ("stranger", browser, {}),
        ("stranger with htmx", browser, {"HX-Request": "true"}),
        ("agent", Client(raise_request_exception=False), {"Authorization": f"Bearer {key}"}),
    ]


def _is_worth_trying(who, route, method):
    if who == "stranger with htmx":
        return method == "get" and not route.startswith("api/")
    return who != "agent" or "<uuid:cluster_id>" in route


def _is_shut(who, route, status, location):
    """Tell whether the answer is the one that the visitor deserves."""
    if route in PUBLIC or (who.startswith("stranger") and "<" not in route):
        return status < 500
    if who.startswith("stranger"):
        return status in {404, 405} or (status in {401, 403} and route.startswith("api/"))
    is_sent_to_login = status == 302 and location.startswith("/login")
    return status in {401, 405} or is_sent_to_login or (who == "agent" and status in {403, 404})


def _escape(answer, rows, before):
    """Say what is wrong with an answer that somebody got who had no business there, or None."""
    if answer.stored != before:
        changed = [table for table, digest in before.items() if answer.stored.get(table) != digest]
        return f"changed {changed}"
    if MARKER in answer.text:
        return "shows a name of another organization"
    ids = [str(row.pk) for row in rows.values()] + [str(rows["clusters.Cluster"].organization_id)]
    if any(found in answer.text for found in ids if len(found) == 36 and found not in answer.path):
        return "shows ids of another organization"
    return None


def test_given_others_when_any_path_is_tried_then_they_see_and_change_nothing(world, stranger):
    escapes, before, visitors = [], fingerprint(world["clusters.Cluster"].organization), _visitors(stranger)
    for route, method in CALLS:
        for who, client, headers in visitors:
            if not _is_worth_trying(who, route, method):
                continue
            if who.startswith("stranger"):
                client.force_login(stranger)
            answer = _send(client, method, _path(route, world), world, **headers)
            wrong = _escape(answer, world, before)
            if wrong is None and not _is_shut(who, route, answer.status, answer.location):
                wrong = f"answers {answer.status} {answer.location}"
            if wrong is not None:
                escapes.append(f"{method.upper()} /{route} by {who}: {wrong}")

    assert escapes == []


def test_given_the_owner_when_a_path_is_read_then_its_ids_are_real(world, alice):
    # Otherwise a 404 for strangers would prove nothing.
    browser = Client(raise_request_exception=False)
    browser.force_login(alice)
    answers = {
        route: _send(browser, "get", _path(route, world), world).status
        for route in PRODUCT
        if "<" in route and not route.startswith(PLATFORM) and "get" in _methods(ROUTES[route])
    }

    assert {route: status for route, status in answers.items() if status in {400, 404} or status >= 500} == {}


def _key_of_another_cluster(organization):
    with tenant(organization.pk):
        account = Account.objects.create(organization=organization, alias="Theirs")
        cluster = Cluster.objects.create(
            organization=organization, account=account, name=f"theirs-{uuid4()}", region="us-east-1"
        )
        return create_key(
            cluster=cluster, description="", expires_at=None, actor=Actor.system(organization.pk)
        ).token


def test_given_no_staff_when_the_admin_is_tried_then_the_door_is_shut(world, stranger):
    escapes, before = [], fingerprint(world["clusters.Cluster"].organization)
    for who, client, _ in _visitors(stranger)[:2]:
        for route in STAFF_SITE:
            if who == "stranger":
                client.force_login(stranger)
            answer = _send(client, "get", _path(route, world), world)
            is_shut = answer.status in {404, 405} or answer.location.startswith("/admin/login")
            wrong = _escape(answer, world, before)
            if wrong or not (is_shut or route in PUBLIC):
                escapes.append(f"/{route} by {who}: {wrong or answer.status}")

    assert escapes == []


def test_given_the_world_when_built_then_every_tenant_s_table_has_a_row(world):
    assert {model._meta.label for model in tenant_models()} == world.keys()


def test_given_the_public_paths_when_listed_then_each_exists_and_has_its_reason():
    assert set(PUBLIC) <= ROUTES.keys()
    assert all(PUBLIC.values())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("route", [str(pattern.pattern) for pattern in websocket_urlpatterns])
def test_given_a_socket_when_others_listen_then_they_hear_only_their_own_organization(route):
    assert "<" not in route, f"{route}: name its parameters here."

    heard = async_to_sync(_listen)(route)

    assert heard == {"anonymous": None, "stranger": None, "rival": "theirs"}


async def _listen(route):
    acme = await sync_to_async(_organization)("Acme", "alice@acme.test")
    rival = await sync_to_async(_organization)("Rival", "mallory@rival.test")
    heard = {}
    for who, user, group in (
        ("anonymous", None, acme),
        ("stranger", rival.owner, acme),
        ("rival", rival.owner, rival),
    ):
        socket = WebsocketCommunicator(URLRouter(websocket_urlpatterns), f"/{route}")
        socket.scope |= {"user": user, "session": {}}
        await socket.connect()
        message = {"type": "live.event", "topic": "activity", "facts": {"event": "theirs"}}
        await get_channel_layer().group_send(group_of(group.pk), message)
        heard[who] = await _next_event(socket)
        await socket.disconnect()
    return heard


async def _next_event(socket):
    """Return the event that arrives within a moment, or None for silence and for a closed door."""
    if await socket.receive_nothing(timeout=0.3):
        return None
    answer = await socket.receive_output()
    return json.loads(answer["text"])["event"] if answer["type"] == "websocket.send" else None


def test_given_a_selector_that_forgets_the_tenant_when_swept_then_the_escape_is_seen(
    world, stranger, monkeypatch
):
    monkeypatch.setattr("accounts.selectors.account_by_id", lambda pk: Account.unscoped.get(pk=pk))
    browser, before = Client(), fingerprint(world["clusters.Cluster"].organization)
    browser.force_login(stranger)
    route = "api/v1/accounts/<uuid:account_id>"

    answer = _send(browser, "get", _path(route, world), world)

    assert _escape(answer, world, before) == "shows a name of another organization"
    assert not _is_shut("stranger", route, answer.status, answer.location)
