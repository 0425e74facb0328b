"""Brings managed nodes up and keeps them up: also after a node was started again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

_PERIOD = 0.25
_STATE_TIMEOUT = 2.0
# Weights load in configure.
_CHANGE_TIMEOUT = 120.0
_BACKOFF = 2.0

_NEXT = {
    State.PRIMARY_STATE_UNCONFIGURED: (Transition.TRANSITION_CONFIGURE, "configure"),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_ACTIVATE, "activate"),
}


@dataclass
class _Managed:
    name: str
    get_state: Client
    change_state: Client
    active: bool = False
    configured: bool = False
    call: Future | None = None
    called: Client | None = None
    deadline: float = 0.0
    not_before: float = 0.0
    doing: str = field(default="")
    starts: frozenset[bytes] = frozenset()
    """Who published transitions under this name when the call was made: one each time the node started."""


class LifecycleManager:
    """Polls nodes four times a second of wall time and moves them to active, once all are configured.

    Nothing here blocks: a call that is not answered in time is dropped and made again. So is a call to a
    node that was started again meanwhile: discovery keeps one that was killed for 20 s, and its answer never
    comes.

    Args:
        node: Owns clients and timer.
        names: Of the managed nodes, in the node's namespace.
    """

    def __init__(self, node: Node, names: Iterable[str]) -> None:
        self._node = node
        self._managed = [
            _Managed(
                name,
                node.create_client(GetState, f"{name}/get_state"),
                node.create_client(ChangeState, f"{name}/change_state"),
            )
            for name in names
        ]
        self._timer = node.create_timer(_PERIOD, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def lost(self) -> tuple[str, ...]:
        """Names of the nodes that are not active now."""
        return tuple(m.name for m in self._managed if not m.active)

    def _poll(self) -> None:
        now = time.monotonic()
        for managed in self._managed:
            self._serve(managed, now)

    def _serve(self, m: _Managed, now: float) -> None:
        if not m.get_state.service_is_ready():
            if m.active:
                self._node.get_logger().warning(f"{m.name} is gone")
            m.active = m.configured = False
            self._drop(m)
            return
        if m.call is not None:
            if m.call.done():
                self._take(m, now)
            elif self._starts(m) - m.starts:
                self._node.get_logger().warning(f"{m.name} was started again during {m.doing}")
                m.active = m.configured = False
                self._drop(m)
            elif now > m.deadline:
                hangs = "" if m.doing == "configure" else "; if its process hangs, end it: kill -9 PID"
                self._node.get_logger().warning(f"{m.name} does not answer {m.doing}{hangs}")
                m.active = False
                self._drop(m)
        elif now >= m.not_before:
            self._call(m, m.get_state, GetState.Request(), "get_state", now + _STATE_TIMEOUT)

    def _take(self, m: _Managed, now: float) -> None:
        """Use an answer: ask for the next transition, or look again later."""
        assert m.call is not None
        answer, doing = m.call.result(), m.doing
        m.call = None
        if answer is None:
            m.active = False
        elif doing != "get_state":
            if not answer.success:
                self._node.get_logger().error(f"{m.name} refused to {doing}; its log says why")
                m.not_before = now + _BACKOFF
            self._call(m, m.get_state, GetState.Request(), "get_state", now + _STATE_TIMEOUT)
        else:
            state = answer.current_state.id
            active = state == State.PRIMARY_STATE_ACTIVE
            if active != m.active:
                self._node.get_logger().info(f"{m.name} is {answer.current_state.label}")
            m.active = active
            m.configured = active or state == State.PRIMARY_STATE_INACTIVE
            # Together: an active cropper makes a planner that still loads its weights twice as slow.
            wait = m.configured and not all(other.configured for other in self._managed)
            if state in _NEXT and now >= m.not_before and not wait:
                transition, name = _NEXT[state]
                request = ChangeState.Request(transition=Transition(id=transition))
                self._call(m, m.change_state, request, name, now + _CHANGE_TIMEOUT)

    def _call(self, m: _Managed, client: Client, request: object, doing: str, deadline: float) -> None:
        m.starts = self._starts(m)
        m.call, m.called, m.doing, m.deadline = client.call_async(request), client, doing, deadline

    def _starts(self, m: _Managed) -> frozenset[bytes]:
        found = self._node.get_publishers_info_by_topic(f"{m.name}/transition_event")
        return frozenset(bytes(endpoint.endpoint_gid) for endpoint in found)

    def _drop(self, m: _Managed) -> None:
        if m.call is not None and m.called is not None:
            m.called.remove_pending_request(m.call)
        m.call = None
