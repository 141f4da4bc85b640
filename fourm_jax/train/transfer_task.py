"""Training task of a transfer: labels of pictures or pixels, from the encoder of a trunk."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import (
    all_visible,
    embeddings,
    fourm,
    heads,
    lora,
    parts,
    think_first,
    transformer,
    weights,
)
from fourm_jax.models.heads.base import MERGES, Features, merge_grids
from fourm_jax.ops import mixing
from fourm_jax.train import step
from fourm_jax.utils import errors, modules, rng

# What is predicted: a class per picture or pixel, or numbers per picture or pixel.
PROBLEMS = ("classes", "class_map", "values", "value_map")
IGNORED = 255  # the label of a picture or pixel that counts nowhere, see `Labels.ignored`
LABEL = "label"  # key of the labels in a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """What `config.transfer` says about labels and how they are learned.

    Attributes:
      problem: one of `PROBLEMS`.
      num_outputs: classes, or numbers.
      field: of the records that holds the labels.
      mean, std: of numbers: they are learned in standard deviations from their mean.
      label_smoothing: share of the target that goes to all classes alike.
      mixup, cutmix: concentrations of the Beta draws that mix two pictures and their labels
        (arXiv:1710.09412, arXiv:1905.04899); 0 = off, both: one of them by chance.
      mirror: whether every other picture is seen from left to right, with the map of its labels;
        not for numbers that say where something is.
      modality_dropout: probability that a sample lacks an input; one always stays.
      merge: how inputs on one grid become features of pixels, one of `heads.base.MERGES`.
      lora_rank: of adapters on `lora_pattern`; 0 = none.
      lora_pattern: regex on the paths of encoder kernels.
      lora_scale: factor on what the adapters add.
    """

    problem: str
    num_outputs: int
    field: str = LABEL
    mean: float = 0.0
    std: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mirror: bool = False
    modality_dropout: float = 0.0
    merge: str = "none"
    lora_rank: int = 0
    lora_pattern: str = lora.ALL
    lora_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.problem not in PROBLEMS:
            raise ValueError(errors.unknown_value("transfer.problem", self.problem, PROBLEMS))
        if self.merge not in MERGES:
            raise ValueError(errors.unknown_value("transfer.merge", self.merge, MERGES))
        for name, is_allowed, allowed in (
            ("num_outputs", self.num_outputs >= 1, "at least 1"),
            ("std", self.std > 0, "above 0"),
            ("lora_rank", self.lora_rank >= 0, "at least 0"),
            ("mixup", self.mixup >= 0, "at least 0"),
            ("cutmix", self.cutmix >= 0, "at least 0"),
        ):
            if not is_allowed:
                raise ValueError(f"transfer.{name} {getattr(self, name)}, must be {allowed}")
        for name in ("label_smoothing", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"transfer.{name} {getattr(self, name)}, allowed: 0 <= x < 1")
        for name in ("label_smoothing", "mixup", "cutmix"):
            if getattr(self, name) and self.problem != "classes":
                raise ValueError(f"transfer.{name} is for problem 'classes' alone")

    @property
    def has_classes(self) -> bool:
        """Whether labels are class indices."""
        return self.problem in ("classes", "class_map")

    @property
    def has_pixels(self) -> bool:
        """Whether every pixel has a label."""
        return self.problem in ("class_map", "value_map")

    @property
    def ignored(self) -> int:
        """The class that counts nowhere: 255, or -1 where there are so many that 255 is one."""
        return IGNORED if self.num_outputs <= IGNORED else -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferTask:
    """Fine-tune the encoder of a trunk, or adapters in it, under a head.

    Attributes:
      model: the trunk; its inputs are those of the transfer, the first one a picture. Where it has
        outputs, grids or global ones, the head also reads what the decoder makes of all of their
        positions.
      head: see `models.heads`.
      labels_of: what is predicted.
      thinker: a trunk whose outputs are predicted first, in one pass from the other inputs, and
        then are inputs like any other ("think first"); it never learns.
      anew: regex of the parts that no base gives (`init.reset`); "": none.
    """

    model: fourm.FourM
    head: nn.Module
    labels_of: Labels
    thinker: fourm.FourM | None = None
    anew: str = ""

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first, *others = self.inputs
        if first.kind != "pixels" or first.name != self.model.inputs[0]:
            raise ValueError(f"the first input of a transfer is a picture, got {first.name!r}")
        settings = self.labels_of
        changes = settings.mixup or settings.cutmix or settings.mirror
        if changes and any(spec.kind != "pixels" for spec in others):
            raise ValueError(
                "transfer.mixup, cutmix and mirror change pictures; inputs must all be pixels"
            )
        for spec in self.model.modalities:
            if spec.name in self.model.outputs and spec.kind not in ("grid", "global"):
                raise ValueError(
                    f"the head reads outputs of fixed positions, {spec.name!r} is a {spec.kind}"
                )
        for depth in self.depths:
            if not 1 <= depth <= self.model.encoder_depth:
                raise ValueError(
                    f"head.depths: {depth}, allowed: 1..{self.model.encoder_depth}, the blocks"
                )

    @property
    def inputs(self) -> tuple[ModalitySpec, ...]:
        """What is read, in the order of the model's inputs."""
        return self._specs(self.model.inputs)

    def _specs(self, names: Sequence[str]) -> tuple[ModalitySpec, ...]:
        by_name = {spec.name: spec for spec in self.model.modalities}
        return tuple(by_name[name] for name in names)

    @property
    def depths(self) -> tuple[int, ...]:
        """Encoder blocks whose features the head reads beside the last ones."""
        return getattr(self.head, "depths", ())

    @property
    def flops_per_sample(self) -> None:
        """Not counted."""
        return None

    @property
    def packed(self) -> parts.Packed:
        """Tables of the trunk, and of what thinks first."""
        packed = parts.under(parts.packed_tables(self.model), "trunk")
        if self.thinker is None:
            return packed
        return packed | parts.under(parts.packed_tables(self.thinker), "thinker")

    @property
    def function(self) -> Mapping[str, Any]:
        """Settings of the trunk that no shape tells."""
        return weights.function_of(self.model)

    def never_learns(self, part: str) -> bool:
        """Whether a part is of what thinks first, or of the encoder under adapters.

        What starts anew of that encoder, such as a vector that the base does not read, learns and
        is saved with the adapters.
        """
        if part.startswith("thinker/"):
            return True
        is_new = bool(self.anew) and re.search(self.anew, part) is not None
        return self.labels_of.lora_rank > 0 and part.startswith("trunk/") and not is_new

    def init(self, key: Key[Array, ""], batch: Any) -> tuple[Any, Any]:
        """Initialize encoder and head, and adapters where there are some."""
        if self.thinker is not None:
            num_samples = len(batch[self.model.inputs[0]]["present"])
            batch = {**batch, **think_first.blank(self.thinker, num_samples)}
        tokens = jax.tree.map(jnp.asarray, self.show(batch, None))
        method = "__call__" if self.model.outputs else "encode"
        trunk = self.model.init(rng.stream(key, "trunk"), tokens, method=method)["params"]
        features = self.features(trunk, tokens, None, train=False)
        head = self.head.init(rng.stream(key, "head"), features)["params"]
        params = {"trunk": trunk, "head": head}
        if self.thinker is not None:
            asked = think_first.questions(self.thinker, batch)
            params["thinker"] = self.thinker.init(rng.stream(key, "thinker"), asked)["params"]
        if self.labels_of.lora_rank:
            adapters = lora.init(
                rng.stream(key, "adapters"),
                trunk,
                pattern=self.labels_of.lora_pattern,
                rank=self.labels_of.lora_rank,
            )
            params["adapters"] = flax.traverse_util.unflatten_dict(adapters, sep="/")
        return params, {}

    def show(self, batch: Any, visible: Bool[Array, "b m"] | None) -> Any:
        """The inputs of a batch as tokens, and the positions of the outputs as targets."""
        if self.model.outputs:
            return think_first.questions(self.model, batch, visible)
        return all_visible.show(batch, self.model.inputs, self.model.modalities, visible)

    def features(
        self, trunk: Any, tokens: Any, drop_key: Key[Array, ""] | None, *, train: bool
    ) -> Features:
        """Features of encoder and decoder, without registers and slots that the model adds."""
        rngs = {} if drop_key is None else {"drop_path": drop_key}
        apply = functools.partial(self.model.apply, {"params": trunk}, tokens, train, rngs=rngs)
        streams: Any = ()
        if self.depths:
            encoded, kept = apply(method="encode", mutable=[transformer.DEPTHS])
            (streams,) = kept[transformer.DEPTHS]["encoder"]["blocks"]["stream"]
        else:
            encoded = apply(method="encode")
        assert isinstance(encoded, fourm.Encoded)
        specs, valid = self.inputs, tokens.inputs.valid

        def own(slots: Float[Array, "b n d"]) -> Float[Array, "b s d"]:
            first = self.model.num_registers
            return slots[:, first : first + valid.shape[1]].astype(jnp.float32)

        hidden = own(encoded.hidden)
        merge = self.labels_of.merge
        levels = tuple(merge_grids(own(streams[d - 1]), valid, specs, merge) for d in self.depths)
        if self.model.outputs:
            decoded: Any = self.model.apply(
                {"params": trunk}, encoded, tokens.targets, train, method="decode", rngs=rngs
            )
            hidden = jnp.concatenate([hidden, decoded.astype(jnp.float32)], axis=1)
            valid = jnp.concatenate([valid, tokens.targets.valid], axis=1)
            specs += self._specs(self.model.outputs)
        return Features(hidden, valid, merge_grids(hidden, valid, specs, merge), levels)

    def predict(
        self,
        params: Any,
        batch: Any,
        *,
        visible: Bool[Array, "b m"] | None = None,
        drop_key: Key[Array, ""] | None = None,
        train: bool = False,
    ) -> Array:
        """Logits, or values in standard deviations from their mean."""
        if self.thinker is not None:
            batch = {**batch, **think_first.answers(self.thinker, params["thinker"], batch)}
        trunk = self.trunk_params(params)
        features = self.features(trunk, self.show(batch, visible), drop_key, train=train)
        output: Any = self.head.apply({"params": params["head"]}, features, train)
        return output

    def trunk_params(self, params: Any) -> Any:
        """The parameters of the encoder, adapters merged."""
        if not self.labels_of.lora_rank:
            return params["trunk"]
        adapters = lora.by_path(params["adapters"])
        return lora.merge(params["trunk"], adapters, self.labels_of.lora_scale)

    def loss(
        self, params: Any, model_state: Any, batch: Any, key: Key[Array, ""], train: bool
    ) -> tuple[Float[Array, ""], step.Aux]:
        """Loss of the global batch and how many labels are met."""
        mix_key, drop_key, dropout_key = jax.random.split(key, 3)
        settings, labels = self.labels_of, jnp.asarray(batch[LABEL])
        visible = None
        if train and settings.modality_dropout:
            there = self._present(batch, len(labels))
            visible = keep_some(dropout_key, there, settings.modality_dropout)
        if train and settings.mirror:
            batch, labels = self._mirrored(rng.stream(key, "mirror"), batch, labels)
        if not settings.has_classes:
            output = self.predict(params, batch, visible=visible, drop_key=drop_key, train=train)
            value, aux = self._value_loss(output, labels)
            return value, step.Aux(aux, model_state)
        targets = jax.nn.one_hot(labels, settings.num_outputs)  # zeros of what does not count
        if train and (settings.mixup or settings.cutmix):
            batch, targets = self._mixed(mix_key, batch, targets)
        logits = self.predict(params, batch, visible=visible, drop_key=drop_key, train=train)
        value = class_loss(logits, targets, settings.label_smoothing if train else 0.0)
        counted = (labels != settings.ignored).astype(jnp.float32)
        hits = (logits.argmax(-1) == labels) * counted
        aux = {"loss": (value, jnp.float32(1)), "accuracy": (hits.sum(), counted.sum())}
        return value, step.Aux(aux, model_state)

    def _value_loss(self, output: Array, labels: Array) -> tuple[Float[Array, ""], Any]:
        """Mean absolute error in standard deviations; labels that are not finite do not count."""
        labels = labels.reshape(output.shape).astype(jnp.float32)
        known = jnp.isfinite(labels)
        wanted = (jnp.where(known, labels, 0) - self.labels_of.mean) / self.labels_of.std
        errors_of = jnp.abs(output - wanted) * known
        total = known.sum(dtype=jnp.float32)
        value = errors_of.sum() / jnp.maximum(total, 1)
        mae = (errors_of.sum() * self.labels_of.std, total)
        return value, {"loss": (value, jnp.float32(1)), "mae": mae}

    def _present(self, batch: Any, num_samples: int) -> Bool[Array, "b m"]:
        """Which samples have which inputs; what is thought first, all of them."""
        thought = () if self.thinker is None else self.thinker.outputs

        def of(name: str) -> Bool[Array, "b"]:
            entry = {"present": True} if name in thought else batch[name]
            there = jnp.asarray(entry["length" if "length" in entry else "present"]) > 0
            return jnp.broadcast_to(there, (num_samples,))

        return jnp.stack([of(name) for name in self.model.inputs], axis=1)

    def _mirrored(self, key: Key[Array, ""], batch: Any, labels: Array) -> tuple[Any, Array]:
        """The batch with half of its pictures, and their label maps, from left to right."""
        chosen = jax.random.bernoulli(key, shape=(len(labels),))

        def turned(values: Array) -> Array:
            values = jnp.asarray(values)
            where = chosen.reshape(-1, *[1] * (values.ndim - 1))
            return jnp.where(where, values[:, :, ::-1], values)

        pictures = {
            name: {**batch[name], "pixels": turned(batch[name]["pixels"])}
            for name in self.model.inputs
        }
        return {**batch, **pictures}, turned(labels) if self.labels_of.has_pixels else labels

    def _mixed(
        self, key: Key[Array, ""], batch: Any, targets: Float[Array, "b k"]
    ) -> tuple[Any, Float[Array, "b k"]]:
        """The batch with its pictures mixed, and what becomes of the targets.

        A picture whose partner is not there is mixed with itself: what is not there is no black.
        """

        def prepared(spec: ModalitySpec) -> Float[Array, "b h w c"]:
            entry = batch[spec.name]
            picture = embeddings.normalize(entry["pixels"], spec.channel_names)
            present = jnp.asarray(entry["present"])[:, None, None, None]
            return jnp.where(present, picture, picture[::-1])

        pictures = {spec.name: prepared(spec) for spec in self.inputs}
        pictures, targets = mixing.mix(
            key, pictures, targets, mixup=self.labels_of.mixup, cutmix=self.labels_of.cutmix
        )
        mixed = {name: {**batch[name], "pixels": value} for name, value in pictures.items()}
        return {**batch, **mixed}, targets


def class_loss(
    logits: Float[Array, "*b k"], targets: Float[Array, "*b k"], label_smoothing: float
) -> Float[Array, ""]:
    """Mean cross-entropy of the labels that count.

    Args:
      targets: shares of a sample's labels. They sum to 1, or to less where a label of a mixed
        sample does not count: the others keep their shares, which weigh the sample in the mean.
      label_smoothing: part of these shares that goes to all classes alike.
    """
    counted = targets.sum(-1)
    evenly = counted[..., None] / targets.shape[-1]
    smoothed = targets * (1 - label_smoothing) + evenly * label_smoothing
    total = counted.sum()
    return -(jax.nn.log_softmax(logits) * smoothed).sum() / jnp.where(total > 0, total, 1)


def keep_some(
    key: Key[Array, ""], present: Bool[Array, "b m"], probability: float
) -> Bool[Array, "b m"]:
    """Drop each of the inputs that a sample has; one that would lose all of them keeps one."""
    drop_key, one_key = jax.random.split(key)
    kept = present & (jax.random.uniform(drop_key, present.shape) >= probability)
    one = jnp.argmax(jnp.where(present, jax.random.uniform(one_key, present.shape), -1.0), axis=1)
    only = jax.nn.one_hot(one, present.shape[1], dtype=bool)
    return jnp.where(kept.any(1, keepdims=True), kept, present & only)


def make_head(
    name: str, num_outputs: int, image_size: tuple[int, int], **options: Any
) -> nn.Module:
    """Return a head by the name of its file in `models.heads`.

    Raises:
      ValueError: no such head or option.
    """
    module = modules.get(heads, "make", name, "head")
    try:
        return module.make(num_outputs, image_size, **options)
    except TypeError as error:
        raise ValueError(f"head {name!r}: {error}") from error
