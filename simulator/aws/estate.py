"""What all services of the simulated AWS share."""

import hashlib
import json
import re
from datetime import datetime, timedelta
from random import Random
from threading import RLock
from typing import Any

from simulator.aws.faults import AwsFaults
from simulator.aws.identity import Identities
from simulator.aws.network import Addresses
from simulator.clock import Clock
from simulator.journal import Journal
from simulator.machines import Machine, MachineRoom
from simulator.market import Market

INSTANCE_ID = re.compile(r"\bi-[0-9a-f]{17}\b")
REMEMBERED = timedelta(hours=1)
DEMO_REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1")


class Estate:
    """The world as AWS sees it; `lock` is held by every call that is being performed."""

    def __init__(
        self, *, room: MachineRoom, market: Market, clock: Clock, journal: Journal, seed: int, kube_url: str
    ) -> None:
        self.room, self.market, self.journal = room, market, journal
        self.seed, self.kube_url = seed, kube_url.rstrip("/")
        self.lock = RLock()
        self.faults = AwsFaults(random=Random(seed))  # noqa: S311 - reproducible, not secret
        self.addresses = Addresses(room)
        self.identities = Identities(journal)
        self.enabled_regions = frozenset(DEMO_REGIONS)
        self.replaying_at: datetime | None = None
        self._clock = clock
        self._numbered = 0

    def now(self) -> datetime:
        """The simulated instant; while a journaled call is replayed, the instant it was made."""
        return self.replaying_at or self._clock.now()

    def machines(self, account_id: str, region: str) -> list[Machine]:
        """The machines that EC2 still knows: terminated ones for an hour."""
        oldest = self.now() - REMEMBERED
        return [
            machine
            for machine in self.room.all()
            if (machine.account_id, machine.region) == (account_id, region)
            and (machine.terminated_at is None or machine.terminated_at > oldest)
        ]

    def machine(self, account_id: str, region: str, instance_id: str) -> Machine | None:
        """One of the account's machines in the region, or None."""
        machine = self.room.get(instance_id)
        return machine if machine and (machine.account_id, machine.region) == (account_id, region) else None

    def remember(self, token_key: str, record: dict[str, Any]) -> None:
        """Keep what a client token brought about, before it is brought about."""
        self.journal.write({token_key: record})

    def remembered(self, token_key: str) -> dict[str, Any] | None:
        """What a client token brought about, or None when it is new."""
        return self.journal.read(token_key).get(token_key)

    def forget_unperformed(self) -> None:
        """Drop the client tokens of launches that were cut off before their machines existed."""
        for key, record in self.journal.read("token/").items():
            if any(self.room.get(name) is None for name in INSTANCE_ID.findall(json.dumps(record["answer"]))):
                self.journal.write({key: None})

    def new_instance_id(self) -> str:
        """An id that no machine has or had; reproducible in the order of launches."""
        self._numbered = max(self._numbered, len(self.room.all()))
        while True:
            self._numbered += 1
            instance_id = f"i-{self.digest('instance', str(self._numbered))}"
            if self.room.get(instance_id) is None:
                return instance_id

    def digest(self, *parts: str, length: int = 17) -> str:
        """A hex name that belongs to these parts and the seed."""
        text = "/".join((str(self.seed), *parts))
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()[:length]
