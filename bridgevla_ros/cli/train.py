"""Train a learned part with the recipe it ships with."""

from __future__ import annotations

from bridgevla_ros.cli.verbs import Verb

SUB_VERBS: tuple[Verb, ...] = (
    Verb("planner", "bridgevla_ros.training.planner", "the grounding model: phrasings, then rendered scenes"),
    Verb(
        "expert",
        "bridgevla_ros.training.appf",
        "the diffusion action expert: on trajectories first, then with clouds",
    ),
    Verb(
        "small-vlm",
        "bridgevla_ros.training.small_vlm",
        "a small vision-language model that points, around the embedded planner's eyes",
    ),
    Verb(
        "vlm",
        "bridgevla_ros.training.sft",
        "a vision-language model of yours: LoRA on scenes and demonstrations, watched for forgetting",
    ),
)
