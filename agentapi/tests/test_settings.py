import pytest

from agentapi.agent.settings import Settings, SettingsError

GIVEN = {"SPOTOPT_API_URL": "https://spotopt.example.com/", "SPOTOPT_CLUSTER_ID": "c-1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOG_LEVEL", "chatty"), ("HEALTH_PORT", "http"), ("HEARTBEAT_INTERVAL", "1"), ("SPOTOPT_API_URL", "")],
)
def test_given_a_setting_that_makes_no_sense_when_read_then_its_name_is_told(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment(GIVEN | {name: value})


def test_given_the_least_when_read_then_the_rest_has_its_defaults():
    settings = Settings.from_environment(GIVEN | {"LOG_LEVEL": "debug"})

    assert (settings.api_url, settings.heartbeat_seconds, settings.log_level) == (
        "https://spotopt.example.com", 30, "DEBUG",
    )  # fmt: skip
