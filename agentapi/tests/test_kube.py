from contextlib import asynccontextmanager

import httpx
import pytest

from agentapi.agent.kube import Kube, KubeUnreachable

pytestmark = pytest.mark.asyncio


class Proxy:
    """Stands in front of an API server and answers with a page."""

    @asynccontextmanager
    async def call_api(self, *_, **__):
        yield httpx.Response(200, text="<html>Please sign in</html>")


async def test_given_a_proxy_that_answers_with_a_page_when_asked_then_the_api_server_counts_as_unreachable():
    with pytest.raises(KubeUnreachable, match="makes no sense"):
        await Kube(Proxy()).get("/api/v1/pods")
    with pytest.raises(KubeUnreachable, match="makes no sense"):
        await anext(Kube(Proxy()).watch("/api/v1/pods", "1"))
