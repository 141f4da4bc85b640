"""Layout of the text vocabulary: special tokens, sentinels and coordinates.

Source: docs/published.md#text-tokenizer.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextVocabulary:
    """Ids of the special tokens that masking, sampling and the serializers rely on.

    The published layout: `[PAD]`, `[UNK]`, `[SOS]`, `[EOS]`, 200 sentinels `[S_0]`..`[S_199]`, then
    `num_axes` × `num_bins` coordinate tokens "v<axis>=<bin>", then class names, then word pieces.
    """

    pad_id: int = 0
    unk_id: int = 1
    sos_id: int = 2
    eos_id: int = 3
    first_sentinel_id: int = 4
    num_sentinels: int = 200
    num_axes: int = 4
    num_bins: int = 1000

    @property
    def first_coordinate_id(self) -> int:
        return self.first_sentinel_id + self.num_sentinels

    @property
    def num_reserved(self) -> int:
        """Ids below this one are special, sentinel or coordinate tokens."""
        return self.first_coordinate_id + self.num_axes * self.num_bins

    def check_masked(self, where: object) -> None:
        """Refuse a layout whose texts cannot be trained on: masking knows the published one alone.

        Raises:
          ValueError: other special tokens, or fewer sentinels; names `where`.
        """
        fields = ("pad_id", "unk_id", "sos_id", "eos_id", "first_sentinel_id")
        found = {field: getattr(self, field) for field in fields}
        wanted = {field: getattr(PUBLISHED, field) for field in fields}
        if found != wanted or self.num_sentinels < PUBLISHED.num_sentinels:
            raise ValueError(
                f"{where}: special tokens {found} and {self.num_sentinels} sentinels; models are "
                f"trained with {wanted} and at least {PUBLISHED.num_sentinels}"
            )

    def sentinel_id(self, index: int) -> int:
        """Id of [S_index]; masking uses index 1 first, as the published system does."""
        if not 0 <= index < self.num_sentinels:
            raise ValueError(f"sentinel {index}, allowed: 0..{self.num_sentinels - 1}")
        return self.first_sentinel_id + index

    def coordinate_id(self, axis: int, bin: int) -> int:
        """Id of the token "v<axis>=<bin>"."""
        if not (0 <= axis < self.num_axes and 0 <= bin < self.num_bins):
            axes, bins = f"v0..v{self.num_axes - 1}", f"0..{self.num_bins - 1}"
            raise ValueError(f"coordinate v{axis}={bin}, allowed: {axes}={bins}")
        return self.first_coordinate_id + axis * self.num_bins + bin


PUBLISHED = TextVocabulary()
