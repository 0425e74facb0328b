"""A ROS domain for graphs that must not meet others on this machine."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

from bridgevla_ros.core.errors import BridgeError, ErrorCode

DOMAINS = range(1, 101)
"""Ids to choose from: their ports lie below those that Linux gives out by itself."""
_FIRST_PORT, _PORTS_PER_DOMAIN = 7400, 250
_claims: dict[int, int] = {}
"""File descriptor of the socket that holds each domain."""


def free_domain() -> int:
    """A ROS domain id that nobody on this machine uses, and nobody else gets from here while we hold it.

    It is held until ``release_domain`` or the end of this process, by a name in the kernel (an abstract
    Unix socket): processes that choose at the same time choose different ones, and a process that is killed
    leaves nothing behind.

    Raises:
        BridgeError: BUSY where every one is taken.
    """
    order = list(DOMAINS)
    random.SystemRandom().shuffle(order)
    for domain in order:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0bridgevla/domain/{domain}")
        except OSError:
            claim.close()
            continue
        if in_use(domain):
            claim.close()
            continue
        _claims[domain] = claim.detach()
        return domain
    raise BridgeError(ErrorCode.BUSY, "no free ROS domain", remedy="end other ROS programs of this machine")


def release_domain(domain: int) -> None:
    """Let others have a domain again; nothing happens for one that is not held."""
    if domain in _claims:
        os.close(_claims.pop(domain))


def in_use(domain: int) -> bool:
    """Whether some process of this machine speaks on a domain: one of its UDP ports is bound.

    DDS opens ports 7400 + 250 * id + 10 and on, two for each participant.
    """
    first = _FIRST_PORT + _PORTS_PER_DOMAIN * domain
    return any(first <= port < first + _PORTS_PER_DOMAIN for port in _bound_ports())


def _bound_ports() -> set[int]:
    """UDP ports that are bound in this network namespace."""
    ports = set()
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        if Path(table).exists():
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                ports.add(int(line.split()[1].rpartition(":")[2], 16))
    return ports
