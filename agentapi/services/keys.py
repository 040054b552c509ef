"""Credentials of clusters: issued once, kept as digests, exchanged, rotated and revoked."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from agentapi.models import AgentInstance, APIKey
from audit.services import Subject, record
from clusters.models import Cluster
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.crypto import digest, random_token
from spotopt.core.errors import Conflict, NotAuthenticated, NotFound

PREFIX = "so_"
BOOTSTRAP_LIFETIME = timedelta(hours=24)
ROTATION_OVERLAP = timedelta(hours=24)
SERVED_ORGANIZATIONS = ("trial", "active")
_TOUCH_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key; ``token`` is shown this once and never stored."""

    key: APIKey
    token: str


@transaction.atomic
def issue_bootstrap_key(*, cluster: Cluster, actor: Actor) -> IssuedKey:
    """Return a key that registers one agent within 24 hours; an earlier unused one stops working.

    Raises Conflict while an agent of the cluster is online: its key is rotated instead.
    """
    if AgentInstance.objects.filter(cluster=cluster, status=AgentInstance.Status.ONLINE).exists():
        raise Conflict("An agent of this cluster is connected already. Rotate its key instead.")
    unused = APIKey.objects.filter(cluster=cluster, kind=APIKey.Kind.BOOTSTRAP, used_at__isnull=True)
    _revoke(unused, "replaced")
    issued = _issue(
        cluster=cluster,
        kind=APIKey.Kind.BOOTSTRAP,
        description="One-use key of an installation",
        expires_at=utcnow() + BOOTSTRAP_LIFETIME,
        created_by=actor.label,
    )
    _tell(actor, issued.key, "issued", f"Issued an agent installation key for {cluster.name}")
    return issued


@transaction.atomic
def create_key(*, cluster: Cluster, description: str, expires_at: datetime | None, actor: Actor) -> IssuedKey:
    """Return a new long-lived agent key of the cluster."""
    issued = _issue(
        cluster=cluster,
        kind=APIKey.Kind.AGENT,
        description=description,
        expires_at=expires_at,
        created_by=actor.label,
    )
    _tell(actor, issued.key, "issued", f"Created an agent key for {cluster.name}")
    return issued


@transaction.atomic
def rotate_keys(*, cluster: Cluster, actor: Actor) -> IssuedKey:
    """Return a new agent key; the others of the cluster stop working in 24 hours."""
    end = utcnow() + ROTATION_OVERLAP
    _working(cluster).filter(Q(expires_at__isnull=True) | Q(expires_at__gt=end)).update(expires_at=end)
    issued = _issue(
        cluster=cluster,
        kind=APIKey.Kind.AGENT,
        description="Rotated",
        expires_at=None,
        created_by=actor.label,
    )
    _tell(actor, issued.key, "rotated", f"Rotated the agent keys of {cluster.name}")
    return issued


@transaction.atomic
def revoke_key(*, cluster: Cluster, key_id: UUID, actor: Actor, reason: str = "revoked by hand") -> APIKey:
    """Stop a key at once and return it; revoking it again changes nothing."""
    key = APIKey.objects.filter(cluster=cluster, pk=key_id).first()
    if key is None:
        raise NotFound("There is no such key.")
    if _revoke(APIKey.objects.filter(pk=key.pk), reason):
        _tell(actor, key, "revoked", f"Revoked agent key {key.key_prefix}… of {cluster.name}")
    key.refresh_from_db()
    return key


@transaction.atomic
def exchange(*, key_id: UUID, cluster: Cluster, actor: Actor) -> IssuedKey:
    """Spend a bootstrap key and return the agent key it buys; earlier agent keys are superseded.

    Raises NotAuthenticated when the bootstrap key was spent already.
    """
    spent = APIKey.objects.filter(
        pk=key_id, kind=APIKey.Kind.BOOTSTRAP, used_at__isnull=True, revoked_at__isnull=True
    ).update(used_at=utcnow())
    if not spent:
        raise NotAuthenticated("This key was used already. Issue a new one.", code="key_used")
    _revoke(_working(cluster), "superseded")
    return _issue(
        cluster=cluster,
        kind=APIKey.Kind.AGENT,
        description="Exchanged at registration",
        expires_at=None,
        created_by=actor.label,
    )


def find_key(token: str) -> APIKey:
    """Return the key behind a token, whose organization nobody knows yet.

    Raises NotAuthenticated, with ``code``, for one that is unknown, revoked, expired or spent.
    """
    key = (
        APIKey.unscoped.select_related("organization", "cluster").filter(key_hash=digest(token)).first()
    )  # before it is found no tenant is known
    if key is None:
        raise NotAuthenticated("This key is not known.", code="key_unknown")
    if key.revoked_at is not None:
        raise NotAuthenticated("This key was revoked.", code="key_revoked")
    if key.expires_at is not None and key.expires_at <= utcnow():
        raise NotAuthenticated("This key has expired.", code="key_expired")
    if key.used_at is not None:
        raise NotAuthenticated("This key was used already. Issue a new one.", code="key_used")
    if key.organization.status not in SERVED_ORGANIZATIONS:
        raise NotAuthenticated("The organization of this key is suspended.", code="organization_suspended")
    return key


def stopped_keys(key_ids: Collection[UUID]) -> set[UUID]:
    """Return which of the keys, of any organization, open nothing any more."""
    unspent = Q(revoked_at__isnull=True, used_at__isnull=True)
    current = Q(expires_at__isnull=True) | Q(expires_at__gt=utcnow())
    good = APIKey.unscoped.filter(
        unspent, current, pk__in=key_ids, organization__status__in=SERVED_ORGANIZATIONS
    )
    return set(key_ids) - set(good.values_list("pk", flat=True))


def touch(key: APIKey) -> None:
    """Remember that the key was used, to the minute."""
    now = utcnow()
    if key.last_used_at is None or now - key.last_used_at > _TOUCH_AFTER:
        APIKey.objects.filter(pk=key.pk).update(last_used_at=now)


def _working(cluster: Cluster) -> QuerySet[APIKey]:
    return APIKey.objects.filter(cluster=cluster, kind=APIKey.Kind.AGENT, revoked_at__isnull=True)


def _revoke(keys: QuerySet[APIKey], reason: str) -> int:
    return keys.filter(revoked_at__isnull=True).update(revoked_at=utcnow(), revoked_reason=reason[:255])


def _issue(
    *, cluster: Cluster, kind: str, description: str, expires_at: datetime | None, created_by: str
) -> IssuedKey:
    token = random_token(PREFIX)
    key = APIKey.objects.create(
        organization_id=cluster.organization_id,
        cluster=cluster,
        kind=kind,
        key_hash=digest(token),
        key_prefix=token.removeprefix(PREFIX)[:8],
        description=description[:255],
        created_by=created_by[:255],
        expires_at=expires_at,
    )
    return IssuedKey(key, token)


def _tell(actor: Actor, key: APIKey, verb: str, sentence: str) -> None:
    record(
        actor=actor,
        event=f"agentapi.key.{verb}",
        sentence=sentence,
        subject=Subject("agent", str(key.pk), f"{key.key_prefix}…"),
        account_id=key.cluster.account_id,
        cluster_id=key.cluster_id,
        after={"kind": key.kind, "prefix": key.key_prefix},
    )
