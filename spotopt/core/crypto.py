"""Ed25519 signatures over canonical JSON, and digests of tokens."""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings


def canonical_json(value: object) -> bytes:
    """Return the one byte string that signer and verifier agree on: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@cache
def _signing_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(settings.AGENT_SIGNING_KEY))


def sign(document: Mapping[str, object]) -> str:
    """Return the base64 Ed25519 signature of the document's canonical JSON."""
    return base64.b64encode(_signing_key().sign(canonical_json(document))).decode()


def public_key() -> str:
    """Return the base64 public key that agents pin."""
    raw = _signing_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def digest(secret: str) -> str:
    """Return the SHA-256 hex digest under which a random token is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def fingerprint(value: object) -> str:
    """Return the SHA-256 hex digest that tells a JSON value from any other."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def random_token(prefix: str) -> str:
    """Return ``prefix`` followed by 32 random bytes in URL-safe base64."""
    return prefix + secrets.token_urlsafe(32)
