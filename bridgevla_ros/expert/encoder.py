"""Encoders of the local cloud: where is the thing that guidance means?

``vote`` (ours, the default): a PointNet with a second pass. The first pass is pooled into a context; in
the second every point, knowing the context, says whether it is of the meant thing and where the contact
is from it; the contact is the confident points' mean vote. Training tells each point the truth. How far
the meant thing's points reach in fixed directions (its support function) is given to the head: the middle
of a thing is the middle of its extent, which pooled features tell only roughly.
``keypoints``: a PointNet with max-pool and soft keypoints (attention-weighted means of the points).
``maxpool``: a PointNet with max-pool alone, as in DP3 (widths, LayerNorm); its zero padding (ghost points
at the origin) is replaced by a mask. docs/adr/0005-expert-network.md compares them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bridgevla_ros.expert.config import ModelConfig
from bridgevla_ros.expert.features import POSITION_SCALE, STATE_DIM, TAIL_DIM

CONTACT_DIM = 5
"""Contact estimate: x, y, z over position_limit, yaw over rotation_limit, presence."""
POINT_DIM = 9
"""Of a point: x y z age, x y z from the TCP, closes, opens."""
FAR = 1e4
"""Subtracted from what a mask hides."""
SHARPNESS = 60.0
"""Of the soft maximum along a direction, over POSITION_SCALE: 1.7 mm."""
BELIEF = 10.0
"""Weight of a point's log-probability there: one believed at 1% counts as 8 cm less far out."""


class Glimpse(NamedTuple):
    """What an encoder saw.

    Attributes:
        contact: (B, 5) contact estimate, last the logit of presence; zero where the mask is empty.
        features: (B, C) free features; zero where the mask is empty.
        target: (B, N) logit that a point is of the meant thing, and ``votes``: (B, N, 3) where a point
            says the contact is, over position_limit; None of encoders that do not vote.
        dissent: (B,) root mean square horizontal distance of the votes from their mean, each with its
            weight, over position_limit; zero where the mask is empty, and of encoders that do not vote.
    """

    contact: Tensor
    features: Tensor
    target: Tensor | None
    votes: Tensor | None
    dissent: Tensor


def point_features(cloud: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 9) what each point is told, and (B, 30) state and tail, from (B, N, 4) and (B, F)."""
    n = cloud.shape[1]
    state, tail = features[:, :STATE_DIM], features[:, -TAIL_DIM:]
    tcp = state[:, None, :3].expand(-1, n, -1)
    flags = tail[:, None, :2].expand(-1, n, -1)
    return torch.cat([cloud, cloud[..., :3] - tcp, flags], dim=-1), torch.cat([state, tail], dim=-1)


def per_point(inlet: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear, LayerNorm, ReLU for each width."""
    layers: list[nn.Module] = []
    for out in widths:
        layers += [nn.Linear(inlet, out), nn.LayerNorm(out), nn.ReLU()]
        inlet = out
    return nn.Sequential(*layers)


def masked_max(h: Tensor, mask: Tensor) -> Tensor:
    """(B, C) maximum of (B, N, C), none of it negative, over the points that exist; 0 where none does."""
    return (h * mask[..., None]).max(dim=1).values


class PointEncoder(nn.Module):
    """``keypoints`` and, without heads, ``maxpool``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.point_widths[-1]
        heads = config.heads if config.encoder == "keypoints" else 0
        self.points = per_point(POINT_DIM, config.point_widths)
        self.attention = nn.Linear(width, heads) if heads else None
        pooled = width + 3 * heads + STATE_DIM + TAIL_DIM
        self.head = nn.Sequential(
            nn.Linear(pooled, 256), nn.LayerNorm(256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()
        )
        self.contact = nn.Linear(128, CONTACT_DIM)
        self.features = nn.Sequential(
            nn.Linear(128, config.cloud_features), nn.LayerNorm(config.cloud_features)
        )

    def forward(self, cloud: Tensor, mask: Tensor, features: Tensor) -> Glimpse:
        """Look at the cloud.

        Args:
            cloud: (B, N, 4) local frame, x y z over POSITION_SCALE, age in seconds.
            mask: (B, N) float, 1 where the point exists.
            features: (B, F) of ``features.vector``.
        """
        inputs, state = point_features(cloud, features)
        h = self.points(inputs)
        some = (mask.sum(dim=1, keepdim=True) > 0).to(h.dtype)
        seen = [masked_max(h, mask)]
        if self.attention is not None:
            logits = self.attention(h) - FAR * (1.0 - mask[..., None])
            weights = torch.softmax(logits, dim=1) * some[..., None]
            seen.append((weights.transpose(1, 2) @ cloud[..., :3]).flatten(1))
        z = self.head(torch.cat([*seen, state], dim=-1))
        return Glimpse(self.contact(z) * some, self.features(z) * some, None, None, 0.0 * some[:, 0])


class Extent(nn.Module):
    """How far the meant thing's points reach: around, upwards and downwards."""

    def __init__(self, around: int) -> None:
        super().__init__()
        angle = torch.arange(around) * (2.0 * math.pi / max(around, 1))
        level = torch.stack([angle.cos(), angle.sin(), 0.0 * angle])
        vertical = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, -1.0]])
        self.register_buffer("directions", torch.cat([level, vertical], dim=1), persistent=False)

    def forward(self, points: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """(B, K + 2) soft maxima over (B, N, 3) points that exist and, by (B, N) logits, belong to it."""
        along = points @ self.get_buffer("directions")
        belief = BELIEF * nn.functional.logsigmoid(target) - FAR * (1.0 - mask)
        weights = torch.softmax(SHARPNESS * along + belief[..., None], dim=1)
        return (weights * along).sum(dim=1)


class VoteEncoder(nn.Module):
    """``vote``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        *local, width = config.point_widths
        self.local = per_point(POINT_DIM, local)
        self.lift = per_point(local[-1], (width,))
        self.context = nn.Sequential(
            nn.Linear(width + STATE_DIM + TAIL_DIM, 256), nn.LayerNorm(256), nn.ReLU(), nn.Linear(256, width)
        )
        self.again = nn.Linear(local[-1], width, bias=False)
        self.told = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), *per_point(width, (width,)))
        self.ballot = nn.Linear(width, 5)  # of the thing, confidence, offset
        felt = config.supports + 2 if config.supports else 0
        self.extent = Extent(config.supports) if felt else None
        self.straight = nn.Linear(felt, 3, bias=False) if felt else None
        if self.straight is not None:
            nn.init.zeros_(self.straight.weight)
        self.head = nn.Sequential(
            nn.Linear(2 * width + 3 + felt + STATE_DIM + TAIL_DIM, 256), nn.LayerNorm(256), nn.ReLU(),
            nn.Linear(256, 128), nn.ReLU(),
        )  # fmt: skip
        self.contact = nn.Linear(128, CONTACT_DIM)
        self.features = nn.Sequential(
            nn.Linear(128, config.cloud_features), nn.LayerNorm(config.cloud_features)
        )
        self.scale = POSITION_SCALE / config.position_limit

    def forward(self, cloud: Tensor, mask: Tensor, features: Tensor) -> Glimpse:
        """See ``PointEncoder.forward``."""
        inputs, state = point_features(cloud, features)
        h = self.local(inputs)
        some = (mask.sum(dim=1, keepdim=True) > 0).to(h.dtype)
        context = self.context(torch.cat([masked_max(self.lift(h), mask), state], dim=-1))
        h = self.told(self.again(h) + context[:, None])
        ballot = self.ballot(h)
        target = ballot[..., 0]
        votes = (cloud[..., :3] + ballot[..., 2:]) * self.scale
        logits = target + ballot[..., 1] - FAR * (1.0 - mask)
        weights = (torch.softmax(logits, dim=1) * some)[:, None]
        elected = (weights @ votes)[:, 0]
        apart = ((votes - elected[:, None])[..., :2] ** 2).sum(dim=-1, keepdim=True)
        dissent = (weights @ apart)[:, 0, 0].clamp(min=0.0).sqrt()
        seen = [(weights @ h)[:, 0], masked_max(h, mask), elected]
        if self.extent is not None and self.straight is not None:
            seen.append(self.extent(cloud[..., :3], mask, target.detach()))
            elected = elected + self.straight(seen[-1])
        z = self.head(torch.cat([*seen, state], dim=-1))
        rest = self.contact(z)
        contact = torch.cat([rest[:, :3] + elected, rest[:, 3:]], dim=-1)
        return Glimpse(contact * some, self.features(z) * some, target, votes, dissent)


def make_encoder(config: ModelConfig) -> PointEncoder | VoteEncoder:
    """The encoder that a configuration names."""
    return VoteEncoder(config) if config.encoder == "vote" else PointEncoder(config)
