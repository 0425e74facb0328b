"""What is taken as an instruction, before anybody tries to understand it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine, check_instruction


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.NOT_UNDERSTOOD),
        ("  \n", ErrorCode.NOT_UNDERSTOOD),
        ("123 !?", ErrorCode.NOT_UNDERSTOOD),
        ("a" * 100_000, ErrorCode.BAD_INPUT),
        ("put \x00 it", ErrorCode.BAD_INPUT),
        (f"put {chr(0xDCFF)} it", ErrorCode.BAD_INPUT),
        ("put � it", ErrorCode.BAD_INPUT),
    ],
)
def test_what_is_no_instruction_is_refused(text: str, code: ErrorCode) -> None:
    machine = TaskMachine(TaskConfig())
    with pytest.raises(BridgeError) as refusal:
        machine.instruct(1.0, text)
    assert refusal.value.code == code
    assert refusal.value.remedy
    assert not machine.running


@given(st.text(max_size=300))
def test_any_text_is_either_taken_or_refused_by_name(text: str) -> None:
    codes = {ErrorCode.NONE}
    try:
        taken = check_instruction(text)
    except BridgeError as refusal:
        codes = {ErrorCode.NOT_UNDERSTOOD, ErrorCode.BAD_INPUT} & {refusal.code}
    else:
        assert any(character.isalpha() for character in taken)
    assert codes
