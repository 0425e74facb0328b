"""Replay bags as regression tests: the code of this version on recorded inputs, against recorded outputs."""

from bridgevla_ros.bags.replay.engine import replay
from bridgevla_ros.bags.replay.result import NODES, Difference, Missing, ReplayResult

__all__ = ["NODES", "Difference", "Missing", "ReplayResult", "replay"]
