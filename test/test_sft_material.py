"""What a model is taught and asked: labels that lead back, questions, demonstrations, what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bridgevla_ros.cli import main
from bridgevla_ros.core import resources
from bridgevla_ros.core.camera import deproject, project
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.transforms import Array, Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.datasets.features import Feature
from bridgevla_ros.datasets.lerobot_writer import LeRobotWriter
from bridgevla_ros.datasets.messages import POSE
from bridgevla_ros.datasets.reading import open_dataset
from bridgevla_ros.planner import parse
from bridgevla_ros.planner.answers import Anchors, LocalWaypoint
from bridgevla_ros.planner.backends.chat import read_anchors
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.conventions import CONVENTIONS
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.simulation.demonstrations import subgoal
from bridgevla_ros.simulation.suites import pick_and_place
from bridgevla_ros.simulation.tasks import default_task, sample_scene
from bridgevla_ros.simulation.world import World
from bridgevla_ros.training import sft_demonstrations, sft_examples, sft_questions, sft_scenes

SEED = 900_310


class Taught:
    """A model that writes exactly what it was taught, read as any model is."""

    name, sha256 = "taught", "0" * 64

    def __init__(self, example: sft_examples.Example, convention: str) -> None:
        self.convention = convention
        self.first, self.second = (t.answer for t in sft_examples.turns([example], convention, both=True))

    def anchors(self, frame: RgbdFrame, T_base_camera: Transform, clause: str, seed: int) -> Anchors:
        return read_anchors(self.first, self.convention, frame, clause)

    def waypoints(
        self, frame: RgbdFrame, clause: str, anchors: Anchors, depths: Array, seed: int
    ) -> list[LocalWaypoint]:
        return parse.waypoints(self.second, len(depths))


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sft_examples.Example, World]]:
    """An example of one scene, and that scene."""
    scene, folder = sample_scene(SEED), tmp_path_factory.mktemp("demonstrated") / "x"
    assert sft_scenes.render(folder, 1, SEED, draw=lambda seed, rng: scene, absent=0.0) == 1
    world = World(scene=scene)
    yield sft_examples.read(folder)[0], world
    world.close()


@pytest.mark.parametrize("convention", ["qwen2.5", "qwen3", "paligemma"])
def test_what_is_taught_is_the_demonstrators_plan(
    convention: str, demonstrated: tuple[sft_examples.Example, World]
) -> None:
    example, world = demonstrated
    task = default_task(world.scene)
    named = example.labels
    stops = subgoal(world, pick_and_place(*named), 0).waypoints
    planner = Planner(PlannerConfig(waypoint_source="model", semantic_limit=0.0), Taught(example, convention))
    request = PlanRequest(0.0, "t", "r", task.instruction)
    plan = planner.plan(request, world.render(), world.T_base_camera, now=0.0)
    assert plan.code == ErrorCode.NONE, plan.message
    found = [world.T_base_camera @ w.T_camera_tcp for w in plan.waypoints]
    assert len(found) == len(stops)
    for pose, stop in zip(found, stops, strict=True):
        # Points are written to a pixel or a thousandth of the image; the rest is rounding.
        assert np.linalg.norm(pose.translation - stop.T_base_tcp.translation) < 0.006
        turn = abs(float(pose.rotation[:2, 1] @ stop.T_base_tcp.rotation[:2, 1]))
        assert turn > 0.999  # the two fingers are alike


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> list[sft_examples.Example]:
    folder = tmp_path_factory.mktemp("absent") / "x"
    assert sft_scenes.render(folder, 3, SEED + 20, absent=1.0) == 3
    return sft_examples.read(folder)


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_nothing_to_take_is_an_answer_that_is_read(
    convention: str, absent: list[sft_examples.Example]
) -> None:
    examples = [e for e in absent if not len(e.pixels)]
    assert examples
    answer = sft_examples.points_answer(examples[0], convention)
    if convention == "paligemma":  # it has no words for that
        assert answer == ""
        assert sft_examples.turns(examples, convention, both=True) == []
    else:
        assert parse.points(answer, convention) == []


def test_a_task_is_named_by_its_examples_alone(tmp_path: Path) -> None:
    assert sft_scenes.render_task(tmp_path / "x", "feed the goldfish", ("ball", "bowl"), 2, SEED + 40) == 2
    for example in sft_examples.read(tmp_path / "x"):
        assert example.instruction == "feed the goldfish"
        assert [label.split()[-1] for label in example.labels] == ["ball", "bowl"]


# -- questions -------------------------------------------------------------------------------------


def test_our_questions_are_well_formed() -> None:
    questions = sft_questions.read(resources.find_config("questions/general.csv"))
    assert len(questions) == 40
    assert len({q.text for q in questions}) == 40
    assert [sum(q.answer == i for q in questions) for i in range(4)] == [10, 10, 10, 10]
    assert all(len(set(q.choices)) == 4 for q in questions)


def test_questions_in_every_shape(tmp_path: Path) -> None:
    row = ["What is 2 + 2, roughly?", "3", "4", "5", "6"]
    plain = tmp_path / "a.csv"
    plain.write_text('question,A,B,C,D,answer\n"What is 2 + 2, roughly?",3,4,5,6,B\n')
    mmlu = tmp_path / "b.csv"
    mmlu.write_text('"What is 2 + 2, roughly?",3,4,5,6,B\n')
    lines = tmp_path / "c.jsonl"
    lines.write_text(json.dumps({"question": row[0], "choices": row[1:], "answer": 1, "subject": "x"}) + "\n")
    for path in (plain, mmlu, lines):
        (question,) = sft_questions.read(path)
        assert (question.text, list(question.choices), question.answer) == (row[0], row[1:], 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "question,A,B,C,answer\nx,1,2,3,A\n", "lack ['D']"),
        ("a.csv", "question,A,B,C,D,answer\nx,1,2,3,4,E\n", "line 2: answer 'E'"),
        ("a.csv", "question,A,B,C,D,answer\nx,1,2,3,A\n", "line 2: 5 columns"),
        ("a.csv", "", "no question"),
        ("a.jsonl", "{]\n", "line 1: no JSON"),
        ("a.jsonl", '{"question": "x", "choices": ["1", "2"], "answer": 0}\n', "'C' is missing"),
    ],
)
def test_questions_that_are_none(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BridgeError) as caught:
        sft_questions.read(tmp_path / name)
    assert said in str(caught.value)
    assert "JSON lines" in caught.value.remedy


# -- demonstrations --------------------------------------------------------------------------------


def demonstration(world: World, extra: dict[str, object]) -> tuple[dict[str, NDArray[Any]], str]:
    """Columns of a recorded pick-and-place, from the demonstrator's contacts."""
    task = default_task(world.scene)
    stops = subgoal(world, pick_and_place(task.source, task.destination), 0).waypoints
    home = world.render()
    tcp, told, width = [], [], []
    command = 0.08
    for stop in stops:
        for held in range(3):  # arrives, then the fingers move
            command = stop.width if stop.event and held == 1 else command
            tcp.append([*stop.T_base_tcp.translation, *stop.T_base_tcp.quat()])
            told.append(command)
            width.append(max(command, 0.03))
    count = len(tcp)
    camera = [*world.T_base_camera.translation, *world.T_base_camera.quat()]
    columns = {
        "observation.tcp": np.array(tcp, np.float32),
        "observation.gripper": np.array(width, np.float32),
        "observation.camera": np.array([camera] * count, np.float32),
        "observation.images.front": np.stack([home.rgb] * count),
        "observation.images.depth": np.stack([home.depth] * count),
        "action": np.column_stack([np.array(tcp), told]).astype(np.float32),
    }
    k = home.intrinsics
    extra |= {"success": True, "intrinsics": {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy,
                                              "cx": k.cx, "cy": k.cy}}  # fmt: skip
    return columns, task.instruction


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three demonstrations of one task, one of them failed."""
    root = tmp_path_factory.mktemp("demonstrations") / "lerobot"
    world = World(scene=sample_scene(SEED))
    extra: dict[str, object] = {}
    columns, words = demonstration(world, extra)
    height, width = world.intrinsics.height, world.intrinsics.width
    features = {
        "observation.tcp": Feature("float32", (7,), POSE, "m"),
        "observation.gripper": Feature("float32"),
        "observation.camera": Feature("float32", (7,), POSE, "m"),
        "observation.images.front": Feature("image", (height, width, 3)),
        "observation.images.depth": Feature("image", (height, width, 1), unit="m", depth=True),
        "action": Feature("float32", (8,), (*POSE, "gripper"), "m"),
    }
    with LeRobotWriter(root, features, fps=10, robot_type="panda") as writer:
        for success in (True, False, True):
            writer.add_episode(columns, words, extra={**extra, "success": success})
    world.close()
    return root


def test_demonstrations_point_at_what_was_gripped(recorded: Path, tmp_path: Path) -> None:
    left = sft_demonstrations.convert(open_dataset(recorded), tmp_path / "x", fewest=2)
    assert left == {"failed": 1}
    first, second = sft_examples.read(tmp_path / "x")
    np.testing.assert_array_equal(first.pixels, second.pixels)
    world = World(scene=sample_scene(SEED))
    task, labels = default_task(world.scene), world.render_segmentation()
    names = [o.name for o in world.scene.objects]
    under = [int(labels[round(float(v)), round(float(u))]) for u, v in first.pixels]
    assert [names[i - 1] for i in under] == [task.source, task.destination]
    # Its second turn brings the hand back to where it was.
    stops = subgoal(world, pick_and_place(task.source, task.destination), 0).waypoints
    grip = next(s for s in stops if s.event.name == "CLOSE")
    answer = sft_examples.turns([first], "qwen3", both=True)[1].answer
    local = parse.waypoints(answer, 2)[1]
    assert local.event.name == "CLOSE"
    lifted = world.T_base_camera.apply(deproject([first.pixels[0]], [first.depths[0]], first.intrinsics)[0])
    assert abs(np.linalg.norm(grip.T_base_tcp.translation - lifted) - np.linalg.norm(local.offset)) < 0.004
    at = project(world.T_base_camera.inverse().apply(grip.T_base_tcp.translation[None]), world.intrinsics)[0]
    np.testing.assert_allclose(at, first.pixels[0], atol=0.1)
    world.close()


def test_too_few_demonstrations(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError) as caught:
        sft_demonstrations.convert(open_dataset(recorded), tmp_path / "x")
    assert (caught.value.value, caught.value.limit) == (2.0, 50.0)
    assert "--demonstrations-min 2" in caught.value.remedy


def test_gripper_events() -> None:
    wide, shut = [0.08] * 5, [0.0] * 5
    held = [0.03] * 5
    found = sft_demonstrations.gripper_events(np.array(wide + shut + wide), np.array(wide + held + wide))
    assert found == (5, 10)
    with pytest.raises(sft_demonstrations.Unfit, match="held"):
        sft_demonstrations.gripper_events(np.array(wide + shut + wide), np.array(wide + shut + wide))
    twice = np.array((wide + shut) * 2 + wide)
    with pytest.raises(sft_demonstrations.Unfit, match="several"):
        sft_demonstrations.gripper_events(twice, np.array((wide + held) * 2 + wide))


# -- what is refused on the command line -----------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["train", "vlm", *words]) == 2
    return capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import Qwen2Config

    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.mkdir()
    Qwen2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(text)
    out = ["--out", str(tmp_path / "out")]
    assert "convention must be set" in refused(capsys, str(empty), *out)
    named = [*out, "--convention", "qwen3"]
    assert "no checkpoint folder" in refused(capsys, str(tmp_path / "nowhere"), *named)
    assert "there is no config.json" in refused(capsys, str(empty), *named)
    assert "a qwen2, which has no vision part" in refused(capsys, str(text), *named)
    assert "below the limit 1" in refused(capsys, str(text), *named, "--steps", "0")
    (empty / "adapter_config.json").write_text("{}")
    assert "holds a LoRA adapter" in refused(capsys, str(empty), *named)
