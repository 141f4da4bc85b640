"""Learn the text tokenizer's word pieces from the captions of a data source.

python -m experiments.train_text_tokenizer --source=scenes --num_records=4096 --output=DIR

Captions of your own pictures: --source=token_shards --directory=runs/pictures/raw.
"""

from typing import Any

from absl import flags

from experiments import cli
from fourm_jax.data import datasets
from fourm_jax.modalities import captions
from fourm_jax.tokenizers import text
from fourm_jax.utils import progress

FLAGS = flags.FLAGS
flags.DEFINE_string("source", "scenes", "Module of fourm_jax/data/sources that is read.")
flags.DEFINE_string("directory", "", "Folder that the source reads, where it reads one.")
flags.DEFINE_integer("num_records", 4096, "The first so many training records are read.")
flags.DEFINE_integer("vocab_size", 4608, "Rows of the embedding table; pieces may be fewer.")
flags.DEFINE_string("output", None, "Folder for tokenizer.json and card.json.", required=True)


def main() -> None:
    """Learn and save."""
    source = open_source()
    count = min(FLAGS.num_records, len(source))
    texts, class_names = [], set()
    bar = progress.Bar(count, label="records", enabled=True)
    for index in range(count):
        record = source[index]
        texts.extend(all_captions(record.get("caption", ())))
        class_names.update(record.get("det", {}).get("classes", ()))
        bar.update(index + 1)
    bar.close()
    if not texts:
        raise ValueError(f"none of the first {count} records of {FLAGS.source!r} has a caption")
    tokenizer = text.TextTokenizer.train(
        texts, vocab_size=FLAGS.vocab_size, class_names=sorted(class_names)
    )
    tokenizer.save(FLAGS.output)
    progress.announce(
        f"{tokenizer.backend.get_vocab_size()} of {tokenizer.vocab_size} tokens from "
        f"{len(texts)} captions and {len(class_names)} class names -> {FLAGS.output}"
    )


def open_source() -> datasets.Source:
    """The training split of the source that the flags name."""
    arguments: dict[str, Any] = {"directory": FLAGS.directory} if FLAGS.directory else {}
    if "num_records" in datasets.argument_names(FLAGS.source):
        arguments["num_records"] = FLAGS.num_records
    return datasets.open_source(FLAGS.source, "train", arguments)


def all_captions(value: Any) -> list[str]:
    """Every caption of a record."""
    several = value if isinstance(value, list | tuple) else [value]
    return [captions.serialize(one) for one in several]


if __name__ == "__main__":
    cli.run(main)
