"""Fixtures that every app's tests share: people, organizations and the scope of one tenant."""

import pytest
from rest_framework.test import APIClient

from accounts.models import Membership, Organization, User
from spotopt.core.actor import Actor
from spotopt.core.tenancy import tenant


def _organization(name: str, owner_email: str) -> Organization:
    owner = User.objects.create_user(owner_email, "Correct-horse-9")
    organization = Organization.objects.create(name=name, slug=name.lower(), owner=owner)
    Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
    return organization


@pytest.fixture
def acme(db):
    return _organization("Acme", "alice@acme.test")


@pytest.fixture
def rival(db):
    return _organization("Rival", "mallory@rival.test")


@pytest.fixture
def in_acme(acme):
    with tenant(acme.pk):
        yield acme


@pytest.fixture
def alice(acme):
    return acme.owner


@pytest.fixture
def owner(in_acme, alice):
    """Acme's owner, as services see who acts."""
    return Actor(kind="user", organization_id=in_acme.pk, label=alice.email, id=str(alice.pk), role="owner")


@pytest.fixture
def stranger(rival):
    return rival.owner


def _colleague(organization: Organization, email: str, role: str) -> User:
    user = User.objects.create_user(email, "Correct-horse-9")
    Membership.objects.create(user=user, organization=organization, role=role)
    return user


@pytest.fixture
def member(acme):
    return _colleague(acme, "bob@acme.test", Membership.Role.MEMBER)


@pytest.fixture
def viewer(acme):
    return _colleague(acme, "vera@acme.test", Membership.Role.VIEWER)


@pytest.fixture
def super_admin(db):
    return User.objects.create_superuser("root@spotopt.test", "Correct-horse-9")


@pytest.fixture
def as_user(client):
    """Sign somebody in to the pages."""

    def sign_in(user):
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def api_as():
    """Return an API client that speaks for somebody by their session."""

    def speak(user):
        api = APIClient()
        api.force_login(user)
        return api

    return speak
