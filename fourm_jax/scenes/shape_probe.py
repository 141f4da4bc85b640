"""What the objects in a picture of a scene look like: their shapes, sizes and places.

No two objects of a scene share a colour, so the pixels of one hue are one object. A small
convolutional net, trained on rendered scenes and their captions, names shape and size of what it
sees around them; the place is where they are.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from fourm_jax.scenes import caption_scores, image_scores, layout, world
from fourm_jax.utils import tree

CROP = 24  # pixels of a side, around the middle of an object
NUM_SCENES, NUM_STEPS, BATCH, LEARNING_RATE = 8_192, 1_000, 128, 2e-3  # of the training
WEIGHTS = pathlib.Path(__file__).with_suffix(".safetensors")  # of `default`
LOWEST = 0.95  # quantile of the pixels' rows that counts as where an object stands


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blobs:
    """Everything of one colour in a batch of pictures, k of them.

    Attributes:
      picture: number of the picture.
      colour: index into `layout.COLOURS`.
      place: column and row of the middle pixel, and row of the lowest, in pixels.
      crop: the picture around the middle, 0..1, and which pixels have that colour.
    """

    picture: Int[np.ndarray, "k"]
    colour: Int[np.ndarray, "k"]
    place: Float[np.ndarray, "k 3"]
    crop: Float[np.ndarray, "k crop crop 4"]

    def __len__(self) -> int:
        return len(self.picture)


def find(pictures: UInt8[np.ndarray, "n h w 3"]) -> Blobs:
    """Find every colour that covers at least `image_scores.MIN_SHARE` of a picture."""
    nearest = image_scores.nearest_colours(pictures)
    margin = ((0, 0), (CROP // 2,) * 2, (CROP // 2,) * 2)
    around = np.pad(pictures, (*margin, (0, 0)), mode="edge").astype(np.float32) / 255
    numbers, colours, places = [], [], []
    crops = [np.zeros((0, CROP, CROP, 4), np.float32)]
    for colour in range(len(layout.COLOURS)):
        mask = nearest == colour
        own = np.pad(mask, margin).astype(np.float32)
        for number in np.flatnonzero(mask.mean((1, 2)) >= image_scores.MIN_SHARE):
            rows, columns = np.nonzero(mask[number])
            middle = np.median(columns), np.median(rows)
            left, top = (int(value) for value in middle)
            cut = (number, slice(top, top + CROP), slice(left, left + CROP))
            crops.append(np.concatenate([around[cut], own[cut][..., None]], axis=-1)[None])
            places.append((*middle, np.quantile(rows, LOWEST)))
            numbers.append(number)
            colours.append(colour)
    return Blobs(
        picture=np.array(numbers, int),
        colour=np.array(colours, int),
        place=np.array(places, float).reshape(-1, 3),
        crop=np.concatenate(crops),
    )


class Net(nn.Module):
    """Logits of shapes and sizes."""

    @nn.compact
    def __call__(
        self, crop: Float[Array, "k crop crop 4"], place: Float[Array, "k 3"]
    ) -> tuple[Float[Array, "k shapes"], Float[Array, "k sizes"]]:
        x = nn.relu(nn.Conv(16, (5, 5), strides=2, name="conv_0")(crop - 0.5))
        x = nn.relu(nn.Conv(32, (3, 3), strides=2, name="conv_1")(x))
        x = jnp.concatenate([x.reshape(len(x), -1), place / 16 - 1], axis=-1)
        x = nn.relu(nn.Dense(96, name="hidden")(x))
        shapes = nn.Dense(len(layout.SHAPES), name="shapes")(x)
        return shapes, nn.Dense(len(layout.SIZES), name="sizes")(x)


_logits = jax.jit(Net().apply)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained net."""

    params: Any

    def look(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> list[dict[str, "Seen"]]:
        """What each picture shows, by colour."""
        blobs = find(pictures)
        logits = [
            jax.device_get(_logits(self.params, *_batch(blobs, np.arange(first, first + BATCH))))
            for first in range(0, len(blobs), BATCH)
        ]
        shown: list[dict[str, Seen]] = [{} for _ in pictures]
        names = [(s, z) for shapes, sizes in logits for s, z in zip(shapes, sizes, strict=True)]
        for row, (shape, size) in enumerate(names[: len(blobs)]):
            column, _, lowest = blobs.place[row]
            shown[blobs.picture[row]][tuple(layout.COLOURS)[blobs.colour[row]]] = Seen(
                shape=layout.SHAPES[shape.argmax()],
                size=layout.SIZES[size.argmax()],
                column=float(column),
                lowest=float(lowest),
            )
        return shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """One object in a picture; `column` of its middle and `lowest` row in pixels."""

    shape: str
    size: str
    column: float
    lowest: float

    def stands(self, relation: str, other: "Seen") -> bool:
        """Whether it is e.g. "left of" another one; what is nearer stands lower in a picture."""
        return {
            "left of": self.column < other.column,
            "right of": self.column > other.column,
            "in front of": self.lowest > other.lowest,
            "behind": self.lowest < other.lowest,
        }[relation]


def train(
    pictures: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str], num_steps: int = NUM_STEPS
) -> Probe:
    """Learn from scenes what their captions say of each colour that they show."""
    blobs = find(pictures)
    labels = _labels(blobs, captions)
    known = np.flatnonzero(labels[:, 0] >= 0)
    rng = np.random.default_rng(0)
    params = Net().init(jax.random.key(0), *_batch(blobs, known[:1]))
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))

    def loss(params: Any, crop: Array, place: Array, label: Array) -> Array:
        shapes, sizes = Net().apply(params, crop, place)
        entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        return entropy(shapes, label[:, 0]).mean() + entropy(sizes, label[:, 1]).mean()

    @jax.jit
    def update(params: Any, state: Any, *batch: Array) -> tuple[Any, Any]:
        change, state = optimizer.update(jax.grad(loss)(params, *batch), state)
        return optax.apply_updates(params, change), state

    state = optimizer.init(params)
    for _ in range(num_steps):
        rows = rng.choice(known, BATCH)
        params, state = update(params, state, *_batch(blobs, rows), labels[rows])
    return Probe(params=params)


@functools.cache
def default() -> Probe:
    """The probe that judges every run, of `NUM_SCENES` training scenes.

    It comes with the package: a judge of its own for every run would be none, and cost as much as
    the rest of the evaluation. `default_training` makes it again, in 20 seconds of two CPU cores.
    """
    flat = safetensors.numpy.load(WEIGHTS.read_bytes())
    return Probe(params=flax.traverse_util.unflatten_dict(flat, sep="/"))


def default_training() -> Probe:
    """Train `default` anew; `save` puts it in its place."""
    scenes: dict[str, Any] = world.SceneSource("train", NUM_SCENES).records(np.arange(NUM_SCENES))
    return train(scenes["rgb"], scenes["caption"])


def save(probe: Probe, path: pathlib.Path) -> None:
    """Write a probe as safetensors."""
    arrays = {name: np.asarray(leaf) for name, leaf in tree.named_leaves(probe.params).items()}
    path.write_bytes(safetensors.numpy.save(arrays))


def _batch(blobs: Blobs, rows: Int[np.ndarray, "r"]) -> tuple[np.ndarray, np.ndarray]:
    """Crops and places of these blobs, repeated to a whole batch: one shape compiles."""
    rows = np.resize(rows[rows < len(blobs)], BATCH)
    return blobs.crop[rows], blobs.place[rows].astype(np.float32)


def _labels(blobs: Blobs, captions: Sequence[str]) -> Int[np.ndarray, "k 2"]:
    """Shape and size of each blob by its caption; -1 where it names none of that colour."""
    named = [{thing.colour: thing for thing in caption_scores.things(text)} for text in captions]
    labels = np.full((len(blobs), 2), -1)
    for row, (number, colour) in enumerate(zip(blobs.picture, blobs.colour, strict=True)):
        if thing := named[number].get(tuple(layout.COLOURS)[colour]):
            labels[row] = layout.SHAPES.index(thing.shape), layout.SIZES.index(thing.size)
    return labels


def _looked_at(pictures: UInt8[np.ndarray, "n h w 3"]) -> list[dict[str, Seen]]:
    """What `default` sees; several measures of the same pictures look once."""
    pictures = np.asarray(pictures)
    return _look(pictures.tobytes(), pictures.shape)


@functools.lru_cache(maxsize=8)
def _look(content: bytes, shape: tuple[int, ...]) -> list[dict[str, Seen]]:
    return default().look(np.frombuffer(content, np.uint8).reshape(shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectF1:
    """F1 of the objects that pictures show against those that their captions name, 0..1
    (an `evals.measure.Measure`).

    An object that is shown in its colour counts if the probe names its `parts` as the caption does;
    blank and average pictures show none and score 0.
    """

    metric: str
    parts: tuple[str, ...]
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: UInt8[np.ndarray, "n h w 3"], truth: Sequence[str]) -> float:
        """F1 over the set; `truth` are captions."""
        return f1(_looked_at(predicted), truth, self.parts)

    def constant(self, values: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The mean picture."""
        return image_scores.COLOUR_F1.constant(values)


def f1(shown: Sequence[dict[str, Seen]], captions: Sequence[str], parts: Sequence[str]) -> float:
    """F1 of what pictures show, counted over the set; `parts` are fields of `Seen`."""
    hits = total = 0
    for seen, text in zip(shown, captions, strict=True):
        named = caption_scores.things(text)
        total += len(seen) + len(named)
        for thing in named:
            one = seen.get(thing.colour)
            hits += bool(one) and all(getattr(one, n) == getattr(thing, n) for n in parts)
    return 2 * hits / total if total else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaceAccuracy:
    """Share of the relations of captions ("left of") that both objects of a picture are seen in (an
    `evals.measure.Measure`)."""

    metric: str = "place_accuracy"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: UInt8[np.ndarray, "n h w 3"], truth: Sequence[str]) -> float:
        """Share over the set; 1 where no caption relates two objects."""
        right = []
        for seen, text in zip(_looked_at(predicted), truth, strict=True):
            for first, relation, second in caption_scores.relations(text):
                both = seen.get(first.colour), seen.get(second.colour)
                right.append(bool(both[0] and both[1] and both[0].stands(relation, both[1])))
        return float(np.mean(right)) if right else 1.0

    def constant(self, values: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The mean picture."""
        return image_scores.COLOUR_F1.constant(values)


SHAPE_F1 = ObjectF1(metric="shape_f1", parts=("shape",))
SIZE_F1 = ObjectF1(metric="size_f1", parts=("size",))
OBJECT_F1 = ObjectF1(metric="object_f1", parts=("shape", "size"))
PLACES = PlaceAccuracy()
