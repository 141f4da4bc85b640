"""The contract of every tokenizer family: what encode, decode, training and storage must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fourm_jax.tokenizers import base, text

CASES = [(f, c) for f in base.families() if f != "text" for c in base.get(f).tiny()]
parametrize = pytest.mark.parametrize(("family", "case"), CASES, ids=["-".join(c) for c in CASES])


@functools.cache
def make(family, case):
    arguments = base.get(family).tiny()[case]
    module = base.build(family, arguments)
    raw = module.signal.example(jax.random.key(1), module.image_size, 8)
    return arguments, module, jax.jit(module.init)(jax.random.key(0), raw), np.asarray(raw)


@functools.cache
def compiled(family, case, method):
    _, module, variables, _ = make(family, case)
    return functools.partial(jax.jit(functools.partial(module.apply, method=method)), variables)


def test_the_families_are_found_by_module_name():
    assert {"vqvae", "mlp", "text"} <= set(base.families())


@pytest.mark.parametrize("case", base.get("text").tiny())
def test_a_text_tokenizer_keeps_the_contract_of_sequences(case, tmp_path):
    text.TextTokenizer.train(**text.tiny()[case]).save(tmp_path)
    tokenizer = base.load(tmp_path)
    assert isinstance(tokenizer, base.SequenceTokenizer)
    ids, chunk = tokenizer.encode_sequence("a potted plant", max_tokens=12)
    assert (ids.dtype, len(chunk)) == (np.int32, len(ids))
    assert ids.max() < tokenizer.vocab_size
    assert ids[-1] == tokenizer.vocabulary.eos_id
    assert tokenizer.decode_content(ids) == "a potted plant"


def test_a_family_without_a_flax_module_says_so():
    with pytest.raises(ValueError, match="family 'text' has no Flax module"):
        base.build("text", {})


def test_an_unknown_family_names_the_nearest_one():
    with pytest.raises(ValueError, match=r"vqvea.*did you mean 'vqvae'"):
        base.get("vqvea")


@parametrize
def test_ids_have_the_grid_and_stay_inside_the_vocabulary(family, case):
    _, module, _, raw = make(family, case)
    ids = compiled(family, case, "encode")(raw)
    codes = module.quantizer.num_heads
    grid = (*module.grid, codes)[: 2 + (codes > 1)] if module.signal.is_image else (codes,)
    assert ids.shape == (len(raw), *grid)
    assert ids.dtype == jnp.int32
    assert ids.min() >= 0
    assert ids.max() < module.quantizer.num_codes


@parametrize
def test_decoding_returns_the_shape_type_and_range_of_the_raw_signal(family, case):
    _, module, _, raw = make(family, case)
    ids = compiled(family, case, "encode")(raw)
    decoded = np.asarray(compiled(family, case, "decode")(ids))
    assert (decoded.shape, decoded.dtype) == (raw.shape, raw.dtype)
    module.signal.check(decoded, "decoded signal", module.patch_size)


@parametrize
def test_certain_probabilities_decode_like_their_ids(family, case):
    _, module, _, raw = make(family, case)
    ids = compiled(family, case, "encode")(raw)
    certain = jax.nn.one_hot(ids, module.quantizer.num_codes)
    np.testing.assert_allclose(
        compiled(family, case, "decode_probabilities")(certain),
        compiled(family, case, "decode")(ids),
        atol=1e-5,
    )


@parametrize
def test_training_lowers_the_loss_and_reports_scalars(family, case):
    _, module, variables, raw = make(family, case)
    optimizer = optax.adam(3e-3)
    params, book = variables["params"], variables.get("codebook", {})

    @jax.jit
    def run(params, book):
        def step(carry, key):
            params, book, state = carry

            def loss(params):
                output, updated = module.apply(
                    {"params": params, "codebook": book},
                    raw,
                    train=True,
                    mutable=["codebook"],
                    rngs={"quantizer": key},
                )
                return output.loss, (output.metrics, updated.get("codebook", {}))

            (_, (metrics, book)), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), book, state), metrics

        return jax.lax.scan(
            step, (params, book, optimizer.init(params)), jax.random.split(jax.random.key(2), 60)
        )

    _, metrics = run(params, book)
    history = np.asarray(metrics["reconstruction_loss"])
    assert history[-10:].mean() < 0.95 * history[:3].mean()
    for name, values in metrics.items():
        assert values.shape == (60,), name
        assert np.isfinite(values).all(), name
    assert {"codebook_usage", "perplexity"} <= set(metrics)


@parametrize
def test_saving_and_loading_keeps_ids_card_and_checks(family, case, tmp_path):
    arguments, module, variables, raw = make(family, case)
    card = base.make_card(case, family, arguments, reconstruction={"mae": 0.5}, training_steps=7)
    base.save(tmp_path / case, module, variables, card)
    loaded = base.load(tmp_path / case)
    expected = np.asarray(compiled(family, case, "encode")(raw))
    np.testing.assert_array_equal(loaded.encode(raw), expected)
    with pytest.raises(ValueError, match=r"ids of shape \(0, .*, expected \["):
        loaded.decode(expected[:0])
    assert loaded.card.training_steps == 7
    assert loaded.card.reconstruction == {"mae": 0.5}
    assert (loaded.card.vocab_size, loaded.card.grid) == (16, module.grid)
    assert sorted(p.name for p in tmp_path.iterdir()) == [case]


@parametrize
def test_codes_of_ids_are_what_the_decoder_reads(family, case):
    _, module, variables, raw = make(family, case)
    ids = compiled(family, case, "encode")(raw)
    codes = compiled(family, case, "codes")(ids)
    last = () if module.signal.is_image else (module.quantizer.num_heads,)
    assert codes.shape == (*ids.shape[: 3 if not last else 1], module.quantizer.latent_dim)
    one = codes.reshape(-1, codes.shape[-1])[0]
    first = jnp.reshape(ids, (-1, module.quantizer.num_heads))[:1]
    looked_up = module.apply(variables, first, method=lambda m, i: m.quantizer.lookup(i))
    np.testing.assert_array_equal(one, looked_up[0])
