"""The contract of tokenizers: find a family by name, build it, save it, load it.

A family is one file of this package. It has `tiny()`, which returns small arguments by case name
for the contract test, and one of two functions:

- `build(**arguments)` returns a Flax module with `encode(raw) -> ids`, `decode(ids) -> raw`,
  `codes(ids) -> vectors`, `decode_probabilities(probabilities) -> raw` and
  `__call__(raw, train) -> TokenizerOutput`, and fields `signal`, `grid` and `quantizer`. Raw arrays
  are in their natural range; normalization happens inside.
- `load(directory)` returns a `SequenceTokenizer`, where the tokenizer is no Flax module.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float, Int, Num

from fourm_jax import tokenizers
from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.tokenizers import card as card_lib
from fourm_jax.tokenizers import store
from fourm_jax.tokenizers.signal import Signal
from fourm_jax.tokenizers.trained import TrainedTokenizer
from fourm_jax.utils import errors, modules, tree


@runtime_checkable
class Tokenizer(Protocol):
    """Raw arrays of one modality <-> ids; `trained.TrainedTokenizer` is one."""

    @property
    def card(self) -> card_lib.Card:
        """Vocabulary, grid and codes per position, among others."""
        ...

    @property
    def signal(self) -> Signal:
        """What raw arrays look like."""
        ...

    def encode(self, raw: Num[np.ndarray, "b ..."]) -> Int[np.ndarray, "b ..."]:
        """Return int32 ids: [b, y, x] of images, [b, codes] of vectors."""
        ...

    def decode(self, ids: Int[np.ndarray, "b ..."]) -> Num[np.ndarray, "b ..."]:
        """Return the raw batch that ids stand for."""
        ...

    def decode_probabilities(
        self, probabilities: Float[np.ndarray, "b ... vocab"]
    ) -> Num[np.ndarray, "b ..."]:
        """Return the raw batch of the average codes under `probabilities`."""
        ...


@runtime_checkable
class SequenceTokenizer(Protocol):
    """Text <-> ids, row by row; `text.TextTokenizer` is one."""

    @property
    def vocabulary(self) -> TextVocabulary:
        """Where special, sentinel and coordinate tokens lie."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table that it needs."""
        ...

    def encode(self, text: str) -> Int[np.ndarray, "l"]:
        """Return the ids of a text as it stands, sentinels included, without [EOS]."""
        ...

    def encode_sequence(
        self, text: str | Sequence[str], *, max_tokens: int, chunked: bool = False
    ) -> tuple[Int[np.ndarray, "l"], Int[np.ndarray, "l"]]:
        """Return the ids of a complete text with [EOS], and the chunk that each belongs to."""
        ...

    def strange_words(self, text: str) -> list[str]:
        """Return the words that training can hardly have taught."""
        ...

    def words(self) -> list[str]:
        """Return the whole words of the vocabulary."""
        ...

    def decode_content(self, ids: Int[np.ndarray, "l"]) -> str:
        """Return what ids say up to the first [EOS], without control tokens."""
        ...


Tokenizers = Mapping[str, Tokenizer | SequenceTokenizer]  # by `ModalitySpec.tokenizer`


def families() -> tuple[str, ...]:
    """Names of all families, alphabetically."""
    return tuple(sorted(modules.offering(tokenizers, "tiny")))


def get(family: str) -> ModuleType:
    """Return the Python module of a family.

    Raises:
      ValueError: there is none of this name.
    """
    return modules.get(tokenizers, "tiny", family, "tokenizer family")


def build(family: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the Flax module of a family; `arguments` are plain data.

    Raises:
      ValueError: an unknown family, one whose tokenizers are no Flax modules, or arguments that its
        `build` refuses.
    """
    module = get(family)
    if not hasattr(module, "build"):
        raise ValueError(f"tokenizer family {family!r} has no Flax module to build")
    return module.build(**arguments)


def make_card(
    name: str,
    family: str,
    arguments: Mapping[str, Any],
    *,
    reconstruction: Mapping[str, float] | None = None,
    training_steps: int = 0,
) -> card_lib.Card:
    """Return the card of a tokenizer; grid, vocabulary and signal come from the module.

    Raises:
      ValueError: arguments that `build` refuses, or that nobody would read on a card.
    """
    card_lib.check_arguments(card_lib.plain_arguments(arguments), f"tokenizer {name!r}")
    module = build(family, arguments)
    return card_lib.Card(
        name=name,
        family=family,
        arguments=card_lib.plain_arguments(arguments),
        reconstruction={key: float(value) for key, value in (reconstruction or {}).items()},
        training_steps=training_steps,
        signal=card_lib.describe_signal(module.signal),
        grid=module.grid,
        vocab_size=module.quantizer.num_codes,
        codes_per_position=module.quantizer.num_heads,
    )


def save(
    directory: epath.PathLike,
    module: nn.Module,
    variables: Mapping[str, Any],
    card: card_lib.Card,
) -> None:
    """Write weights and card, atomically.

    Raises:
      ValueError: variables do not fit `module`; `directory` holds something else.
    """
    tensors = {name: np.asarray(leaf) for name, leaf in tree.named_leaves(variables).items()}
    store.check_tensors(
        tensors, tree.named_leaves(abstract_variables(module)), f"tokenizer {card.name!r}"
    )
    store.write(directory, tensors, card)


def load(directory: epath.PathLike) -> TrainedTokenizer | SequenceTokenizer:
    """Read the tokenizer in a folder, whatever its family.

    Raises:
      ValueError: no tokenizer there, an unknown family, or what `load_trained` or the family's
        `load` refuses.
    """
    family = get(store.read_family(directory))
    return family.load(directory) if hasattr(family, "load") else load_trained(directory)


def load_trained(directory: epath.PathLike) -> TrainedTokenizer:
    """Read what `save` wrote.

    Raises:
      ValueError: no tokenizer there, an unknown family, a card that does not fit its arguments,
        a tensor missing, unknown or of another shape.
    """
    card, tensors = store.read(directory)
    with errors.described_by(epath.Path(directory) / store.CARD):
        expected = make_card(card.name, card.family, card.arguments)
        module = build(card.family, card.arguments)
        abstract = abstract_variables(module)
    for field in ("vocab_size", "grid", "codes_per_position", "signal"):
        declared, derived = getattr(card, field), getattr(expected, field)
        if _plain(declared) != _plain(derived):
            raise ValueError(
                f"{directory}: card says {field} {declared}, its arguments give {derived}"
            )
    store.check_tensors(tensors, tree.named_leaves(abstract), str(directory))
    variables = tree.map_named(lambda name, _: jnp.asarray(tensors[name]), abstract)
    return TrainedTokenizer(module, variables, card)


def abstract_variables(module: nn.Module) -> Mapping[str, Any]:
    """Shapes and types of the variables, without computing any."""
    size = module.image_size

    def initialize(key):
        return module.init(key, module.signal.example(key, size, batch=1))

    return jax.eval_shape(initialize, jax.random.key(0))


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON returns them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
