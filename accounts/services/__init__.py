"""Everything that changes people, organizations and AWS accounts."""

from accounts.services.connection import mark_failed, mark_scanned, mark_verified
from accounts.services.linking import (
    Disconnected,
    LinkStarted,
    disconnect,
    link_of,
    rename_account,
    start_link,
)
from accounts.services.people import (
    SignedIn,
    SignedUp,
    change_password,
    sign_in,
    sign_up,
    update_profile,
)
from accounts.services.tokens import Tokens, issue_tokens, revoke_token, revoke_tokens, rotate_tokens
from accounts.services.workspace import skip_onboarding, switch_context

__all__ = [
    "Disconnected",
    "LinkStarted",
    "SignedIn",
    "SignedUp",
    "Tokens",
    "change_password",
    "disconnect",
    "issue_tokens",
    "link_of",
    "mark_failed",
    "mark_scanned",
    "mark_verified",
    "rename_account",
    "revoke_token",
    "revoke_tokens",
    "rotate_tokens",
    "sign_in",
    "sign_up",
    "skip_onboarding",
    "start_link",
    "switch_context",
    "update_profile",
]
