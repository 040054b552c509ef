"""EC2's filters and pages."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from simulator.aws.answers import ApiError
from simulator.aws.estate import Estate
from simulator.aws.network import address_of
from simulator.machines import Machine

Item = TypeVar("Item")
Filters = dict[str, list[str]]

FIELDS: dict[str, Callable[[Machine], str]] = {
    "instance-id": lambda machine: machine.instance_id,
    "instance-state-name": lambda machine: machine.state,
    "instance-type": lambda machine: machine.instance_type,
    "availability-zone": lambda machine: machine.zone,
    "availability-zone-id": lambda machine: machine.zone_id,
    "private-dns-name": lambda machine: machine.private_dns,
    "private-ip-address": address_of,
    "client-token": lambda machine: machine.client_token or "",
    "instance-lifecycle": lambda machine: "spot" if machine.lifecycle == "spot" else "",
    "owner-id": lambda machine: machine.account_id,
}


def selected(estate: Estate, machines: list[Machine], filters: Filters) -> list[Machine]:
    """The machines that pass every filter; ApiError for a filter EC2 does not have."""
    for name, patterns in filters.items():
        read = _reader(estate, name)
        machines = [machine for machine in machines if _matches(read(machine), patterns)]
    return machines


def page_of(items: Sequence[Item], token: str | None, size: int) -> tuple[Sequence[Item], str | None]:
    """One page and the token of the next; ApiError for a token that was never given out."""
    try:
        start = int(urlsafe_b64decode(token).decode().removeprefix("from:")) if token else 0
    except ValueError as broken:
        raise ApiError("InvalidParameterValue", "The parameter NextToken is invalid.") from broken
    end = start + size
    following = urlsafe_b64encode(f"from:{end}".encode()).decode() if end < len(items) else None
    return items[start:end], following


def _reader(estate: Estate, name: str) -> Callable[[Machine], list[str]]:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda machine: [machine.tags[key]] if key in machine.tags else []
    if name == "tag-key":
        return lambda machine: list(machine.tags)
    if name in {"vpc-id", "subnet-id"}:
        attribute = {"vpc-id": "vpc_id", "subnet-id": "id"}[name]
        return lambda machine: [str(getattr(estate.addresses.subnet_of(machine), attribute))]
    if name not in FIELDS:
        raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
    read = FIELDS[name]
    return lambda machine: [read(machine)]


def _matches(values: list[str], patterns: list[str]) -> bool:
    return any(fnmatchcase(value, pattern) for value in values for pattern in patterns)
