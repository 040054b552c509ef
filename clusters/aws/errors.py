"""Turn every failure of botocore into one of ours, keeping AWS's own code and words."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError as BotoHttpError

from spotopt.core.errors import Throttled, UpstreamFailed

ACTION_IN_MESSAGE = re.compile(r"not authorized to perform:? ([\w-]+:\w+)")
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess"})
THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SlowDown",
        "EC2ThrottledException",
    }
)
UNKNOWN_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "OptInRequired",
        "SignatureDoesNotMatch",
    }
)
FAILED = frozenset(
    {"InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Unavailable"}
)
EXPIRED = frozenset({"RequestExpired", "ExpiredToken", "ExpiredTokenException"})
NO_CAPACITY = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientCapacity", "UnfulfillableCapacity", "Unsupported"}
)
MISSING = re.compile(r"(NotFound(Exception)?|\.Malformed|^NoSuchEntity|NonExistentQueue|^QueueDoesNotExist)$")


class AwsError(UpstreamFailed):
    """AWS refused or failed a call; ``code`` is ours, ``aws_code`` AWS's (empty when it never answered)."""

    slug, title = "aws-error", "AWS answered with an error"
    default_code: ClassVar[str] = "aws_error"

    def __init__(
        self, detail: str, *, code: str = "", aws_code: str = "", action: str = "", region: str = ""
    ) -> None:
        self.code = code or self.default_code
        self.aws_code, self.action, self.region = aws_code, action, region
        super().__init__(detail, code=self.code, aws_code=aws_code, action=action, region=region)


class AwsAccessDenied(AwsError):
    """The role's policies do not allow the call."""

    slug, title = "aws-access-denied", "AWS denied access"


class AwsThrottled(AwsError, Throttled):
    """AWS asked for fewer calls, and several patient attempts did not help; trying later will."""

    status, slug, title = 503, "aws-throttled", "AWS is throttling"
    default_code = "throttled"


class AwsTimeout(AwsError):
    """AWS did not answer in time."""

    slug, title, default_code = "aws-timeout", "AWS did not answer in time", "aws_timeout"


class AwsUnreachable(AwsError):
    """No connection to AWS could be made, or it broke."""

    slug, title, default_code = "aws-unreachable", "AWS cannot be reached", "aws_unreachable"


class AwsFailed(AwsError):
    """AWS failed inside: nobody knows whether it did what was asked."""

    slug, title, default_code = "aws-failed", "AWS failed", "aws_failed"


class AwsSessionExpired(AwsError):
    """The session's credentials are over before their time; a new session helps."""

    slug, title, default_code = "aws-session-expired", "The AWS session expired", "session_expired"


class RegionDisabled(AwsError):
    """The region is not enabled for the account: its endpoints do not know the credentials."""

    slug, title, default_code = "aws-region-disabled", "AWS region not enabled", "region_disabled"


class PlatformCredentialsRejected(AwsError):
    """Spotopt's own AWS credentials are missing or not accepted; no customer can repair that."""

    slug, title = "aws-platform-credentials", "Spotopt cannot sign in to AWS"
    default_code = "platform_credentials"


class ResourceMissing(AwsError):
    """The instance, cluster, group or template that the call names does not exist."""

    slug, title, default_code = "aws-resource-missing", "AWS resource not found", "resource_missing"


class NoCapacity(AwsError):
    """AWS has no machine to give in the pool."""

    slug, title, default_code = "aws-no-capacity", "AWS has no capacity", "no_capacity"


class GroupAtMinimum(AwsError):
    """The Auto Scaling group may not become smaller than its minimum size."""

    slug, title, default_code = "aws-group-at-minimum", "Group is at its minimum size", "group_at_minimum"


class DryRunPassed(AwsError):
    """A dry run said that the call would have succeeded."""

    slug, title, default_code = "aws-dry-run", "The dry run passed", "dry_run_passed"


@contextmanager
def translated(*, action: str, region: str) -> Iterator[None]:
    """Raise an ``AwsError`` for whatever botocore raises inside; ``action`` is IAM's name of the call."""
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, action, region) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PlatformCredentialsRejected(
            "Spotopt has no AWS credentials of its own. Its operator has to set them.",
            action=action,
            region=region,
        ) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise AwsTimeout(
            f"AWS did not answer {action} in {region} in time. Try again in a minute.",
            action=action,
            region=region,
        ) from error
    except (BotoConnectionError, BotoHttpError) as error:
        raise AwsUnreachable(
            f"AWS cannot be reached for {action} in {region}. Nothing was changed; try again in a minute.",
            action=action,
            region=region,
        ) from error
    except BotoCoreError as error:
        raise AwsError(f"{action} in {region} failed: {error}", action=action, region=region) from error


def _from_answer(error: ClientError, action: str, region: str) -> AwsError:
    """The failing call may be another than ``action``: a session renews itself by AssumeRole on the way."""
    aws_code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    if error.operation_name == "AssumeRole":
        action = "sts:AssumeRole"
    kind, detail, code = _meaning(aws_code, message, action, region)
    if kind is AwsAccessDenied and (named := ACTION_IN_MESSAGE.search(message)):
        action = named[1]
        code, detail = f"access_denied:{action}", _denial(action, region)
    return kind(detail, code=code, aws_code=aws_code, action=action, region=region)


def _meaning(aws_code: str, message: str, action: str, region: str) -> tuple[type[AwsError], str, str]:
    """Return the error's class, its sentence and our code for what AWS said."""
    if aws_code in DENIED:
        return AwsAccessDenied, _denial(action, region), f"access_denied:{action}"
    if aws_code in THROTTLED:
        return AwsThrottled, f"AWS is throttling {action} in {region}. Try again in a few minutes.", ""
    if aws_code in UNKNOWN_CREDENTIALS:
        return _unknown_credentials(action, region)
    for kind, is_it in _SPOKEN_BY_AWS:
        if is_it(aws_code, message):
            return kind, message or f"AWS answered {action} in {region} with {aws_code}.", ""
    return AwsError, f"AWS answered {action} in {region} with {aws_code}: {message}", ""


_SPOKEN_BY_AWS: tuple[tuple[type[AwsError], Callable[[str, str], bool]], ...] = (
    (DryRunPassed, lambda code, _: code == "DryRunOperation"),
    (AwsFailed, lambda code, _: code in FAILED),
    (AwsSessionExpired, lambda code, _: code in EXPIRED),
    (GroupAtMinimum, lambda code, message: code == "ValidationError" and "min size" in message),
    (NoCapacity, lambda code, _: code in NO_CAPACITY),
    (ResourceMissing, lambda code, _: MISSING.search(code) is not None),
    (ResourceMissing, lambda code, message: code == "ValidationError" and "not found" in message),
)
"""Failures that AWS's own sentence explains best."""


def _unknown_credentials(action: str, region: str) -> tuple[type[AwsError], str, str]:
    if action.startswith("sts:"):
        detail = "AWS does not accept Spotopt's own credentials. Its operator has to repair them."
        return PlatformCredentialsRejected, detail, ""
    detail = f"The region {region} is not enabled for this AWS account."
    return RegionDisabled, detail, ""


def _denial(action: str, region: str) -> str:
    if action == "sts:AssumeRole":
        return "AWS no longer lets Spotopt assume the role: it was deleted, or its trust policy changed."
    return f"The role may not call {action} in {region}. Update the Spotopt stack, which allows it."
