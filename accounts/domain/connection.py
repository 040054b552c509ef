"""The life of a linked AWS account, and what its identifiers look like."""

import re

AWS_ACCOUNT_ID = re.compile(r"\d{12}")
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+", re.ASCII)
AUTH_FAILURES_TO_ERROR = 3

CLAIMED = frozenset({"scanning", "active", "error"})
"""Statuses of an account whose role was assumed at least once; only these hold its AWS id."""

_MOVES: dict[str, frozenset[str]] = {
    "pending": frozenset({"scanning", "disconnected"}),
    "scanning": frozenset({"active", "error", "disconnected"}),
    "active": frozenset({"scanning", "error", "disconnected"}),
    "error": frozenset({"scanning", "active", "disconnected"}),
    "disconnected": frozenset({"pending"}),
}


def may_move(present: str, following: str) -> bool:
    """Tell whether an account may go from one status to another.

    A pending account never becomes ``error``: that status claims the AWS id, and nothing was proved yet.
    """
    return following in _MOVES[present]


def is_aws_account_id(text: str) -> bool:
    """Tell whether the text is twelve ASCII digits."""
    return text.isascii() and AWS_ACCOUNT_ID.fullmatch(text) is not None


def account_of_role(role_arn: str) -> str | None:
    """Return the AWS account id inside a role's ARN, or None when the text is no role ARN."""
    match = ROLE_ARN.fullmatch(role_arn)
    return match.group(1) if match else None
