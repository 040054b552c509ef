import httpx
import pytest

from agentapi import protocol
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock

pytestmark = pytest.mark.asyncio
RESULT = protocol.Result(agent_id="agent-0000-0001", status="completed")


def backend_of(status, asked=None):
    def answer(request):
        if asked is not None:
            asked.append(request.url.raw_path)
        return httpx.Response(status, headers={"Location": "https://login.example.com/"}, json={})

    backend = Backend(api_url="http://127.0.0.1", cluster_id="c-1", token="so_key", clock=Clock())
    backend._http = httpx.AsyncClient(base_url=backend._http.base_url, transport=httpx.MockTransport(answer))
    return backend


@pytest.mark.parametrize("status", [301, 302, 307, 408, 425, 429, 500, 503])
async def test_given_an_answer_that_is_not_the_products_word_when_told_then_nothing_is_taken_in(
    status,
):
    backend = backend_of(status)
    backend.last_contact = 0

    with pytest.raises(Unreachable):
        await backend.send_result("action-1", RESULT)

    assert backend.last_contact == 0


@pytest.mark.parametrize(
    ("status", "is_final"), [(400, True), (415, True), (422, True), (401, False), (403, False), (409, False)]
)
async def test_given_a_refusal_when_told_then_only_one_that_trust_could_mend_is_worth_another_try(
    status, is_final
):
    """What can never be taken in must not hold up all that comes after it."""
    with pytest.raises(Refused) as refusal:
        await backend_of(status).send_result("action-1", RESULT)

    assert refusal.value.is_final is is_final


async def test_z33_given_an_odd_name_of_an_action_when_reported_then_it_leads_to_no_other_path():
    asked = []

    await backend_of(200, asked).send_result("../../keys/rotate", RESULT)

    assert asked == [b"/api/v1/clusters/c-1/actions/..%2F..%2Fkeys%2Frotate/result"]
