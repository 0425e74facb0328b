"""What ROS leaves on a machine: domains that are held, and shared memory of processes that were killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridgevla_ros.ros.domain import free_domain, in_use, release_domain
from bridgevla_ros.ros.shared_memory import FOLDER, remove_stale_segments, stale_segments

SPEAKER = """
import rclpy, sys
rclpy.init(args=[])
node = rclpy.create_node("speaker")
print("up", flush=True)
sys.stdin.read()
"""
CHOOSER = """
import sys
from bridgevla_ros.ros.domain import free_domain
print(free_domain(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def domain() -> Iterator[int]:
    held = free_domain()
    yield held
    release_domain(held)


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20.0)


def test_what_is_held_is_not_given_out_again() -> None:
    held = [free_domain() for _ in range(20)]
    assert len(set(held)) == 20
    other = start(CHOOSER)
    assert other.stdout is not None
    theirs = int(other.stdout.readline())
    assert theirs not in held
    other.kill()
    end(other)
    for one in held:
        release_domain(one)


def test_segments_of_a_killed_process_are_found_and_those_of_a_living_one_are_not(domain: int) -> None:
    process = start(SPEAKER, ROS_DOMAIN_ID=str(domain))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert in_use(domain)
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    mine = {Path(p) for p in re.findall(rf"{FOLDER}/fast(?:rtps|dds)_[0-9a-f]{{16}}(?=\n)", maps)}
    assert mine
    locks = [path.with_name(f"{path.name}_el") for path in mine]
    for lock in locks:
        os.utime(lock, (0.0, 0.0))
    assert not mine & set(stale_segments())

    process.kill()
    end(process)
    deadline = time.monotonic() + 5.0  # a busy kernel closes the sockets a little after the process has gone
    while in_use(domain) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not in_use(domain)
    assert mine <= set(stale_segments())
    assert remove_stale_segments() > 0
    assert not [path for path in (*mine, *locks) if path.exists()]
    assert not mine & set(stale_segments())


def test_a_lock_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    segment, other = tmp_path / "fastrtps_0123456789abcdef", tmp_path / "fastrtps_notes"
    for path in (segment, segment.with_name(f"{segment.name}_el"), other):
        path.write_bytes(b"x" * 4096)
    assert remove_stale_segments(tmp_path) == 0
    os.utime(segment.with_name(f"{segment.name}_el"), (0.0, 0.0))
    assert remove_stale_segments(tmp_path) == 4096
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
    assert remove_stale_segments(tmp_path / "nowhere") == 0
