"""What every simulated service adds to moto's responders."""

from typing import Any

from moto.core.common_types import TYPE_RESPONSE
from moto.core.request import Request
from moto.core.responses import ActionContext, ActionResult, BaseResponse

from simulator.aws.answers import Answer
from simulator.aws.estate import Estate
from simulator.aws.identity import Principal


class Written(ActionResult):
    """An answer that is already XML."""

    def execute_result(self, context: ActionContext) -> TYPE_RESPONSE:
        return 200, {"Content-Type": "text/xml;charset=UTF-8"}, str(self.result)


class Operation(BaseResponse):
    """A moto responder that knows the estate and its caller, and can be asked what it is about to do."""

    estate: Estate
    principal: Principal

    def admit(self, request: Request, estate: Estate, principal: Principal) -> str:
        """Take the request in without performing it; return the name of its action ("" when unknown)."""
        self.estate, self.principal = estate, principal
        self.setup_class(request)
        return self._get_action() or ""

    def asked(self, name: str) -> Any:
        """One parameter of the request (dots reach inside), or None."""
        return self._get_param(name)

    def perform(self) -> Answer:
        """Carry the action out."""
        status, headers, body = self.call_action()
        content = body.encode() if isinstance(body, str) else bytes(body)
        return Answer(int(status), {key: str(value) for key, value in headers.items()}, content)

    @property
    def place(self) -> tuple[str, str]:
        """The account and region that the request is about."""
        return self.principal.account_id, self.region
