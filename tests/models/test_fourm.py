"""The trunk: what may and may not change its output, caching, precision and sharding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import fourm, tables
from fourm_jax.ops import attention
from fourm_jax.parallel import mesh as meshes
from fourm_jax.parallel import sharding
from fourm_jax.utils import hardware
from tests.models import batches


@functools.cache
def variables(**changes):
    model = batches.model(**changes)
    return model, batches.parameters(model, batches.tokens())


@functools.cache
def forward(**changes):
    model, params = variables(**changes)
    return jax.jit(lambda tokens: model.apply(params, tokens))


def valid_rows(features, tokens):
    return np.asarray(features)[tokens.targets.valid]


def test_a_padding_slot_changes_nothing():
    tokens = batches.tokens()
    inputs, targets = tokens.inputs, tokens.targets
    noise = tokens.replace(
        inputs=inputs.replace(
            id=np.where(inputs.valid, inputs.id, 3),
            modality=np.where(inputs.valid, inputs.modality, 1),
        ),
        targets=targets.replace(
            id=np.where(targets.valid, targets.id, 4),
            input_id=np.where(targets.valid, targets.input_id, 2),
            position=np.where(targets.valid, targets.position, 1),
        ),
    )
    expected = valid_rows(forward()(tokens), tokens)
    np.testing.assert_allclose(valid_rows(forward()(noise), tokens), expected, atol=1e-6)


def test_the_order_of_input_tokens_does_not_matter():
    tokens = batches.tokens()
    order = np.random.default_rng(1).permutation(12)
    shuffled = tokens.replace(inputs=jax.tree.map(lambda x: x[:, order], tokens.inputs))
    np.testing.assert_allclose(
        valid_rows(forward()(shuffled), tokens), valid_rows(forward()(tokens), tokens), atol=1e-5
    )


def test_embeddings_are_gathered_by_id_and_a_masked_span_is_the_projected_zero_vector():
    model, params = variables()
    tokens = batches.tokens()
    name = batches.VECTORS.name
    ids = np.array([[2, 0, 3, 1], [0, 1, 0, 3]])
    inputs = tokens.inputs.replace(
        modality=np.full((2, 4), batches.SPECS.index(batches.VECTORS)),
        position=np.arange(4) * np.ones((2, 1), int),
        id=ids,
        valid=np.ones((2, 4), bool),
    )
    content, _ = model.apply(params, tokens.replace(inputs=inputs), method="embed_inputs")
    projection = params["params"]["encoder_embedding"][f"contents_{name}"]
    vectors = np.pad(tokens.embeddings[name], ((0, 0), (1, 0), (0, 0)))
    chosen = vectors[np.arange(2)[:, None], ids]
    expected = chosen @ np.asarray(projection["kernel"]) + np.asarray(projection["bias"])
    np.testing.assert_allclose(content, expected, atol=1e-5)
    np.testing.assert_allclose(content[0, 1], projection["bias"], atol=1e-6)


def test_a_target_does_not_see_targets_of_other_modalities_or_later_ones_of_its_own():
    tokens = batches.tokens()
    targets = tokens.targets
    last_caption = np.flatnonzero(targets.modality[0] == 4)[-1]
    changed = targets.replace(
        input_id=np.where(np.arange(10) == last_caption, 1 - targets.input_id % 2, targets.input_id)
    )
    before = np.asarray(forward()(tokens))
    after = np.asarray(forward()(tokens.replace(targets=changed)))
    same = np.arange(10) != last_caption
    np.testing.assert_allclose(after[:, same], before[:, same], atol=1e-6)
    assert np.abs(after[:, last_caption] - before[:, last_caption]).max() > 1e-3


def test_grid_targets_of_one_modality_see_each_other():
    tokens = batches.tokens()
    targets = tokens.targets
    first = np.flatnonzero(targets.modality[0] == 1)[0]
    changed = targets.replace(
        position=np.where(np.arange(10) == first, 1 - targets.position, targets.position)
    )
    before = np.asarray(forward()(tokens))
    after = np.asarray(forward()(tokens.replace(targets=changed)))
    assert np.abs(after[:, first + 1] - before[:, first + 1]).max() > 1e-4


def test_targets_that_are_not_separated_see_earlier_modalities():
    tokens = batches.tokens()
    targets = tokens.targets
    ordered = targets.replace(order=np.arange(10) * np.ones((2, 1), int))
    changed = ordered.replace(position=np.where(np.arange(10) == 0, 1, 0) ^ ordered.position)
    run = forward(separate_targets=False)
    before = np.asarray(run(tokens.replace(targets=ordered)))
    after = np.asarray(run(tokens.replace(targets=changed)))
    assert np.abs(after[:, 1:9] - before[:, 1:9]).max(axis=(0, 2)).min() > 1e-6


def test_causal_targets_ignore_the_order_and_follow_the_slots():
    tokens = batches.tokens()
    changed = tokens.targets.replace(
        position=np.where(np.arange(10) == 1, 1 - tokens.targets.position, tokens.targets.position)
    )
    run = forward(causal_targets=True)
    before = np.asarray(run(tokens))
    after = np.asarray(run(tokens.replace(targets=changed)))
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-6)
    assert np.abs(after[:, 1] - before[:, 1]).max() > 1e-4


def test_a_batch_equals_its_samples_one_by_one():
    tokens = batches.tokens()
    single = jax.tree.map(lambda x: x[1:], tokens)
    np.testing.assert_allclose(forward()(single)[0], forward()(tokens)[1], atol=1e-5)


def test_without_any_visible_token_the_output_is_finite_and_ignores_the_encoder():
    tokens = batches.tokens()
    hidden = tokens.inputs.replace(valid=np.zeros((2, 12), bool))
    other = hidden.replace(id=hidden.id * 0)
    a = np.asarray(forward()(tokens.replace(inputs=hidden)))
    b = np.asarray(forward()(tokens.replace(inputs=other)))
    assert np.isfinite(a).all()
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_cached_decoding_equals_decoding_at_once():
    tokens = batches.tokens()
    causal = tokens.targets.replace(order=np.arange(10) * np.ones((2, 1), int))
    model, params = variables(qk_norm=True, num_registers=2)

    def at_once(module, tokens, targets):
        encoded = module.encode(tokens)
        return module.decode(encoded, targets), module.start_cache(encoded, 10)

    run = jax.jit(functools.partial(model.apply, method=at_once))
    expected, cache = run(params, tokens, causal)
    step = jax.jit(functools.partial(model.apply, method="decode_step"))
    rows, start = [], 0
    for size in (3, *[1] * 7):
        part = jax.tree.map(lambda x, i=start, j=start + size: x[:, i:j], causal)
        features, cache = step(params, part, cache)
        rows.append(features)
        start += size
    actual = np.concatenate(rows, axis=1)
    np.testing.assert_allclose(valid_rows(actual, tokens), valid_rows(expected, tokens), atol=1e-5)


def test_on_a_gpu_a_single_row_goes_through_the_decoder_twice_and_changes_nothing(monkeypatch):
    tokens = jax.tree.map(lambda x: x[:1], batches.tokens())
    causal = tokens.targets.replace(order=np.arange(10) * np.ones((1, 1), int))
    model, params = variables()

    def decoded():
        start = functools.partial(model.apply, method=lambda m, t: m.start_cache(m.encode(t), 10))
        cache, rows = start(params, tokens), []
        step = jax.jit(functools.partial(model.apply, method="decode_step"))
        for i in range(10):
            one = jax.tree.map(lambda x, i=i: x[:, i : i + 1], causal)
            features, cache = step(params, one, cache)
            rows.append(features)
        return np.concatenate(rows, axis=1), cache

    expected, expected_cache = decoded()
    monkeypatch.setattr(hardware, "platform", lambda: "gpu")
    actual, cache = decoded()
    assert actual.shape == (1, 10, 16)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert cache.length == 10
    np.testing.assert_array_equal(cache.segment, expected_cache.segment)
    for kept, of_cpu in zip(cache.layers, expected_cache.layers, strict=True):
        # there heads are an axis of their own, [b, h, t, k], which meshes divide
        np.testing.assert_allclose(kept.self_k, of_cpu.self_k[None], atol=1e-5)


@pytest.mark.parametrize(("platform", "multiple"), [("gpu", 2), ("tpu", 8)])
@pytest.mark.parametrize("num_registers", [0, 2])
def test_attention_of_an_accelerator_has_whole_slots_which_change_nothing(
    monkeypatch, platform, multiple, num_registers
):
    whole = batches.tokens()
    inputs, targets = (
        jax.tree.map(lambda x: x[:, :7], part) for part in (whole.inputs, whole.targets)
    )
    tokens = dataclasses.replace(whole, inputs=inputs, targets=targets)
    model, params = variables(num_registers=num_registers)

    def run():
        encoded = model.apply(params, tokens, method="encode")
        features = model.apply(params, encoded, targets, method="decode")
        return encoded, features

    (encoded, expected), attended = run(), []
    monkeypatch.setattr(hardware, "platform", lambda: platform)
    attend = attention.attend

    def watched(q, k, v, mask, **settings):
        attended.append((q.shape[1], k.shape[1]))
        return attend(q, k, v, mask, backend="xla")

    monkeypatch.setattr(attention, "attend", watched)
    (filled, features), count = run(), num_registers + 7
    assert attended and all(size % multiple == 0 for sizes in attended for size in sizes)
    assert filled.valid.shape[1] == count + -count % multiple
    assert not filled.valid[:, count:].any()
    seen = np.asarray(encoded.valid)
    np.testing.assert_allclose(filled.hidden[:, :count][seen], encoded.hidden[seen], atol=1e-5)
    np.testing.assert_allclose(features[targets.valid], expected[targets.valid], atol=1e-5)


def test_attention_among_packed_targets_goes_by_their_number(monkeypatch):
    tokens = batches.tokens()
    lengths = np.array([[7], [4]])
    grid = tokens.targets.replace(
        modality=np.full((2, 10), 1), order=np.zeros((2, 10), int), valid=np.arange(10) < lengths
    )
    masks = []
    attend = attention.attend

    def watched(q, k, v, mask, **kwargs):
        masks.append(mask)
        return attend(q, k, v, mask, **kwargs)

    monkeypatch.setattr(attention, "attend", watched)
    model, params = variables()
    packed = model.apply(params, tokens.replace(targets=grid.replace(packed=True)))
    assert any(mask.key_length is not None for mask in masks)
    masks.clear()
    by_rank = model.apply(params, tokens.replace(targets=grid))
    assert all(mask.key_length is None for mask in masks)
    np.testing.assert_array_equal(packed, by_rank)  # here a mask is made of both


def test_token_losses_equal_the_cross_entropy_of_the_logits():
    tokens = batches.tokens()
    model, params = variables()
    features = forward()(tokens)
    result = jax.jit(functools.partial(model.apply, method="token_losses"))(params, tokens)
    for row, column in ((0, 0), (1, 3), (0, 8)):
        spec = batches.SPECS[tokens.targets.modality[row, column]]
        logits = model.apply(params, features[row, column], spec.name, method="logits")
        assert logits.shape == (spec.vocab_size,)
        label = tokens.targets.id[row, column]
        expected = -jax.nn.log_softmax(logits)[label]
        np.testing.assert_allclose(result.loss[row, column], expected, rtol=1e-5)
        assert bool(result.correct[row, column]) == (int(logits.argmax()) == label)
    np.testing.assert_array_equal(result.loss[~tokens.targets.valid], 0)


def test_an_absent_modality_gets_no_gradient_and_changes_no_other_loss():
    tokens = batches.tokens()
    model, params = variables()
    absent = tokens.targets.replace(valid=tokens.targets.valid & (tokens.targets.modality != 3))

    def loss(params, targets):
        out = model.apply(params, tokens.replace(targets=targets), method="token_losses")
        return out.total, out

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, out), gradient = step(params, absent)
    full = step(params, tokens.targets)[0][1].loss
    np.testing.assert_allclose(out.loss[absent.valid], full[absent.valid], rtol=1e-5)
    layout = tables.token_layout(batches.SPECS, batches.OUTPUTS)
    rows = slice(layout.offsets[3], layout.offsets[3] + layout.sizes[3])
    table = gradient["params"]["decoder_embedding"]["tokens"]
    assert not np.asarray(table[rows]).any()
    assert np.asarray(table).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp": "gelu", "use_bias": True, "tie_heads": False, "share_modality_embeddings": False},
        {"as_published": True, "num_registers": 2},
    ],
    ids=str,
)
def test_every_variant_gives_finite_float32_losses(changes):
    model, params = variables(**changes)
    losses_of = jax.jit(functools.partial(model.apply, method="token_losses"))
    loss = losses_of(params, batches.tokens()).loss
    assert loss.dtype == jnp.float32
    assert bool(jnp.isfinite(loss).all())
    assert loss.sum() > 0


def test_bfloat16_training_with_rematerialisation_gives_finite_gradients():
    model, params = variables(dtype=jnp.bfloat16, remat="dots", drop_path=0.5, positions="learned")

    def loss(params, tokens):
        rngs = {"drop_path": jax.random.key(1)}
        return model.apply(params, tokens, True, method="token_losses", rngs=rngs).total

    value, gradient = jax.jit(jax.value_and_grad(loss))(params, batches.tokens())
    assert value.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_training_starts_near_the_loss_of_a_uniform_guess():
    model, tokens = batches.model(), batches.tokens()

    def first_losses(key, tokens):
        params = model.init(key, tokens)
        return model.apply(params, tokens, method="token_losses").loss

    loss = jax.jit(first_losses)(jax.random.key(0, impl="rbg"), tokens)
    sizes = np.array([spec.vocab_size for spec in batches.SPECS])[tokens.targets.modality]
    assert abs(np.mean((loss - np.log(sizes))[tokens.targets.valid])) < 0.8


def test_bfloat16_stays_close_to_float32():
    tokens = batches.tokens()
    _, params = variables()
    half = jax.jit(batches.model(dtype=jnp.bfloat16).apply)(params, tokens)
    assert half.dtype == jnp.bfloat16
    expected = valid_rows(forward()(tokens), tokens)
    assert np.abs(valid_rows(half, tokens).astype(np.float32) - expected).mean() < 0.05


def test_stochastic_depth_drops_whole_samples_in_training_only():
    tokens = batches.tokens()
    model, params = variables(drop_path=0.9)
    evaluated = jax.jit(model.apply)(params, tokens)
    np.testing.assert_allclose(evaluated, forward()(tokens), atol=1e-6)
    train = jax.jit(lambda key: model.apply(params, tokens, True, rngs={"drop_path": key}))
    a, b = (train(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(a - b).max() > 1e-3


def test_several_codes_of_one_position_are_told_apart_and_share_its_place():
    codes = ModalitySpec(name="tok", kind="grid", vocab_size=7, grid=(2, 2), codes_per_position=3)
    model = fourm.FourM((codes,), ("tok",), ("tok",), 16, 1, 1, 2)
    tokens = batches.tokens()
    one = tokens.replace(
        inputs=jax.tree.map(lambda x: (x * 0).astype(x.dtype), tokens.inputs).replace(
            valid=np.ones((2, 12), bool), position=np.arange(12) * np.ones((2, 1), int)
        ),
        targets=jax.tree.map(lambda x: (x * 0).astype(x.dtype), tokens.targets),
        pixels={},
        embeddings={},
    )
    params = batches.parameters(model, one)
    assert params["params"]["encoder_embedding"]["positions"]["codes"].shape == (3, 16)
    where = model.apply(params, one, method="embed_inputs")[1][0].reshape(4, 3, 16)
    np.testing.assert_allclose(
        where[1] - where[0], np.broadcast_to((where[1] - where[0])[:1], (3, 16)), atol=1e-5
    )
    assert np.abs(where[0, 0] - where[0, 1]).max() > 0.1


def test_eight_devices_give_the_losses_and_gradients_of_one():
    tokens = batches.tokens(batch=8)
    model, params = variables()

    def loss(params, tokens):
        weights = jnp.full(tokens.targets.id.shape, 1 / tokens.targets.id.size)
        return model.apply(params, tokens, weights=weights, method="token_losses").total

    step = jax.value_and_grad(loss)
    expected = jax.jit(step)(params, tokens)
    mesh = meshes.make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.state_shardings(params, mesh))
        batch = jax.device_put(tokens, sharding.batch_sharding(mesh, 8))
        actual = jax.jit(step)(placed, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), actual, expected)


def test_wrong_settings_are_refused_by_name():
    for changes, message in (
        ({"inputs": ("tok_depht",)}, "did you mean 'tok_depth'"),
        ({"outputs": ("rgb",)}, "'rgb' of kind 'pixels' cannot be an output"),
        ({"inputs": ("rgb", "rgb")}, "input 'rgb' is given twice"),
        ({"outputs": ("tok_depth", "tok_depth")}, "output 'tok_depth' is given twice"),
        ({"dim": 18}, "dim 18"),
        ({"mlp": "tanh"}, "mlp 'tanh'"),
        ({"as_published": True, "smooth_numbers": True}, "set smooth_numbers to False"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(batches.model(**changes).init, jax.random.key(0), batches.tokens())


def test_missing_pixels_and_shared_tables_of_two_sizes_are_refused():
    model, params = variables()
    with pytest.raises(ValueError, match="'rgb' \\(pixels\\) is missing"):
        model.apply(params, batches.tokens().replace(pixels={}))
    specs = (batches.CAPTION, batches.DET.replace(vocab_size=12))
    clash = fourm.FourM(specs, ("caption",), ("caption", "det"), 16, 1, 1, 2)
    with pytest.raises(ValueError, match="table 'text' is shared by modalities with 11 and 12"):
        jax.eval_shape(clash.init, jax.random.key(0), batches.tokens())
    with pytest.raises(ValueError, match="output modality 'rgb'"):
        model.apply(params, jnp.zeros((1, 16)), "rgb", method="logits")
