"""What stands where in a scene: every random choice, drawn from one integer seed per scene."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

SHAPES = ("sphere", "box", "cylinder", "cone")
SIZES = ("small", "large")
# Hues lie at least 27 degrees apart and all are saturated, while ground and sky are not: a colour
# stays nameable under shading, and an average picture shows none of them.
COLOURS = {
    "red": (216, 32, 32),
    "orange": (240, 126, 24),
    "yellow": (240, 218, 40),
    "green": (40, 168, 48),
    "cyan": (36, 204, 204),
    "blue": (40, 72, 216),
    "purple": (126, 44, 196),
    "pink": (244, 92, 172),
}
MAX_OBJECTS = 4
TAN_HALF_VIEW = 0.5  # the field of view is 53 degrees both ways

CAMERA_HEIGHT = (1.6, 2.6)  # metres above the ground
CAMERA_PITCH = (15.0, 26.0)  # degrees below the horizon
LIGHT_ELEVATION = (35.0, 65.0)  # degrees above the horizon
DISTANCE = (3.0, 6.2)  # metres from the camera's foot to an object, along the view
HALF_WIDTH = {"small": (0.48, 0.56), "large": (0.76, 0.88)}  # metres
HEIGHT_PER_WIDTH = {
    "sphere": (1.0, 1.0),
    "box": (0.85, 1.15),
    "cylinder": (0.95, 1.3),
    "cone": (1.2, 1.5),
}
CLEARANCE = 0.05  # metres of free ground between two objects
NUM_CANDIDATES = 64  # places tried for each object before it is left out


@flax.struct.dataclass
class Layout:
    """Parameters of b scenes (of one, without that axis, where `sample` draws it).

    World frame: x right, y along the view, z up; the origin is on the ground below the camera.
    """

    camera_height: Float[Array, "*b"]  # metres
    camera_pitch: Float[Array, "*b"]  # radians below the horizon
    light: Float[Array, "*b 3"]  # unit vector towards the light
    ground: Float[Array, "*b 2 3"]  # the two colours of the ground's pattern, 0..1
    # radians per metre along x and y, phase, checks (1) or stripes (0)
    pattern: Float[Array, "*b 4"]
    sky: Float[Array, "*b 3"]  # colour at the horizon, 0..1
    present: Bool[Array, "*b k"]
    shape: Int[Array, "*b k"]  # index into SHAPES
    colour: Int[Array, "*b k"]  # index into COLOURS
    large: Bool[Array, "*b k"]
    shiny: Bool[Array, "*b k"]
    albedo: Float[Array, "*b k 3"]  # 0..1, the named colour slightly varied
    position: Float[Array, "*b k 2"]  # metres, of the centre on the ground
    half_width: Float[Array, "*b k"]  # metres
    half_height: Float[Array, "*b k"]  # metres
    yaw: Float[Array, "*b k"]  # radians in [-pi/4, pi/4], 0 for what looks the same from all sides


def sample(seeds: Int[Array, "b"]) -> Layout:
    """Draw the layouts of `seeds`; each depends on its own seed only."""
    root = jax.random.key(0)
    return jax.vmap(lambda seed: _sample_one(jax.random.fold_in(root, seed)))(seeds)


def _between(uniform: Array, low_high: tuple[float, float]) -> Array:
    return low_high[0] + uniform * (low_high[1] - low_high[0])


def _sample_one(key: Array) -> Layout:
    # One draw, then cut: every further call of the generator costs half a second of compilation.
    counts = (16, MAX_OBJECTS * 9, len(COLOURS), MAX_OBJECTS * NUM_CANDIDATES * 2)
    uniform = jax.random.uniform(key, (sum(counts),))
    world, drawn, hues, candidates = jnp.split(uniform, np.cumsum(counts)[:-1])
    drawn = drawn.reshape(MAX_OBJECTS, 9)
    height = _between(world[0], CAMERA_HEIGHT)
    pitch = jnp.deg2rad(_between(world[1], CAMERA_PITCH))

    shape = jnp.floor(drawn[:, 0] * len(SHAPES)).astype(jnp.int32)
    large = drawn[:, 1] < 0.5
    width_table = jnp.array([HALF_WIDTH[size] for size in SIZES])[large.astype(jnp.int32)]
    half_width = width_table[:, 0] + drawn[:, 2] * (width_table[:, 1] - width_table[:, 0])
    ratio_table = jnp.array([HEIGHT_PER_WIDTH[name] for name in SHAPES])[shape]
    ratio = ratio_table[:, 0] + drawn[:, 3] * (ratio_table[:, 1] - ratio_table[:, 0])
    # No two objects of a scene share a colour, so that "the red sphere" is never ambiguous.
    colour = jnp.argsort(hues)[:MAX_OBJECTS]
    tone = jnp.array(list(COLOURS.values()), jnp.float32)[colour] / 255

    num_wanted = 1 + jnp.floor(world[2] * MAX_OBJECTS)
    position, placed = _place(candidates.reshape(MAX_OBJECTS, -1, 2), half_width, num_wanted)
    return Layout(
        camera_height=height,
        camera_pitch=pitch,
        light=_light(world[3], world[4]),
        ground=_ground(world[5:10]),
        pattern=_pattern(world[10:14]),
        sky=jnp.array([0.70, 0.76, 0.84]) * (0.8 + 0.3 * world[14]),
        present=placed,
        shape=shape,
        colour=colour,
        large=large,
        shiny=drawn[:, 4] < 0.5,
        albedo=jnp.clip(tone * (0.9 + 0.2 * drawn[:, 5:6]) + 0.03 * (drawn[:, 6:7] - 0.5), 0, 1),
        position=position,
        half_width=half_width,
        half_height=half_width * ratio,
        yaw=jnp.where(shape == SHAPES.index("box"), (drawn[:, 7] - 0.5) * (np.pi / 2), 0.0),
    )


def _light(turn: Float[Array, ""], lift: Float[Array, ""]) -> Float[Array, "3"]:
    """Light from behind the camera and to either side, so that shape shows in the shading."""
    azimuth = np.pi + (turn - 0.5) * np.deg2rad(220.0)
    elevation = jnp.deg2rad(_between(lift, LIGHT_ELEVATION))
    flat = jnp.cos(elevation)
    return jnp.stack([flat * jnp.sin(azimuth), flat * jnp.cos(azimuth), jnp.sin(elevation)])


def _ground(drawn: Float[Array, "5"]) -> Float[Array, "2 3"]:
    """Two low-saturation tones; the second is darker."""
    base = (0.45 + 0.35 * drawn[0]) * (1 + 0.12 * (drawn[1:4] - 0.5))
    return jnp.stack([base, base * (0.60 + 0.25 * drawn[4])])


def _pattern(drawn: Float[Array, "4"]) -> Float[Array, "4"]:
    """Waves of 1.2 to 2.5 m; stripes run in any direction, checks along the axes."""
    frequency = 2 * np.pi / (1.2 + 1.3 * drawn[0])
    checks = drawn[3] < 0.5
    angle = drawn[1] * np.pi
    along_x = jnp.where(checks, frequency, frequency * jnp.cos(angle))
    along_y = jnp.where(checks, frequency, frequency * jnp.sin(angle))
    return jnp.stack([along_x, along_y, drawn[2] * 2 * np.pi, checks.astype(jnp.float32)])


def _place(
    drawn: Float[Array, "k candidates 2"], half_width: Float[Array, "k"], num_wanted: Array
) -> tuple[Float[Array, "k 2"], Bool[Array, "k"]]:
    """Give each object the first candidate place that is free; leave it out if none is.

    Free means: clear of the objects before it on the ground (discs around the corners of boxes),
    and not mostly hidden by, or hiding, any of them.
    """
    # Uniform in the inverse distance: as many objects in the near half of the picture as behind.
    near, far = DISTANCE
    distance = 1 / (1 / far + drawn[..., 0] * (1 / near - 1 / far))
    reach = distance * TAN_HALF_VIEW - 0.5 * half_width[:, None]
    places = jnp.stack([(2 * drawn[..., 1] - 1) * reach, distance], axis=-1)
    reach_of = half_width * 2**0.5

    position, present = jnp.zeros((MAX_OBJECTS, 2)), jnp.zeros(MAX_OBJECTS, bool)
    for index in range(MAX_OBJECTS):
        gap = jnp.linalg.norm(places[index, :, None] - position, axis=-1)
        apart = gap > reach_of[index] + reach_of + CLEARANCE
        slope = places[index, :, :1] / places[index, :, 1:]
        other_distance = jnp.maximum(position[:, 1], 1.0)
        width_seen = half_width[index] / places[index, :, 1:] + half_width / other_distance
        seen = jnp.abs(slope - position[:, 0] / other_distance) > 0.3 * width_seen
        free = jnp.all((apart & seen) | ~present, axis=-1)
        position = position.at[index].set(places[index, jnp.argmax(free)])
        present = present.at[index].set(jnp.any(free) & (index < num_wanted))
    return position, present
