"""Refusals, spelled as each AWS service spells them."""

import json
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any
from xml.sax.saxutils import escape

from moto.core.exceptions import ServiceException

EC2_UNKNOWN_KEY = "AWS was not able to validate the provided access credentials"
QUERY_SERVICES = frozenset({"sts", "autoscaling", "iam", "cloudformation"})


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class ApiError(ServiceException):
    """An error of a service being performed, as (code, message); moto spells it for the service."""


class Refusal(Enum):
    """Why a call is refused before it is performed: (status, code) for EC2, query and JSON services."""

    UNKNOWN_KEY = ((401, "AuthFailure"), (403, "InvalidClientTokenId"), (403, "UnrecognizedClientException"))
    EXPIRED = ((400, "RequestExpired"), (403, "ExpiredToken"), (403, "ExpiredTokenException"))
    DENIED = ((403, "UnauthorizedOperation"), (403, "AccessDenied"), (403, "AccessDeniedException"))
    THROTTLED = ((503, "RequestLimitExceeded"), (400, "Throttling"), (429, "ThrottlingException"))
    UNKNOWN_ACTION = ((400, "InvalidAction"), (400, "InvalidAction"), (404, "UnknownOperationException"))
    BROKEN = ((500, "InternalError"), (500, "InternalFailure"), (500, "InternalServerError"))
    DRY_RUN = ((412, "DryRunOperation"), (400, "ValidationError"), (400, "ValidationException"))


class Refused(Exception):
    """A call that AWS refuses, with the sentence that the caller reads."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.message = message


def spell(service: str, refused: Refused) -> Answer:
    """The refusal as this service's clients expect it."""
    ec2, query, rest = refused.refusal.value
    if service == "ec2":
        message = EC2_UNKNOWN_KEY if refused.refusal is Refusal.UNKNOWN_KEY else refused.message
        return _xml(ec2[0], _ec2_error(ec2[1], message))
    if service in QUERY_SERVICES:
        return _xml(query[0], _query_error(query[1], refused.message))
    return json_answer(rest[0], {"__type": rest[1], "message": refused.message}, error=rest[1])


def json_answer(status: int, content: dict[str, Any], *, error: str = "") -> Answer:
    """A JSON answer; `error` also goes into the header that rest-json clients read."""
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
    if error:
        headers["x-amzn-errortype"] = error
    return Answer(status, headers, json.dumps(content).encode())


def _xml(status: int, text: str) -> Answer:
    headers = {"Content-Type": "text/xml", "x-amzn-RequestId": str(uuid.uuid4())}
    return Answer(status, headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode())


def _ec2_error(code: str, message: str) -> str:
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>"


def _query_error(code: str, message: str) -> str:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return f"<ErrorResponse>{error}<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
