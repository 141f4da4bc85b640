"""Recorded runs of the published sampler, read from a folder.

It holds `meta.json`, `inputs.safetensors` and `outputs.safetensors`: schedules, initial mod dicts,
and per step logits, positions, samples and confidences. Sampling is deterministic there: the most
likely id of the filtered distribution is taken.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from experiments.parity import published_sampler
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.modalities.vocabulary import TextVocabulary
from fourm_jax.ops import sampling

NUM_SENTINELS = 10  # of the recorded cases, where their description says nothing else


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded run.

    Attributes:
      name: of the case.
      meta: its entry of meta.json.
      mod_dict: initial entries of all modalities, conditions of multi-guidance included.
      conditions: groups of multi-guidance, else empty.
      outputs: recorded arrays, names without the case.
      vocabulary: of its texts.
    """

    name: str
    meta: Mapping[str, Any]
    mod_dict: published_sampler.ModDict
    conditions: tuple[tuple[str, ...], ...]
    outputs: Mapping[str, np.ndarray]
    vocabulary: TextVocabulary

    @property
    def steps(self) -> tuple[Step, ...]:
        return published_sampler.read_steps(self.meta["schedule"])

    @property
    def sampling(self) -> Sampling:
        top_k = self.meta.get("top_k", 0)
        return Sampling(
            top_k=min(top_k, 1.0) if isinstance(top_k, float) else top_k,  # a share of all ids
            top_p=self.meta.get("top_p", 0.0),
            draw=sampling.draw_most_likely,
            as_published=True,
        )

    def passes(self) -> list[tuple[int, Step]]:
        """Recorded step number and step of every pass over a grid."""
        return list(enumerate(s for s in self.steps if s.scheme != "autoregressive"))


def read_cases(folder: pathlib.Path, pixels: Mapping[str, np.ndarray]) -> Iterator[Case]:
    """All cases of a folder.

    Args:
      folder: see the module.
      pixels: tensors [at least b, 3, h, w] that the inputs leave out, before the case's
        `rgb_scale`.

    Raises:
      ValueError: a description of the text tokenizer that does not fit the common layout.
    """
    meta = json.loads((folder / "meta.json").read_text())
    vocabulary = read_vocabulary(meta.get("text_tokenizer", {}))
    inputs = load_file(folder / "inputs.safetensors")
    outputs = load_file(folder / "outputs.safetensors")
    for name, entry in meta["cases"].items():
        groups: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        for key, value in below(inputs, name).items():
            *group, modality, field = key.split("/")
            groups.setdefault("".join(group), {}).setdefault(modality, {})[field] = value
        mod_dict = {m: fields for group in groups.values() for m, fields in group.items()}
        for modality, tensor in pixels.items():
            if modality in mod_dict:
                rows = tensor[: len(mod_dict[modality]["input_mask"])]
                mod_dict[modality]["tensor"] = rows * np.float32(entry.get("rgb_scale", 1.0))
        conditions = tuple(
            tuple(groups[f"cond{i}"]) for i in range(len(groups)) if f"cond{i}" in groups
        )
        yield Case(name, entry, mod_dict, conditions, below(outputs, name), vocabulary)


def read_vocabulary(description: Mapping[str, Any]) -> TextVocabulary:
    """Layout of the text vocabulary of recorded runs: {"sentinels": "ids 4..13 …", "eos": 3, …}.

    Raises:
      ValueError: ids that are not those of the common layout.
    """
    common = TextVocabulary(num_sentinels=NUM_SENTINELS)
    ids = re.search(r"(\d+)\.\.(\d+)", str(description.get("sentinels", "")))
    first, last = map(int, ids.groups()) if ids else (4, 3 + NUM_SENTINELS)
    found = (description.get("pad", 0), description.get("eos", 3), first)
    if found != (common.pad_id, common.eos_id, common.first_sentinel_id):
        raise ValueError(
            f"text tokenizer with pad, eos, first sentinel {found}, expected (0, 3, 4)"
        )
    return TextVocabulary(num_sentinels=last - first + 1)


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Entries below a prefix, without it."""
    start = prefix + "/"
    return {key[len(start) :]: value for key, value in arrays.items() if key.startswith(start)}
