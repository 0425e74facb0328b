"""Read the parameters of every node in the graph, through the parameter services each node has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node

PATIENCE = 400
"""Looks after which a node that does not answer is given up: 100 s at four looks a second."""

_FIELDS = {
    ParameterType.PARAMETER_BOOL: "bool_value",
    ParameterType.PARAMETER_INTEGER: "integer_value",
    ParameterType.PARAMETER_DOUBLE: "double_value",
    ParameterType.PARAMETER_STRING: "string_value",
    ParameterType.PARAMETER_BYTE_ARRAY: "byte_array_value",
    ParameterType.PARAMETER_BOOL_ARRAY: "bool_array_value",
    ParameterType.PARAMETER_INTEGER_ARRAY: "integer_array_value",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "double_array_value",
    ParameterType.PARAMETER_STRING_ARRAY: "string_array_value",
}


def plain(value: ParameterValue) -> Any:
    """A parameter's value as Python has it; None where it is not set."""
    name = _FIELDS.get(value.type)
    if name is None:
        return None
    found = getattr(value, name)
    if name == "byte_array_value":
        return [b[0] for b in found]
    return list(found) if name.endswith("_array_value") else found


class ParameterReader:
    """Asks each node that appears, one after the other, and again when it appears anew.

    Args:
        node: That asks. It must be served, and ``look`` called now and then.
        found: Called with (full name of a node, its parameters by name).
    """

    def __init__(self, node: Node, found: Callable[[str, dict[str, Any]], None]) -> None:
        self._node = node
        self._found = found
        self._known: set[str] = {node.get_fully_qualified_name()}
        self._asked: dict[str, _Question] = {}
        self.unanswered: set[str] = set()

    def look(self) -> None:
        """Ask nodes that are new; forget those that are gone."""
        there = set()
        for name, namespace in self._node.get_node_names_and_namespaces():
            if not name.startswith("_"):
                there.add(f"{namespace.rstrip('/')}/{name}")
        own = self._node.get_fully_qualified_name()
        self._known &= there | {own}
        for full in sorted(there - self._known - self._asked.keys()):
            self._asked[full] = _Question(self._node, full)
        for full, question in list(self._asked.items()):
            if question.step(full in there):
                del self._asked[full]
                self._known.add(full)
                question.end()
                if question.values is None:
                    self.unanswered.add(full)
                else:
                    self.unanswered.discard(full)
                    self._found(full, question.values)


class _Question:
    """One node being asked: the names, then the values."""

    def __init__(self, node: Node, full: str) -> None:
        self._node = node
        self._list = node.create_client(ListParameters, f"{full}/list_parameters")
        self._get = node.create_client(GetParameters, f"{full}/get_parameters")
        self._answer: Any = None
        self._names: list[str] | None = None
        self._looks = 0
        self.values: dict[str, Any] | None = None

    def step(self, there: bool) -> bool:
        """Go on; True when it is answered or given up."""
        self._looks += 1
        if not there or self._looks > PATIENCE:
            return True
        if self._answer is None:
            if self._list.service_is_ready() and self._get.service_is_ready():
                self._answer = self._list.call_async(ListParameters.Request())
            return False
        if not self._answer.done():
            return False
        answer = self._answer.result()
        if answer is None:
            return True
        if self._names is None:
            self._names = sorted(answer.result.names)
            self._answer = self._get.call_async(GetParameters.Request(names=self._names))
            return False
        self.values = dict(zip(self._names, map(plain, answer.values), strict=False))
        return True

    def end(self) -> None:
        self._node.destroy_client(self._list)
        self._node.destroy_client(self._get)
