"""Who acts: a person, an agent or the system; passed to every service and written into every record."""

from dataclasses import dataclass
from typing import Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """An identity inside one organization (None only for platform events and failed sign-ins)."""

    kind: str
    """``user``, ``system``, ``agent`` or ``admin``."""
    organization_id: UUID | None
    label: str
    id: str = ""
    role: str = ""
    """``owner``, ``member`` or ``viewer`` for people; empty otherwise."""
    ip_address: str | None = None
    user_agent: str = ""
    request_id: str = ""

    @classmethod
    def system(cls, organization_id: UUID | None, label: str = "Spotopt") -> Self:
        """Return the actor of work that no person asked for."""
        return cls(kind="system", organization_id=organization_id, label=label)
