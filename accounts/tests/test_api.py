import pytest
from django.core.cache import cache
from django.test import Client
from redis.exceptions import ConnectionError as RedisDown
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from accounts.models import Account, Membership, Organization, User
from accounts.services import issue_tokens
from accounts.services.limits import LOCK_AFTER_FAILURES
from audit.models import AuditLog
from spotopt.core.tenancy import tenant

PASSWORD = "Correct-horse-9"
SIGN_UP = {"email": "new@corp.test", "password": PASSWORD, "organization_name": "New Corp"}


@pytest.fixture
def linked(acme):
    with tenant(acme.pk):
        return Account.objects.create(
            organization=acme, alias="Main", status="active", aws_account_id="111122223333"
        )


@pytest.fixture
def anonymous():
    return APIClient()


@pytest.fixture
def by_token():
    """Return an API client that speaks for somebody by their access token."""

    def speak(user):
        api = APIClient()
        tokens = issue_tokens(user, user.memberships.first())
        api.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens.access}")
        return api

    return speak


PEOPLE = {name: name for name in ("member", "viewer", "stranger", "super_admin")} | {"owner": "alice"}
ORDER = ("anonymous", "agent", "super_admin", "stranger", "viewer", "member", "owner")
LINK = {"aws_account_id": "123412341234"}
CHANGE = {"old_password": PASSWORD, "new_password": "Another-horse-8"}
DISCONNECT = {"confirmation": "Main"}
MATRIX = [
    # method, path, body, answers in the order of ORDER
    ("get", "/api/v1/auth/me", None, (401, 401, 200, 200, 200, 200, 200)),
    ("post", "/api/v1/auth/change-password", CHANGE, (401, 401, 200, 200, 200, 200, 200)),
    ("post", "/api/v1/auth/logout", {}, (200, 200, 200, 200, 200, 200, 200)),
    ("post", "/api/v1/connect/link", LINK, (401, 401, 403, 201, 403, 201, 201)),
    ("post", "/api/v1/onboard/skip", {}, (401, 401, 403, 200, 403, 200, 200)),
    ("get", "/api/v1/settings/accounts", None, (401, 401, 403, 200, 200, 200, 200)),
    ("delete", "/api/v1/settings/accounts/{id}", DISCONNECT, (401, 401, 403, 404, 403, 403, 202)),
    ("get", "/api/v1/accounts/{id}", None, (401, 401, 403, 404, 200, 200, 200)),
    ("patch", "/api/v1/accounts/{id}", {"alias": "Other"}, (401, 401, 403, 404, 403, 200, 200)),
    ("patch", "/api/v1/settings/context", {"account_id": "{id}"}, (401, 401, 403, 404, 200, 200, 200)),
    ("get", "/api/v1/settings/team", None, (401, 401, 403, 200, 200, 200, 200)),
    ("get", "/api/v1/settings/profile", None, (401, 401, 200, 200, 200, 200, 200)),
    ("patch", "/api/v1/settings/profile", {"name": "N"}, (401, 401, 200, 200, 200, 200, 200)),
    ("get", "/api/schema", None, (401, 401, 200, 200, 200, 200, 200)),
    ("get", "/api/docs", None, (302, 302, 302, 302, 302, 302, 302)),  # a page: by session only
]  # fmt: skip
CASES = [
    pytest.param((method, path, body), who, answer, id=f"{method} {path} as {who}")
    for method, path, body, answers in MATRIX
    for who, answer in zip(ORDER, answers, strict=True)
]


@pytest.fixture
def knock(request, linked, by_token):
    """Send one request of the matrix as somebody."""

    def send(method, path, body, who):
        api = by_token(request.getfixturevalue(PEOPLE[who])) if who in PEOPLE else APIClient()
        if who == "agent":
            api.credentials(HTTP_AUTHORIZATION="Bearer so_abcdefghijklmnopqrstuvwxyz")
        if body is not None:
            body = {key: value.replace("{id}", str(linked.pk)) for key, value in body.items()}
        return getattr(api, method)(path.replace("{id}", str(linked.pk)), body, format="json")

    return send


@pytest.mark.parametrize(("call", "who", "answer"), CASES)
def test_given_the_matrix_of_doors_when_somebody_knocks_then_the_answer_is_theirs(knock, call, who, answer):
    response = knock(*call, who)

    assert response.status_code == answer
    if answer >= 400:
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == answer
        assert response.json()["request_id"]


def test_given_nobody_when_signing_up_by_the_api_then_the_tokens_open_the_dashboard(db, anonymous):
    answer = anonymous.post("/api/v1/auth/signup", SIGN_UP, format="json")

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["role"]) == ("Bearer", 900, "client")
    assert body["redirect_path"] == "/onboarding"
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {body['access']}")
    me = anonymous.get("/api/v1/auth/me").json()
    assert (me["user_id"], me["org_id"], me["org_role"]) == (body["user_id"], body["org_id"], "owner")
    assert me["account_status"] == "pending"
    assert not anonymous.cookies


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"password": "alllowercase"}, 400, "password"),
        ({"password": "Sh0rt"}, 400, "password"),
        ({"email": "no address"}, 400, "email"),
        ({"organization_name": "ab"}, 400, "organization_name"),
        ({"email": "alice@acme.test"}, 409, None),
    ],
)
def test_given_a_bad_sign_up_when_posted_then_a_problem_names_the_field(
    alice, anonymous, change, status, field
):
    answer = anonymous.post("/api/v1/auth/signup", SIGN_UP | change, format="json")

    assert answer.status_code == status
    assert list(answer.json().get("errors", {})) == ([field] if field else [])
    assert User.objects.count() == 1


def test_given_the_limit_when_signing_up_again_then_429_with_retry_after(db, anonymous, monkeypatch):
    monkeypatch.setattr("accounts.services.limits.api_settings.DEFAULT_THROTTLE_RATES", {"signup": "5/hour"})
    answers = [
        anonymous.post("/api/v1/auth/signup", SIGN_UP | {"email": f"n{i}@corp.test"}, format="json")
        for i in range(6)
    ]

    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 3601
    assert User.objects.count() == 5


def _sign_in(api, email="alice@acme.test", password=PASSWORD, **extra):
    return api.post("/api/v1/auth/token", {"email": email, "password": password}, format="json", **extra)


def test_given_the_limit_when_one_address_is_tried_from_many_places_then_429(alice, anonymous, monkeypatch):
    monkeypatch.setattr("accounts.services.limits.api_settings.DEFAULT_THROTTLE_RATES", {"token": "10/min"})
    monkeypatch.setattr("accounts.services.limits.time.time", lambda: 1_800_000_000.0)

    statuses = [_sign_in(anonymous, REMOTE_ADDR=f"203.0.113.{i}").status_code for i in range(11)]

    assert statuses == [200] * 10 + [429]


def test_given_the_limit_when_one_place_tries_many_addresses_then_429(alice, anonymous, monkeypatch):
    monkeypatch.setattr("accounts.services.limits.api_settings.DEFAULT_THROTTLE_RATES", {"token": "10/min"})
    monkeypatch.setattr("accounts.services.limits.time.time", lambda: 1_800_000_000.0)

    statuses = [_sign_in(anonymous, email=f"n{i}@acme.test").status_code for i in range(11)]

    assert statuses == [401] * 10 + [429]


@pytest.mark.parametrize("email", ["alice@acme.test", "nobody@acme.test"])
def test_given_ten_failures_when_signing_in_rightly_then_the_address_is_locked(alice, anonymous, email):
    failures = [_sign_in(anonymous, email, "Wrong-horse-9") for _ in range(LOCK_AFTER_FAILURES)]

    locked = _sign_in(anonymous, email)

    assert {failure.status_code for failure in failures} == {401}
    assert locked.status_code == 429
    assert 0 < int(locked["Retry-After"]) <= 900
    assert AuditLog.unscoped.filter(event="accounts.user.signed_in").count() == 0


def test_given_a_lock_when_a_quarter_of_an_hour_passes_then_it_opens(alice, anonymous, monkeypatch):
    for _ in range(LOCK_AFTER_FAILURES):
        _sign_in(anonymous, password="Wrong-horse-9")
    assert _sign_in(anonymous).status_code == 429

    keys = cache._cache.get_client().keys("*sign-in:lock*")
    assert len(keys) == 1
    assert 890 <= cache._cache.get_client().ttl(keys[0]) <= 900


def test_given_a_success_when_failures_came_before_then_they_are_forgotten(alice, anonymous):
    for _ in range(LOCK_AFTER_FAILURES - 1):
        _sign_in(anonymous, password="Wrong-horse-9")
    assert _sign_in(anonymous).status_code == 200

    assert _sign_in(anonymous, password="Wrong-horse-9").status_code == 401
    assert _sign_in(anonymous).status_code == 200


def test_given_a_sign_in_when_the_token_is_read_then_it_names_person_and_organization(alice, acme, anonymous):
    body = _sign_in(anonymous).json()

    claims = AccessToken(body["access"])
    assert (claims["user_id"], claims["organization_id"]) == (str(alice.pk), str(acme.pk))
    assert "role" not in claims


def test_given_a_demotion_when_the_same_token_is_used_then_the_new_role_counts(member, by_token):
    api = by_token(member)
    assert api.post("/api/v1/connect/link", LINK, format="json").status_code == 201

    Membership.objects.filter(user=member).update(role="viewer")

    assert api.post("/api/v1/connect/link", LINK, format="json").status_code == 403


def test_given_a_removed_member_when_the_same_token_is_used_then_401(member, by_token):
    api = by_token(member)

    Membership.objects.filter(user=member).delete()

    assert api.get("/api/v1/auth/me").status_code == 401


def _refresh(api, token):
    return api.post("/api/v1/auth/token/refresh", {"refresh": token}, format="json")


def test_given_a_refresh_token_when_used_then_it_rotates_and_works_only_once(alice, acme, anonymous):
    first = _sign_in(anonymous).json()

    second = _refresh(anonymous, first["refresh"])
    again = _refresh(anonymous, first["refresh"])

    assert second.status_code == 200
    assert AccessToken(second.json()["access"])["organization_id"] == str(acme.pk)
    assert second.json()["refresh"] != first["refresh"]
    assert again.status_code == 401
    assert _refresh(anonymous, second.json()["refresh"]).status_code == 200


@pytest.mark.parametrize("kind", ["garbage", "access"])
def test_given_no_refresh_token_when_refreshing_then_401(alice, anonymous, kind):
    token = "a.b.c" if kind == "garbage" else _sign_in(anonymous).json()["access"]

    answer = _refresh(anonymous, token)

    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/not-authenticated"


def test_given_a_refresh_token_when_the_person_is_switched_off_then_401(alice, anonymous):
    first = _sign_in(anonymous).json()

    User.objects.filter(pk=alice.pk).update(is_active=False)

    assert _refresh(anonymous, first["refresh"]).status_code == 401


def test_given_a_refresh_token_when_the_organization_is_suspended_then_401(alice, acme, anonymous):
    first = _sign_in(anonymous).json()

    Organization.objects.filter(pk=acme.pk).update(status="suspended")

    assert _refresh(anonymous, first["refresh"]).status_code == 401


def test_given_a_refresh_token_when_logged_out_then_it_is_worthless_and_a_second_call_is_fine(
    alice, anonymous
):
    refresh = _sign_in(anonymous).json()["refresh"]

    answers = [
        anonymous.post("/api/v1/auth/logout", {"refresh": refresh}, format="json").status_code
        for _ in range(2)
    ]

    assert answers == [200, 200]
    assert _refresh(anonymous, refresh).status_code == 401


def test_given_a_session_when_logged_out_then_it_is_gone(alice, api_as):
    api = api_as(alice)
    assert api.get("/api/v1/auth/me").status_code == 200

    api.post("/api/v1/auth/logout", {}, format="json")

    assert api.get("/api/v1/auth/me").status_code == 401


def test_given_a_session_when_the_csrf_token_is_missing_then_a_write_is_refused(alice):
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(alice)

    answer = browser.post("/api/v1/onboard/skip", {}, format="json")

    assert answer.status_code == 403
    assert answer["Content-Type"] == "application/problem+json"
    alice.refresh_from_db()
    assert alice.onboarding_skipped_at is None


def test_given_two_sessions_when_one_changes_the_password_then_only_the_other_ends(alice, api_as):
    here, there = api_as(alice), api_as(alice)
    token = str(RefreshToken.for_user(alice))

    answer = here.post("/api/v1/auth/change-password", CHANGE, format="json")

    assert answer.status_code == 200
    assert here.get("/api/v1/auth/me").status_code == 200
    assert there.get("/api/v1/auth/me").status_code == 401
    assert _refresh(APIClient(), token).status_code == 401


def test_given_an_account_when_listed_then_its_id_is_masked(alice, linked, api_as):
    body = api_as(alice).get("/api/v1/settings/accounts").json()

    assert (body["total"], body["page"], body["page_size"]) == (1, 1, 50)
    assert body["accounts"][0]["aws_account_id"] == "1111-****-****"
    assert body["accounts"][0]["error"] is None
    assert "111122223333" not in str(body)


def test_given_a_context_when_switched_then_me_and_null_follow(alice, linked, api_as):
    api = api_as(alice)
    api.patch("/api/v1/settings/context", {"account_id": str(linked.pk)}, format="json")
    assert api.get("/api/v1/auth/me").json()["active_account_id"] == str(linked.pk)

    answer = api.patch("/api/v1/settings/context", {"account_id": None}, format="json")

    assert answer.json() == {"success": True, "active_account": None}
    assert api.get("/api/v1/auth/me").json()["active_account_id"] is None


def test_given_a_team_when_listed_then_owners_come_first_and_strangers_are_absent(
    member, viewer, stranger, api_as
):
    body = api_as(viewer).get("/api/v1/settings/team").json()

    assert [(row["email"], row["role"]) for row in body["members"]] == [
        ("alice@acme.test", "owner"),
        ("bob@acme.test", "member"),
        ("vera@acme.test", "viewer"),
    ]
    assert body["total"] == 3


@pytest.mark.parametrize("path", ["/api/nothing", "/api/v1/nothing", "/api/v1/auth/token/"])
def test_given_an_unknown_api_path_when_asked_then_a_problem(db, client, path):
    answer = client.get(path)

    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["request_id"]


def test_given_a_crash_in_the_api_when_asked_then_a_problem_without_its_cause(alice, monkeypatch):
    def crash(*args):
        raise ZeroDivisionError("secret cause")

    monkeypatch.setattr("accounts.selectors.person_of", crash)
    browser = Client(raise_request_exception=False)
    browser.force_login(alice)

    answer = browser.get("/api/v1/auth/me")

    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["type"] == "/problems/internal-error"
    assert answer.json()["request_id"]
    assert "secret cause" not in answer.content.decode()


def test_given_a_store_that_is_down_when_asked_then_503_and_when_to_return(alice, api_as, monkeypatch):
    def down(*args):
        raise RedisDown("refused")

    monkeypatch.setattr("accounts.selectors.person_of", down)

    answer = api_as(alice).get("/api/v1/auth/me")

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


def test_given_the_schema_when_read_then_every_path_of_ours_is_in_it(alice, api_as):
    document = api_as(alice).get("/api/schema").json()

    assert document["info"]["title"] == "Spotopt API"
    assert {"token", "session"} <= set(document["components"]["securitySchemes"])
    assert "/api/v1/auth/token" in document["paths"]


def test_given_the_docs_when_opened_then_nothing_is_inline(alice, as_user):
    page = as_user(alice).get("/api/docs")
    script = as_user(alice).get("/api/docs?script=")

    assert page.status_code == 200
    text = page.content.decode()
    assert "<style" not in text
    assert text.count("<script") == text.count("<script src=") == 3
    assert script["Content-Type"] == "application/javascript"
    assert b"/api/schema" in script.content
