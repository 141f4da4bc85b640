"""What may come next in a text: with trunks that want to write anything."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.generate import chain, next_tokens, sequences
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.schedule import Step
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.modalities import boxes, captions, serializers
from fourm_jax.modalities.grammar import Grammar
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.modalities.vocabulary import PUBLISHED, TextVocabulary
from fourm_jax.tokenizers import text
from tests.generate import tiny

PAD, UNK, SOS, EOS, S1, S2, S3 = 0, 1, 2, 3, 5, 6, 7
SIZE = 4245  # all of them tokens of `tokenizer`
CAPTIONS = ["a red sphere", "a blue cone", "two green cubes"]
SMALL = TextVocabulary(num_sentinels=3, num_bins=5)  # [S_i] 4..6, v0 7..11, … v3 22..26, words
V0, V1, V2, V3, WORD = 300, 1300, 2300, 3300, 4240

# What a grammar cannot know.
NUMBERS = {
    "captions": (),
    "boxes": ("xmin > xmax",),
    "metadata": (),
    "palette": (),
}


def spec_of(form):
    return ModalitySpec(
        name="text",
        kind="sequence",
        vocab_size=SIZE,
        max_tokens=40,
        tokenizer="text",
        text_form=form,
    )


@functools.cache
def tokenizer():
    trained = text.TextTokenizer.train(CAPTIONS, vocab_size=SIZE)
    assert trained.backend.get_vocab_size() == SIZE
    return trained


@dataclasses.dataclass
class Hostile:
    """A decoder of random logits that hang on row and place, with a liking for the end.

    Attributes:
      rows: [b] what makes a row itself.
      best: [b, n] tokens that are likeliest by far, 0: none.
    """

    rows: jax.Array
    best: jax.Array

    def start(self, tokens, num_steps):
        return jnp.zeros((len(self.rows), 0))

    def step(self, memory, token, index):
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(row), index))(self.rows)
        logits = 3.0 * jax.vmap(lambda key: jax.random.normal(key, (SIZE,)))(keys)
        wanted = jax.nn.one_hot(self.best[:, index % self.best.shape[1]], SIZE)
        return (logits + 500.0 * wanted).at[:, EOS].add(6.0).at[:, 0].add(-600.0), memory


@functools.partial(jax.jit, static_argnames=("stage", "form"))
def run(state, keys, rows, best, stage, form):
    return sequences.write_sequence(
        state,
        keys,
        jnp.float32(1.0),
        jnp.zeros(0),
        stage=stage,
        specs=(spec_of(form),),
        decoder=Hostile(rows, best),
    )


def write(form, prompts, *, best=(0,), rows=None, **changes):
    """Rows of ids, each from its prompt, of a trunk that wants `best` most."""
    spec = spec_of(form)
    width = max(map(len, prompts))
    ids = np.array([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    lengths = np.array([len(prompt) for prompt in prompts])
    state = states.create({"text": {"ids": ids, "length": lengths}}, ["text"], specs=(spec,))
    rows = np.arange(len(prompts)) if rows is None else np.asarray(rows)
    stage = SequenceStage(
        target="text",
        **{
            "max_new": 40,
            "length": 60,
            "grammar": next_tokens.grammar_of(spec, PUBLISHED),
            **changes,
        },
    )
    wanted = jnp.broadcast_to(jnp.asarray(best), (len(prompts), len(best)))
    done = run(state, chain.row_keys(0, rows), jnp.asarray(rows), wanted, stage, form)
    return [
        np.asarray(row)[np.asarray(mask)].tolist()
        for row, mask in zip(done.ids["text"], done.known["text"], strict=True)
    ]


@pytest.mark.parametrize("form", sorted(NUMBERS))
def test_a_hostile_trunk_writes_texts_that_can_be_read_but_for_their_numbers(form):
    rows = write(form, [[S1]] * 64)
    ended = [row for row in rows if row[-1] == EOS]
    assert len(ended) > 16
    for row in ended:
        assert not set(row[:-1]) & {PAD, UNK, SOS, EOS, *range(4, 204)}
        dropped = serializers.get(form).parse(tokenizer().decode_content(row)).dropped
        assert all(any(why in drop.reason for why in NUMBERS[form]) for drop in dropped), dropped


def test_without_grammar_the_same_trunk_writes_nothing_that_can_be_read():
    rows = write("boxes", [[S1]] * 64, grammar=None)
    parsed = [boxes.parse(tokenizer().decode_content(row)) for row in rows if len(row) > 1]
    assert parsed and all(one.dropped for one in parsed)


def test_what_the_trunk_wants_most_is_written_where_it_may_stand():
    assert write("boxes", [[S1]], best=(V0, V1, V2, V3, WORD, EOS)) == [[V0, V1, V2, V3, WORD, EOS]]
    assert write("captions", [[S1]], best=(WORD, WORD + 1, EOS)) == [[WORD, WORD + 1, EOS]]


def test_a_text_that_runs_on_is_cut_off_as_before():
    assert write("captions", [[S1]], best=(WORD,), max_new=3) == [[WORD] * 3]


def test_a_hole_goes_on_from_what_stands_before_it():
    rows = write("boxes", [[V0, V1, S1], [V0, V1, V2, V3, S1], [S1]], best=(V2, V3, WORD, EOS))
    assert rows[0] == [V0, V1, V2, V3, WORD, EOS]
    assert rows[1][4] >= PUBLISHED.num_reserved
    assert PUBLISHED.coordinate_id(0, 0) <= rows[2][0] < PUBLISHED.coordinate_id(1, 0)


def test_a_hole_with_words_behind_it_may_always_be_closed():
    behind = [V0, S1, V3, WORD, EOS]
    assert write("boxes", [behind], best=(S2,)) == [[V0, V3, WORD, EOS]]


def test_a_text_ends_where_the_grammar_lets_it():
    (row,) = write("boxes", [[V0, S1]], best=(EOS,))
    kinds = [(token - 204) // 1000 if token < 4204 else 4 for token in row[:-1]]
    assert kinds == [0, 1, 2, 3, 4]
    assert write("boxes", [[S1]], best=(EOS,)) == [[EOS]]


def test_the_second_hole_goes_on_from_what_stands_before_it():
    # In the first hole a name ends, in the second one numbers go on.
    prompt = [V0, V1, V2, V3, S1, V0, V1, S2]
    rows = write("boxes", [prompt], best=(WORD, S2, V2, V3, WORD, EOS))
    assert rows == [[V0, V1, V2, V3, WORD, V0, V1, V2, V3, WORD, EOS]]


def test_after_what_the_grammar_does_not_know_all_may_come_that_the_form_has():
    (row,) = write("captions", [[V0, S1]])
    assert min(row[1:-1]) >= PUBLISHED.num_reserved
    grammar = captions.GRAMMAR
    for previous in (V0, PAD, SOS, EOS, S1):
        allowed = may_follow(previous, EOS, grammar, SMALL, 30)
        assert allowed == [EOS, 27, 28, 29]


def may_follow(previous, closing, grammar, vocabulary, size, due=next_tokens.UNCOUNTED, text=()):
    rules = {"grammar": grammar, "vocabulary": vocabulary}
    mask = next_tokens.may_follow(
        jnp.asarray([previous]),
        jnp.asarray([closing]),
        jnp.asarray([due]),
        next_tokens.keys_in(jnp.asarray([text], jnp.int32), **rules),
        size,
        **rules,
    )
    return np.flatnonzero(mask[0]).tolist()


def test_what_may_follow_by_hand():
    box = boxes.GRAMMAR
    v0, words = [7, 8, 9, 10, 11], [27, 28, 29]
    assert may_follow(-1, EOS, box, SMALL, 30) == [EOS, *v0]  # at the beginning
    assert may_follow(9, EOS, box, SMALL, 30) == [12, 13, 14, 15, 16]
    assert may_follow(26, EOS, box, SMALL, 30) == words
    assert may_follow(28, EOS, box, SMALL, 30) == [EOS, *v0, *words]
    assert may_follow(UNK, EOS, box, SMALL, 30) == [EOS, *v0, *words]  # an unknown word
    assert may_follow(9, 6, box, SMALL, 30) == [6, 12, 13, 14, 15, 16]
    assert may_follow(9, EOS, None, SMALL, 30) == [0, 1, 2, 3, *range(7, 30)]


def test_only_numbers_that_occur_may_follow():
    grammar = dataclasses.replace(boxes.GRAMMAR, bins=(("v0", range(1, 3)), ("v1", range(99))))
    assert may_follow(28, 6, grammar, SMALL, 30) == [6, 8, 9, 27, 28, 29]
    assert may_follow(8, 6, grammar, SMALL, 30) == [6, 12, 13, 14, 15, 16]


COUNTED = Grammar(
    begin=("v1",), v1=("v0",), v0=("v0", "word", "end"), word=("end",), counted=("v1", "v0", 2)
)


def test_as_many_tokens_follow_as_are_announced():
    def due(previous, before):
        rules = {"grammar": COUNTED, "vocabulary": SMALL}
        found = next_tokens.still_due(jnp.asarray([previous]), jnp.asarray([before]), **rules)
        return int(found[0])

    v0, words = [7, 8, 9, 10, 11], [27, 28, 29]
    assert due(14, -1) == 4  # v1=2, two tokens each
    assert [due(7, 4), due(7, 1), due(28, 0)] == [3, 0, 0]
    assert [due(7, -1), due(-1, -1)] == [-1, -1]  # behind a hole, and at the beginning
    assert may_follow(14, EOS, COUNTED, SMALL, 30, due=4) == v0
    assert may_follow(7, EOS, COUNTED, SMALL, 30, due=1) == v0
    assert may_follow(7, EOS, COUNTED, SMALL, 30, due=0) == [EOS, *words]
    assert may_follow(12, EOS, COUNTED, SMALL, 30, due=0) == [EOS, *words]  # v1=0
    assert may_follow(7, EOS, COUNTED, SMALL, 30, due=-1) == [EOS, *v0, *words]
    assert may_follow(7, 6, COUNTED, SMALL, 30, due=3) == [6, *v0]  # words stand behind the hole


def test_a_palette_has_the_colors_that_it_announces():
    two = PUBLISHED.coordinate_id(1, 2)
    (row,) = write("palette", [[S1]], best=(two, EOS, V0))
    assert (row[0], row[-1], len(row)) == (two, EOS, 1 + 2 * 3 + 1)
    assert {(token - PUBLISHED.coordinate_id(0, 0)) // 256 for token in row[1:-1]} == {0}
    (row,) = write("palette", [[two, S1]], best=(EOS,))  # announced before the hole
    assert len(row) == 1 + 2 * 3 + 1
    (row,) = write("palette", [[two, V0, S1]], best=(EOS,))  # what was before it is not counted
    assert row == [two, V0, EOS]


KEYED = Grammar(
    begin=("v1", "end"),
    v1=("v0",),
    v0=("v1", "end"),
    bins=(("v1", range(4)),),
    keyed=("v1", "v0", (2, 0, 5, 1)),
)


def test_a_key_comes_once_and_before_its_own_values():
    def after(previous, *text, closing=EOS):
        return may_follow(previous, closing, KEYED, SMALL, 30, text=text)

    assert after(-1) == [EOS, 12, 14, 15]  # v1=0, 2 and 3: 1 is no key
    assert after(7, 12, 7) == [EOS, 14, 15]
    assert after(7, 14, 12, 7, closing=6) == [6, 15]  # those behind a hole count, too
    assert after(7, 12, 14, 15, 7) == [EOS]
    assert [after(key) for key in (12, 14, 15)] == [[7, 8], [7, 8, 9, 10, 11], [7]]
    assert after(13) == [7, 8, 9, 10, 11]  # a key that somebody has written


def test_fields_that_a_text_of_metadata_has_around_its_holes_are_not_repeated():
    width, score, label = (PUBLISHED.coordinate_id(1, field) for field in (0, 19, 20))
    prompt = [width, V0, S1, label, V0 - 95]
    (row,) = write("metadata", [prompt], best=(width, label, score, V0), max_new=3)
    assert row[0] == width and row[-2:] == prompt[-2:]
    assert not {width, label} & set(row[2:-2])
    for rows in (write("metadata", [[S1]] * 64), write("metadata", [[width, V0, S1]] * 16)):
        for row in rows:
            fields = [token for token in row if 1204 <= token < 2204]
            assert len(fields) == len(set(fields))


def test_a_row_is_the_same_in_every_batch():
    together = write("boxes", [[S1], [S1], [V0, S1]])
    assert write("boxes", [[V0, S1]], rows=[2]) == together[2:]
    assert write("boxes", [[S1]], rows=[1]) == together[1:2]


def test_ids_that_are_no_text_have_no_grammar():
    spec = spec_of("captions")
    assert next_tokens.grammar_of(spec, PUBLISHED) is captions.GRAMMAR
    assert next_tokens.grammar_of(spec.replace(tokenizer=""), PUBLISHED) is None
    assert next_tokens.grammar_of(spec.replace(vocab_size=4204), PUBLISHED) is None  # no words


def test_a_form_that_says_nothing_has_no_grammar(monkeypatch):
    monkeypatch.delattr(captions, "GRAMMAR")
    assert next_tokens.grammar_of(spec_of("captions"), PUBLISHED) is None


@pytest.mark.parametrize("as_published", [False, True])
def test_texts_follow_their_grammar_unless_as_published(as_published):
    specs = tuple(
        spec.replace(vocab_size=SIZE) if spec.name == "caption" else spec for spec in tiny.SPECS
    )
    model = tiny.trunk()[0].clone(modalities=specs)
    state = states.create(tiny.conditions(1, ("rgb",)), ["caption"], specs=specs)
    (writing,) = chain.plan_writings(
        model,
        state,
        [Step(target="caption", scheme="autoregressive", num_tokens=8, temperature=1.0)],
        Sampling(as_published=as_published),
    )
    assert writing.stage.grammar is (None if as_published else captions.GRAMMAR)


def test_ids_that_can_be_drawn_are_whole_tiles():
    size = 30_000
    assert next_tokens.drawable(captions.GRAMMAR, PUBLISHED, size) == ((0, 256), (4096, size))
    assert next_tokens.drawable(boxes.GRAMMAR, PUBLISHED, size) == ((0, size),)
    metadata = serializers.grammar("metadata")  # [EOS] to v0=999, v1=0 to v1=34
    assert next_tokens.drawable(metadata, PUBLISHED, size) == ((0, 1280),)
