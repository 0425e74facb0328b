"""Node ``recorder``: writes every topic of the graph into a bag."""

from __future__ import annotations

import sys

from bridgevla_ros.bags.recorder import Recorder
from bridgevla_ros.ros.spin import run_node


def main() -> int:
    """Run the node."""
    return run_node(Recorder)


if __name__ == "__main__":
    sys.exit(main())
