"""A vision-language model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, transformers serve."""

from __future__ import annotations

import base64
import os
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openai

from bridgevla_ros.core.errors import BridgeError, ErrorCode
from bridgevla_ros.core.types import RgbdFrame
from bridgevla_ros.planner import prompt
from bridgevla_ros.planner.backends.chat import ChatBackend
from bridgevla_ros.planner.config import PlannerConfig
from bridgevla_ros.planner.parse import MAX_TEXT

KEY_VARIABLES = ("BRIDGEVLA_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first that is set counts. A parameter would be logged."""

_SLICE = 0.05
"""Seconds between looks at deadline and cancellation while the server is silent (our choice)."""


class OpenAiBackend(ChatBackend):
    """Two turns with a server, streamed. It never waits longer than ``answer_timeout`` for an answer.

    The request runs in a thread of its own, which is left behind when the answer comes too late: a server
    that hangs inside a read cannot hold the planner.

    Raises:
        BridgeError: MODEL_ERROR, nobody answers at the address or the server has no such model.
    """

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config)
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "none")
        self._client = openai.OpenAI(
            base_url=config.server_url,
            api_key=key,
            timeout=config.answer_timeout,
            max_retries=config.server_retries,
        )
        self.name = f"openai:{config.server_model}"
        self._check_model()

    def generate(self, messages: list[prompt.Message], frame: RgbdFrame, seed: int) -> str:
        """See ``ChatBackend``."""
        limit = self.config.answer_timeout
        deadline = time.monotonic() + limit
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        given_up = threading.Event()
        request = _request(messages, frame, seed, self.config)
        threading.Thread(
            target=self._stream, args=(request, pieces, given_up), name="openai", daemon=True
        ).start()
        text: list[str] = []
        try:
            while (piece := self._next(pieces, deadline)) is not None:
                if isinstance(piece, BaseException):
                    raise self._named(piece) from piece
                text.append(piece)
                self._wrote()
                if sum(map(len, text)) > MAX_TEXT:
                    break  # the parser refuses it by name
        finally:
            given_up.set()
        return "".join(text)

    def _next(
        self, pieces: queue.SimpleQueue[str | BaseException | None], deadline: float
    ) -> str | BaseException | None:
        """The next piece of the stream; None at its end. Raises BridgeError TIMEOUT or CANCELLED."""
        while True:
            self.check_cancelled()
            limit = self.config.answer_timeout
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise BridgeError(
                    ErrorCode.TIMEOUT,
                    f"{self.config.server_url} has not finished its answer",
                    value=limit - left,
                    limit=limit,
                    unit="s",
                    remedy="look at the server's load, or raise answer_timeout",
                )
            with suppress(queue.Empty):
                return pieces.get(timeout=min(_SLICE, left))

    def _stream(
        self,
        request: dict[str, Any],
        pieces: queue.SimpleQueue[str | BaseException | None],
        given_up: threading.Event,
    ) -> None:
        """Feed the pieces of one answer, then None; or what went wrong."""
        finished = False
        try:
            with self._client.chat.completions.create(stream=True, **request) as stream:
                for chunk in stream:
                    if given_up.is_set():
                        return
                    for choice in chunk.choices[:1]:
                        finished = finished or choice.finish_reason is not None
                        if choice.delta.content:
                            pieces.put(choice.delta.content)
        except Exception as error:  # carried to the thread that waits, and named there
            pieces.put(error)
        else:
            pieces.put(None if finished else EOFError("the stream broke off in the middle of the answer"))

    def _check_model(self) -> None:
        """The server is there and has the model.

        A server that cannot list its models is asked no further, nor one whose model is a folder of its own:
        `transformers serve` lists what was downloaded, and loads what it is asked for.
        """
        try:
            names = [model.id for model in self._client.models.list()]
        except (openai.NotFoundError, openai.InternalServerError):
            return
        except (openai.OpenAIError, ValueError) as error:
            raise self._named(error) from error
        folder = Path(self.config.server_model).is_absolute()
        if names and not folder and self.config.server_model not in names:
            raise BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{self.config.server_url} has no model {self.config.server_model!r}",
                remedy=f"set server_model to one of: {', '.join(names[:8])}",
            )

    def _named(self, error: BaseException) -> BridgeError:
        """What a failure of the library means to an operator."""
        url, limit = self.config.server_url, self.config.answer_timeout
        if isinstance(error, openai.APITimeoutError):
            return BridgeError(
                ErrorCode.TIMEOUT, f"{url} does not answer", value=limit, limit=limit, unit="s",
                remedy="look at the server's load, or raise answer_timeout",
            )  # fmt: skip
        if isinstance(error, openai.APIConnectionError):
            return BridgeError(
                ErrorCode.MODEL_ERROR, f"no connection to {url}", remedy="start the server, or set server_url"
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return BridgeError(
                ErrorCode.MODEL_ERROR,
                f"{url} refuses the key",
                remedy=f"set the environment variable {KEY_VARIABLES[0]}",
            )
        text = str(error)
        return BridgeError(
            ErrorCode.MODEL_ERROR,
            f"{url}: {type(error).__name__}: {text if len(text) <= 200 else text[:197] + '...'}",
            remedy="look at the server's log",
        )


def _request(
    messages: list[prompt.Message], frame: RgbdFrame, seed: int, config: PlannerConfig
) -> dict[str, Any]:
    """The conversation as the chat API wants it, the image as PNG inside."""
    good, png = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(frame.rgb), cv2.COLOR_RGB2BGR))
    if not good:
        raise BridgeError(ErrorCode.BAD_INPUT, f"an image of shape {frame.rgb.shape} cannot be encoded")
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()},
    }
    said = [
        {"role": m["role"], "content": [image if p["type"] == "image" else p for p in m["content"]]}
        for m in messages
    ]
    return {
        "model": config.server_model,
        "messages": said,
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "seed": seed,
    }
