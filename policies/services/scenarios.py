"""What may be asked of a what-if, how it is kept, and the rules it comes to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from clusters.models import Cluster, InstanceType
from policies.domain.document import as_json, parse, resolve, with_changes
from policies.domain.whatif import Commitment, Scenario
from policies.models import ClusterPolicy, NodeTemplate
from policies.services.policies import default_policy_for
from spotopt.core.errors import InvalidInput, NotFound

AS_IT_IS = "As it is"
MAX_SCENARIOS = 6


@dataclass(frozen=True, slots=True)
class ScenarioDraft:
    """What is different from the cluster as it is; what is left out stays as it is."""

    name: str = ""
    """Made from the rest when empty."""
    template_id: UUID | None = None
    policy_of: UUID | None = None
    """Another cluster, whose policy and template are taken."""
    config: Mapping[str, object] | None = None
    """Knobs to turn, by section, as a policy change has them."""
    is_on_demand_only: bool = False
    spot_price_percent: int = 0
    on_demand_price_percent: int = 0
    commitments: tuple[Commitment, ...] = ()


def with_names(cluster: Cluster, drafts: Sequence[ScenarioDraft]) -> list[ScenarioDraft]:
    """Return the drafts, each with a name and fit to be computed, after the cluster as it is.

    Raises InvalidInput or NotFound for what cannot be computed, Conflict for contradictory rules.
    """
    if not 1 <= len(drafts) <= MAX_SCENARIOS:
        raise InvalidInput(
            f"Choose 1 to {MAX_SCENARIOS} scenarios.", errors={"scenarios": ["One to six, please."]}
        )
    _refuse_unknown_types(drafts)
    named = [replace(draft, name=draft.name or ", ".join(_words(draft)) or AS_IT_IS) for draft in drafts]
    for draft in named:
        scenario_of(cluster, draft)
    return [ScenarioDraft(AS_IT_IS), *named]


def scenario_of(cluster: Cluster, draft: ScenarioDraft) -> Scenario:
    """Return the draft with the rules that hold in it; raise as ``with_names`` does."""
    policy = default_policy_for(cluster) if draft.policy_of is None else _policy_of(draft.policy_of)
    config = policy.config
    if draft.config:
        config = as_json(with_changes(parse(config), draft.config))
    template = policy.template if draft.template_id is None else _template(draft.template_id)
    return Scenario(
        name=draft.name,
        rules=resolve(config, template),
        is_on_demand_only=draft.is_on_demand_only,
        spot_price_percent=draft.spot_price_percent,
        on_demand_price_percent=draft.on_demand_price_percent,
        commitments=draft.commitments,
    )


def draft_as_json(draft: ScenarioDraft) -> dict[str, Any]:
    """Return the draft as a JSON column holds it."""
    return {
        **asdict(draft),
        "template_id": draft.template_id and str(draft.template_id),
        "policy_of": draft.policy_of and str(draft.policy_of),
        "commitments": [
            {**asdict(commitment), "usd_per_hour": str(commitment.usd_per_hour)}
            for commitment in draft.commitments
        ],
    }


def draft_from_json(row: Mapping[str, Any]) -> ScenarioDraft:
    """Return the draft that ``draft_as_json`` wrote."""
    values: dict[str, Any] = {
        **row,
        "template_id": row["template_id"] and UUID(row["template_id"]),
        "policy_of": row["policy_of"] and UUID(row["policy_of"]),
        "commitments": tuple(
            Commitment(paid["instance_type"], paid["nodes"], Decimal(paid["usd_per_hour"]))
            for paid in row["commitments"]
        ),
    }
    return ScenarioDraft(**values)


def _words(draft: ScenarioDraft) -> Iterator[str]:
    """Yield what is different, in a few words each."""
    if draft.policy_of is not None:
        yield f"Policy of {_policy_of(draft.policy_of).cluster.name}"
    if draft.template_id is not None:
        yield f"Template {_template(draft.template_id).name}"
    if draft.config:
        yield "Other policy knobs"
    if draft.is_on_demand_only:
        yield "On-demand only"
    if draft.spot_price_percent:
        yield f"Spot prices {draft.spot_price_percent:+d} %"
    if draft.on_demand_price_percent:
        yield f"On-demand prices {draft.on_demand_price_percent:+d} %"
    for paid in draft.commitments:
        yield f"{paid.nodes} × {paid.instance_type} committed"


def _refuse_unknown_types(drafts: Sequence[ScenarioDraft]) -> None:
    wanted = {paid.instance_type for draft in drafts for paid in draft.commitments}
    unknown = wanted - set(InstanceType.objects.filter(name__in=wanted).values_list("name", flat=True))
    if unknown:
        message = f"{min(unknown)} is not an instance type that Spotopt knows."
        raise InvalidInput(message, errors={"instance_type": [message]})


def _policy_of(cluster_id: UUID) -> ClusterPolicy:
    policy = ClusterPolicy.objects.select_related("template", "cluster").filter(cluster_id=cluster_id).first()
    if policy is None:
        raise NotFound("That cluster has no policy of its own.")
    return policy


def _template(template_id: UUID) -> NodeTemplate:
    template = NodeTemplate.objects.filter(pk=template_id, deleted_at=None).first()
    if template is None:
        raise NotFound("There is no such template.")
    return template
