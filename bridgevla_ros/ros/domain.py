"""A ROS domain for graphs that must not meet others on this machine."""

from __future__ import annotations

import os
import random
import socket
import time

from bridgevla_ros.core.errors import BridgeError, ErrorCode


def free_domain(part: int = 0, parts: int = 1) -> int:
    """A ROS domain id that nobody on this machine uses.

    DDS opens UDP port 7400 + 250 * id + 10 and, for each further process, the next odd ones.

    Args:
        part, parts: Only ids that leave ``part`` when divided by ``parts``: processes that choose at the
            same time, each with a part of its own, cannot choose the same.
    """
    order = [domain for domain in range(1, 101) if domain % parts == part % parts]
    random.Random(os.getpid() ^ time.monotonic_ns()).shuffle(order)
    for domain in order:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain + 10))
            except OSError:
                continue
        return domain
    raise BridgeError(ErrorCode.BUSY, "no free ROS domain", remedy="end other ROS programs of this machine")
