"""Learn the text tokenizer's word pieces from the captions of a data source.

python -m experiments.train_text_tokenizer --source=scenes --num_records=4096 --output=DIR
"""

from absl import app, flags

from experiments import cli
from fourm_jax.data import sources
from fourm_jax.modalities import captions
from fourm_jax.tokenizers import text

FLAGS = flags.FLAGS
flags.DEFINE_string("source", "scenes", "Module of fourm_jax/data whose make_source is read.")
flags.DEFINE_integer("num_records", 4096, "How many training records to read.")
flags.DEFINE_integer("vocab_size", 4608, "Rows of the embedding table; pieces may be fewer.")
flags.DEFINE_string("output", None, "Folder for tokenizer.json and card.json.", required=True)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    source = sources.open_source(FLAGS.source, "train", {"num_records": FLAGS.num_records})
    texts, class_names = [], set()
    for index in range(len(source)):
        record = source[index]
        texts.append(captions.serialize(record["caption"]))
        class_names.update(record.get("det", {}).get("classes", ()))
    tokenizer = text.TextTokenizer.train(
        texts, vocab_size=FLAGS.vocab_size, class_names=sorted(class_names)
    )
    tokenizer.save(FLAGS.output)
    print(
        f"{tokenizer.backend.get_vocab_size()} of {tokenizer.vocab_size} tokens from "
        f"{len(texts)} captions and {len(class_names)} class names -> {FLAGS.output}"
    )


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse)
