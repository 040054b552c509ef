"""Node templates: create, edit, clone, star, delete; five are copied to every organization."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from itertools import chain, count
from uuid import UUID

from django.db import transaction
from django.db.models import Case, Max, Min, QuerySet, When
from django.db.models.functions import Lower

from accounts.models import Organization
from audit.services import Subject, record
from clusters.models import InstanceType, Price
from policies.domain.template import Disk, Issue, KnownType, examine, is_excluded
from policies.models import ClusterPolicy, NodeTemplate
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, InvalidInput, NotFound

TOO_SMALL = ("nano", "micro", "small", "medium", "metal")
"""Sizes that hold daemon sets and little else, or a whole machine; refused by default."""


@dataclass(frozen=True, slots=True)
class TemplateDraft:
    """What a person says about a template; the columns of the same names."""

    name: str
    families: tuple[str, ...]
    description: str = ""
    excluded_sizes: tuple[str, ...] = TOO_SMALL
    architecture: str = NodeTemplate.Architecture.X86_64
    strategy: str = NodeTemplate.Strategy.BALANCED
    capacity_type: str = NodeTemplate.CapacityType.SPOT
    hybrid_spot_percentage: int = 50
    spot_allocation: str = NodeTemplate.SpotAllocation.CAPACITY_OPTIMIZED
    disk_type: str = NodeTemplate.DiskType.GP3
    disk_size: int = 100
    iops: int | None = None
    throughput_mibps: int | None = None
    needs_instance_store: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What the validator says about a draft."""

    issues: tuple[Issue, ...]
    min_usd_per_hour: Decimal | None
    """Cheapest known on-demand price of a matching type in the region; None when none is known."""
    max_usd_per_hour: Decimal | None

    @property
    def is_valid(self) -> bool:
        """Tell whether the draft may be saved."""
        return not any(issue.severity == "ERROR" for issue in self.issues)


@dataclass(frozen=True, slots=True)
class Starred:
    """Which template was the default, and which is."""

    previous_id: UUID | None
    template: NodeTemplate


SYSTEM_TEMPLATES = (
    TemplateDraft(
        name="General purpose, balanced",
        description="Web, workers and most services: many x86_64 families, so that no one spot pool decides.",
        families=tuple(f"{letter}{rest}" for letter in "mcr" for rest in ("5", "5a", "6i", "6a", "7i", "7a")),
    ),
    TemplateDraft(
        name="Compute, high performance",
        description="Builds, encoding and busy services on compute families.",
        families=("c5", "c6i", "c7i"),
        strategy=NodeTemplate.Strategy.PERFORMANCE,
    ),
    TemplateDraft(
        name="Memory, large",
        description="Caches and databases: half spot, half on-demand.",
        families=("r5", "r6i", "r7i"),
        capacity_type=NodeTemplate.CapacityType.HYBRID,
        disk_size=200,
    ),
    TemplateDraft(
        name="ARM, cost efficient",
        description="Images built for arm64 at the lowest price.",
        families=("t4g", "m6g", "c6g"),
        architecture=NodeTemplate.Architecture.ARM64,
        strategy=NodeTemplate.Strategy.CHEAPEST,
    ),
    TemplateDraft(
        name="GPU, AI and ML",
        description="Training and inference on on-demand GPU nodes.",
        families=("g4dn", "g5", "p3"),
        capacity_type=NodeTemplate.CapacityType.ON_DEMAND,
    ),
)
"""The first is the default of a new organization."""


@transaction.atomic
def ensure_defaults(*, organization_id: UUID) -> NodeTemplate:
    """Give the organization the system templates it lacks and return its default; safe to repeat."""
    _lock_all(organization_id)
    known = set(NodeTemplate.objects.filter(is_system=True).values_list("name", flat=True))
    taken = set(_live().values_list(Lower("name"), flat=True))
    for draft in SYSTEM_TEMPLATES:
        if draft.name not in known and draft.name.lower() not in taken:
            NodeTemplate.objects.create(organization_id=organization_id, is_system=True, **asdict(draft))
    default = _live().filter(is_default=True).first()
    if default is None:
        default = _live().order_by(
            Case(When(name=SYSTEM_TEMPLATES[0].name, then=0), default=1), "created_at"
        )[0]
        _star(default)
    return default


def examine_draft(draft: TemplateDraft, *, region: str | None = None) -> Findings:
    """Return the issues of a draft and the price range of what it would let in; nothing is written."""
    catalogue = list(InstanceType.objects.filter(family__in=draft.families))
    issues = examine(
        families=draft.families,
        architecture=draft.architecture,
        excluded_sizes=draft.excluded_sizes,
        disk=Disk(draft.disk_type, draft.disk_size, draft.iops, draft.throughput_mibps),
        catalogue=[
            KnownType(row.family, row.size, row.arch, row.is_burstable, row.gpu_count > 0)
            for row in catalogue
        ],
    )
    allowed = [
        row.name
        for row in catalogue
        if row.arch == draft.architecture and not is_excluded(row.size, draft.excluded_sizes)
    ]
    prices = Price.objects.filter(instance_type__in=allowed, capacity_type="on_demand")
    if region:
        prices = prices.filter(region=region)
    span = prices.aggregate(low=Min("usd_per_hour"), high=Max("usd_per_hour"))
    return Findings(tuple(issues), span["low"], span["high"])


@transaction.atomic
def create_template(*, draft: TemplateDraft, actor: Actor) -> NodeTemplate:
    """Return a new template; the organization's first one becomes its default."""
    organization_id = _organization(actor)
    _lock_all(organization_id)
    _refuse_bad(draft)
    _refuse_taken(draft.name)
    template = NodeTemplate.objects.create(
        organization_id=organization_id,
        created_by_id=actor.id or None,
        is_default=not _live().filter(is_default=True).exists(),
        **asdict(draft),
    )
    _tell(actor, template, "created", f"Created template {template.name}", after=_facts(template))
    return template


@transaction.atomic
def update_template(
    *, template_id: UUID, changes: Mapping[str, object], actor: Actor, version: int | None = None
) -> NodeTemplate:
    """Return the edited template; new values apply at the next launch.

    Raises Conflict for a system template, or when somebody else saved since ``version`` was read.
    """
    template = _locked(template_id)
    if template.is_system:
        raise Conflict(
            "System templates cannot be changed. Clone it and change the copy.", code="system_template"
        )
    if version is not None and version != template.version:
        raise Conflict(
            "Somebody else saved this template meanwhile. Load it again.",
            code="stale",
            version=template.version,
        )
    before = draft_of(template)
    after = replace(before, **changes)  # type: ignore[arg-type]  # the serializer allows only the draft's fields
    if after == before:
        return template
    _refuse_bad(after)
    if after.name.lower() != before.name.lower():
        _refuse_taken(after.name)
    facts = _facts(template)
    for name, value in asdict(after).items():
        setattr(template, name, value)
    template.version += 1
    template.save(update_fields=[*asdict(after), "version", "updated_at"])
    _tell(
        actor, template, "updated", f"Changed template {template.name}", before=facts, after=_facts(template)
    )
    return template


@transaction.atomic
def clone_template(*, template_id: UUID, actor: Actor, name: str = "") -> NodeTemplate:
    """Return a copy that may be edited, named ``name`` or ``… (copy)``."""
    source = _locked(template_id)
    name = name or _free_name(f"{source.name} (copy)")
    _refuse_taken(name)
    copy = NodeTemplate.objects.create(
        organization_id=source.organization_id,
        created_by_id=actor.id or None,
        **asdict(replace(draft_of(source), name=name)),
    )
    _tell(actor, copy, "created", f"Cloned template {source.name} as {name}", after=_facts(copy))
    return copy


@transaction.atomic
def set_default(*, template_id: UUID, actor: Actor) -> Starred:
    """Make the template the one that new policies get; the same one again changes nothing."""
    _lock_all(_organization(actor))
    template = _locked(template_id)
    previous = _live().filter(is_default=True).first()
    if previous is not None and previous.pk == template.pk:
        return Starred(template.pk, template)
    _star(template)
    _tell(
        actor,
        template,
        "made_default",
        f"Made {template.name} the default template",
        before={"default": previous.name if previous else None},
        after={"default": template.name},
    )
    return Starred(previous.pk if previous else None, template)


@transaction.atomic
def delete_template(*, template_id: UUID, actor: Actor) -> NodeTemplate:
    """Hide the template for good; raise Conflict while a policy, the star or the system needs it."""
    template = _locked(template_id)
    if template.is_system:
        raise Conflict("System templates cannot be deleted.", code="system_template")
    users = list(
        ClusterPolicy.objects.filter(template=template)
        .order_by("cluster__name")
        .values_list("cluster__name", flat=True)
    )
    if users:
        raise Conflict(
            "Clusters use this template. Give them another one first.", code="in_use", clusters=users
        )
    if template.is_default:
        raise Conflict("This is the default template. Make another one the default first.", code="is_default")
    template.deleted_at = utcnow()
    template.save(update_fields=["deleted_at", "updated_at"])
    _tell(actor, template, "deleted", f"Deleted template {template.name}", before=_facts(template))
    return template


def draft_of(template: NodeTemplate) -> TemplateDraft:
    """Return what the template says, in the form in which it is edited."""
    values = {item.name: getattr(template, item.name) for item in fields(TemplateDraft)}
    values |= {name: tuple(values[name]) for name in ("families", "excluded_sizes")}
    return TemplateDraft(**values)


def _live() -> QuerySet[NodeTemplate]:
    return NodeTemplate.objects.filter(deleted_at=None)


def _locked(template_id: UUID) -> NodeTemplate:
    template = NodeTemplate.objects.select_for_update(of=("self",)).filter(pk=template_id).first()
    if template is None:
        raise NotFound("There is no such template.")
    if template.deleted_at is not None:
        raise NotFound("This template was deleted.")
    return template


def _lock_all(organization_id: UUID) -> None:
    """Let one transaction at a time decide what exists and what is the default."""
    Organization.objects.select_for_update(of=("self",)).get(pk=organization_id)


def _star(template: NodeTemplate) -> None:
    _live().filter(is_default=True).update(is_default=False)
    template.is_default = True
    template.save(update_fields=["is_default", "updated_at"])


def _refuse_bad(draft: TemplateDraft) -> None:
    errors = [issue for issue in examine_draft(draft).issues if issue.severity == "ERROR"]
    if errors:
        raise InvalidInput(errors[0].message, errors={"template": [issue.message for issue in errors]})


def _refuse_taken(name: str) -> None:
    if _live().filter(name__iexact=name).exists():
        raise Conflict(f"A template named {name} exists already.", code="duplicate_name")


def _free_name(wanted: str) -> str:
    taken = set(_live().filter(name__istartswith=wanted).values_list(Lower("name"), flat=True))
    numbered = (f"{wanted} {number}" for number in count(2))
    return next(name for name in chain([wanted], numbered) if name.lower() not in taken)


def _facts(template: NodeTemplate) -> dict[str, object]:
    facts = asdict(draft_of(template))
    return facts | {"families": list(template.families), "excluded_sizes": list(template.excluded_sizes)}


def _organization(actor: Actor) -> UUID:
    assert actor.organization_id is not None  # noqa: S101  # doors admit only members
    return actor.organization_id


def _tell(
    actor: Actor,
    template: NodeTemplate,
    verb: str,
    sentence: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    record(
        actor=actor,
        event=f"policies.template.{verb}",
        sentence=sentence,
        subject=Subject("template", str(template.pk), template.name),
        before=before,
        after=after,
    )
