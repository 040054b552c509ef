"""Which features each plan includes when nothing else was decided for an organization."""

MULTI_ACCOUNT = "enable_multi_account"

_EVERYTHING = frozenset({MULTI_ACCOUNT, "enable_bin_packing", "enable_hibernation"})
_INCLUDED: dict[str, frozenset[str]] = {
    "free": frozenset({"enable_bin_packing"}),
    "pro": _EVERYTHING,
    "enterprise": _EVERYTHING,
}


def includes(plan: str, feature: str) -> bool:
    """Tell whether the plan switches the feature on."""
    return feature in _INCLUDED[plan]
