"""The text tokenizer: WordPiece ids for captions and all text-like modalities.

Source: docs/published.md#text-tokenizer.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from etils import epath
from jaxtyping import Int

from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.tokenizers import hf_file, store, wordpiece
from fourm_jax.utils import io, plain_data

FAMILY = "text"
_WORD = re.compile(r"\[\w+\]|v\d=\d+|\w+|[^\w\s]")  # tokens of the vocabulary are one word
SPECIAL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")


@dataclasses.dataclass(frozen=True, eq=False)
class TextTokenizer:
    """Text <-> ids.

    Attributes:
      backend: the HF tokenizer.
      vocabulary: where special, sentinel and coordinate tokens lie.
      vocab_size: rows of the embedding table that it needs; may exceed the number of tokens.
    """

    backend: tokenizers.Tokenizer
    vocabulary: TextVocabulary
    vocab_size: int

    @classmethod
    def load(cls, path: epath.PathLike) -> "TextTokenizer":
        """Read a folder written by `save`, or a tokenizer file of the HF JSON format.

        Raises:
          ValueError: no such file, not of that format, another layout of the special tokens, a
            card of something else, or more tokens than the card's vocab_size.
        """
        path = epath.Path(path)
        file, card = (path / store.TEXT, path / store.CARD) if path.is_dir() else (path, None)
        if not file.is_file():
            raise ValueError(
                f"no text tokenizer at {path}: expected a JSON file, or {store.TEXT} in it"
            )
        backend = hf_file.read(file)
        vocab_size = max(backend.get_vocab().values(), default=-1) + 1
        if card is not None and card.is_file():
            vocab_size = _card_size(card)
        return cls._checked(backend, vocab_size, str(file))

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int,
        class_names: Sequence[str] = (),
        num_sentinels: int = 200,
        num_bins: int = 1000,
    ) -> "TextTokenizer":
        """Learn word pieces from texts; the same texts give the same tokenizer, in any order.

        Args:
          texts: captions.
          vocab_size: rows of the embedding table; the pieces learned may be fewer.
          class_names: names of objects that become one token each, also inside texts: in any case
            where the name is in lower case, else as it is written.
          num_sentinels: [S_0]..[S_n-1].
          num_bins: coordinates per axis (4 axes).

        Raises:
          ValueError: vocab_size too small for the reserved tokens and the characters of the texts,
            or class names that are empty or repeated, or that would not come back as they are.
        """
        layout = TextVocabulary(num_sentinels=num_sentinels, num_bins=num_bins)
        names = sorted(class_names)
        if len({*names}) != len(names) or not all(names):
            raise ValueError(f"class names {names}: empty or repeated")
        controls = _controls(layout)
        room = room_for_pieces(vocab_size, layout, len(names))
        pieces = wordpiece.learn_pieces(wordpiece.count_words(texts), room)
        ids = {token: i for i, token in enumerate(dict.fromkeys([*controls, *names, *pieces]))}
        backend = wordpiece.make_backend(ids)
        backend.add_special_tokens(
            [tokenizers.AddedToken(token, normalized=False) for token in SPECIAL]
            + [
                tokenizers.AddedToken(token, normalized=False, single_word=True)
                for token in controls[len(SPECIAL) :]
            ]
            + [
                tokenizers.AddedToken(name, normalized=_is_normal(backend, name), single_word=True)
                for name in names
            ]
        )
        trained = cls._checked(backend, vocab_size, "trained tokenizer")
        trained._check_names(names)
        return trained

    def _check_names(self, names: Sequence[str]) -> None:
        """Refuse class names that a box would not get back.

        Raises:
          ValueError: names the first one, and what it becomes.
        """
        for name in names:
            written = f"v0=0 {name} v1=0"
            found = self.decode_content(self.encode_sequence(written, max_tokens=4)[0])
            if found != written or name.split() != name.split(" "):
                raise ValueError(
                    f"class name {name!r} is lost: {written!r} comes back as {found!r}; choose one "
                    "without tokens of the vocabulary and without double spaces"
                )

    @classmethod
    def _checked(
        cls, backend: tokenizers.Tokenizer, vocab_size: int, where: str
    ) -> "TextTokenizer":
        largest = max(backend.get_vocab().values())
        if largest >= vocab_size:
            raise ValueError(f"{where}: id {largest}, allowed: below vocab_size {vocab_size}")
        return cls(backend, _layout(backend, where), vocab_size)

    def save(self, directory: epath.PathLike) -> None:
        """Write a folder with tokenizer.json and card.json; an earlier tokenizer is replaced.

        Raises:
          ValueError: `directory` exists and holds something that is not a tokenizer.
        """
        card = {
            "family": FAMILY,
            "name": FAMILY,
            "vocab_size": self.vocab_size,
            "num_tokens": self.backend.get_vocab_size(),
            "vocabulary": dataclasses.asdict(self.vocabulary),
        }
        with store.replacing(directory) as folder:
            io.write_text(folder / store.TEXT, self.backend.to_str())
            io.write_json(folder / store.CARD, card)

    def encode(self, text: str) -> Int[np.ndarray, "l"]:
        """Ids (int32) of a text, without [EOS]; "" has none.

        Raises:
          ValueError: no text, or one with halves of characters, which JSON can hold.
        """
        try:
            return np.asarray(self.backend.encode(text).ids, np.int32)
        except TypeError as error:
            raise ValueError(f"{text!r:.80} cannot be encoded: no Unicode text") from error

    def strange_words(self, text: str) -> list[str]:
        """Words that training can hardly have taught: read as [UNK], or letter by letter."""
        strange = []
        for word in _WORD.findall(text):
            encoding = self.backend.encode(word)
            pieces = [token.removeprefix("##") for token in encoding.tokens]
            letters = len(pieces) > 1 and all(len(piece) == 1 for piece in pieces)
            if letters or self.vocabulary.unk_id in encoding.ids:
                strange.append(word)
        return strange

    def words(self) -> list[str]:
        """Whole words that have an id of their own, alphabetically; special tokens are none."""
        ids = self.backend.get_vocab().items()
        return sorted(
            token
            for token, id in ids
            if id >= self.vocabulary.num_reserved and len(token) > 1 and not token.startswith("##")
        )

    def encode_sequence(
        self, text: str | Sequence[str], *, max_tokens: int, chunked: bool = False
    ) -> tuple[Int[np.ndarray, "l"], Int[np.ndarray, "l"]]:
        """Ids of one sequence modality and the chunk that each belongs to.

        Args:
          text: a text, or its chunks. Special tokens and sentinels that somebody has written out
            in it are left out: they would end the text, or look like a masked span.
          max_tokens: longest result; the text is cut, never its [EOS]. (The published code cuts
            the [EOS] too.)
          chunked: whether masking treats chunks as wholes. Then [EOS] is a chunk of its own and
            trailing chunks that do not fit are left out; otherwise every token is its own chunk.

        Returns:
          (ids, chunk): int32 [l] each, l <= max_tokens; chunk counts up from 0.

        Raises:
          ValueError: max_tokens below 1.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens {max_tokens}, allowed: at least 1")
        texts = [text] if isinstance(text, str) else list(text)
        if chunked:
            parts = [self._encode_words(part) for part in texts]
            ids = np.concatenate([*parts, np.zeros(0, np.int32)])
            lengths = [len(part) for part in parts if len(part)]
        else:
            ids = self._encode_words(" ".join(texts))
            lengths = [1] * len(ids)
        num_fitting = int(np.searchsorted(np.cumsum(lengths), max_tokens - 1, side="right"))
        lengths = [*lengths[:num_fitting], 1]
        ids = np.append(ids[: sum(lengths) - 1], np.int32(self.vocabulary.eos_id))
        return ids, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    def _encode_words(self, text: str) -> Int[np.ndarray, "l"]:
        ids = self.encode(text)
        is_control = ids < self.vocabulary.first_coordinate_id
        return ids[~is_control | (ids == self.vocabulary.unk_id)]

    def decode(self, ids: Iterable[int | np.integer], keep_special: bool = False) -> str:
        """Text of ids; without `keep_special` coordinates and class names are left out, too."""
        return self.backend.decode(self._checked_ids(ids), skip_special_tokens=not keep_special)

    def decode_content(self, ids: Iterable[int | np.integer]) -> str:
        """Text up to the first [EOS] with coordinates and class names, without [PAD], [SOS] and
        sentinels: what the parsers in `modalities` read."""
        ids = self._checked_ids(ids)
        if self.vocabulary.eos_id in ids:
            ids = ids[: ids.index(self.vocabulary.eos_id)]
        kept = [
            id
            for id in ids
            if id not in (self.vocabulary.pad_id, self.vocabulary.sos_id)
            and not _is_sentinel(id, self.vocabulary)
        ]
        return self.backend.decode(kept, skip_special_tokens=False)

    def _checked_ids(self, ids: Iterable[int | np.integer]) -> list[int]:
        ids = np.asarray(ids, np.int64).reshape(-1)
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)][0]
            raise ValueError(f"text id {wrong}, allowed: 0..{self.vocab_size - 1}")
        return ids.tolist()


def room_for_pieces(vocab_size: int, layout: TextVocabulary, num_class_names: int) -> int:
    """How many word pieces a vocabulary can have.

    Raises:
      ValueError: none.
    """
    taken = layout.num_reserved + num_class_names
    if vocab_size <= taken:
        raise ValueError(
            f"vocab_size {vocab_size} leaves no room for word pieces, allowed: more than the "
            f"{taken} special, sentinel, coordinate and class tokens"
        )
    return vocab_size - taken


def load(directory: epath.PathLike) -> TextTokenizer:
    """Read what `TextTokenizer.save` wrote, or a folder that holds only a file of the HF format."""
    return TextTokenizer.load(directory)


def tiny() -> dict[str, dict[str, Any]]:
    """Small arguments of `TextTokenizer.train` by case name, for the contract test."""
    texts = ["a red sphere left of a small blue cube", "a potted plant"]
    return {
        "captions": {"texts": texts, "vocab_size": 120, "num_sentinels": 10, "num_bins": 5},
        "class_names": {"texts": texts, "vocab_size": 4300, "class_names": ["potted plant"]},
    }


def _is_normal(backend: tokenizers.Tokenizer, name: str) -> bool:
    """Whether normalization leaves a name alone; a token that it changes decodes to the change."""
    return backend.normalizer.normalize_str(name) == name


def _card_size(path: epath.Path) -> int:
    """vocab_size of a text tokenizer's card."""
    card = io.read_json(path)
    if not isinstance(card, dict) or card.get("family") != FAMILY:
        raise ValueError(f"{path} is no card of family {FAMILY!r}: {plain_data.shown(card)}")
    rules = {"vocab_size": plain_data.integer(1, hf_file.MAX_ID)}
    plain_data.check(card, rules, path, required=rules)
    return card["vocab_size"]


def _is_sentinel(id: int, vocabulary: TextVocabulary) -> bool:
    return 0 <= id - vocabulary.first_sentinel_id < vocabulary.num_sentinels


def _controls(layout: TextVocabulary) -> list[str]:
    """Special, sentinel and coordinate tokens in the order of their ids."""
    return [
        *SPECIAL,
        *(f"[S_{i}]" for i in range(layout.num_sentinels)),
        *(f"v{axis}={bin}" for axis in range(layout.num_axes) for bin in range(layout.num_bins)),
    ]


def _layout(backend: tokenizers.Tokenizer, where: str) -> TextVocabulary:
    """Vocabulary layout of a tokenizer, read from its tokens and checked."""
    ids = backend.get_vocab()
    missing = [token for token in SPECIAL if token not in ids]
    if missing:
        raise ValueError(f"{where}: no tokens {missing}; a text tokenizer has {list(SPECIAL)}")
    num_sentinels = sum(token.startswith("[S_") and token.endswith("]") for token in ids)
    num_bins = sum(token.startswith("v0=") for token in ids)
    layout = TextVocabulary(
        pad_id=ids["[PAD]"],
        unk_id=ids["[UNK]"],
        sos_id=ids["[SOS]"],
        eos_id=ids["[EOS]"],
        first_sentinel_id=ids.get("[S_0]", max(ids[token] for token in SPECIAL) + 1),
        num_sentinels=num_sentinels,
        num_bins=num_bins,
    )
    for i, token in enumerate(_controls(layout)[len(SPECIAL) :]):
        if ids.get(token) != layout.first_sentinel_id + i:
            raise ValueError(
                f"{where}: token {token!r} has id {ids.get(token)}, expected "
                f"{layout.first_sentinel_id + i} (sentinels, then coordinates, without gaps)"
            )
    return layout
