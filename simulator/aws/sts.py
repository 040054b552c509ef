"""STS: roles are given only to whom they trust, with the external id they ask for."""

import json
from datetime import UTC, datetime

from moto.core.responses import ActionResult
from moto.sts.responses import TokenResponse

from simulator.aws.answers import ApiError, Refusal, Refused
from simulator.aws.identity import find_role
from simulator.aws.operation import Operation
from simulator.aws.policies import trusts

SHORTEST_SECONDS, USUAL_SECONDS = 900, 3600


class SimulatedSts(Operation, TokenResponse):
    """AssumeRole with enforced trust, and the caller's identity."""

    def assume_role(self) -> ActionResult:
        role_arn, name = self._get_param("RoleArn"), self._get_param("RoleSessionName")
        external_id, policy = self._get_param("ExternalId"), self._get_param("Policy")
        seconds = int(self._get_param("DurationSeconds", USUAL_SECONDS))
        role = find_role(role_arn)
        context = {"sts:ExternalId": external_id} if external_id else {}
        trusted = role is not None and trusts(
            json.loads(role.assume_role_policy_document), "sts:AssumeRole", self.principal.names, context
        )
        if role is None or not trusted:
            raise Refused(
                Refusal.DENIED,
                f"User: {self.principal.arn} is not authorized to perform: sts:AssumeRole "
                f"on resource: {role_arn}",
            )
        longest = int(role.max_session_duration or USUAL_SECONDS)
        if not SHORTEST_SECONDS <= seconds <= longest:
            raise ApiError(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                if seconds > longest
                else f"Value '{seconds}' at 'durationSeconds' must be at least {SHORTEST_SECONDS}.",
            )
        session = self.estate.identities.open_session(
            role_arn=role_arn, name=name, seconds=seconds, policy=policy
        )
        caller = self.estate.identities.principal(session.access_key_id, session.session_token)
        return ActionResult(
            {
                "Credentials": {
                    "AccessKeyId": session.access_key_id,
                    "SecretAccessKey": session.secret_access_key,
                    "SessionToken": session.session_token,
                    "Expiration": datetime.fromtimestamp(session.expires_at, UTC),
                },
                "AssumedRoleUser": {"AssumedRoleId": caller.user_id, "Arn": caller.arn},
                "PackedPolicySize": 6,
            }
        )

    def get_caller_identity(self) -> ActionResult:
        caller = self.principal
        return ActionResult({"UserId": caller.user_id, "Account": caller.account_id, "Arn": caller.arn})
