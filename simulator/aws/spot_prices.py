"""DescribeSpotPriceHistory: the market's prices, newest first in each pool, in pages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from simulator.aws.answers import ApiError
from simulator.aws.estate import Estate
from simulator.aws.instance_xml import document
from simulator.aws.network import ec2_of

OLDEST = timedelta(days=90)
LARGEST_PAGE = 1000
LINUX = "Linux/UNIX"
PRODUCTS = frozenset({LINUX, "Linux/UNIX (Amazon VPC)"})

Zone = tuple[str, str]
Pool = tuple[str, str, str, str]


def history(estate: Estate, region: str, request: dict[str, Any]) -> str:
    """One page as XML; the next token is where the following page begins (pool, entry)."""
    filters = {item["Name"]: item.get("Values", []) for item in request.get("Filters") or []}
    products = set(request.get("ProductDescriptions") or filters.get("product-description") or [LINUX])
    now = estate.now()
    end = min(_instant(request.get("EndTime")) or now, now)
    start = max(_instant(request.get("StartTime")) or now - OLDEST, now - OLDEST)
    size = int(request.get("MaxResults") or LARGEST_PAGE)
    pools = list(_pools(estate, region, request, filters)) if products & PRODUCTS and start <= end else []
    entries, token = _page(estate, pools, (start, end), request.get("NextToken"), size)
    return document(
        "DescribeSpotPriceHistoryResponse",
        f"<spotPriceHistorySet>{''.join(entries)}</spotPriceHistorySet>",
        next_token=token or "",
    )


def _page(
    estate: Estate,
    pools: list[Pool],
    span: tuple[datetime, datetime],
    token: str | None,
    size: int,
) -> tuple[list[str], str | None]:
    number, skip, span = _position(token, span)
    entries: list[str] = []
    for position in range(number, len(pools)):
        region, zone, zone_id, kind = pools[position]
        changes = estate.market.spot_history(region, zone_id, kind, *span)[skip:]
        room = size - len(entries)
        entries += [_entry(zone, zone_id, kind, *change) for change in changes[:room]]
        if len(changes) > room:
            return entries, _token(position, skip + room, span)
        skip = 0
        if len(entries) == size and position + 1 < len(pools):
            return entries, _token(position + 1, 0, span)
    return entries, None


def _pools(
    estate: Estate, region: str, request: dict[str, Any], filters: dict[str, list[str]]
) -> Iterator[Pool]:
    types = set(request.get("InstanceTypes") or filters.get("instance-type") or [])
    wanted = set(filters.get("availability-zone") or []) | {request.get("AvailabilityZone")} - {None}
    wanted_ids = {request.get("AvailabilityZoneId")} - {None}
    for zone in ec2_of("", region).describe_availability_zones():
        if (wanted and zone.name not in wanted) or (wanted_ids and zone.zone_id not in wanted_ids):
            continue
        offered = estate.market.offered(region, zone.zone_id)
        for kind in sorted(offered & types if types else offered):
            if estate.market.is_spot(kind):
                yield region, zone.name, zone.zone_id, kind


def _entry(zone: str, zone_id: str, kind: str, at: datetime, price: Any) -> str:
    return (
        f"<item><instanceType>{kind}</instanceType><productDescription>{LINUX}</productDescription>"
        f"<spotPrice>{price:.6f}</spotPrice><timestamp>{at:%Y-%m-%dT%H:%M:%S.000Z}</timestamp>"
        f"<availabilityZone>{zone}</availabilityZone><availabilityZoneId>{zone_id}</availabilityZoneId></item>"
    )


def _token(number: int, skip: int, span: tuple[datetime, datetime]) -> str:
    return f"{number}:{skip}:{span[0].timestamp()}:{span[1].timestamp()}"


def _position(
    token: str | None, span: tuple[datetime, datetime]
) -> tuple[int, int, tuple[datetime, datetime]]:
    if not token:
        return 0, 0, span
    try:
        number, skip, start, end = token.split(":")
        instants = datetime.fromtimestamp(float(start), UTC), datetime.fromtimestamp(float(end), UTC)
        return int(number), int(skip), instants
    except ValueError as broken:
        raise ApiError("InvalidParameterValue", "The parameter NextToken is invalid.") from broken


def _instant(value: Any) -> datetime | None:
    if not value:
        return None
    instant = datetime.fromisoformat(str(value))
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
