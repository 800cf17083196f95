"""The table of states: what may follow what, and the picture of it in the documentation."""

import pytest
from voxline.pipeline import ProcessorError
from voxline.processors.session import ALLOWED, State, diagram
from voxline.processors.session.states import ACTIVE, OPEN, OVER, check_transition
from voxline.tests.places import ROOT

PAGE = ROOT / "docs" / "design" / "session.md"


def test_the_diagram_in_the_documentation_is_the_table():
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text(encoding="utf-8"), "docs/design/session.md is stale"


def test_the_diagram_has_every_transition_and_no_other():
    arrows = {line.strip() for line in diagram().splitlines() if " --> " in line and "[*]" not in line}
    assert arrows == {f"{state.name} --> {after.name}" for state, following in ALLOWED.items() for after in following}


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_transition_is_in_the_table_or_an_error_that_says_what_is(before: State, after: State):
    if after in ALLOWED[before]:
        check_transition(before, after)
        return
    with pytest.raises(ProcessorError) as error:
        check_transition(before, after)
    assert f"from {before.name} to {after.name}; from {before.name} it goes to: " in str(error.value)
    assert all(possible.name in str(error.value) for possible in ALLOWED[before])


def test_every_state_can_be_reached_and_every_conversation_can_end():
    reached, new = {State.IDLE}, {State.IDLE}
    while new:
        new = {after for state in new for after in ALLOWED[state]} - reached
        reached |= new
    assert reached == set(State)
    assert all(ALLOWED[state] & (OVER | {State.CLOSING}) for state in State if state not in OVER)


def test_nothing_follows_the_end():
    assert all(not ALLOWED[state] for state in OVER)
    assert not OVER & ACTIVE
    assert OPEN < ACTIVE
