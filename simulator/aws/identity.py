"""Who is calling: platform, customer administrators, and the sessions of assumed roles."""

import json
import re
import secrets
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moto.iam.models import IAMBackend, Role, iam_backends

from simulator.aws.answers import Refusal, Refused
from simulator.aws.policies import Document, allows
from simulator.journal import Journal

PLATFORM_ACCOUNT = "999988887777"
PLATFORM_KEY = "AKIASPOTOPTPLATFORM"
SESSION_KEY = "ASIA"
ADMINISTRATOR_KEY = re.compile(r"AKIACUSTOMERADMIN(\d{12})")
PLATFORM_MAY = [
    {"Statement": {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:GetCallerIdentity"], "Resource": "*"}}
]
EVERYTHING = [{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}]
KEY_LETTERS = string.ascii_uppercase + "234567"


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request, with the policies that limit it."""

    account_id: str
    arn: str
    user_id: str
    policies: list[Document]
    session_policy: Document | None = None

    def may(self, action: str, resource: str, context: dict[str, str | list[str]]) -> bool:
        """Whether its policies (and those of its session) permit this."""
        if not allows(self.policies, action, resource, context):
            return False
        return self.session_policy is None or allows([self.session_policy], action, resource, context)

    @property
    def names(self) -> set[str]:
        """How a trust policy may name it."""
        account = self.account_id
        return {self.arn, account, f"arn:aws:iam::{account}:root"}


@dataclass(frozen=True, slots=True)
class Session:
    """Temporary credentials of an assumed role; `expires_at` is wall time in Unix seconds."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: float
    role_arn: str
    name: str
    policy: str | None


class Identities:
    """Finds the principal behind an access key; sessions survive a restart."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._sessions: dict[str, Session] = {}
        for key, record in journal.read("session/").items():
            session = Session(**record)
            if session.expires_at > time.time():
                self._sessions[session.access_key_id] = session
            else:
                journal.write({key: None})

    def principal(self, access_key_id: str, session_token: str | None) -> Principal:
        """The caller; Refused when the key is unknown, its token wrong, or its session over."""
        if access_key_id.startswith(PLATFORM_KEY):
            arn = f"arn:aws:iam::{PLATFORM_ACCOUNT}:user/spotopt-platform"
            return Principal(PLATFORM_ACCOUNT, arn, "AIDASPOTOPTPLATFORM", list(PLATFORM_MAY))
        if match := ADMINISTRATOR_KEY.match(access_key_id):
            account_id = match[1]
            arn = f"arn:aws:iam::{account_id}:user/administrator"
            return Principal(account_id, arn, f"AIDAADMINISTRATOR{account_id}", list(EVERYTHING))
        session = self._sessions.get(access_key_id)
        if session is None or not secrets.compare_digest(session.session_token, session_token or ""):
            raise Refused(Refusal.UNKNOWN_KEY, "The security token included in the request is invalid.")
        if session.expires_at <= time.time():
            raise Refused(Refusal.EXPIRED, "The security token included in the request is expired.")
        return _assumed(session)

    def open_session(self, *, role_arn: str, name: str, seconds: int, policy: str | None) -> Session:
        """Fresh temporary credentials for a role."""
        session = Session(
            access_key_id=SESSION_KEY + "".join(secrets.choice(KEY_LETTERS) for _ in range(16)),
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(96),
            expires_at=time.time() + seconds,
            role_arn=role_arn,
            name=name,
            policy=policy,
        )
        self._sessions[session.access_key_id] = session
        record = {name: getattr(session, name) for name in Session.__slots__}
        self._journal.write({f"session/{session.access_key_id}": record})
        return session


def find_role(role_arn: str) -> Role | None:
    """The role with this ARN in whichever account it names, or None."""
    match = re.fullmatch(r"arn:aws:iam::(\d{12}):role/.+", role_arn)
    if match is None:
        return None
    roles = iam_of(match[1]).roles.values()
    return next((role for role in roles if role.arn == role_arn), None)


def iam_of(account_id: str) -> IAMBackend:
    """The IAM of one account."""
    backend: IAMBackend = iam_backends[account_id]["aws"]
    return backend


def policies_of(role: Role) -> list[Document]:
    """The role's inline and attached policies."""
    return list(_policies_of(role))


def _policies_of(role: Role) -> Iterator[Document]:
    for text in role.policies.values():
        yield _parsed(text)
    for managed in role.managed_policies.values():
        yield from (_parsed(version.document) for version in managed.versions if version.is_default)


def _parsed(document: Any) -> Document:
    content: Document = json.loads(document) if isinstance(document, str) else document
    return content


def _assumed(session: Session) -> Principal:
    account_id, role_name = session.role_arn.split(":")[4], session.role_arn.rpartition("/")[2]
    role = find_role(session.role_arn)
    return Principal(
        account_id=account_id,
        arn=f"arn:aws:sts::{account_id}:assumed-role/{role_name}/{session.name}",
        user_id=f"{role.id if role else 'AROADELETED'}:{session.name}",
        policies=policies_of(role) if role else [],
        session_policy=json.loads(session.policy) if session.policy else None,
    )
