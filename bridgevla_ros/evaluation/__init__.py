"""Suites, rollouts and reports: ``bridgevla eval`` and ``bridgevla bench``."""

from bridgevla_ros.evaluation.eval_command import add_arguments, run

__all__ = ["add_arguments", "run"]
