"""The graph as plain data: which programs run, under which names, with which parameters and environment.

Both ways up read it: ``launch/bringup.launch.py`` turns it into launch_ros actions, and ``bridgevla up``
(``supervisor.py``) starts the same data as processes where `launch` is not installed. What an operator may
say stands in one table, ``ARGUMENTS``.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bridgevla_ros.core import resources
from bridgevla_ros.core.config import ConfigError

PACKAGE = "bridgevla"
NODES = ("task", "planner", "cropper", "trajectory", "action_expert", "arm_streamer", "sim_arm")

Value = bool | int | float | str

SIM_PAIR: dict[str, dict[str, Value]] = {
    "sim_arm": {"stereo_baseline": 0.06, "image_width": 640, "image_height": 480},
    "planner": {"depth_noise": 0.0027},
}
"""What depth:=stereo sets in simulation. At 320x240 a pixel of disparity is 50 mm of depth at 1 m."""

SIM_PAIR_TOPICS = tuple(
    (f"camera/color/{topic}", f"camera/left/{topic}") for topic in ("image_raw", "camera_info")
)
"""The simulated pair's left camera sees the projector's speckles, which the colour camera does not."""


@dataclass(frozen=True)
class Argument:
    """One thing an operator may say when starting the graph, as ``name:=value``.

    Attributes:
        name: Its name.
        default: Value when nothing is said; empty leaves the parameters it sets as the YAML file has them.
        description: One sentence for ``--show-args``.
        choices: Allowed values, empty for any.
        integer: The value is a whole number.
        sets: (node, parameter) pairs that take the value.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    integer: bool = False
    sets: tuple[tuple[str, str], ...] = ()


YES_NO = ("true", "false")

ARGUMENTS: tuple[Argument, ...] = (
    Argument(
        "sim", "true", "Start the simulated arm and camera; false for a cell with the same topics", YES_NO
    ),
    Argument(
        "robot",
        "panda_2f85",
        "Robot: a name in config/robots, or the path of such a YAML file",
        sets=(
            ("planner", "robot"),
            ("cropper", "robot"),
            ("action_expert", "robot"),
            ("arm_streamer", "robot"),
        ),
    ),
    Argument("params_file", "bringup.yaml", "YAML file with parameters: a name in config/, or a path"),
    Argument(
        "use_sim_time", "auto", "Follow /clock instead of the system's clock; auto: as sim", ("auto", *YES_NO)
    ),
    Argument("namespace", "", "Namespace of every node, for several arms on one network"),
    Argument(
        "record",
        "",
        "Record a bag (MCAP) of the run: true for a new folder in runs/, or a folder; empty or false: none",
    ),
    Argument(
        "planner",
        "",
        "Who plans: the embedded model, a vision-language checkpoint (transformers) or an OpenAI-compatible "
        "server (openai); empty: as params_file says",
        ("", "embedded", "transformers", "openai"),
        sets=(("planner", "backend"),),
    ),
    Argument(
        "planner_model",
        "",
        "Checkpoint folder of the planner, or the server's name for its model; empty: as params_file says",
        sets=(("planner", "weights"), ("planner", "server_model")),
    ),
    Argument(
        "planner_convention",
        "",
        "How that model writes coordinates, e.g. qwen3; empty: as params_file says",
        sets=(("planner", "convention"),),
    ),
    Argument(
        "planner_server",
        "",
        "Address of the openai backend's server; empty: as params_file says",
        sets=(("planner", "server_url"),),
    ),
    Argument(
        "depth",
        "sensor",
        "Where depth comes from: the camera's depth image (sensor), also a network where that has holes "
        "(monocular, needs depth_model), or node stereo: in simulation from a pair with a pattern projector, "
        "else from the colour image and camera/right/image_raw",
        ("sensor", "monocular", "stereo"),
    ),
    Argument(
        "depth_model",
        "",
        "Checkpoint folder of the depth-estimation network of depth:=monocular",
        sets=(("planner", "depth_weights"),),
    ),
    Argument(
        "policy",
        "",
        "Who acts: the learned expert, or a baseline; empty: as params_file says",
        ("", "expert", "ik", "snap"),
        sets=(("action_expert", "policy"),),
    ),
    Argument(
        "runtime",
        "",
        "What computes the learned expert; empty: as params_file says",
        ("", "onnx", "torch"),
        sets=(("action_expert", "runtime"),),
    ),
    Argument(
        "command_mode",
        "joint",
        "Which commands move the arm, joint trajectories or end-effector poses; the other kind is telemetry",
        ("joint", "ee"),
        sets=(("arm_streamer", "command_mode"), ("sim_arm", "command_mode")),
    ),
    Argument(
        "autonomy",
        "",
        "Move at once, or ask the operator to approve each plan; empty: auto in simulation, ask on hardware",
        ("", "auto", "ask"),
        sets=(("task", "autonomy"),),
    ),
    Argument("seed", "0", "Seed of the simulated scene", integer=True, sets=(("sim_arm", "scene_seed"),)),
    Argument(
        "scene",
        "",
        "JSON file of a simulated scene; empty: one drawn from seed",
        sets=(("sim_arm", "scene_file"),),
    ),
    Argument(
        "goal",
        "",
        "Goal that the simulator judges, in words; empty: the task drawn with the scene",
        sets=(("sim_arm", "goal"),),
    ),
    Argument(
        "log_level",
        "info",
        "Least severe messages that are shown",
        ("debug", "info", "warn", "error", "fatal"),
    ),
)


@dataclass(frozen=True)
class NodeSpec:
    """One process of the graph.

    Attributes:
        name: Node name.
        executable: Program in lib/bridgevla, and module in ``bridgevla_ros.nodes``.
        parameters: Set after the parameter files, so they win.
        parameter_files: YAML files, in order.
        remappings: (from, to) pairs.
        respawn: Start it again when it ends by itself.
        respawn_delay: Seconds before the first new start; it doubles while the process keeps ending.
        critical: When it ends for good, the whole graph is taken down.
    """

    name: str
    executable: str
    parameters: tuple[tuple[str, Value], ...] = ()
    parameter_files: tuple[Path, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    respawn: bool = True
    respawn_delay: float = 0.5
    critical: bool = False


@dataclass(frozen=True)
class Graph:
    """What is started together.

    Attributes:
        nodes: The processes, in the order they are started.
        namespace: Of every node, empty for none.
        environment: Added to the environment of every process.
        log_level: Least severe messages shown.
    """

    nodes: tuple[NodeSpec, ...]
    namespace: str
    environment: tuple[tuple[str, str], ...]
    log_level: str

    def node(self, name: str) -> NodeSpec:
        """Return the node of that name."""
        return next(n for n in self.nodes if n.name == name)


def parse_arguments(words: list[str]) -> dict[str, str]:
    """Turn ``name:=value`` words into a mapping.

    Raises:
        ConfigError: A word has another form.
    """
    values: dict[str, str] = {}
    for word in words:
        match = re.fullmatch(r"(\w+):=(.*)", word, re.DOTALL)
        if match is None:
            raise ConfigError(f"{word!r} is no argument; they look like seed:=3")
        values[match[1]] = match[2]
    return values


def resolve(given: Mapping[str, str]) -> dict[str, str]:
    """Fill in defaults and check values; returns every argument's value by name.

    Raises:
        ConfigError: An argument is unknown (the nearest is named) or its value is not allowed.
    """
    table = {a.name: a for a in ARGUMENTS}
    for name in given:
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown argument {name!r}; did you mean {near!r}? known: {', '.join(table)}")
    values = {name: given.get(name, a.default).strip() for name, a in table.items()}
    for name, a in table.items():
        value = values[name].lower() if a.choices else values[name]
        if a.choices and value not in a.choices:
            allowed = ", ".join(c or "(empty)" for c in a.choices)
            raise ConfigError(f"{name}:={values[name]} is not possible; allowed: {allowed}")
        if a.integer and not re.fullmatch(r"\d+", value):
            raise ConfigError(f"{name}:={value} is not a whole number")
        values[name] = value
    return values


def build(given: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Graph:
    """Make the graph from what the operator said.

    Args:
        given: Argument name -> value; missing ones take their defaults.
        environment: What is already set, and wins over the graph's own settings; by default this process's.

    Raises:
        ConfigError: An argument is unknown or its value not allowed.
        FileNotFoundError: A parameter file or robot is not there.
    """
    values = resolve(given)
    sim = values["sim"] == "true"
    use_sim_time = sim if values["use_sim_time"] == "auto" else values["use_sim_time"] == "true"
    values["autonomy"] = values["autonomy"] or ("auto" if sim else "ask")
    resources.find_robot(values["robot"])
    files = (resources.find_config(values["params_file"]),)

    parameters: dict[str, dict[str, Value]] = {name: {"use_sim_time": use_sim_time} for name in NODES}
    # The simulator makes the clock that the others follow.
    parameters["sim_arm"]["use_sim_time"] = False
    for argument in ARGUMENTS:
        value = values[argument.name]
        for node, parameter in argument.sets if value else ():
            parameters[node][parameter] = int(value) if argument.integer else value

    if values["depth"] == "monocular":
        parameters["planner"]["depth_source"] = "monocular"
    if values["depth"] == "stereo" and sim:
        for node, more in SIM_PAIR.items():
            parameters[node] |= more
    nodes = [
        NodeSpec(
            name=name,
            executable=name,
            parameters=tuple(parameters[name].items()),
            parameter_files=files,
            # A new simulator would be another world: when it is gone, so is the cell.
            respawn=name != "sim_arm",
            critical=name == "sim_arm",
        )
        for name in (("sim_arm",) if sim else ()) + tuple(n for n in NODES if n != "sim_arm")
    ]
    if values["depth"] == "stereo":
        clock: tuple[tuple[str, Value], ...] = (("use_sim_time", use_sim_time),)
        nodes.append(NodeSpec("stereo", "stereo", clock, files, SIM_PAIR_TOPICS if sim else ()))
    folder = _record_folder(values["record"])
    if folder is not None:
        recorder: tuple[tuple[str, Value], ...] = (("use_sim_time", use_sim_time), ("output", str(folder)))
        nodes.insert(0, NodeSpec("recorder", "recorder", recorder, files, respawn=False))
    return Graph(
        tuple(nodes), _namespace(values["namespace"]), _environment(environment), values["log_level"]
    )


def _record_folder(said: str) -> Path | None:
    """Where to record: a folder that was named, a new one in runs/, or nowhere."""
    if said.lower() in ("", "false"):
        return None
    name = f"runs/bag-{time.strftime('%Y%m%d-%H%M%S')}" if said.lower() == "true" else said
    return Path(name).expanduser().absolute()


def _namespace(name: str) -> str:
    name = name.strip("/")
    if name and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name):
        raise ConfigError(f"namespace:={name} is not a ROS name: letters, digits and _, parts joined by /")
    return f"/{name}" if name else ""


def _environment(given: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """What every process gets, unless it is set already."""
    there = os.environ if given is None else given
    profile = str(resources.find_config("fastdds.xml"))
    wanted = {
        # Nodes elsewhere are seen only when the operator says so.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        # The default shared-memory segment holds no image: most would be lost. Jazzy reads the older name.
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        # One thread a process: several fight over the cores, and a thread that spins starves the arm's.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }
    return tuple((name, value) for name, value in wanted.items() if name not in there)


def ros_arguments(graph: Graph, node: NodeSpec) -> list[str]:
    """Return the command line, after the program, that gives a node its name and parameters."""
    words = ["--ros-args", "--log-level", graph.log_level, "-r", f"__node:={node.name}"]
    if graph.namespace:
        words += ["-r", f"__ns:={graph.namespace}"]
    for source, target in node.remappings:
        words += ["-r", f"{source}:={target}"]
    for file in node.parameter_files:
        words += ["--params-file", str(file)]
    for name, value in node.parameters:
        words += ["-p", f"{name}:={_yaml(value)}"]
    return words


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
