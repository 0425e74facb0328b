"""Base of the managed nodes: transitions that fail say why."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError


class ManagedNode(LifecycleNode):
    """Lifecycle node whose transitions are plain methods.

    A subclass overrides what it needs of ``configure`` (load weights, make publishers and
    subscriptions), ``activate``, ``deactivate``, ``cleanup``. Raising from one refuses the transition
    and logs the reason (rclpy by itself swallows it). Work only while ``active``.
    """

    active: bool = False

    def configure(self) -> None:
        """Load what takes long, make publishers and subscriptions."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working, keep what was loaded."""

    def cleanup(self) -> None:
        """Let go of what ``configure`` made."""

    def destroy_node(self) -> None:
        """Let go of everything; rclpy keeps the state machine, and with it the node's place on its domain."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the lifecycle."""
        return self._transition("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the lifecycle."""
        result = self._transition("activate", self.activate)
        self.active = result == TransitionCallbackReturn.SUCCESS
        super().on_activate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the lifecycle."""
        self.active = False
        result = self._transition("deactivate", self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the lifecycle."""
        return self._transition("cleanup", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the lifecycle."""
        self.active = False
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, so that it can be configured again."""
        self.active = False
        return TransitionCallbackReturn.SUCCESS

    def _transition(self, name: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            work()
        except (BridgeError, ConfigError) as error:
            self.get_logger().error(f"{name} refused: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"{name} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS
