"""What went wrong, from the records of the simulator, the database and the wire; never the product's."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from spotopt.tests.chaos import records
from spotopt.tests.chaos.campaign import Tally
from spotopt.tests.chaos.stage import Stage

Finding = tuple[str, str]
"""The name of a counter, and what made it move by one."""


def findings(stage: Stage, tally: Tally) -> Iterator[Finding]:
    """Yield everything that must not have happened so far."""
    for name, move in records.broken_rules(records.read(stage.database)):
        yield name, str(move)
    for left in records.left_open(stage.database, now=_now(stage)):
        yield "actions left open after their time", left
    yield from _of_the_world(stage)
    yield from _of_the_agents(stage)
    for node in tally.left_cordoned:
        yield "cordoned nodes left behind", node
    for name, how in (("runs that hang", "hang"), ("runs that failed", "failed")):
        yield from [(name, "")] * tally.ended[how]


def _of_the_world(stage: Stage) -> Iterator[Finding]:
    for each in stage.world.read("availability")["clusters"].values():
        for loss in each["pdb_violations"]:
            yield "PDB violations", str(loss)
        for loss in each["below_minimum"]:
            if loss["voluntary"] and not loss["budget"]:
                yield "pods below minimum because of us", str(loss)
    launches = stage.world.read("launches")
    for each in launches["duplicates"]:
        yield "duplicate launches", str(each)
    known = records.known_instances(stage.database)
    for each in launches["orphans"]:
        # The customers' load shrinks: a node that this empties is the next plan's, if the product knows it.
        if not each["was_used"] or each["instance_id"] not in known:
            yield "orphans after the sweep", str(each)


def _of_the_agents(stage: Stage) -> Iterator[Finding]:
    witness = stage.wire.witness
    for action_id in sorted(witness.obeyed_forgeries):
        yield "forged commands obeyed", action_id
    for action_id, told in sorted(witness.run_twice.items()):
        yield "commands run twice", f"{action_id}: {told}"


def _now(stage: Stage) -> datetime:
    line = json.loads(stage.instance.clock())
    return datetime.fromtimestamp(line["origin"] + (time.time() - line["wall"]) * line["rate"], UTC)
