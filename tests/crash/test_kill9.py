"""Real gateways killed with SIGKILL at every point, judged by the platform's list.

The engine forks, so it runs in an interpreter of its own, which has no other threads.
TURNFOLD_LONG=1 plays every pair of points instead of a selection.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 240)
COMMITS = (
    "turn.accepted",
    "outbox.queued",
    "turn.answered",
    "outbox.part_delivered",
    "turn.completed",
)
EFFECTS = ("CallHandler", "Prepare", "Append dispatch", "Send", "Append settle")


@pytest.fixture(scope="module", params=["keyed", "lookup", "editable", "blind"])
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    command = [sys.executable, "-m", "turnfold_model", "kill9", "--json"]
    command += [f"--class={request.param}", "--again=1", *["--long"] * LONG]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    print(done.stderr)  # noqa: T201  points a second, shown with -rP
    told: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, Any] = told["classes"][request.param]
    return {**found, "kills": told["points"], "status": done.returncode}


@pytest.mark.case("A01", "A02", "A03", "A04", "A05", "A18")
def test_wherever_a_gateway_is_killed_nothing_is_lost_or_doubled(
    report: dict[str, Any],
) -> None:
    assert report["breaches"] == []
    assert report["status"] == 0
    assert report["kills"] > 50


def test_a_gateway_is_killed_on_the_whole_path_and_in_its_recovery(
    report: dict[str, Any],
) -> None:
    wanted = [f"commit {name}" for name in COMMITS] + list(EFFECTS)
    # The order of what happens at once differs from run to run, and with it which of
    # the two sides of a point the n-th point is: one of them is reached for certain.
    reached = {name.partition(" ")[2] for name in report["points"]}
    assert [name for name in wanted if name not in reached] == []
    recovery = ("Append bury", "Reconcile", "Append settle_doubt")
    assert any(name.endswith(recovery) for name in report["points"])


NO_DEDUPE = """
accept = accepting.accept
def forgets(draft, turn, inbound, cursor=None, **more):
    accepting.inbound_key = lambda _: turn
    return accept(draft, turn, inbound, cursor, **more)
accepting.accept = forgets
"""
SENT_ANEW = """
known = rules.next_act
def anew(entry):
    return PartAct.PLACEHOLDER if entry.doubt and entry.handle else known(entry)
rules.next_act = anew
"""
MUTANT = """
from turnfold._decide import rules
from turnfold._decide import accepting
from turnfold.enums import DeliveryClass, PartAct
from turnfold_model.kill9.play import Scene, every_point
{mutation}
for verdict in every_point(Scene(delivery=DeliveryClass("{delivery}"))):
    if any(text.startswith("{rule}") for text in verdict.breaches):
        print(verdict.breaches)
        break
"""


@pytest.mark.parametrize(
    ("mutation", "delivery", "rule"),
    [
        ("rules.resend_allowed = lambda *_: True", "blind", "INV-2"),
        ("rules.may_look_up = lambda *_: False", "lookup", "INV-1"),
        (NO_DEDUPE, "keyed", "INV-9"),
        (SENT_ANEW, "editable", "INV-2"),
        ("rules.repeatable = lambda _: False", "editable", "INV-1"),
    ],
    ids=["blind resend", "no look-up", "no dedupe", "edit anew", "edit not again"],
)
def test_a_kernel_that_lacks_a_rule_is_caught(
    mutation: str, delivery: str, rule: str
) -> None:
    script = MUTANT.format(mutation=mutation, delivery=delivery, rule=rule)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert rule in done.stdout, done.stderr
