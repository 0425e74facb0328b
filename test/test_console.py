"""Tables in a file or a pipe are not squeezed to a terminal's width."""

from __future__ import annotations

import pytest
from rich.table import Table

from bridgevla_ros.console import WIDTH, wide_console


def test_a_wide_table_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None)
    words = [f"quantity number {i}" for i in range(WIDTH // 25)]
    for word in words:
        table.add_column(word)
    table.add_row(*words)
    wide_console().print(table)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == row.split() == " ".join(words).split()
