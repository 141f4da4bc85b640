"""What a modality is: one frozen record that data, masking, trunk and sampler all read."""

import dataclasses
import hashlib
from typing import Any, Literal, get_args

from fourm_jax.modalities import serializers
from fourm_jax.utils import notebook

Kind = Literal["pixels", "grid", "global", "sequence", "embedding"]
KINDS: tuple[str, ...] = get_args(Kind)
TOKEN_KINDS = ("grid", "global", "sequence")  # kinds that have a vocabulary and can be predicted
ALIGNED_KINDS = ("pixels", "grid")  # kinds whose raw field is a picture or a map of one
# Fields that say how a raw field is read, judged and drawn. They decide neither tokens nor
# parameters, so that a trained model does not depend on them.
OUTSIDE_FIELDS = ("text_form", "crop", "measure", "picture", "classes", "channels", "drafts")
RGB = ("red", "green", "blue")  # names of the channels of a picture that has three and names none


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalitySpec:
    """One modality of a model (docs/published.md#modalities).

    Attributes:
      name: unique name, e.g. "tok_rgb@224"; also the parameter, config and metric name.
      kind: "pixels" (image patches, input only), "grid" (image-like tokens), "global" (a few
        tokens of one vector, learned positions), "sequence" (text-like tokens) or "embedding"
        (float vectors, input only).
      vocab_size: number of token ids; token kinds only.
      grid: (rows, columns) of token positions; pixels and grid only.
      max_tokens: longest sequence including [EOS] (sequence), number of codes (global) or longest
        list of vectors (embedding); derived from `grid` for the image-like kinds.
      max_positions: rows of the position table, where it differs from `max_tokens`.
      patch_size, num_channels: of the image behind a pixels modality.
      channels: names of its channels in their order, which set `num_channels`; weights of channels
        are known by these names.
      embedding_dim: width of the vectors of an embedding modality.
      codes_per_position: token ids at each position (several parallel codebooks).
      chunked: a sequence whose chunks (metadata fields, colours) are masked as wholes.
      tokenizer: which tokenizer turns the raw signal into ids ("text" or a tokenizer's name).
      source: field of the raw record that the tokenizer reads.
      decoding_order: rank in chained generation, small first.
      table: name of the embedding table; modalities that share a name (and a vocabulary) share
        its rows. Default: a table of its own, as in the published models.
      text_form: of a sequence: the module of `fourm_jax.modalities` that writes the raw field as
        text and reads generated text. Default: "captions", plain text.
      crop: what cropping a picture does to the raw field, a name of `data.crops.fields.RULES`.
        Default: that of the text form; "picture" for pixels and grids, else "unchanged".
      measure: how predictions are judged, see `evals.measure.load`; the first is the headline.
        Default: by the text form, or by the signal that the tokenizer reads.
      picture: how values are drawn, a file of `evals.drawings`. Default: as for `measure`.
      classes: names of the ids of a label map, in their order.
      drafts: modalities that are generated before it, in this order, where nothing but texts is
        given: what stands where, then its outlines, then the picture. Only a trunk whose masks
        practise this has them.
    """

    name: str
    kind: Kind
    vocab_size: int = 0
    grid: tuple[int, int] = (0, 0)
    max_tokens: int = 0
    max_positions: int = 0
    patch_size: int = 0
    num_channels: int = 0
    channels: tuple[str, ...] = ()
    embedding_dim: int = 0
    codes_per_position: int = 1
    chunked: bool = False
    tokenizer: str = ""
    source: str = ""
    decoding_order: int = 0
    table: str = ""
    text_form: str = ""
    crop: str = ""
    measure: tuple[str, ...] = ()
    picture: str = ""
    classes: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows: all fields that are set."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return notebook.table(
            f"modality {self.name}", {name: value for name, value in fields.items() if value}
        )

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"modality {self.name!r}: kind {self.kind!r}, allowed: {KINDS}")
        if (self.kind in TOKEN_KINDS) != (self.vocab_size > 0):
            raise ValueError(
                f"modality {self.name!r}: vocab_size {self.vocab_size} with kind {self.kind!r}; "
                f"it must be positive for {TOKEN_KINDS} and 0 for the others"
            )
        if self.kind in ("pixels", "grid"):
            object.__setattr__(self, "max_tokens", self.grid[0] * self.grid[1])
        for field in ("measure", "classes", "drafts"):  # lists where they come from a JSON file
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.channels:
            self._set_channels()
        if self.max_tokens <= 0:
            raise ValueError(
                f"modality {self.name!r}: no tokens; set grid (pixels, grid) or max_tokens"
            )
        if not self.max_positions:
            object.__setattr__(self, "max_positions", self.max_tokens)
        if not self.table:
            object.__setattr__(self, "table", self.name)
        if self.kind == "sequence":
            self._set_defaults_of_text()
        elif self.text_form:
            raise ValueError(f"modality {self.name!r}: kind {self.kind!r} has no text_form")
        if not self.crop:
            crop = "picture" if self.kind in ALIGNED_KINDS else "unchanged"
            object.__setattr__(self, "crop", crop)

    def _set_channels(self) -> None:
        if isinstance(self.channels, str | int):
            raise ValueError(
                f"modality {self.name!r}: channels {self.channels!r}, expected their names; "
                "num_channels says how many"
            )
        names = tuple(self.channels)
        if self.kind != "pixels" or len(set(names)) < len(names):
            raise ValueError(
                f"modality {self.name!r}: channels {names}, allowed: different names, of kind "
                f"'pixels', not {self.kind!r}"
            )
        object.__setattr__(self, "channels", names)
        object.__setattr__(self, "num_channels", len(names))

    def _set_defaults_of_text(self) -> None:
        form = self.text_form or serializers.PLAIN
        module = serializers.get(form)
        defaults = {"crop": module.CROP, "measure": module.MEASURE, "picture": module.PICTURE}
        for field, value in {"text_form": form, **defaults}.items():
            if not getattr(self, field):
                object.__setattr__(self, field, value)

    @property
    def num_tokens(self) -> int:
        """Most tokens that one sample can hold: positions × codes per position."""
        return self.max_tokens * self.codes_per_position

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the pictures of a "pixels" modality."""
        rows, columns = self.grid
        return rows * self.patch_size, columns * self.patch_size, self.num_channels

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels; those of colours where none are given, else none."""
        return self.channels or (RGB if self.num_channels == len(RGB) else ())

    @property
    def is_token(self) -> bool:
        """Whether it has a vocabulary, hence can be a target."""
        return self.kind in TOKEN_KINDS

    @property
    def id(self) -> int:
        """15-bit id of the published system: sha256 of the name modulo 2^15."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 2**15

    def describe(self) -> dict[str, Any]:
        """Return the fields that decide tokens and parameters, as a checkpoint stores them."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in OUTSIDE_FIELDS}

    def replace(self, **changes: Any) -> "ModalitySpec":
        """Copy with changes; `max_tokens` and `max_positions` follow a changed `grid`."""
        if "grid" in changes:
            changes = {"max_tokens": 0, "max_positions": 0, **changes}
        return dataclasses.replace(self, **changes)
