"""One policy document per cluster: read lazily, changed by one service, every version kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from audit.domain.diff import changes as differences
from audit.services import Subject, record
from clusters.models import AgentConfig, Cluster, NodeGroup, NodePool
from policies.domain import document
from policies.domain.document import PolicyDocument
from policies.models import ClusterPolicy, NodeTemplate, Plan, PolicyRevision
from policies.services.templates import ensure_defaults
from spotopt.core.actor import Actor
from spotopt.core.errors import Conflict, NotFound
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What to change; None leaves a part as it is."""

    config: Json | None = None
    """Knobs to turn, by section; the rest of the document stays."""
    replaces_config: bool = False
    """Take ``config`` as the whole document, with defaults for what it leaves out."""
    template_id: UUID | None = None
    mode: str | None = None
    is_active: bool | None = None
    version: int | None = None
    """The version the author saw; another one now is a Conflict."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """How many agents must learn of a policy, and how many said that they have."""

    agents: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What saving a draft would mean."""

    warnings: tuple[str, ...]
    config: Json
    usd_per_month_now: Decimal | None
    """Forecast saving of the newest proposed plan, made under the saved policy; None without one."""


def default_policy_for(cluster: Cluster) -> ClusterPolicy:
    """Return the cluster's policy, made from the defaults and the default template when it has none."""
    known = ClusterPolicy.objects.select_related("template").filter(cluster=cluster).first()
    if known is not None:
        return known
    with transaction.atomic():
        fresh = unsaved_policy_for(cluster)
        policy, is_new = ClusterPolicy.objects.select_related("template").get_or_create(
            cluster=cluster,
            defaults={
                "organization_id": cluster.organization_id,
                "template": fresh.template,
                "config": fresh.config,
            },
        )
        if is_new:
            _tell_agent(policy)
        return policy


def unsaved_policy_for(cluster: Cluster) -> ClusterPolicy:
    """Return the policy a cluster without one would get; version 0, not stored."""
    return ClusterPolicy(
        organization_id=cluster.organization_id,
        cluster=cluster,
        template=ensure_defaults(organization_id=cluster.organization_id),
        config=document.as_json(PolicyDocument()),
        version=0,
    )


def policy_of(cluster_id: UUID) -> ClusterPolicy:
    """Return the cluster's policy, or unsaved defaults with version 0; raise NotFound without a cluster."""
    policy = (
        ClusterPolicy.objects.select_related("template", "cluster", "updated_by")
        .filter(cluster_id=cluster_id, cluster__removed_at=None)
        .first()
    )
    return policy or unsaved_policy_for(_cluster(cluster_id))


@transaction.atomic
def change_policy(*, cluster_id: UUID, change: PolicyChange, actor: Actor) -> ClusterPolicy:
    """Return the policy at its new version; nothing is written when nothing differs.

    Raises InvalidInput naming each bad knob, and Conflict when somebody else saved meanwhile, when
    template and constraints contradict each other, or when Karpenter is switched on where there is none.
    """
    policy = _locked(_cluster(cluster_id))
    seen = change.version if change.version != 0 else 1  # the defaults, which are stored as version 1
    if seen is not None and seen != policy.version:
        raise Conflict(
            f"{_editor(policy)} saved this policy meanwhile. Load it again and repeat your change.",
            code="stale",
            version=policy.version,
            changed_by=_editor(policy),
            changed_at=policy.updated_at.isoformat(),
        )
    before = _state(policy)
    _apply(policy, change)
    if _state(policy) == before:
        return policy
    return _save(policy, before, actor)


@transaction.atomic
def reset_policy(*, cluster_id: UUID, actor: Actor) -> ClusterPolicy:
    """Return the policy with every knob at its default; template, mode and switch stay."""
    return change_policy(
        cluster_id=cluster_id, change=PolicyChange(config={}, replaces_config=True), actor=actor
    )


@transaction.atomic
def revert_policy(*, cluster_id: UUID, version: int, actor: Actor) -> ClusterPolicy:
    """Return the policy saying again, as a new version, what it said at ``version``."""
    revision = PolicyRevision.objects.filter(policy__cluster_id=cluster_id, version=version).first()
    if revision is None:
        raise NotFound(f"This policy has no version {version}.")
    said = revision.document
    if not NodeTemplate.objects.filter(pk=said["template_id"], deleted_at=None).exists():
        raise Conflict("The template of that version was deleted since.", code="template_deleted")
    change = PolicyChange(
        config=said["config"],
        replaces_config=True,
        template_id=UUID(said["template_id"]),
        mode=said["mode"],
        is_active=said["is_active"],
    )
    return change_policy(cluster_id=cluster_id, change=change, actor=actor)


def preview_policy(*, cluster_id: UUID, change: PolicyChange) -> Preview:
    """Return what saving the change would mean; raise as ``change_policy`` does, and write nothing."""
    policy = policy_of(cluster_id)
    _apply(policy, change)
    plan = (
        Plan.objects.filter(cluster_id=cluster_id, status=Plan.Status.PROPOSED)
        .order_by("-created_at")
        .first()
    )
    return Preview(
        warnings=tuple(document.warnings(document.parse(policy.config), policy.template)),
        config=policy.config,
        usd_per_month_now=plan.usd_per_hour_saved * 730 if plan else None,
    )


def broadcast_of(policy: ClusterPolicy) -> Broadcast:
    """Return whether the cluster's agent knows the policy's newest version."""
    if not policy.cluster.agent_installed:
        return Broadcast(agents=0, delivered=0)
    told = AgentConfig.objects.filter(cluster=policy.cluster).first()
    return Broadcast(agents=1, delivered=int(told is not None and told.acknowledged_version >= told.version))


def surges_single_replicas(cluster: Cluster) -> bool:
    """Tell whether a deployment's only pod is to be replaced by its rolling update instead of evicted."""
    return document.parse(default_policy_for(cluster).config).binpack.surge_single_replicas


def agent_slice(policy: ClusterPolicy) -> dict[str, object]:
    """Return the part of a policy that an agent enforces on its own: what it must never drain."""
    exclusions = document.parse(policy.config).exclusions
    return {
        "policy_version": policy.version,
        "is_active": policy.is_active,
        "excluded_namespaces": list(exclusions.namespaces),
        "excluded_labels": dict(exclusions.labels),
    }


def _cluster(cluster_id: UUID) -> Cluster:
    cluster = Cluster.objects.filter(pk=cluster_id, removed_at=None).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    return cluster


def _locked(cluster: Cluster) -> ClusterPolicy:
    policy = default_policy_for(cluster)
    return (
        ClusterPolicy.objects.select_for_update(of=("self",))
        .select_related("template", "cluster", "updated_by")
        .get(pk=policy.pk)
    )


def _apply(policy: ClusterPolicy, change: PolicyChange) -> None:
    """Change the row in memory; refuse what contradicts itself or the cluster."""
    had_karpenter = document.parse(policy.config).karpenter.enabled
    if change.config is not None and change.replaces_config:
        policy.config = document.as_json(document.parse(change.config))
    elif change.config is not None:
        policy.config = document.as_json(document.with_changes(document.parse(policy.config), change.config))
    if change.template_id is not None and change.template_id != policy.template_id:
        template = NodeTemplate.objects.filter(pk=change.template_id, deleted_at=None).first()
        if template is None:
            raise NotFound("There is no such template.")
        policy.template = template
    policy.mode = change.mode or policy.mode
    policy.is_active = policy.is_active if change.is_active is None else change.is_active
    document.resolve(policy.config, policy.template)
    if document.parse(policy.config).karpenter.enabled and not had_karpenter:
        _refuse_missing_karpenter(policy.cluster_id)


def _refuse_missing_karpenter(cluster_id: UUID) -> None:
    found = (
        NodeGroup.objects.filter(cluster_id=cluster_id, kind=NodeGroup.Kind.KARPENTER),
        NodePool.objects.filter(cluster_id=cluster_id),
    )
    if not any(rows.exists() for rows in found):
        raise Conflict(
            "Karpenter does not run in this cluster. Install it and wait until its node pools are found.",
            code="karpenter_missing",
        )


def _save(policy: ClusterPolicy, before: dict[str, object], actor: Actor) -> ClusterPolicy:
    if policy.version == 1 and not policy.revisions.exists():
        _keep_revision(policy, before, None, actor.label)
    policy.version += 1
    policy.updated_by_id = UUID(actor.id) if actor.kind == "user" else None
    policy.save(
        update_fields=["config", "template", "mode", "is_active", "version", "updated_by", "updated_at"]
    )
    after = _state(policy)
    _keep_revision(policy, after, before, actor.label)
    _tell_agent(policy)
    if policy.cluster.karpenter == Cluster.Karpenter.RUNNING:
        enqueue(
            "policies.steer_karpenter", organization_id=policy.organization_id, cluster_id=policy.cluster_id
        )
    record(
        actor=actor,
        event="policies.policy.updated",
        sentence=f"Changed the policy of {policy.cluster.name}",
        subject=Subject("policy", str(policy.pk), policy.cluster.name),
        account_id=policy.cluster.account_id,
        cluster_id=policy.cluster_id,
        before=before,
        after=after,
    )
    return policy


def _keep_revision(
    policy: ClusterPolicy, said: dict[str, object], before: dict[str, object] | None, author: str
) -> None:
    diff = [asdict(change) for change in differences(before, said)] if before is not None else []
    PolicyRevision.objects.create(
        organization_id=policy.organization_id,
        policy=policy,
        version=policy.version,
        document=said,
        diff=diff,
        changed_by="Spotopt defaults" if before is None else author,
    )


def _tell_agent(policy: ClusterPolicy) -> None:
    config, is_new = AgentConfig.objects.select_for_update().get_or_create(
        cluster=policy.cluster,
        defaults={"organization_id": policy.organization_id, "config": agent_slice(policy)},
    )
    if not is_new:
        config.config = agent_slice(policy)
        config.version += 1
        config.save(update_fields=["config", "version", "updated_at"])
    announce(organization_id=policy.organization_id, topic="agent", cluster_id=str(policy.cluster_id))


def _state(policy: ClusterPolicy) -> dict[str, object]:
    return {
        "config": policy.config,
        "template_id": str(policy.template_id),
        "template": policy.template.name,
        "mode": policy.mode,
        "is_active": policy.is_active,
    }


def _editor(policy: ClusterPolicy) -> str:
    return str(policy.updated_by) if policy.updated_by else "Spotopt"
