"""Off-screen colour, depth and segmentation in one software-rendered pass."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray


def _gl_context(renderer: str, width: int, height: int) -> Any:
    """A context of the named library, whatever MUJOCO_GL says."""
    if renderer == "egl":
        from mujoco.egl import GLContext
    elif renderer == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        raise ValueError(f"renderer {renderer!r}; expected one of ['egl', 'osmesa']")
    return GLContext(width, height)


class OffscreenCamera:
    """Renders one fixed camera of a model.

    One instance serves one thread. Call ``close`` when done (EGL needs it).

    Args:
        model: Shown until ``load`` brings another.
        width, height: Pixels.
        renderer: osmesa or egl.
        camera: Name of the camera in the model.
        groups: Groups of geoms that are shown.
    """

    def __init__(
        self,
        model: Any,
        width: int,
        height: int,
        renderer: str = "osmesa",
        *,
        camera: str = "camera",
        groups: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        self._width, self._height = width, height
        self._name, self._groups = camera, groups
        self._context = _gl_context(renderer, width, height)
        self._context.make_current()
        self._resources: Any = None
        self.load(model)

    def load(self, model: Any) -> None:
        """Render this model from now on."""
        self._model = model
        model.vis.global_.offwidth, model.vis.global_.offheight = self._width, self._height
        self._context.make_current()
        if self._resources is not None:
            self._resources.free()
        self._resources = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._resources)
        self._resources.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        for flag in (mujoco.mjtRndFlag.mjRND_SKYBOX, mujoco.mjtRndFlag.mjRND_HAZE):
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [int(group in self._groups) for group in range(6)]
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(self._name).id
        self._viewport = mujoco.MjrRect(0, 0, self._width, self._height)
        extent = model.stat.extent
        self._near, self._far = model.vis.map.znear * extent, model.vis.map.zfar * extent

    def _draw(self, data: Any, aside: float = 0.0) -> None:
        self._context.make_current()
        camera = self._camera.fixedcamid
        position = data.cam_xpos[camera].copy()
        data.cam_xpos[camera] = position + aside * data.cam_xmat[camera].reshape(3, 3)[:, 0]
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        data.cam_xpos[camera] = position
        mujoco.mjr_render(self._viewport, self._scene, self._resources)

    def rgbd(self, data: Any, aside: float = 0.0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Render what the camera sees.

        Args:
            data: State of the model.
            aside: Metres that the camera stands to its right, as the right one of a stereo pair.

        Returns:
            (H, W, 3) uint8 colour; (H, W) float32 metres along the optical axis, +Inf where
            nothing is hit.
        """
        self._draw(data, aside)
        rgb = np.empty((self._height, self._width, 3), np.uint8)
        raw = np.empty((self._height, self._width), np.float32)
        mujoco.mjr_readPixels(rgb, raw, self._viewport, self._resources)
        ratio = self._near / self._far
        depth = self._near / (raw * (1.0 - ratio) + ratio)
        depth[raw <= 0.0] = np.inf
        return np.ascontiguousarray(rgb[::-1]), np.ascontiguousarray(depth[::-1], dtype=np.float32)

    def geom_ids(self, data: Any) -> NDArray[np.int32]:
        """(H, W) int32 MuJoCo geom id seen at each pixel, -1 where none is."""
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            self._draw(data)
        finally:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = False
            self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        raw = np.empty((self._height, self._width, 3), np.uint8)
        mujoco.mjr_readPixels(raw, None, self._viewport, self._resources)
        code = raw.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        lookup = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                lookup[geom.segid + 1] = geom.objid
        return np.ascontiguousarray(lookup[np.clip(code, 0, self._scene.ngeom)][::-1])

    def close(self) -> None:
        """Free the OpenGL resources."""
        if self._resources is not None:
            self._context.make_current()
            self._resources.free()
            self._resources = None
            self._context.free()
