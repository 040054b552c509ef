"""Read node templates, and what they can be made of."""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Prefetch, Q, QuerySet

from clusters.models import InstanceType
from clusters.selectors.paging import Page, page_by_key
from policies.models import ClusterPolicy, NodeTemplate
from spotopt.core.errors import NotFound

PAGE_SIZE = 50
_CATEGORIES = (
    ("General purpose", ("m", "t", "a")),
    ("Compute", ("c",)),
    ("Memory", ("r", "x", "z", "u", "")),
    ("Storage", ("i", "im", "is", "d", "h")),
    ("Accelerated", ("g", "gr", "p", "inf", "trn", "dl", "vt", "f")),
)
_ARCHITECTURES = {"arm64": "arm64"}
"""What is said beside a family; the usual architecture needs no word."""


@dataclass(frozen=True, slots=True)
class FamilyGroup:
    """Instance families for one purpose."""

    title: str
    families: tuple[tuple[str, str], ...]
    """(family, a note such as its architecture)."""


def templates(*, search: str = "") -> QuerySet[NodeTemplate]:
    """Return the live templates with the policies that use them, the default first, then by name."""
    users = Prefetch("policies", queryset=ClusterPolicy.objects.select_related("cluster"))
    rows = NodeTemplate.objects.filter(deleted_at=None).prefetch_related(users)
    if search:
        rows = rows.filter(Q(name__icontains=search) | Q(families__contains=[search.lower()]))
    return rows.order_by("-is_default", "name", "pk")


def template_page_of(*, search: str = "", after: str = "") -> Page[NodeTemplate]:
    """Return one page of templates with the policies that use them, by name (two queries)."""
    found, sort, cursor = page_by_key(
        templates(search=search), sort="name", columns={"name": "name"}, after=after, size=PAGE_SIZE
    )
    return Page(rows=tuple(found), sort=sort, next_cursor=cursor)


def template_named(template_id: UUID) -> NodeTemplate:
    """Return a live template with the policies that use it, or raise NotFound."""
    found = templates().filter(pk=template_id).first()
    if found is None:
        raise NotFound("There is no such template.")
    return found


def family_groups() -> list[FamilyGroup]:
    """Return the families of the catalogue that run ordinary nodes, by purpose, newest first (one query)."""
    rows = InstanceType.objects.filter(is_bare_metal=False)
    found = rows.values_list("category", "family", "arch", "generation").distinct()
    by_category = defaultdict(list)
    for category, family, arch, generation in found:
        by_category[category].append((-generation, family, _ARCHITECTURES.get(arch, "")))
    return [
        FamilyGroup(title, tuple((family, note) for _, family, note in members))
        for title, categories in _CATEGORIES
        if (members := sorted(row for category in categories for row in by_category[category]))
    ]
