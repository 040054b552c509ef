"""Keep the market's rows: the bundled catalogue and price list, Spot Advisor, and AWS's spot prices."""

import csv
import gzip
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, Q

from accounts.models import Account
from clusters.aws import ec2
from clusters.aws.errors import AwsError
from clusters.aws.session import RoleGrant, session_for
from clusters.domain.capacity import SpotQuote
from clusters.domain.market import allocatable, list_prices, refresh_pause
from clusters.models import Instance, InstanceType, InterruptionRate, Price
from clusters.selectors.market import price_of, quotes
from clusters.services.bulk import Written, upsert
from spotopt.core.clock import clock_rate, utcnow
from spotopt.core.live import announce

__all__ = [
    "Loaded", "load_advisor", "load_reference_data", "price_instances", "price_of", "quotes",
    "refresh_spot_prices",
]  # fmt: skip

logger = logging.getLogger(__name__)

DATA = Path(__file__).resolve().parent.parent / "data"
USUAL_CATEGORIES, USUAL_GENERATION, LARGEST_USUAL_VCPU = ("c", "m", "r"), 5, 64
BURSTABLE_GENERATION = 3
PRICE_KEY = ("region", "instance_type", "capacity_type", "zone_id")


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows of each kind are bundled, and how many of them this load changed."""

    instance_types: int
    prices: int
    interruption_rates: int
    changed: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an account uses spot pools or could: zones by the account's own names."""

    account: Account
    region: str
    zones: tuple[str, ...]


@transaction.atomic
def load_reference_data(*, data_dir: Path = DATA) -> Loaded:
    """Load the bundled instance types, on-demand prices and Spot Advisor; loading again changes nothing."""
    types = list(_rows(data_dir / "ec2/instance_types.csv"))
    written = [_load_types(types)]
    prices = _on_demand_rows(types, data_dir / "prices")
    written.append(
        upsert(
            Price,
            columns=(*PRICE_KEY, "usd_per_hour", "observed_at", "source"),
            rows=prices,
            key=PRICE_KEY,
            update=("usd_per_hour", "observed_at", "source"),
            unless="t.source = 'aws' AND t.observed_at >= EXCLUDED.observed_at",
        )
    )
    advisor = max((data_dir / "spot_advisor").glob("spot_advisor_*.csv*"), key=lambda path: path.name)
    rates = _advisor_rows(advisor)
    written.append(_write_rates(rates))
    return Loaded(
        instance_types=len(types),
        prices=len(prices),
        interruption_rates=len(rates),
        changed=sum(part.inserted + part.updated for part in written),
    )


def load_advisor(path: Path) -> Written:
    """Load a Spot Advisor file of the bundled shape; what is known from a newer one stays."""
    return _write_rates(_advisor_rows(path))


def refresh_spot_prices() -> int:
    """Ask AWS for the spot prices of the regions and zones in use; return how many prices changed.

    A region that was refreshed less than five minutes ago is left alone. An account that AWS refuses
    keeps its last known prices, whose age every reader sees.
    """
    changed = 0
    for place in _places_due():
        try:
            session = session_for(RoleGrant(place.account.role_arn, place.account.external_id))
            now = utcnow()
            found = ec2.spot_prices(
                session.in_region(place.region),
                instance_types=_types_to_price(place.region),
                zones=place.zones,
                at=now,
            )
        except AwsError as error:
            logger.warning("No spot prices of %s from %s: %s", place.region, place.account.pk, error.detail)
            continue
        changed += _write_spot(place.region, found, now)
        price_instances(region=place.region)
        announce(organization_id=place.account.organization_id, topic="prices", region=place.region)
    return changed


def price_instances(*, region: str, account_id: UUID | None = None) -> int:
    """Give the living instances of a region the newest price of their pool; return how many changed.

    A spot instance whose pool nobody has priced keeps what it has.
    """
    one_account = "AND i.account_id = %s" if account_id else ""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE instances AS i SET price = p.usd_per_hour, price_is_estimate = (p.source = 'estimate'), "  # noqa: S608
            "updated_at = %s FROM prices AS p WHERE i.region = %s AND i.state <> 'terminated' "
            "AND p.region = i.region AND p.instance_type = i.instance_type AND p.capacity_type = i.lifecycle "
            "AND p.zone_id = CASE WHEN i.lifecycle = 'spot' THEN i.az_id ELSE '' END "
            "AND (i.price, i.price_is_estimate) IS DISTINCT FROM (p.usd_per_hour, p.source = 'estimate') "
            + one_account,
            [utcnow(), region, *([account_id] if account_id else [])],
        )
        return int(cursor.rowcount)


def _load_types(types: Sequence[dict[str, str]]) -> Written:
    columns = (
        "name", "family", "size", "category", "generation", "arch", "vcpu", "memory_mib", "gpu_count",
        "is_burstable", "is_bare_metal", "is_current_generation", "is_spot_supported", "max_pods",
        "cpu_allocatable_millis", "memory_allocatable_mib", "coremark",
    )  # fmt: skip
    return upsert(
        InstanceType,
        columns=columns,
        rows=[_type_row(row) for row in types],
        key=("name",),
        update=columns[1:],
    )


def _type_row(row: dict[str, str]) -> tuple[object, ...]:
    vcpu, memory_mib = int(row["vcpu"]), int(row["memory_mib"])
    max_pods = int(row["max_pods_eks_ami"] or row["max_pods_eni_formula"] or 0)
    arch = "x86_64" if row["arch"] == "i386|x86_64" else row["arch"]
    node = allocatable(vcpu=vcpu, memory_mib=memory_mib, max_pods=max_pods, is_arm=arch.startswith("arm64"))
    return (
        row["instance_type"], row["family"], row["size"], row["category"], int(row["generation"] or 0), arch,
        vcpu, memory_mib, int(float(row["gpu_count"] or 0)), row["burstable"] == "1",
        row["bare_metal"] == "1", row["current_generation"] == "1", row["spot_supported"] == "1", max_pods,
        node.cpu_millis,
        node.memory_mib, float(row["coremark_iter_per_s"]) if row["coremark_iter_per_s"] else None,
    )  # fmt: skip


def _on_demand_rows(types: Sequence[dict[str, str]], directory: Path) -> list[tuple[object, ...]]:
    current: dict[tuple[str, str], Decimal] = {}
    generated_at: dict[str, datetime] = {}
    for row in _rows(directory / "karpenter_current.csv"):
        if row["currency"] == "USD":
            current[row["region"], row["instance_type"]] = Decimal(row["price_per_hour"])
            generated_at[row["region"]] = datetime.fromisoformat(row["generated_at"])
    newest = max(generated_at.values())
    return [
        (
            price.region, price.instance_type, "on_demand", "", price.usd_per_hour,
            generated_at.get(price.region, newest),
            Price.Source.ESTIMATE if price.is_estimate else Price.Source.BUNDLED,
        )
        for price in list_prices(
            current=current,
            sold={row["instance_type"]: row["regions"].split() for row in types},
            multipliers=_multipliers(directory),
        )
    ]  # fmt: skip


def _multipliers(directory: Path) -> dict[tuple[str, str], Decimal]:
    """Prefer the clean list of 2021; the recovered one of 2023 knows the families that are younger."""
    recovered = _rows(directory / "region_multiplier_by_family_2023_cleaned.csv")
    clean = _rows(directory / "region_multiplier_by_family_2021-11.csv")
    return {(row["region"], row["family"]): Decimal(row["mult"]) for row in recovered} | {
        (row["region"], row["family"]): Decimal(row["median"]) for row in clean
    }


def _advisor_rows(path: Path) -> list[tuple[object, ...]]:
    return [
        (
            row["region"], row["instance_type"], row["os"], int(row["interruption_bucket"]),
            round(float(row["savings_pct"])),
            datetime.fromisoformat(row["snapshot_date"]).replace(tzinfo=UTC),
        )
        for row in _rows(path)
        if row["os"] == "Linux"
    ]  # fmt: skip


def _write_rates(rows: Sequence[Sequence[object]]) -> Written:
    return upsert(
        InterruptionRate,
        columns=("region", "instance_type", "os", "bucket", "savings_percent", "fetched_at"),
        rows=rows,
        key=("region", "instance_type", "os"),
        update=("bucket", "savings_percent", "fetched_at"),
        unless="t.fetched_at > EXCLUDED.fetched_at",
    )


def _places_due() -> list[_Place]:
    """Return one account for each zone in use whose prices are due, of whichever organization."""
    spot = Price.objects.filter(capacity_type="spot", source=Price.Source.AWS)
    newest = dict(spot.values("zone_id").annotate(at=Max("observed_at")).values_list("zone_id", "at"))
    due_before = utcnow() - refresh_pause(clock_rate())
    used = (
        Instance.unscoped.filter(Q(cluster__isnull=False) | Q(lifecycle=Instance.Lifecycle.SPOT))
        .filter(account__status=Account.Status.ACTIVE)
        .exclude(state=Instance.State.TERMINATED)
        .values_list("account_id", "region", "az", "az_id")
        .order_by("account_id", "region", "az_id")
        .distinct()
    )
    zones: dict[tuple[UUID, str], list[str]] = {}
    taken: set[str] = set()
    for account_id, region, az, az_id in used:
        if az_id not in taken and newest.get(az_id, due_before) <= due_before:
            taken.add(az_id)
            zones.setdefault((account_id, region), []).append(az)
    accounts = Account.unscoped.in_bulk({account_id for account_id, _ in zones})
    return [_Place(accounts[pk], region, tuple(names)) for (pk, region), names in zones.items()]


def _types_to_price(region: str) -> list[str]:
    """Return the types that a plan could want: the usual families, and whatever runs there now."""
    running = Instance.unscoped.filter(region=region).exclude(state=Instance.State.TERMINATED)
    families = {kind.partition(".")[0] for kind in running.values_list("instance_type", flat=True).distinct()}
    usual = Q(category__in=USUAL_CATEGORIES, generation__gte=USUAL_GENERATION) | Q(
        category="t", generation__gte=BURSTABLE_GENERATION
    )
    usual &= Q(vcpu__lte=LARGEST_USUAL_VCPU)
    sold = Price.objects.filter(region=region, capacity_type="on_demand").values("instance_type")
    types = InstanceType.objects.filter(usual | Q(family__in=families), name__in=sold)
    return list(types.filter(is_bare_metal=False, is_spot_supported=True).values_list("name", flat=True))


def _write_spot(region: str, found: Sequence[SpotQuote], now: datetime) -> int:
    observed = ("usd_per_hour", "low_usd_per_hour", "high_usd_per_hour", "observed_at", "source")
    written = upsert(
        Price,
        columns=(*PRICE_KEY, *observed),
        rows=[
            (region, quote.instance_type, "spot", quote.zone_id, quote.usd_per_hour,
             quote.low_usd_per_hour, quote.high_usd_per_hour, now, Price.Source.AWS)
            for quote in found
        ],
        key=PRICE_KEY,
        update=observed,
        unless="t.observed_at > EXCLUDED.observed_at",
    )  # fmt: skip
    return written.inserted + written.updated


def _rows(path: Path) -> Iterator[dict[str, str]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    yield from csv.DictReader(text.decode().splitlines())
