"""How TFDS features become fields of raw records: one small function per form of annotation.

Each takes the features (what TFDS knows: types, class names) and returns what turns their values in
one example into the value of a record field, or into None where the example does not have it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8

from fourm_jax.data.published import file_decoders
from fourm_jax.utils import errors, picture_files

Reader = Callable[..., Any]
NUM_THINGS = 80  # of COCO's 133 panoptic classes the first 80 are things, the others stuff
PET_CLASSES = {"Cat": 16, "Dog": 17}  # where `panoptic_classes` puts COCO's cat and dog


def make_reader(name: str, features: Mapping[str, Any]) -> Reader:
    """Reader of these features: their values in one example -> value of a record field, or None.

    Raises:
      ValueError: an unknown reader, or features that it does not take (names them).
    """
    if name not in READERS:
        raise ValueError(errors.unknown_value("reader of TFDS features", name, READERS))
    try:
        return READERS[name](*features.values())
    except (AttributeError, KeyError, TypeError) as error:
        found = {feature: type(value).__name__ for feature, value in features.items()}
        raise ValueError(f"reader {name!r} does not take the features {found}: {error}") from error


def picture(image: tfds.features.FeatureConnector) -> Reader:
    """Colours uint8 [h, w, 3]."""
    _need(image, tfds.features.Image)
    return functools.partial(picture_files.decode_rgb, upright=False)


def labels(image: tfds.features.FeatureConnector) -> Reader:
    """Picture of one channel, values as stored: uint8 [h, w]."""
    _need(image, tfds.features.Image)
    return _labels


def array(tensor: tfds.features.FeatureConnector) -> Reader:
    """Array of the feature's own dtype."""
    dtype = tensor.np_dtype
    return lambda value: np.asarray(value, dtype)[()]


def depth(tensor: tfds.features.FeatureConnector) -> Reader:
    """Metres float32 [h, w]; a pixel that is not finite has none, as measures and losses take it.

    ValueError if some are negative, or none is finite.
    """
    _need(tensor, tfds.features.Tensor)

    def read(value) -> Float[np.ndarray, "h w"]:
        metres = np.asarray(value, np.float32)
        known = metres[np.isfinite(metres)]
        if not known.size or known.min() < 0:
            raise ValueError("depth is negative or nowhere finite")
        return metres

    return read


def text(feature: tfds.features.FeatureConnector) -> Reader:
    """One text; absent if empty."""
    _need_text(feature)
    return lambda value: value.decode() or None


def texts(sequence: tfds.features.FeatureConnector) -> Reader:
    """All texts of a sequence of {"text", …}: whoever tokenizes them draws one per record."""
    _need_text(sequence["text"])
    return lambda value: [line.decode() for line in value["text"]] or None


def json_value(feature: tfds.features.FeatureConnector) -> Reader:
    """Value of a text that holds JSON."""
    _need_text(feature)
    return lambda value: file_decoders.decode(".json", value)


def boxes(objects: tfds.features.FeatureConnector) -> Reader:
    """{"boxes": float32 [k, 4] xmin ymin xmax ymax in 0..1, "classes"} of a sequence of objects.

    Crowds, where marked, are left out: they are regions, not objects.
    """
    _need(objects["bbox"], tfds.features.BBoxFeature)
    return lambda value: _boxes(value, _namer(objects["label"]))


def thing_boxes(objects: tfds.features.FeatureConnector) -> Reader:
    """Boxes of COCO's panoptic things; a box around stuff such as sky says little."""
    _need(objects["bbox"], tfds.features.BBoxFeature)
    name = _namer(objects["label"])
    return lambda value: _boxes(value, name, np.asarray(value["label"], np.int64) < NUM_THINGS)


def panoptic_classes(
    image: tfds.features.FeatureConnector, objects: tfds.features.FeatureConnector
) -> Reader:
    """Classes uint8 [h, w]: 0 = void, c + 1 = class c (as published, docs/published.md#modalities).

    A segment's id is R + 256 G + 65536 B of its pixels.
    """
    _need(image, tfds.features.Image)
    if objects["label"].num_classes > 255 or "id" not in objects.feature:
        raise TypeError("it needs segments with an id and at most 255 classes")

    def read(data: bytes, value: Mapping[str, Any]) -> UInt8[np.ndarray, "h w"]:
        ids = picture_files.decode_rgb(data, upright=False).astype(np.int64) @ np.array(
            [1, 256, 65536]
        )
        segments, where = np.unique(ids, return_inverse=True)
        known = dict(zip(value["id"], value["label"], strict=True))
        classes = [known.get(segment, -1) + 1 for segment in segments]
        return np.array(classes, np.uint8)[where].reshape(ids.shape)

    return read


def pet_classes(
    mask: tfds.features.FeatureConnector, species: tfds.features.FeatureConnector
) -> Reader:
    """COCO classes of a trimap (1 pet, 2 background, 3 border) as `panoptic_classes` gives them.

    Only the pet's own pixels have a class; what lies behind it is not annotated and stays void.
    """
    _need(mask, tfds.features.Image)
    classes = [PET_CLASSES[name] for name in species.names]
    return lambda data, kind: np.where(_labels(data) == 1, np.uint8(classes[kind]), np.uint8(0))


def class_names(*features: tfds.features.FeatureConnector) -> Reader:
    """Class names as a caption, "american bulldog dog"; absent if one is not known (-1)."""
    names = [_namer(feature) for feature in features]

    def read(*values: int) -> str | None:
        if min(values) < 0:
            return None
        words = [name(value) for name, value in zip(names, values, strict=True)]
        return " ".join(words).replace("_", " ")

    return read


def imagenet_name(label: tfds.features.FeatureConnector) -> Reader:
    """First name of an ImageNet class, "great white shark"; absent if it is not known (-1).

    TFDS itself calls the classes by WordNet ids; it ships the names, in the same order, with the
    synthetic SI-Score images.
    """
    from tensorflow_datasets.datasets.siscore import labels as siscore

    names = [name.split(",")[0] for name in siscore.IMAGENET_LABELS_LIST]
    if label.num_classes != len(names):
        raise TypeError(f"it needs {len(names)} classes, found {label.num_classes}")
    return lambda value: None if value < 0 else names[value]


def clevr_caption(objects: tfds.features.FeatureConnector) -> Reader:
    """All objects, "a large red metal cube, a small …", in their order; absent where not told."""
    names = {key: _namer(objects[key]) for key in ("size", "color", "material", "shape")}

    def read(value: Mapping[str, Any]) -> str | None:
        words = [[name(item) for item in value[key]] for key, name in names.items()]
        return ", ".join("a " + " ".join(thing) for thing in zip(*words, strict=True)) or None

    return read


READERS: Mapping[str, Callable[..., Reader]] = {
    reader.__name__: reader
    for reader in (
        picture,
        labels,
        array,
        depth,
        text,
        texts,
        json_value,
        boxes,
        thing_boxes,
        panoptic_classes,
        pet_classes,
        class_names,
        imagenet_name,
        clevr_caption,
    )
}


def _need(feature: Any, kind: type) -> None:
    if not isinstance(feature, kind):
        raise TypeError(f"expected {kind.__name__}")


def _need_text(feature: Any) -> None:
    if not _is_text(feature):
        raise TypeError("expected a text")


def _is_text(feature: Any) -> bool:
    """Whether this is a Text, or a plain scalar of that type, as in COCO's captions."""
    return isinstance(feature, tfds.features.Tensor) and np.dtype(feature.np_dtype).kind in "OSU"


def _namer(feature: Any) -> Callable[[Any], str]:
    """Class number or text -> name."""
    if _is_text(feature):
        return lambda value: value.decode()
    _need(feature, tfds.features.ClassLabel)
    return lambda value: feature.int2str(int(value))


def _boxes(value: Mapping[str, Any], name: Callable, keep: Any = True) -> dict[str, Any]:
    corners = np.asarray(value["bbox"], np.float32).reshape(-1, 4)
    crowds = np.asarray(value.get("is_crowd", np.zeros(len(corners))), bool)
    rows = np.flatnonzero(keep & ~crowds)
    return {
        "boxes": corners[rows][:, [1, 0, 3, 2]],  # TFDS has ymin xmin ymax xmax
        "classes": [name(value["label"][row]) for row in rows],
    }


def _labels(data: bytes) -> UInt8[np.ndarray, "h w"]:
    values = picture_files.decode_values(data, upright=False)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError(f"picture of {values.dtype} {values.shape}, expected one channel of uint8")
    return values
