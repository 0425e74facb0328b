"""A scene of named things, and the camera that looks at it from across the table."""

from bridgevla_ros.simulation.scene import CameraSpec, ObjectSpec, SceneSpec


def thing(name: str, size: tuple[float, float, float], x: float, y: float, yaw: float = 0.3) -> ObjectSpec:
    """A thing of the name's last two words: colour and kind."""
    colour, kind = name.split()[-2:]
    return ObjectSpec(name, kind, colour, size, (x, y, 0.0), yaw, 0.05)


def scene(*things: ObjectSpec) -> SceneSpec:
    """Things seen by the camera: base y to the right, base x towards it."""
    return SceneSpec(
        seed=0, objects=things, camera=CameraSpec.look_at((1.14, 0.0, 0.66), (0.50, 0.0, 0.02), 42.0)
    )
