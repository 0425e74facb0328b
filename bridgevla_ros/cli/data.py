"""Data for the action expert."""

from __future__ import annotations

from bridgevla_ros.cli.verbs import Verb

SUB_VERBS: tuple[Verb, ...] = (
    Verb(
        "generate",
        "bridgevla_ros.training.data_command",
        "play demonstrations in the simulator, or let an expert act (--policy), and record its sensors",
    ),
    Verb(
        "export", "bridgevla_ros.training.data_export", "write a bank as a LeRobotDataset v3 or as MCAP bags"
    ),
    Verb("info", "bridgevla_ros.training.data_info", "what a bank holds"),
)
