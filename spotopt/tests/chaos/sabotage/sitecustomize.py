"""Python imports this by itself in every process that the fault run starts: take one safeguard out.

The product has no such switch. ``CHAOS_BREAK`` is the path of a file that names a row of ``BREAKS``: a module
and what to put in the place of one of its names as soon as it is imported. Without the file nothing happens.
"""

import importlib.util
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Patch:
    """What to put in the place of a dotted name in a module, made from what was there."""

    module: str
    path: str
    make: Callable[[Any], Any]

    def apply(self, module: ModuleType) -> None:
        """Replace the name."""
        *outer, name = self.path.split(".")
        holder: Any = module
        for step in outer:
            holder = getattr(holder, step)
        setattr(holder, name, self.make(getattr(holder, name)))


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _original: lambda *_args, **_kwargs: value


def _fresh_tokens(original: Any) -> Any:
    return lambda **given: original(**{**given, "client_token": str(uuid.uuid4())})


def _unconditional(original: Any) -> Any:
    """A claim that reads first, and later writes whatever it finds."""

    def claim(*, action: Any, claimed_by: str) -> bool:
        time.sleep(1.5)  # long enough for somebody else to have read the same
        type(action).objects.filter(pk=action.pk).update(status="pending", claimed_by="")
        return bool(original(action=action, claimed_by=claimed_by))

    return claim


def _at_request_only(original: Any) -> Any:
    """The safety floor is asked when an action is requested, and never again."""
    return lambda action: original(action) if action._state.adding else None


def _forgetful(original: Any) -> Any:
    """A journal that knows no nonce and no command that was taken on."""

    def refusal(self: Any, command: Any) -> Any:
        found = original(self, command)
        return None if found and found[0] == "replayed" else found

    return refusal


def _gullible(original: Any) -> Any:
    def refusal(self: Any, command: Any) -> Any:
        found = original(self, command)
        return None if found and found[0] == "bad_signature" else found

    return refusal


BREAKS: dict[str, tuple[Patch, ...]] = {
    "client-token": (
        Patch("clusters.aws.ec2", "create_instant_fleet", _fresh_tokens),
        Patch("clusters.aws.ec2", "launched_for_action", _always([])),
    ),
    "claim": (Patch("clusters.services.actions", "claim", _unconditional),),
    "recheck": (Patch("clusters.services.actions", "_judge", _at_request_only),),
    "budget": (
        Patch("clusters.domain.guardrails", "disruption_cap", _always(1_000)),
        Patch("policies.domain.consolidation", "wave_limit", _always(1_000)),
        Patch("policies.domain.checker", "_wave_limits", _always(())),
    ),
    "expiry": (Patch("clusters.domain.actions", "lifetime", _always(timedelta(days=1))),),
    "reaper": (Patch("clusters.services.actions", "reap", _always(0)),),
    "cleanup": (Patch("policies.services.cleanup", "Cleanup.tick", _always("")),),
    "signature": (Patch("agentapi.agent.guard", "Guard.refusal", _gullible),),
    "nonce": (Patch("agentapi.agent.guard", "Guard.refusal", _forgetful),),
    "pdb": (),
}
"""``pdb`` is the simulated platform's own enforcement, switched off through its control."""


class _Patching(Loader):
    def __init__(self, inner: Loader, patches: list[Patch]) -> None:
        self._inner, self._patches = inner, patches

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        for patch in self._patches:
            patch.apply(module)


class _Finder(MetaPathFinder):
    """Lets the patched modules load as ever, then patches them."""

    def __init__(self, patches: dict[str, list[Patch]]) -> None:
        self._patches = patches

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        patches = self._patches.pop(fullname, None)
        if patches is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader, patches)
        return spec


def arm(name: str) -> None:
    """Take the safeguard out of every module that is imported from now on."""
    patches: dict[str, list[Patch]] = {}
    for patch in BREAKS[name]:
        patches.setdefault(patch.module, []).append(patch)
    sys.meta_path.insert(0, _Finder(patches))


if Path(os.environ.get("CHAOS_BREAK", "")).is_file():
    arm(Path(os.environ["CHAOS_BREAK"]).read_text())
