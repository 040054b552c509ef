import pytest

from agentapi.models import APIKey
from spotopt.core.tenancy import tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def browse(client, member):
    client.force_login(member)
    return client


def test_given_a_member_when_the_keys_are_shown_then_no_secret_is_and_the_rights_are(
    cluster, agent_token, browse
):
    page = browse.get(f"/clusters/{cluster.pk}/agent/keys").content.decode()

    assert agent_token[3:11] in page
    assert agent_token not in page
    assert "pods/eviction" in page
    assert "only when chosen: workloads" in page


def test_given_a_member_when_rotating_on_the_page_then_the_new_key_is_shown_once(
    cluster, agent_token, browse
):
    answer = browse.post(f"/clusters/{cluster.pk}/agent/keys/rotate")

    with tenant(cluster.organization_id):
        newest = APIKey.objects.latest("created_at")
    assert f"so_{newest.key_prefix}" in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert newest.description == "Rotated"


def test_given_a_key_when_revoked_on_the_page_then_it_stops_and_stays_listed(cluster, agent_token, browse):
    with tenant(cluster.organization_id):
        key = APIKey.objects.get()

    answer = browse.post(f"/clusters/{cluster.pk}/agent/keys/{key.pk}/revoke")

    assert answer["Location"] == f"/clusters/{cluster.pk}/agent"
    assert "Revoked" in browse.get(f"/clusters/{cluster.pk}/agent/keys").content.decode()


def test_given_a_viewer_when_they_ask_for_keys_then_403_and_nothing_changes(
    cluster, agent_token, client, viewer
):
    client.force_login(viewer)
    with tenant(cluster.organization_id):
        key = APIKey.objects.get()

    paths = ("", "/rotate", f"/{key.pk}/revoke")
    answers = [client.get(f"/clusters/{cluster.pk}/agent/keys{paths[0]}").status_code]
    answers += [client.post(f"/clusters/{cluster.pk}/agent/keys{path}").status_code for path in paths[1:]]

    assert answers == [403, 403, 403]
    with tenant(cluster.organization_id):
        assert APIKey.objects.filter(revoked_at__isnull=True).count() == 1


def test_given_rights_that_were_chosen_when_the_command_is_made_then_it_grants_those_and_no_others(
    cluster, browse
):
    chosen = {"options": ["workloads", "everything"]}

    page = browse.post(f"/clusters/{cluster.pk}/agent/command", chosen).content.decode()

    assert "workloadChanges: true" in page
    assert "spotopt-agent-workloads" in page
    assert "karpenter: true" not in page
    assert "spotopt-sentry" not in page
