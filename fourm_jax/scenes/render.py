"""Analytic ray casting of scenes: exact depth, normals, classes and a shaded picture.

Everything is written per pixel over planes [b, h, w], one plane per component, and unrolled over
the few objects, which XLA compiles into a handful of vectorized loops.
"""

from collections.abc import Iterable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from fourm_jax.scenes import layout as scene_layout

FAR = 10.0  # metres; depth beyond it, and of the sky, is this
# Inside a round shape, in its own unit coordinates (half width and half height are 1):
# x² + y² + a z² + b z + c < 0 and |z| < 1. A box has |x|, |y| < 1 instead.
QUADRICS = {
    "sphere": (1.0, 0.0, -1.0),
    "box": (0.0, 0.0, -1.0),
    "cylinder": (0.0, 0.0, -1.0),
    "cone": (-0.25, 0.5, -0.25),
}

Plane = Float[Array, "b h w"]
Vector = tuple[Array, Array, Array]  # x, y, z planes, or what broadcasts against them


@flax.struct.dataclass
class Views:
    """What one camera sees in each of b scenes.

    Camera frame: x right, y up, z towards the viewer.
    """

    rgb: tuple[Plane, Plane, Plane]  # 0..1
    albedo: tuple[Plane, Plane, Plane]  # 0..1, without light
    depth: Plane  # metres along the optical axis, 0..FAR
    normal: tuple[Plane, Plane, Plane]  # unit; (0, 0, 1) in the sky
    object: Int[Array, "b h w"]  # index of the object, -1 without
    ground: Bool[Array, "b h w"]
    num_unoccluded: Float[Array, "b k"]  # pixels that an object would cover alone


def render(layout: scene_layout.Layout, image_size: int) -> Views:
    """Cast one ray through the middle of each pixel, and one from where it lands to the light."""
    zero = jnp.zeros(())
    camera = (zero, zero, _plane(layout.camera_height))
    rays = _rays(layout, image_size)
    bodies = [_body(layout, index) for index in range(scene_layout.MAX_OBJECTS)]

    # The ground is hit where the ray has fallen by the camera's height; t is the depth.
    ground = rays[2] < -1e-4
    depth = jnp.where(ground, camera[2] / jnp.maximum(-rays[2], 1e-4), jnp.inf)
    depth = jnp.broadcast_to(depth, (*depth.shape[:2], image_size))
    normal = (jnp.zeros_like(depth), jnp.zeros_like(depth), jnp.ones_like(depth))
    winner = jnp.full(depth.shape, -1, jnp.int8)
    num_unoccluded = []
    for index, body in enumerate(bodies):
        near, hit, facing = _intersect(body, camera, rays)
        num_unoccluded.append(jnp.sum(hit, axis=(1, 2), dtype=jnp.float32))
        closer = hit & (near < depth)
        depth = jnp.where(closer, near, depth)
        normal = _select(closer, facing, normal)
        winner = jnp.where(closer, jnp.int8(index), winner)

    hit_any = jnp.isfinite(depth)
    ground = hit_any & (winner < 0)
    reach = jnp.where(hit_any, depth, 0.0)
    point = (rays[0] * reach, rays[1] * reach, camera[2] + rays[2] * reach)
    lit = _lit(bodies, layout, point, winner)
    albedo = _albedo(layout, point, depth, winner, rays[2])
    rgb = _shade(layout, albedo, normal, rays, lit, winner, hit_any, depth)
    return Views(
        rgb=rgb,
        albedo=albedo,
        depth=jnp.minimum(depth, FAR),
        normal=_to_camera(layout, normal, hit_any),
        object=winner.astype(jnp.int32),
        ground=ground,
        num_unoccluded=jnp.stack(num_unoccluded, axis=-1),
    )


def _plane(values: Shaped[Array, "b"]) -> Shaped[Array, "b 1 1"]:
    return values[:, None, None]


def _vector(planes: Iterable[Array]) -> Vector:
    x, y, z = planes
    return x, y, z


def _select(mask: Array, yes: Vector, no: Vector) -> Vector:
    return _vector(jnp.where(mask, a, b) for a, b in zip(yes, no, strict=True))


def _dot(a: Vector, b: Vector) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _rays(layout: scene_layout.Layout, image_size: int) -> Vector:
    """World directions whose component along the optical axis is 1, so that t is the depth."""
    middle = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size * 2 - 1
    across = jnp.asarray(middle * scene_layout.TAN_HALF_VIEW)[None, None, :]
    up = jnp.asarray(-middle * scene_layout.TAN_HALF_VIEW)[None, :, None]
    cos, sin = _plane(jnp.cos(layout.camera_pitch)), _plane(jnp.sin(layout.camera_pitch))
    return across, cos + up * sin, up * cos - sin


@flax.struct.dataclass
class _Body:
    """One object per scene, as values that broadcast over pixels."""

    present: Array
    is_box: Array
    quadric: tuple[Array, Array, Array]
    centre: Vector
    cos: Array
    sin: Array
    half_width: Array
    half_height: Array

    def to_local(self, vector: Vector) -> Vector:
        """Turn by -yaw and scale to unit coordinates."""
        x, y, z = vector
        return (
            (self.cos * x + self.sin * y) / self.half_width,
            (self.cos * y - self.sin * x) / self.half_width,
            z / self.half_height,
        )

    def to_world(self, gradient: Vector) -> Vector:
        """Unit normal in the world from a gradient in unit coordinates."""
        x, y = gradient[0] / self.half_width, gradient[1] / self.half_width
        z = gradient[2] / self.half_height
        scale = jax.lax.rsqrt(x * x + y * y + z * z + 1e-12)
        return (
            (self.cos * x - self.sin * y) * scale,
            (self.sin * x + self.cos * y) * scale,
            z * scale,
        )


def _body(layout: scene_layout.Layout, index: int) -> _Body:
    shape = layout.shape[:, index]
    table = jnp.array([QUADRICS[name] for name in scene_layout.SHAPES])[shape]
    half_height = _plane(layout.half_height[:, index])
    return _Body(
        present=_plane(layout.present[:, index]),
        is_box=_plane(shape == scene_layout.SHAPES.index("box")),
        quadric=_vector(_plane(table[:, term]) for term in range(3)),
        centre=(
            _plane(layout.position[:, index, 0]),
            _plane(layout.position[:, index, 1]),
            half_height,
        ),
        cos=_plane(jnp.cos(layout.yaw[:, index])),
        sin=_plane(jnp.sin(layout.yaw[:, index])),
        half_width=_plane(layout.half_width[:, index]),
        half_height=half_height,
    )


def _slab(origin: Array, direction: Array) -> tuple[Array, Array]:
    """Interval of t in which |origin + t direction| < 1."""
    inverse = 1 / jnp.where(jnp.abs(direction) < 1e-6, 1e-6, direction)
    middle, half = -origin * inverse, jnp.abs(inverse)
    return middle - half, middle + half


def _inside(body: _Body, origin: Vector, direction: Vector) -> tuple:
    """Return near and far t inside the body, whether they exist, (hits an x wall, hits a cap), and
    origin and direction in the body's unit coordinates.

    Every shape is convex: the interval is that of its side (quadric or four walls) cut by the slab.
    """
    local = body.to_local(_vector(o - c for o, c in zip(origin, body.centre, strict=True)))
    along = body.to_local(direction)
    square, linear, constant = body.quadric
    a = along[0] ** 2 + along[1] ** 2 + square * along[2] ** 2
    b = local[0] * along[0] + local[1] * along[1] + (square * local[2] + linear / 2) * along[2]
    c = local[0] ** 2 + local[1] ** 2 + (square * local[2] + linear) * local[2] + constant
    a = jnp.where(jnp.abs(a) < 1e-6, 1e-6, a)
    discriminant = b * b - a * c
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    inverse = 1 / a
    enter, leave = (-b - root) * inverse, (-b + root) * inverse
    # a < 0: the ray is steeper than the cone's side, so it enters going down and never leaves
    # through the side, or goes up and was inside all along.
    steep, down = a < 0, along[2] < 0
    enter = jnp.where(steep & ~down, -jnp.inf, enter)
    leave = jnp.where(steep & down, jnp.inf, leave)
    x_near, x_far = _slab(local[0], along[0])
    y_near, y_far = _slab(local[1], along[1])
    z_near, z_far = _slab(local[2], along[2])
    side_near = jnp.where(body.is_box, jnp.maximum(x_near, y_near), enter)
    side_far = jnp.where(body.is_box, jnp.minimum(x_far, y_far), leave)
    near, far = jnp.maximum(side_near, z_near), jnp.minimum(side_far, z_far)
    exists = body.present & (body.is_box | (discriminant > 0)) & (near < far)
    return near, far, exists, (x_near > y_near, z_near > side_near), local, along


def _intersect(body: _Body, origin: Vector, direction: Vector) -> tuple[Plane, Array, Vector]:
    """Depth of the first hit, whether there is one, and the unit normal there (world frame)."""
    near, _, exists, (on_x_wall, on_cap), local, along = _inside(body, origin, direction)
    hit = exists & (near > 0)
    x, y, z = (o + near * d for o, d in zip(local, along, strict=True))
    square, linear, _ = body.quadric
    zero = jnp.zeros_like(z)
    wall = (
        jnp.where(on_x_wall, -jnp.sign(along[0]), zero),
        jnp.where(on_x_wall, zero, -jnp.sign(along[1])),
        zero,
    )
    side = _select(body.is_box, wall, (x, y, square * z + linear / 2))
    gradient = _select(on_cap, (zero, zero, -jnp.sign(along[2]) + zero), side)
    return near, hit, body.to_world(gradient)


def _lit(bodies: list[_Body], layout: scene_layout.Layout, point: Vector, winner: Array) -> Plane:
    """1 where the light reaches, 0 in the shadow of another object."""
    light = _vector(_plane(layout.light[:, axis]) for axis in range(3))
    shadow = jnp.zeros(point[2].shape, bool)
    for index, body in enumerate(bodies):
        _, far, exists, *_ = _inside(body, point, light)
        shadow |= exists & (far > 1e-3) & (winner != index)
    return jnp.where(shadow, 0.0, 1.0)


def _albedo(
    layout: scene_layout.Layout, point: Vector, depth: Plane, winner: Array, climb: Array
) -> Vector:
    """Colour without light: the object's, the ground's pattern, or the sky's gradient."""
    along_x, along_y, phase, checks = (_plane(layout.pattern[:, term]) for term in range(4))
    wave_x = jnp.sin(along_x * point[0] + phase)
    wave_y = jnp.sin(along_y * point[1] + phase)
    stripes = jnp.sin(along_x * point[0] + along_y * point[1] + phase)
    wave = jnp.where(checks > 0, wave_x * wave_y, stripes)
    # Far away the waves are finer than a pixel: fade to the mean instead of aliasing.
    fade = jnp.clip((9.0 - depth) / 5.0, 0.0, 1.0)
    share = 0.5 + 0.5 * jnp.clip(3.0 * wave, -1.0, 1.0) * fade
    planes = []
    for channel in range(3):
        first, second = (_plane(layout.ground[:, tone, channel]) for tone in range(2))
        horizon = _plane(layout.sky[:, channel])
        ground = second + (first - second) * share
        sky = horizon * (1 - 0.5 * jnp.clip(climb, 0, 1))
        plane = jnp.where(jnp.isfinite(depth), ground, sky)
        for index in range(scene_layout.MAX_OBJECTS):
            plane = jnp.where(winner == index, _plane(layout.albedo[:, index, channel]), plane)
        planes.append(plane)
    return _vector(planes)


def _shade(
    layout: scene_layout.Layout,
    albedo: Vector,
    normal: Vector,
    rays: Vector,
    lit: Plane,
    winner: Array,
    hit_any: Array,
    depth: Plane,
) -> Vector:
    """Ambient and Lambert terms, a Blinn-Phong highlight on shiny objects, haze on far ground."""
    light = _vector(_plane(layout.light[:, axis]) for axis in range(3))
    diffuse = jnp.maximum(_dot(normal, light), 0.0) * lit
    # A little light from above keeps faces in shadow apart from one another.
    shade = 0.40 + 0.12 * normal[2] + 0.58 * diffuse

    scale = jax.lax.rsqrt(_dot(rays, rays))
    half = _vector(towards - ray * scale for towards, ray in zip(light, rays, strict=True))
    gloss = jnp.maximum(_dot(normal, half), 0.0) * jax.lax.rsqrt(_dot(half, half))
    gloss = gloss * gloss
    for _ in range(4):
        gloss = gloss * gloss  # cosine to the power 32
    shiny = jnp.zeros(winner.shape, bool)
    for index in range(scene_layout.MAX_OBJECTS):
        shiny |= (winner == index) & _plane(layout.shiny[:, index])
    highlight = jnp.where(shiny, 0.65 * gloss * lit, 0.0)

    haze = jnp.clip((depth - 7.0) / 20.0, 0.0, 0.8)
    planes = []
    for channel in range(3):
        surface = albedo[channel] * shade + highlight
        surface = surface + haze * (_plane(layout.sky[:, channel]) - surface)
        planes.append(jnp.clip(jnp.where(hit_any, surface, albedo[channel]), 0.0, 1.0))
    return _vector(planes)


def _to_camera(layout: scene_layout.Layout, normal: Vector, hit_any: Array) -> Vector:
    """World normals in the camera frame; the sky faces the viewer."""
    cos, sin = _plane(jnp.cos(layout.camera_pitch)), _plane(jnp.sin(layout.camera_pitch))
    x, y, z = normal
    seen = (x, y * sin + z * cos, z * sin - y * cos)
    return _select(hit_any, seen, (jnp.zeros(()), jnp.zeros(()), jnp.ones(())))
