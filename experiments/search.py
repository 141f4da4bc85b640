"""Find the records of an index that are nearest to any condition, exactly, and draw them.

python -m experiments.search --index=runs/index --query='caption=a red cone' --k=5 \
    --output=neighbours.png

The index is a folder of `experiments.embed`; a query is NAME=VALUE as in `experiments.generate`
(several are seen together). Its features are those of the index: with "global", any condition finds
any record, as all predict the same vector.
"""

from absl import flags

from experiments import cli

cli.set_environment()

from fourm_jax import loading  # noqa: E402
from fourm_jax.evals import pictures, search  # noqa: E402
from fourm_jax.generate import condition_files  # noqa: E402
from fourm_jax.jobs import embedding, searching  # noqa: E402
from fourm_jax.utils import io  # noqa: E402

_INDEX = cli.define_path("index", None, "Folder of the vectors.", required=True)
_SOURCE = cli.define_path("source", None, "The model; default: where the index had it.")
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_QUERY = cli.define_names("query", [], "NAME=VALUE: a text, a picture, a file.", repeatable=True)
_K = flags.DEFINE_integer("k", 5, "How many records.", lower_bound=1)
_BACKEND = flags.DEFINE_enum("backend", "numpy", list(search.BACKENDS), "What multiplies.")
_OUTPUT = cli.define_path("output", None, "NAME.png of the nearest; default: none.", written="file")


def main() -> None:
    """Read the index, search, draw."""
    if not _QUERY.value:
        raise ValueError("no query: --query=NAME=VALUE, as --query='caption=a red cone'")
    if _OUTPUT.value and _OUTPUT.value.suffix != ".png":
        raise ValueError(f"--output={_OUTPUT.value}, allowed: NAME.png")
    index = embedding.load(_INDEX.value)
    source = _SOURCE.value or index.about["source"]
    generator = loading.load_generator(source, tokenizers=_TOKENIZERS.value)
    query = {}
    for text in _QUERY.value:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--query={text}, expected NAME=VALUE")
        query[name] = condition_files.read(value, generator.spec(name))
    hits = searching.find(generator, index, query, _K.value, backend=_BACKEND.value)
    for row, cosine in zip(hits.rows[0], hits.cosines[0], strict=True):
        print(f"{cosine:.4f} {index.keys[row]}")
    if _OUTPUT.value:
        picture = searching.draw(generator, index, query, hits)
        io.write_bytes(_OUTPUT.value, pictures.png(picture))
        print(f"nearest: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
