"""transforms/: serialized modalities, the modality table, and image transforms."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.parity import quantity as quantities
from experiments.parity.quantity import Quantity, Recorded
from fourm_jax.data.crops import fields as record_transforms
from fourm_jax.data.crops import images as image_transforms
from fourm_jax.modalities import (
    boxes,
    captions,
    coordinates,
    instances,
    label_maps,
    metadata,
    metadata_fields,
    palette,
    poses,
    registry,
)
from fourm_jax.modalities.spec import ModalitySpec

FILES = ("transforms.json", "image_transforms.json", "image_transforms.safetensors")
BOX_ORDERS = {"dist_to_orig": "distance", "area": "area", "score": "score"}
KINDS = {"img": ("pixels", "grid", "global"), "seq": ("sequence",), "seq_emb": ("embedding",)}
PIXELS = (1e-6, 0.0)
DEPTH = (1e-5, 0.0)
HALF = (0.5, 0.5, 0.5)


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Iterator[Quantity]]]:
    """One case per part of the tables, and one for the images."""
    for path in sorted(folder.iterdir()):
        if path.name not in FILES:
            yield path.name, quantities.unknown(["(file)"])
    if (folder / "transforms.json").exists():
        tables = json.loads((folder / "transforms.json").read_text())
        for name, recorded in tables.items():
            if name == "modality_info":
                yield name, modality_info(recorded)
            elif name in TABLES:
                yield name, iter([Quantity("values", *TABLES[name](recorded))])
            elif name in TEXTS:
                yield name, texts(TEXTS[name], recorded)
            else:
                yield name, quantities.unknown(["(part)"])
    if (folder / "image_transforms.safetensors").exists():
        settings = json.loads((folder / "image_transforms.json").read_text())
        arrays = Recorded(quantities.load(folder / "image_transforms.safetensors"))
        yield "image_transforms", images(arrays, settings)


def texts(function: Callable[[Mapping], dict[str, tuple]], recorded) -> Iterator[Quantity]:
    """(found, expected) of every entry, gathered by quantity."""
    columns: dict[str, tuple[list, list]] = {}
    for entry in recorded:
        for name, pair in function(entry).items():
            for column, value in zip(columns.setdefault(name, ([], [])), pair, strict=True):
                column.append(value)
    for name, column_pair in columns.items():
        is_array = isinstance(column_pair[0][0], np.ndarray)
        found, expected = map(np.concatenate, column_pair) if is_array else column_pair
        yield Quantity(name, found, expected)


def _det(case):
    value = boxes.Boxes.from_instances(case["instances"]).filtered()
    value = _visible(value, case["crop_coords"], case["orig_size"], case["min_visibility"])
    value = value.cropped(case["crop_coords"], case["orig_size"])
    value = value.flipped() if case["flip"] else value
    if case["det_max_instances"] is not None:
        value = value.strongest(case["det_max_instances"])
    value = value.ordered(BOX_ORDERS[case["bbox_order"]])
    after = case["boxes_after"]
    corners = np.reshape([row[:4] for row in after], (-1, 4))
    assert value.scores is not None
    return {
        "string": (value.to_text(), case["string"]),
        "boxes_after": (value.boxes.reshape(-1, 4), corners),
        "classes_after": (list(value.classes), [row[4] for row in after]),
        "scores_after": (list(value.scores), [row[5] for row in after]),
    }


def _visible(
    value: boxes.Boxes, crop: Sequence[int], size: tuple[int, int], min_share: float
) -> boxes.Boxes:
    """The boxes of which more than this share lies in the crop; no published training sets one."""
    top, left, height, width = crop
    rectangle = np.array([left, top, left + width, top + height]) / np.tile(size[::-1], 2)
    low, high = np.tile(rectangle[:2], 2), np.tile(rectangle[2:], 2)
    inside = boxes.area(np.clip(value.boxes, low, high))
    return value.select(np.flatnonzero(inside > min_share * boxes.area(value.boxes)))


def _metadata(case):
    value = metadata.Metadata(case["metadata"], metadata_fields.PUBLISHED)
    return {
        "chunks": (value.to_chunks(), case["chunks"]),
        "string": (value.to_text(), case["string"]),
    }


def _palette(case):
    colors = case["raw"][0][str(case["chosen_length"])]
    return {"string": (palette.Palette(colors).to_text(), case["string"])}


def _poses(case):
    value = poses.Poses.from_hmr(case["raw"] or {}, case["orig_size"])
    value = value.cropped(case["crop_coords"], case["orig_size"])
    text = value.to_text(group_orders=case["part_permutations"])
    return {"string": (text, case["string"].removesuffix(" "))}


def _instances(case):
    value = instances.Instances.from_record(
        {
            "points": case["polygons_xy"],
            "bbox": case["bbox_ymin_xmin_ymax_xmax"],
            "token_ids": case["token_ids"],
        }
    )
    points = case["query_points_xy"]
    inside = [
        [point, list(value.containing(point))] for point, _ in case["instances_containing_point"]
    ]
    found = {
        "string_without_shuffling": (value.to_text(points), case["string_without_shuffling"]),
        "instances_containing_point": (inside, case["instances_containing_point"]),
    }
    if case["point_order"] == "grid":
        grid = instances.grid_points(case["points_per_side"]).tolist()
        found["query_points_xy"] = (grid, points)
    return found


def _caption(case):
    """A caption that is drawn at random must be one of the list."""
    rng = np.random.default_rng(0)
    chosen = captions.select(case["value"], case["rand_aug_idx"], rng).to_text()
    if case["rand_aug_idx"] is None and isinstance(case["value"], list):
        return {"drawn": (chosen in case["value"], case["result"] in case["value"])}
    return {"result": (chosen, case["result"])}


def _t5_caption(case):
    chosen = captions.select_embedding(
        np.array(case["emb"]), np.array(case["mask_valid"], bool), case["rand_aug_idx"] or 0
    )
    return {"result": (chosen.tolist(), case["result"])}


TEXTS = {
    "det": _det,
    "metadata": _metadata,
    "color_palette": _palette,
    "human_poses": _poses,
    "sam_instance": _instances,
    "caption": _caption,
    "t5_caption": _t5_caption,
}


def _id_map(recorded):
    return {f.name: coordinates.token(1, f.id) for f in metadata_fields.PUBLISHED.fields}, recorded


def _ids(recorded):
    return {n: ModalitySpec(name=n, kind="pixels", grid=(1, 1)).id for n in recorded}, recorded


TABLES = {"metadata_id_map": _id_map, "modality_ids": _ids}


def modality_info(recorded: Mapping[str, Any]) -> Iterator[Quantity]:
    """Every entry: as registered, or one that no trunk can read (it feeds tokenizers only)."""
    registered = {spec.name: spec for spec in registry.FOURM}
    for name, entry in recorded.items():
        usable = entry["encoder_embedding"] is not None or entry["decoder_embedding"] is not None
        if not usable:
            yield Quantity(f"{name}/feeds_tokenizers_only", name not in registered, True)
            continue
        if name not in registered:
            yield from quantities.unknown([name])
            continue
        spec = registered[name]
        yield Quantity(f"{name}/type", spec.kind in KINDS[entry["type"]], True)
        yield Quantity(f"{name}/vocab_size", spec.vocab_size, entry["vocab_size"] or 0)
        size = entry["max_tokens"]
        if entry["type"] == "img":
            size = ((entry["input_size"] or 224) // (entry["patch_size"] or 16)) ** 2
        yield Quantity(f"{name}/max_tokens", spec.max_tokens, size)


def images(arrays: Recorded, settings: Mapping[str, Any]) -> Iterator[Quantity]:
    """Crop, resize, flip and normalize, by field, flip and resampling."""
    crop, size = settings["crop_coords_top_left_h_w"], tuple(settings["target_size"])
    for name in arrays:
        if name.startswith("out/"):
            _, transform, flip, mode = name.split("/")
            found = _picture(arrays, transform, crop, size, int(flip[-1]), mode)
            if found is not None:
                tolerance = DEPTH if transform == "depth" else PIXELS
                yield Quantity(name, found, arrays[name], tolerance)
    if "depth_standardization/in" in arrays:
        found = image_transforms.standardize_depth(arrays["depth_standardization/in"])
        name = "depth_standardization/out"
        yield Quantity(name, found, arrays[name], DEPTH)
    yield from arrays.unread()


def _picture(
    arrays: Recorded,
    transform: str,
    crop: Sequence[int],
    size: tuple[int, int],
    flip: int,
    mode: str,
) -> np.ndarray | None:
    """Ours, channels first as recorded; None for a transform that does not exist here."""

    def view(field, raw):
        rows = np.array([[*crop, flip]])
        (record,) = record_transforms.crop_record({field: raw}, rows, size)
        return record[field]

    match transform, mode:
        case "rgb_imagenet", ("None" | "bicubic"):
            return np.moveaxis(image_transforms.normalize(view("rgb", arrays["in/rgb"])), 2, 0)
        case "rgb_imagenet", "bilinear":
            args = (arrays["in/rgb"], crop, size, mode, bool(flip))
            pixels = image_transforms.crop_resize(*args)
            return np.moveaxis(image_transforms.normalize(pixels), 2, 0)
        case (("rgb_inception" | "normal"), "None"):
            field = "normal" if transform == "normal" else "rgb"
            pixels = view(field, arrays["in/rgb"])
            return np.moveaxis(image_transforms.normalize(pixels, HALF, HALF), 2, 0)
        case "semseg_shift", "None":
            return label_maps.labels(view("semseg", arrays["in/semseg"]))
        case "mask", "None":
            return (view("mask_valid", arrays["in/mask"]) == 255)[None]
        case "depth", "None":
            depth = view("depth", arrays["in/depth_u16"].astype(np.uint16)) / np.float32(65535)
            return image_transforms.standardize_depth(depth)[None]
    return None
