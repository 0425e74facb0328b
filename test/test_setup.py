"""The set-up program: what is done again, and what a user is told who may not install."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("requirements", "msg", "srv", "action", "interfaces", "cmake")
FILES = ("CMakeLists.txt", "package.xml", "setup.py", "setup.cfg", "pyproject.toml")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/setup_env.py, on a copy of the files it looks at."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_env", module)
    spec.loader.exec_module(module)
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(module, "TREE", tmp_path)
    return module


def finished(program: ModuleType, tree: Path, **changes: object) -> object:
    """A set-up that has done everything, without doing it; `ran` lists the stages run from then on."""
    options = {"distro": "jazzy", "python": sys.executable, "build_only": False, "torch_index": ""} | changes
    made = program.Setup(tree / ".venv", **options)
    made.state.mkdir(parents=True)
    made.stamp.write_text(json.dumps({name: made.key(inputs) for name, inputs, _ in made.stages()}))
    made.ran = []
    stages = made.stages
    made.stages = lambda: [(n, i, lambda n=n: made.ran.append(n)) for n, i, _ in stages()]
    made.check_system = lambda: None
    return made


def test_a_second_run_does_nothing(program: ModuleType, tmp_path: Path) -> None:
    made = finished(program, tmp_path)
    assert made.run(force=False) == 0  # type: ignore[attr-defined]
    assert made.ran == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("msg/Lease.msg", ["messages"]),
        ("interfaces/tf2_msgs/msg/TFMessage.msg", ["messages"]),
        ("setup.cfg", ["bridgevla"]),
        ("requirements/dev.txt", ["tests, linters and colcon"]),
        ("requirements/torch.txt", ["torch"]),
    ],
)
def test_only_what_changed_is_done_again(
    program: ModuleType, tmp_path: Path, file: str, again: list[str]
) -> None:
    made = finished(program, tmp_path)
    with (tmp_path / file).open("a") as changed:
        changed.write("# changed\n")
    made.run(force=False)  # type: ignore[attr-defined]
    assert made.ran == again  # type: ignore[attr-defined]
    made.ran.clear()  # type: ignore[attr-defined]
    assert made.run(force=False) == 0  # type: ignore[attr-defined]


def test_another_python_starts_from_nothing(program: ModuleType, tmp_path: Path) -> None:
    made = finished(program, tmp_path)
    program.probe_python = lambda python: ("/elsewhere/python3.12", (3, 12))
    made.run(force=False)  # type: ignore[attr-defined]
    assert made.ran[0] == "virtual environment"  # type: ignore[attr-defined]
    assert len(made.ran) == len(made.stages())  # type: ignore[attr-defined]


def test_a_stage_that_fails_is_not_counted_as_done(program: ModuleType, tmp_path: Path) -> None:
    made = finished(program, tmp_path)
    (tmp_path / "msg/Lease.msg").write_text("bool changed\n")

    def fail() -> None:
        raise program.SetupError("no compiler")

    whole = made.stages  # type: ignore[attr-defined]
    made.stages = lambda: [(n, i, fail) for n, i, _ in whole()]  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(program.SetupError, match="no compiler"):
            made.run(force=False)  # type: ignore[attr-defined]


def test_building_needs_no_torch(program: ModuleType, tmp_path: Path) -> None:
    made = program.Setup(tmp_path / "v", "kilted", sys.executable, True, "")
    names = [name for name, _, _ in made.stages()]
    assert "torch" not in names
    assert "ROS 2 kilted" in names


def test_missing_libraries_are_named_with_the_command(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = program.System("libosmesa6", "rendering without a display", lambda: False)
    monkeypatch.setattr(program, "system_requirements", lambda python: (absent,))
    monkeypatch.setattr(program, "apt_prefix", lambda: None)
    made = program.Setup(tmp_path / "v", "jazzy", sys.executable, False, "")
    with pytest.raises(program.SetupError, match=r"sudo apt-get install .* libosmesa6"):
        made.check_system()
    assert "libosmesa6 (rendering without a display)" in capsys.readouterr().out


def test_no_fitting_python_is_said_with_what_to_install(program: ModuleType) -> None:
    program.probe_python = lambda python: (python, (3, 9))
    with pytest.raises(program.SetupError, match=r"3\.11 or 3\.12") as caught:
        program.find_python("python3.9")
    assert "python3.9" in str(caught.value)
    assert "python3.12-venv" in str(caught.value)
