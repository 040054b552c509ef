"""The whole road on a small fleet: as a customer walks it, under kills, and with a safeguard removed.

Each run is a fresh instance with its own stores, simulator and agents, driven through the public API.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEED, SAVING = "10", "10"
RUN_SECONDS = 900


@pytest.fixture
def smoke(tmp_path):
    """Run the smoke command and return its exit code and its findings by name."""

    def run(*options):
        hidden = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "SPOTOPT_CLOCK")
        command = [sys.executable, "-m", "spotopt.tests.smoke", "--fleet", "small", "--speed", SPEED]
        done = subprocess.run(
            [*command, "--state", str(tmp_path / "run"), "--min-saving", SAVING, *options],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        lines = re.findall(r"^(ok|BAD) +(\S.*?)  +(.*)$", done.stdout, re.MULTILINE)
        assert lines, done.stdout + done.stderr
        return done.returncode, {name: (mark, value) for mark, name, value in lines}

    return run


def test_given_a_fresh_instance_when_every_process_is_killed_once_then_the_road_ends_well(smoke):
    code, found = smoke("--kill")

    assert {name for name, (mark, _) in found.items() if mark == "BAD"} == set(), found
    assert code == 0
    assert found["PDB violations"][1] == "0"
    assert set(found["killed once each"][1].split(", ")) == {
        "worker", "optimizer", "actuator", "agent", "web", "postgres", "redis",
    }  # fmt: skip


def test_given_a_corrupted_ledger_row_when_reported_then_the_run_fails_on_the_ledger(smoke):
    code, found = smoke("--break", "ledger")

    assert code == 1
    assert {name for name, (mark, _) in found.items() if mark == "BAD"} == {"ledger error"}


def test_given_no_budget_checks_when_drained_then_the_run_fails_on_the_violations(smoke):
    code, found = smoke("--break", "pdb")

    assert code == 1
    assert found["PDB violations"][0] == "BAD"
