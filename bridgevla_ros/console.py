"""Where the commands print their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160
"""Columns of what is written into a file or a pipe: no table is squeezed (our choice)."""


def wide_console() -> Console:
    """Return the terminal's console; for a file or a pipe one that is ``WIDTH`` columns wide."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)
