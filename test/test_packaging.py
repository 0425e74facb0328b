"""What stands in several places says the same everywhere."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bridgevla_ros import bringup
from bridgevla_ros.cli import VERBS, main, version
from bridgevla_ros.cli.verbs import Verb
from bridgevla_ros.core.errors import ErrorCode

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
VERSION = MANIFEST.findtext("version", "")


def entry_points() -> dict[str, str]:
    """Program name -> module:function, of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].split("\n")
    pairs = [line.split("=") for line in lines if line.strip()]
    return {name.strip(): target.strip() for name, target in pairs}


def constants(path: Path, kind: str) -> dict[str, int]:
    """NAME -> value of an interface file's constants of one type."""
    found = re.findall(rf"^{kind} ([A-Z0-9_]+)=(\d+)", path.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


def defined(module: str, name: str) -> bool:
    """Whether a module defines a function or an annotated name, seen without importing what it imports."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return False
    tree = ast.parse(Path(spec.origin).read_text())
    imported = (a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names)
    functions = (n.name for n in tree.body if isinstance(n, ast.FunctionDef))
    tables = (
        n.target.id for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    )
    return name in {*imported, *functions, *tables}


def test_version_is_that_of_the_manifest() -> None:
    setup = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert setup.stdout.strip().splitlines()[-1] == VERSION
    assert version() == VERSION
    newest = re.search(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION


def test_version_is_written_once() -> None:
    code = [*ROOT.glob("*.py"), *ROOT.glob("*.cfg"), *ROOT.glob("*.toml"), ROOT / "CMakeLists.txt"]
    code += (ROOT / "bridgevla_ros").rglob("*.py")
    assert [p for p in code if re.search(rf"[\"'\s]{re.escape(VERSION)}\b", p.read_text())] == []


@pytest.mark.parametrize(("program", "target"), entry_points().items())
def test_programs_lead_somewhere(program: str, target: str) -> None:
    module, function = target.split(":")
    assert defined(module, function), f"{program} = {target}"


def test_every_node_and_verb_is_a_program() -> None:
    programs = entry_points()
    for name in (*bringup.NODES, "recorder", "stereo"):
        assert programs[name] == f"bridgevla_ros.nodes.{name}:main"
    for verb in VERBS:
        assert programs[verb.name] == "bridgevla_ros.cli:verb_main"
    assert set(programs) == {"bridgevla", "recorder", "stereo", *bringup.NODES, *(v.name for v in VERBS)}


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_verbs_have_their_two_functions(verb: Verb) -> None:
    if defined(verb.module, "SUB_VERBS"):
        for below in importlib.import_module(verb.module).SUB_VERBS:
            test_verbs_have_their_two_functions(below)
        return
    assert defined(verb.module, "add_arguments")
    assert defined(verb.module, "run")


def test_error_codes_agree() -> None:
    message = constants(ROOT / "msg/ErrorCode.msg", "uint16")
    assert message == {code.name: int(code) for code in ErrorCode}


def test_enumerations_agree_with_messages() -> None:
    from bridgevla_ros.core import types

    waypoint = constants(ROOT / "msg/Waypoint.msg", "uint8")
    kinds = {name: value for name, value in waypoint.items() if not name.startswith("GRIPPER_")}
    events = {n.removeprefix("GRIPPER_"): v for n, v in waypoint.items() if n.startswith("GRIPPER_")}
    assert kinds == {k.name: int(k) for k in types.WaypointKind}
    assert events == {e.name: int(e) for e in types.GripperEvent}
    assert constants(ROOT / "msg/Keypoint.msg", "uint8") == {r.name: int(r) for r in types.Role}


def test_installed_messages_are_those_of_the_tree() -> None:
    """A set-up that was not repeated after a change of msg/ would fail far from its cause."""
    import bridgevla.action
    import bridgevla.msg
    import bridgevla.srv

    for folder, module in (("msg", bridgevla.msg), ("srv", bridgevla.srv), ("action", bridgevla.action)):
        for path in (ROOT / folder).glob(f"*.{folder}"):
            made = getattr(module, path.stem)
            if folder != "msg":
                continue
            body = re.sub(r"#.*", "", path.read_text())
            fields = re.findall(r"^\s*[\w/]+(?:\[[^\]]*\])?\s+([a-z]\w*)\s*$", body, re.MULTILINE)
            assert list(made.get_fields_and_field_types()) == fields, path.name


def test_every_interface_field_says_what_it_is() -> None:
    """Numbers need a unit or meaning: a comment on the line, or a name that says it whole."""
    plain = {"stage", "steps_total", "model_sha256", "speed_scale", "retries"}
    for path in [*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv"), *ROOT.glob("action/*.action")]:
        for line in path.read_text().splitlines():
            field = re.match(r"(float\d+|geometry_msgs/\w+)(\[\d*\])? (\w+)", line)
            if field and field[3] not in plain:
                assert "#" in line, f"{path.name}: {line}"


def test_dependencies_of_the_build_are_declared() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    listed = re.search(r"set\(interface_dependencies\s+([\w\s]+)\)", cmake)
    assert listed is not None
    declared = {e.text for e in MANIFEST if e.tag in ("depend", "build_depend")}
    assert {*listed[1].split(), "action_msgs"} <= declared


def test_imported_ros_packages_are_declared() -> None:
    declared = {e.text for e in MANIFEST if e.tag.endswith("depend")}
    ours = {"bridgevla", "bridgevla_ros"}
    imported: dict[str, Path] = {}
    for path in (ROOT / "bridgevla_ros").rglob("*.py"):
        for n in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in n.names] if isinstance(n, ast.Import) else []
            names += [n.module] if isinstance(n, ast.ImportFrom) and n.module else []
            for name in (m.split(".")[0] for m in names):
                if name == "rclpy" or name.endswith(("_msgs", "_srvs", "_interfaces")):
                    imported[name] = path
    missing = {name: str(path) for name, path in imported.items() if name not in declared | ours}
    # Used only where a full ROS has them, behind an adapter with a stand-in.
    assert missing == {}


def test_the_stand_in_never_shadows_a_real_tf2_msgs() -> None:
    assert (ROOT / "interfaces" / "COLCON_IGNORE").is_file()
    assert (ROOT / "interfaces/tf2_msgs/msg/TFMessage.msg").is_file()
    assert "add_subdirectory" not in (ROOT / "CMakeLists.txt").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "expert", "--config", "training/nowhere.yaml"], "training/appf.yaml"),
        (["train", "expret"], "did you mean expert?"),
        (["dataset", "info", "nowhere"], "there is neither"),
        (["evil"], "did you mean eval?"),
    ],
)
def test_what_is_typed_wrong_is_told_with_the_way_out(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert told in capsys.readouterr().err
