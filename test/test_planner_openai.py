"""The openai backend against a real HTTP server that reads the image it is sent, and one that misbehaves."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import pytest

from bridgevla_ros.core.config import ConfigError
from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.kinematics import ArmModel
from bridgevla_ros.core.streamer import Streamer
from bridgevla_ros.core.streamer_config import StreamerConfig
from bridgevla_ros.core.task_machine import TaskConfig, TaskMachine
from bridgevla_ros.core.task_status import Stage
from bridgevla_ros.core.trajectory import TrajectoryConfig, TrajectoryGenerator
from bridgevla_ros.core.transforms import Transform
from bridgevla_ros.core.types import PlanRequest, RgbdFrame
from bridgevla_ros.evaluation.rollout import Graph
from bridgevla_ros.expert.config import ExpertConfig
from bridgevla_ros.expert.policy import make_policy
from bridgevla_ros.perception.config import CropperConfig
from bridgevla_ros.perception.cropper import Cropper
from bridgevla_ros.planner.backends import make_backend
from bridgevla_ros.planner.backends.openai import OpenAiBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.conventions import write
from bridgevla_ros.planner.planner import Planner
from bridgevla_ros.planner.self_test import CLAUSE, DESTINATION, SOURCE, drawn_frame
from bridgevla_ros.simulation.tasks import sample_scene
from bridgevla_ros.simulation.world import World

HUES = {"red": 0, "green": 60, "blue": 115, "yellow": 28, "orange": 12, "purple": 140, "pink": 168}


def blob(image: np.ndarray, colour: str) -> np.ndarray:
    """Middle of the largest blob of a colour, u and v."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(int)
    apart = np.abs((hsv[..., 0] - HUES[colour] + 90) % 180 - 90)
    mask = ((apart < 8) & (hsv[..., 1] > 120) & (hsv[..., 2] > 50)).astype(np.uint8)
    _, _, stats, centroids = cv2.connectedComponentsWithStats(mask)
    return np.asarray(centroids[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))])


class Eye:
    """A pointing model of colour words: it sees the image that was sent, and nothing else."""

    def __init__(self, convention: str, exchange: str = "") -> None:
        self.convention, self.exchange = convention, exchange

    def __call__(self, image: np.ndarray, text: str) -> str:
        colours = re.findall("|".join(HUES), text)[:2]
        if self.exchange == "colours":
            image = np.ascontiguousarray(image[..., ::-1])
        pixels = np.array([blob(image, c) for c in colours])
        height, width = image.shape[:2]
        if self.exchange == "axes":
            pixels = pixels[:, ::-1] * [width / height, height / width]
        return write(pixels, colours, self.convention, width, height)


class Server:
    """An OpenAI-compatible server; ``answer`` makes the text, ``mode`` how it reaches the client."""

    def __init__(self) -> None:
        self.answer: Callable[[np.ndarray, str], str] = Eye("qwen3")
        self.mode, self.key, self.requests = "stream", "", 0
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                outer.models(self)

            def do_POST(self) -> None:
                outer.chat(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def models(self, handler: BaseHTTPRequestHandler) -> None:
        if self.key and handler.headers["Authorization"] != f"Bearer {self.key}":
            self.reply(handler, 401, {"error": {"message": "who are you"}})
        else:
            self.reply(handler, 200, {"object": "list", "data": [{"id": "eye", "object": "model"}]})

    def chat(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if self.mode == "busy" and self.requests == 1:
            self.reply(handler, 503, {"error": {"message": "loading"}})
            return
        if self.mode == "hang":
            self.release.wait(10.0)
            return
        if self.mode == "late":
            self.release.wait(1.5)
        parts = asked["messages"][0]["content"]
        url = next(p["image_url"]["url"] for p in parts if p["type"] == "image_url")
        png = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
        text = self.answer(cv2.imdecode(png, cv2.IMREAD_COLOR), parts[-1]["text"])
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        if self.mode == "garbage":
            handler.wfile.write(b"data: {not json\n\n")
            return
        for k in range(0, len(text), 4):
            delta = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "eye"}
            choice = {"index": 0, "delta": {"content": text[k : k + 4]}, "finish_reason": None}
            handler.wfile.write(f"data: {json.dumps({**delta, 'choices': [choice]})}\n\n".encode())
            handler.wfile.flush()
            if self.mode == "die" and k:
                handler.connection.close()
                return
            if self.mode == "trickle" and self.release.wait(0.2):
                return
        last = {**delta, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        handler.wfile.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("BRIDGEVLA_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.release.set()
    made.http.shutdown()
    made.http.server_close()


def config(server: Server, **more: Any) -> PlannerConfig:
    values = {"answer_timeout": 5.0, "server_retries": 0, "convention": "qwen3", "self_test": False, **more}
    return PlannerConfig(backend="openai", server_url=server.url, server_model="eye", **values)


def look(backend: OpenAiBackend) -> np.ndarray:
    found = backend.anchors(drawn_frame(), Transform.identity(), CLAUSE, 0)
    assert found.destination is not None
    return np.stack([found.source.pixel, found.destination.pixel])


def refusal(call: Callable[[], object]) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        call()
    return caught.value


def test_it_points_and_counts_what_it_cost(server: Server) -> None:
    backend = make_backend(config(server, self_test=True))
    assert isinstance(backend, OpenAiBackend)
    seen: list[int] = []
    backend.on_progress = seen.append
    np.testing.assert_allclose(look(backend), [SOURCE, DESTINATION], atol=1.0)
    assert seen == list(range(1, len(seen) + 1))
    assert backend.usage.tokens == len(seen) > 5
    assert backend.usage.encode > 0.0
    assert backend.usage.tokens_per_second > 0.0


def test_a_plan_from_a_rendered_scene(server: Server) -> None:
    scene = sample_scene(900_031)
    world = World(scene=scene)
    things = {o.kind: o for o in scene.objects if o.colour in HUES}
    source = next(o for o in things.values() if o.movable)
    place = next(o for o in things.values() if not o.movable and o.colour != source.colour)
    request = PlanRequest(0.0, "t", "r", f"put the {source.name} in the {place.name}", 0, 0, 0)
    plan = Planner(config(server)).plan(request, world.render(), world.T_base_camera, now=0.1)
    assert plan.code is ErrorCode.NONE, plan.message
    contacts = [plan.T_base_camera @ w.T_camera_tcp for w in plan.waypoints if w.kind.name == "CONTACT"]
    for pose, thing in zip(contacts, (source, place), strict=True):
        assert np.linalg.norm(pose.translation[:2] - np.array(thing.position[:2])) < 0.03


@pytest.mark.parametrize(
    ("writes", "exchange", "is_set", "advice"),
    [
        ("qwen3", "", "pixel", "convention to 'qwen3'"),
        ("pixel", "", "qwen3", "convention to 'pixel'"),
        ("molmo", "", "molmo2", "convention to 'molmo'"),
        ("qwen3", "axes", "qwen3", "axes exchanged"),
        ("qwen3", "colours", "qwen3", "BGR"),
    ],
)
def test_the_self_test_names_the_likely_setting(
    server: Server, writes: str, exchange: str, is_set: str, advice: str
) -> None:
    server.answer = Eye(writes, exchange)
    error = refusal(lambda: make_backend(config(server, convention=is_set, self_test=True)))
    assert error.code is ErrorCode.MODEL_ERROR
    assert advice in error.remedy


def test_a_model_that_does_not_point_is_refused(server: Server) -> None:
    server.answer = lambda image, text: "I am sorry, I cannot see images."
    error = refusal(lambda: make_backend(config(server, self_test=True)))
    assert "I am sorry" in error.message
    assert "checkpoint that points" in error.remedy


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("hang", ErrorCode.TIMEOUT),
        ("late", ErrorCode.TIMEOUT),
        ("trickle", ErrorCode.TIMEOUT),
        ("die", ErrorCode.MODEL_ERROR),
        ("garbage", ErrorCode.MODEL_ERROR),
    ],
)
def test_a_server_that_fails_ends_in_a_named_error_in_time(
    server: Server, mode: str, code: ErrorCode
) -> None:
    backend = OpenAiBackend(config(server, answer_timeout=0.6))
    server.mode = mode
    started = time.monotonic()
    error = refusal(lambda: look(backend))
    assert (error.code, time.monotonic() - started < 3.0) == (code, True), error
    server.mode = "stream"
    np.testing.assert_allclose(look(backend), [SOURCE, DESTINATION], atol=1.0)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("hang", ErrorCode.TIMEOUT),
        ("late", ErrorCode.TIMEOUT),
        ("die", ErrorCode.MODEL_ERROR),
        ("garbage", ErrorCode.MODEL_ERROR),
        ("prose", ErrorCode.PARSE),
    ],
)
def test_a_server_that_fails_leaves_the_arm_where_it_is(server: Server, mode: str, code: ErrorCode) -> None:
    """The whole graph in one process: the task ends with the code, and the arm holds."""
    world, arm = World(scene=sample_scene(900_031)), ArmModel.load()
    world.grainy = False
    planner = Planner(config(server, answer_timeout=0.3, semantic_limit=0.0), arm=arm)
    server.mode = mode
    if mode == "prose":
        server.answer = lambda image, text: "The orange ball is to the left of the pink plate."
    before = world.joint_state().position
    graph = Graph(
        world,
        arm,
        planner,
        Cropper(CropperConfig(), arm),
        TrajectoryGenerator(TrajectoryConfig()),
        make_policy(ExpertConfig(policy="ik"), arm),
        Streamer(StreamerConfig(), arm),
        TaskMachine(TaskConfig(), seed=0),
        blind=True,
    )
    trace = graph.run("put the orange ball on the pink plate", limit=8.0, settle=0.3)
    assert trace.final is not None
    assert (trace.final.stage, trace.final.code) == (Stage.FAILED, code)
    assert {p.code for p in trace.plans} == {code}
    assert not trace.guidances
    np.testing.assert_allclose(world.joint_state().position, before, atol=1e-3)
    world.close()


def test_a_refused_request_is_repeated(server: Server) -> None:
    backend = OpenAiBackend(config(server, server_retries=2))
    server.mode = "busy"
    np.testing.assert_allclose(look(backend), [SOURCE, DESTINATION], atol=1.0)
    assert server.requests == 2


def test_cancelled_from_another_thread(server: Server) -> None:
    backend = OpenAiBackend(config(server, answer_timeout=30.0))
    server.mode = "trickle"
    backend.on_progress = lambda tokens: backend.cancel()
    assert refusal(lambda: look(backend)).code is ErrorCode.CANCELLED


def test_settings_that_cannot_work(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="convention must be set"):
        PlannerConfig(backend="openai", server_model="eye")
    with pytest.raises(ConfigError, match="server_model"):
        PlannerConfig(backend="openai", convention="qwen3")
    error = refusal(
        lambda: OpenAiBackend(
            PlannerConfig(backend="openai", convention="qwen3", server_url=server.url, server_model="nose")
        )
    )
    assert "eye" in error.remedy
    server.key = "secret"
    assert "BRIDGEVLA_API_KEY" in refusal(lambda: OpenAiBackend(config(server))).remedy
    monkeypatch.setenv("BRIDGEVLA_API_KEY", "secret")
    OpenAiBackend(config(server))
    gone = PlannerConfig(
        backend="openai", convention="qwen3", server_model="eye", server_retries=0,
        server_url="http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert "no connection" in refusal(lambda: OpenAiBackend(gone)).message


def test_the_frame_is_not_changed(server: Server) -> None:
    frame: RgbdFrame = drawn_frame()
    before = frame.rgb.copy()
    OpenAiBackend(config(server)).anchors(frame, Transform.identity(), CLAUSE, 0)
    np.testing.assert_array_equal(frame.rgb, before)


def test_the_same_question_is_not_asked_twice(server: Server) -> None:
    backend = OpenAiBackend(config(server, cached_answers=1))
    one, two = look(backend), look(backend)
    np.testing.assert_array_equal(one, two)
    assert (server.requests, backend.usage.cached, backend.usage.tokens) == (1, 1, 0)
    frame = drawn_frame()
    frame.rgb[0, 0] = 0  # another image is another question, and pushes out the first
    backend.anchors(frame, Transform.identity(), CLAUSE, 0)
    look(backend)
    assert server.requests == 3


def test_a_plan_tells_where_its_time_went(server: Server) -> None:
    world = World(scene=sample_scene(900_031))
    planner = Planner(config(server))
    request = PlanRequest(0.0, "t", "r", "put the orange ball on the pink plate", 0, 0, 0)
    assert planner.plan(request, world.render(), world.T_base_camera, now=0.1).code is ErrorCode.NONE
    costs = planner.costs()
    assert {"understand_s", "anchors_s", "lift_s", "waypoints_s", "gate_s", "encode_s"} <= set(costs)
    assert costs["encode_s"] + costs["generate_s"] <= costs["anchors_s"]
    assert costs["tokens"] > 5
