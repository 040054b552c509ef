"""What the agent is told by its environment."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(ValueError):
    """The environment lacks something or holds a value of the wrong form."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Periods are in seconds of the shared clock."""

    api_url: str
    cluster_id: str
    token: str
    """Bootstrap key or agent key; a key stored by an earlier run goes first."""
    state_dir: Path
    key_secret: str = ""
    """Name of the Secret that keeps the exchanged key; empty keeps it in ``state_dir``."""
    namespace: str = "spot-optimizer"
    kubeconfig: str = ""
    kube_server: str = ""
    kube_token: str = ""
    heartbeat_seconds: float = 30
    collection_seconds: float = 30
    resync_seconds: float = 600
    dry_run: bool = False
    replica: str = ""
    """The pod's name; with it the replicas elect a leader, without it this process is the only one."""
    has_websocket: bool = True
    health_port: int = 0
    """0 opens no port."""
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Return the settings; raise SettingsError that names the variable which is missing or wrong."""
        missing = [name for name in ("SPOTOPT_API_URL", "SPOTOPT_CLUSTER_ID") if not environment.get(name)]
        if missing:
            raise SettingsError(f"Set {' and '.join(missing)}.")
        return cls(
            api_url=environment["SPOTOPT_API_URL"].rstrip("/"),
            cluster_id=environment["SPOTOPT_CLUSTER_ID"],
            token=environment.get("SPOTOPT_API_TOKEN", "").strip(),
            state_dir=Path(environment.get("SPOTOPT_AGENT_STATE", ".spotopt-agent")),
            key_secret=environment.get("SPOTOPT_AGENT_SECRET", ""),
            namespace=environment.get("SPOTOPT_NAMESPACE", "spot-optimizer"),
            kubeconfig=environment.get("KUBECONFIG", ""),
            kube_server=environment.get("SPOTOPT_KUBE_SERVER", ""),
            kube_token=environment.get("SPOTOPT_KUBE_TOKEN", ""),
            heartbeat_seconds=_seconds(environment, "HEARTBEAT_INTERVAL", 30),
            collection_seconds=_seconds(environment, "COLLECTION_INTERVAL", 30),
            resync_seconds=_seconds(environment, "RESYNC_INTERVAL", 600),
            replica=environment.get("SPOTOPT_REPLICA", ""),
            has_websocket=environment.get("WEBSOCKET_ENABLED", "true").lower() in ("1", "true", "yes"),
            dry_run=environment.get("DRY_RUN", "").lower() in ("1", "true", "yes"),
            health_port=_port(environment),
            log_level=_log_level(environment),
        )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    least = 5
    try:
        value = float(environment.get(name) or default)
    except ValueError as error:
        raise SettingsError(f"{name} must be a number of seconds.") from error
    if value < least:
        raise SettingsError(f"{name} must be at least {least} seconds.")
    return value


def _log_level(environment: Mapping[str, str]) -> str:
    level = environment.get("LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
    return level


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("HEALTH_PORT") or "0"
    if not text.isdecimal():
        raise SettingsError("HEALTH_PORT must be a port number, or 0 for none.")
    return int(text)
