"""Sequences token by token: where rows begin, end and go, with a scripted decoder."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fourm_jax.generate import chain, sequences, trunk
from fourm_jax.generate import state as states
from fourm_jax.generate.grids import Sampling
from fourm_jax.generate.sequences import SequenceStage
from fourm_jax.ops import sampling
from tests.generate import tiny

EOS, S1, S2, S3 = 3, 5, 6, 7


@dataclasses.dataclass
class Script:
    """A decoder that says what is written here, whatever it reads.

    Attributes:
      rows: [b, n, 2], the likeliest token and the second one.
    """

    rows: jax.Array

    def start(self, tokens, num_steps):
        return jnp.zeros((len(self.rows), 0))

    def step(self, memory, token, index):
        best, second = jnp.moveaxis(jax.nn.one_hot(self.rows[:, index], 230), 1, 0)
        return best * 99.0 + second * 50.0, memory


@functools.partial(jax.jit, static_argnames="stage")
def run(state, keys, rows, stage):
    return sequences.write_sequence(
        state,
        keys,
        jnp.float32(0.5),
        jnp.zeros(0),
        stage=stage,
        specs=tiny.SPECS,
        decoder=Script(rows),
    )


def write(prompts, script, *, as_published=False, max_new=5):
    """Texts of two rows; a single prompt is doubled, so that few programs compile.

    A pair in a script are the likeliest token and the second one.
    """
    single = len(prompts) == 1
    script = [[one if isinstance(one, tuple) else (one, one) for one in row] for row in script]
    prompts, script = prompts * (1 + single), script * (1 + single)
    ids = np.array([prompt + [0] * (5 - len(prompt)) for prompt in prompts])
    lengths = np.array([len(prompt) for prompt in prompts])
    state = states.create(
        {"caption": {"ids": ids, "length": lengths}}, ["caption"], specs=tiny.SPECS
    )
    stage = SequenceStage(
        target="caption",
        max_new=max_new,
        length=8,
        sampling=Sampling(draw=sampling.draw_most_likely, as_published=as_published),
    )
    done = run(state, chain.row_keys(0, jnp.arange(2)), jnp.asarray(script), stage)
    texts = [
        np.asarray(row)[np.asarray(mask)].tolist()
        for row, mask in zip(done.ids["caption"], done.known["caption"], strict=True)
    ]
    return texts[:1] if single else texts


def test_every_row_stops_at_its_own_end():
    rows = write([[S1, 220], [S1]], [[210, S2, 211, 212, 213], [210, 211, EOS, 212, 213]])
    assert rows == [[210, 220], [210, 211, EOS]]


def test_a_text_that_is_open_to_its_end_ends_with_eos_alone():
    second_best = [[210, (S2, 211), (S1, 212), EOS, 213]]
    assert write([[S1]], second_best) == [[210, 211, 212, EOS]]
    assert write([[220, S1]], second_best) == [[220, 210, 211, 212, EOS]]


def test_a_hole_with_words_behind_it_is_closed_by_the_next_sentinel_alone():
    script = [[(EOS, 210), (S3, 211), S2, (S2, 212), S3]]
    assert write([[S1, 220, S2, 221]], script) == [[210, 211, 220, 212, 221]]
    script = [[(EOS, 210), (S3, 211), S2, (S3, 212), EOS]]
    assert write([[S1, 220, S2]], script) == [[210, 211, 220, 212, EOS]]


def test_the_published_rule_goes_on_until_all_rows_have_met_the_end():
    script = [[210, S2, S1, 212, 213], [210, 211, S2, 214, 215]]
    # row 0 meets [S_2], then says [S_1] again before row 1 is done
    assert write([[S1], [S1]], script, as_published=True) == [[210], [210, 211]]
    script = [[210, S2, S1, 212, 213], [210, 211, 212, S2, 215]]
    assert write([[S1], [S1]], script, as_published=True)[0] == [210, 212]


def test_the_published_rule_does_not_stop_at_eos():
    assert write([[S1]], [[210, EOS, 211, S2, 0]], as_published=True) == [[210, EOS, 211]]
    assert write([[S1]], [[210, EOS, 211, S2, 0]]) == [[210, EOS]]


def test_every_hole_of_a_text_is_filled_before_the_row_ends():
    script = [[210, 211, S2, 212, S3]]
    assert write([[220, S1, 221, S2, 222]], script) == [[220, 210, 211, 221, 212, 222]]


def test_a_row_without_holes_stays_as_it_is():
    rows = write([[220, 221, EOS], [S1]], [[210] * 5, [210, EOS, 0, 0, 0]])
    assert rows == [[220, 221, EOS], [210, EOS]]


def test_the_decoder_starts_with_the_first_sentinel_of_the_row():
    stage = SequenceStage(target="caption", max_new=5, length=8)
    first, closing, before = sequences._holes(
        jnp.asarray([[220, S2, 221], [220, 221, 222]]), jnp.ones((2, 3), bool), stage
    )
    assert first.tolist() == [S2, S1]
    assert before.tolist() == [[220, -1, -1], [-1, -1, -1]]
    assert closing.tolist() == [[S3, -1, -1], [-1, -1, -1]]
    assert write([[220, S2, 221]], [[210, S3, 0, 0, 0]]) == [[220, 210, 221]]


def test_another_token_may_end_the_last_hole():
    stage = SequenceStage(target="caption", max_new=5, length=8, end_id=210)
    closing = sequences._holes(
        jnp.asarray([[S1, 221, S2], [S1, 221, 222]]), jnp.ones((2, 3), bool), stage
    ).closing
    assert closing.tolist() == [[S2, 210, -1], [210, -1, -1]]


def test_no_more_tokens_are_generated_than_allowed():
    assert write([[S1]], [[210, 211, 212, 213, 214]], max_new=3) == [[210, 211, 212]]


def test_cached_decoding_equals_the_whole_prefix_at_once():
    model, params = tiny.trunk()
    state = states.create(tiny.conditions(2, ("rgb",)), ["caption"], specs=tiny.SPECS)
    tokens = jnp.asarray([[S1, 210, 211, 212], [S1, 213, 214, 215]])
    index = states.index_of(tiny.SPECS, "caption")
    targets = states.sequence_targets(index, tokens, jnp.asarray([4, 4]))
    batch = states.token_batch([state], [targets], tiny.SPECS)

    @jax.jit
    def both(params):
        whole = trunk.tokens_to_logits(model, params, "caption")(batch)
        decoder = trunk.TrunkSequenceDecoder(model, params, "caption", ((0, 230),))
        memory, steps = decoder.start(batch, 3), []
        for i in range(3):
            logits, memory = decoder.step(memory, tokens[:, i], jnp.asarray(i))
            steps.append(logits)
        return whole, jnp.stack(steps, axis=1)

    whole, steps = both(params)
    np.testing.assert_allclose(steps, whole, atol=1e-4, rtol=1e-4)
