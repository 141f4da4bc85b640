"""Learn the text tokenizer's word pieces from the captions of a data source.

python -m experiments.train_text_tokenizer --records=scenes --num_records=4096 --output=DIR

Captions of your own pictures: --records=token_shards --directory=runs/pictures/raw.
"""

from typing import Any

from absl import flags

from experiments import cli
from fourm_jax.data import datasets
from fourm_jax.modalities import captions
from fourm_jax.modalities.vocabulary import PUBLISHED
from fourm_jax.tokenizers import store, text
from fourm_jax.utils import progress

_RECORDS = flags.DEFINE_string(
    "records", "scenes", "What has captions: a file of fourm_jax/data/sources."
)
_DIRECTORY = cli.define_path("directory", None, "Folder that is read, where one is.")
_COUNT = flags.DEFINE_integer(
    "num_records", 4096, "The first so many training records are read.", lower_bound=1
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size", 4608, "Rows of the embedding table; pieces may be fewer."
)
_OUTPUT = cli.define_path(
    "output", None, "Folder for tokenizer.json and card.json.", required=True, written="folder"
)


def main() -> None:
    """Learn and save."""
    text.room_for_pieces(_VOCAB_SIZE.value, PUBLISHED, num_class_names=0)  # before all is read
    store.check_output(_OUTPUT.value)
    source = open_source()
    count = min(_COUNT.value, len(source))
    texts, class_names, damaged = [], set(), []
    bar = progress.Bar(count, label="captions", unit="record")
    for index in range(count):
        (record,) = datasets.read_records(source, [index], _RECORDS.value)
        if isinstance(record, ValueError):
            damaged.append(record)
            continue
        texts.extend(captions.every(record.get("caption", ())))
        class_names.update(record.get("det", {}).get("classes", ()))
        bar.update(index + 1)
    bar.close()
    if damaged:
        progress.announce(f"{len(damaged)} of {count} records left out; the first: {damaged[0]}")
    if not texts:
        raise ValueError(f"none of the first {count} records of {_RECORDS.value!r} has a caption")
    tokenizer = text.TextTokenizer.train(
        texts, vocab_size=_VOCAB_SIZE.value, class_names=sorted(class_names)
    )
    tokenizer.save(_OUTPUT.value)
    progress.announce(
        f"{tokenizer.backend.get_vocab_size()} of {tokenizer.vocab_size} tokens from "
        f"{len(texts)} captions and {len(class_names)} class names -> {_OUTPUT.value}"
    )


def open_source() -> datasets.Source:
    """The training split of the source that the flags name."""
    arguments: dict[str, Any] = {"directory": _DIRECTORY.value} if _DIRECTORY.value else {}
    if "num_records" in datasets.argument_names(_RECORDS.value):
        arguments["num_records"] = _COUNT.value
    return datasets.open_source(_RECORDS.value, "train", arguments)


if __name__ == "__main__":
    cli.run(main)
