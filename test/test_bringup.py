"""One graph, two ways up; and the supervisor that keeps it running and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bridgevla_ros import bringup
from bridgevla_ros.bringup import ARGUMENTS, Graph, NodeSpec
from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.supervisor import Supervisor, command

ROOT = Path(__file__).resolve().parents[1]


def parameters(graph: Graph, node: str) -> dict[str, object]:
    return dict(graph.node(node).parameters)


def test_default_graph_is_the_whole_simulated_cell() -> None:
    graph = bringup.build({}, environment={})
    assert {n.name for n in graph.nodes} == set(bringup.NODES)
    assert parameters(graph, "task") == {"use_sim_time": True, "autonomy": "auto"}
    assert parameters(graph, "sim_arm")["use_sim_time"] is False
    environment = dict(graph.environment)
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_a_real_cell_has_no_simulator_runs_on_the_systems_clock_and_asks() -> None:
    graph = bringup.build({"sim": "false"})
    assert "sim_arm" not in {n.name for n in graph.nodes}
    assert parameters(graph, "task") == {"use_sim_time": False, "autonomy": "ask"}


def test_arguments_reach_the_parameters() -> None:
    said = {"policy": "ik", "seed": "7", "command_mode": "ee", "namespace": "left", "record": "somewhere"}
    graph = bringup.build(said)
    assert parameters(graph, "action_expert")["policy"] == "ik"
    assert parameters(graph, "sim_arm")["scene_seed"] == 7
    assert (
        parameters(graph, "arm_streamer")["command_mode"]
        == parameters(graph, "sim_arm")["command_mode"]
        == "ee"
    )
    assert graph.namespace == "/left"
    recorder = graph.node("recorder")
    assert parameters(graph, "recorder")["output"] == str(Path("somewhere").absolute())
    assert recorder.parameter_files == graph.node("task").parameter_files  # its compression, splits, limits
    words = bringup.ros_arguments(graph, graph.node("action_expert"))
    assert 'policy:="ik"' in words
    assert "__ns:=/left" in words


def test_what_the_operator_set_wins() -> None:
    graph = bringup.build({}, environment={"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in dict(graph.environment)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"polcy": "ik"}, "policy"),
        ({"policy": "ikk"}, "snap"),
        ({"seed": "three"}, "seed"),
        ({"sim": "perhaps"}, "true, false"),
        ({"namespace": "left arm"}, "left arm"),
    ],
)
def test_mistakes_are_refused_with_the_way_out(said: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        bringup.build(said)


def test_missing_files_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        bringup.build({"params_file": "nowhere.yaml"})


def test_every_argument_is_described_and_does_something() -> None:
    used = {"sim", "params_file", "use_sim_time", "namespace", "record", "log_level", "depth"}
    for argument in ARGUMENTS:
        assert len(argument.description.split()) >= 4
        assert argument.sets or argument.name in used
        assert not argument.choices or argument.default in argument.choices
        assert all(node in bringup.NODES for node, _ in argument.sets)


def test_up_lists_every_argument() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bridgevla_ros.cli", "up", "--show-args"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.returncode == 0
    for argument in ARGUMENTS:
        assert f"{argument.name}:=" in ran.stdout
        assert argument.description in ran.stdout


def test_up_names_the_nearest_argument() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bridgevla_ros.cli", "up", "sed:=3"], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 2
    assert "'seed'" in ran.stderr


def node_configs(module: str) -> set[str]:
    """Every parameter that the config dataclasses known to a node's module declare."""
    import dataclasses
    import importlib

    from bridgevla_ros.core import config

    loaded = importlib.import_module(f"bridgevla_ros.nodes.{module}")
    classes = [v for v in vars(loaded).values() if isinstance(v, type) and dataclasses.is_dataclass(v)]
    return {name for c in classes for name in config.specs(c)}


@pytest.mark.parametrize("name", bringup.NODES)
def test_what_bringup_sets_is_a_parameter_of_the_node(name: str) -> None:
    known = node_configs(name) | {"use_sim_time"}
    wanted = {parameter for a in ARGUMENTS for node, parameter in a.sets if node == name}
    assert wanted <= known
    sections = yaml.safe_load((ROOT / "config/bringup.yaml").read_text())
    given = sections.get(f"/**/{name}", {}).get("ros__parameters", {})
    assert set(given) <= known
    assert set(sections) <= {f"/**/{n}" for n in bringup.NODES}


# The supervisor -------------------------------------------------------------------------------------------


def watch(
    programs: dict[str, str], *, critical: str = "", respawn: bool = True, **waits: float
) -> tuple[Supervisor, list[str]]:
    """A supervisor of small Python programs, and the lines it reports."""
    nodes = tuple(
        NodeSpec(n, n, respawn=respawn, respawn_delay=0.05, critical=n == critical) for n in programs
    )
    lines: list[str] = []
    # Isolated and without site: starts in milliseconds.
    commands = {n: [sys.executable, "-I", "-S", "-c", program] for n, program in programs.items()}
    graph = Graph(nodes, "", (("GREETING", "hello"),), "info")
    made = Supervisor(graph, lambda name, line: lines.append(f"{name}: {line}"), commands, **waits)
    return made, lines


def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> bool:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


SLEEP = "import os, time; print('up', os.environ['GREETING'], flush=True); time.sleep(600)"


def test_up_starts_the_nodes_of_the_graph() -> None:
    graph = bringup.build({})
    words = command(graph, graph.node("planner"))
    assert words[1:3] == ["-m", "bridgevla_ros.nodes.planner"]
    assert "__node:=planner" in words


def test_a_killed_process_is_started_again() -> None:
    supervisor, lines = watch({"a": SLEEP, "b": SLEEP})
    with supervisor:
        assert eventually(lambda: lines.count("a: up hello") == 1)
        first = supervisor.pid("a")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: lines.count("a: up hello") == 2)
        assert supervisor.pid("a") != first
        assert supervisor.starts("b") == 1
    assert "a: ended by SIGKILL" in lines
    assert supervisor.pid("a") is None


def test_restarts_slow_down() -> None:
    supervisor, lines = watch({"a": "print('x'); raise SystemExit(3)"})
    with supervisor:
        assert eventually(lambda: supervisor.starts("a") >= 3)
    delays = [float(line.split()[-2]) for line in lines if "started again" in line]
    assert delays[:2] == pytest.approx([0.1, 0.1], abs=0.051)
    assert supervisor.children["a"].delay >= 0.2
    assert "a: ended with exit status 3" in lines


def test_the_end_is_escalated_to_sigkill_and_children_of_children_go_too() -> None:
    deaf = (
        "import os, signal, subprocess, sys, time;"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)']);"
        "print('grandchild', p.pid, flush=True); time.sleep(600)"
    )
    # Long enough for a good process to end on a busy machine; also where this test runs in the background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor, lines = watch({"deaf": deaf, "good": SLEEP}, interrupt_wait=3.0, terminate_wait=0.3)
    try:
        with supervisor:
            assert eventually(lambda: any("grandchild" in line for line in lines))
            pid = supervisor.pid("deaf")
    finally:
        signal.signal(signal.SIGINT, before)
    grandchild = int(next(line for line in lines if "grandchild" in line).split()[-1])
    assert pid is not None
    assert eventually(lambda: not alive(pid) and not alive(grandchild))
    assert "deaf: does not end: SIGTERM" in lines
    assert "deaf: does not end: SIGKILL" in lines
    assert not any(line.startswith("good: does not end") for line in lines)


def test_a_critical_process_takes_the_graph_down() -> None:
    supervisor, _ = watch({"sim": "raise SystemExit(4)", "b": SLEEP}, critical="sim")
    assert supervisor.run() == 1
    assert supervisor.failed == "sim"
    assert supervisor.pid("b") is None


def test_a_program_that_is_not_there_is_reported() -> None:
    supervisor, lines = watch({"a": SLEEP}, respawn=False)
    supervisor.children["a"].words[0] = "/nowhere/python"
    with supervisor:
        assert eventually(lambda: any("cannot be started" in line for line in lines))


def test_last_words_are_not_lost() -> None:
    supervisor, lines = watch({"a": "print('x' * 200000); print('last', end='')"}, respawn=False)
    with supervisor:
        assert eventually(lambda: "a: last" in lines)
    assert f"a: {'x' * 200000}" in lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_when_the_supervisor_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import sys; from bridgevla_ros.bringup import *; from bridgevla_ros.supervisor import Supervisor;"
        "g = Graph((NodeSpec('a', 'a'),), '', (), 'info');"
        "sleep = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)';"
        "sleep = [sys.executable, '-I', '-S', '-c', sleep];"
        "sys.exit(Supervisor(g, commands={'a': sleep}).run())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[-1])
    assert alive(pid)
    process.send_signal(number)
    assert process.wait(10) == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    process.stdout.close()
    assert eventually(lambda: not alive(pid))


@pytest.mark.parametrize(("said", "recorded"), [("", False), ("false", False), ("true", True)])
def test_recording_may_be_asked_for_without_a_name(said: str, recorded: bool) -> None:
    graph = bringup.build({"record": said})
    assert ("recorder" in [n.name for n in graph.nodes]) is recorded
    if recorded:
        assert Path(str(parameters(graph, "recorder")["output"])).parent == Path("runs").absolute()
