"""Turn raw signals into uint8 pictures that people can look at."""

import io

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

Picture = UInt8[np.ndarray, "h w 3"]


def png(picture: Picture) -> bytes:
    """Encode as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def classes(ids: Int[np.ndarray, "h w"], num_classes: int) -> Picture:
    """Paint class ids with well separated colours; class 0 is dark grey."""
    table = matplotlib.colormaps["tab20"](np.arange(num_classes) % 20)[:, :3]
    table[0] = 0.25
    return np.uint8(255 * table[np.clip(ids, 0, num_classes - 1)])


def depth(metres: Float[np.ndarray, "h w"], near: float, far: float) -> Picture:
    """Colour depth from `near` (bright) to `far` (dark), in metres, on the inferno map."""
    scaled = np.clip((metres - near) / max(far - near, 1e-6), 0, 1)
    return np.uint8(255 * matplotlib.colormaps["inferno"](1 - scaled)[..., :3])


def normals(vectors: Float[np.ndarray, "h w 3"]) -> Picture:
    """Show unit normals as (n + 1) / 2."""
    return np.uint8(np.clip(127.5 * (vectors + 1), 0, 255))


def grey(values: UInt8[np.ndarray, "h w"]) -> Picture:
    """Show one uint8 channel, e.g. edges, as grey."""
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


def principal_components(
    reference: Float[np.ndarray, "n h w c"],
) -> tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c 3"]]:
    """Mean and scaled first three components of a feature set, for `features`."""
    flat = np.asarray(reference, np.float32).reshape(-1, reference.shape[-1])
    mean = flat.mean(0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
    scale = singular[:3] / np.sqrt(len(flat)) + 1e-6
    return mean, rows[:3].T / scale


def features(
    values: Float[np.ndarray, "h w c"],
    mean: Float[np.ndarray, "c"],
    components: Float[np.ndarray, "c 3"],
) -> Picture:
    """Show a dense feature map by its first three principal components, ±2 deviations."""
    projected = (values - mean) @ components
    return np.uint8(np.clip(127.5 + 63.75 * projected, 0, 255))


def swatches(colours: UInt8[np.ndarray, "k 3"], size: int = 28) -> Picture:
    """Show a palette as upright stripes of one square; an empty palette is white."""
    colours = np.asarray(colours, np.uint8).reshape(-1, 3)
    if not len(colours):
        return np.full((size, size, 3), 255, np.uint8)
    stripe = np.arange(size) * len(colours) // size
    return np.repeat(colours[stripe][None], size, axis=0)


def boxes(
    image: Picture, corners: Float[np.ndarray, "k 4"], labels: list[str], scale: int = 4
) -> Picture:
    """Draw labelled boxes (xmin, ymin, xmax, ymax in 0..1) over an enlarged image."""
    height, width = image.shape[:2]
    canvas = Image.fromarray(image).resize((width * scale, height * scale), Image.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for (left, top, right, bottom), label in zip(corners, labels, strict=True):
        box = [left * width, top * height, right * width, bottom * height]
        box = [float(value) * scale for value in box]
        if box[2] >= box[0] and box[3] >= box[1]:
            pen.rectangle(box, outline=(255, 255, 255))
            pen.text((box[0] + 2, box[1]), label, fill=(255, 255, 255))
    return np.asarray(canvas)
