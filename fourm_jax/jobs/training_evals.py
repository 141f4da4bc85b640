"""Evaluators of `config.evals` while a trunk trains: named "<evaluator>/<task>/<metric>"."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import ml_collections
from etils import epath

from fourm_jax import loading
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals import evaluator
from fourm_jax.evals.evaluator import Context
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, evaluation
from fourm_jax.models import from_config
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.parallel import shares
from fourm_jax.train import held_out, loop, writers
from fourm_jax.train.state import TrainState
from fourm_jax.utils import config as config_lib

NUM_RECORDS = 256  # of each data set, where an entry does not say how many
COUNTS = {"every", "num_records"}


def make(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> tuple[loop.Evaluator, ...]:
    """The evaluators of a trunk: the held-out loss of `eval_every`, and those of `evals`.

    An entry of `config.evals` has the options of its evaluator, and `every` (steps; 0: after the
    last one only), `num_records` and `tokenizers` beside them: the folder of those, by default
    `tokenizers` beside the work directory, as where a run is read.

    Of several processes each holds the whole model for an evaluator that generates, and they divide
    the batches; the held-out loss is computed where the parameters are.

    Raises:
      ValueError: an unknown evaluator or option, or held-out records that are not there.
    """
    made: list[loop.Evaluator] = []
    if config.eval_every:
        own = held_out.make_evaluator(config)
        made.append(periodic(own, config.eval_every, config.num_steps))
    for name, options in config_lib.plain(config.get("evals", {})).items():
        made.append(
            periodic(
                _one(config, workdir, name, options), options.get("every", 0), config.num_steps
            )
        )
    return tuple(made)


def extended(
    config: ml_collections.ConfigDict, names: Sequence[str], options: Sequence[str]
) -> ml_collections.ConfigDict:
    """The config with the evaluators of a command line beside its own, see `evaluation.typed`.

    Raises:
      ValueError: a config of something else than a trunk, an option that belongs to none of them.
    """
    evals = evaluation.typed(names, options)
    if not evals:
        return config
    if config.get("task") != "fourm":
        raise ValueError(f"--evals is for trunks, this is a {config.get('task')!r}")
    for name, own in evals.items():
        for key in COUNTS & own.keys():
            if not own[key].isdecimal():
                raise ValueError(f"--option={name}.{key}={own[key]}, expected a whole number")
            own[key] = int(own[key])
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.evals = {**config.get("evals", {}), **evals}
    return changed


def periodic(own: loop.Evaluator, every: int, num_steps: int) -> loop.Evaluator:
    """The evaluator at every `every`-th step and the last one; at others it yields nothing."""

    def evaluate(state: TrainState, step: int) -> Iterable[tuple[str, float | writers.Shown]]:
        if step == num_steps or (every and step % every == 0):
            yield from own(state, step)

    return evaluate


def _one(
    config: ml_collections.ConfigDict, workdir: epath.PathLike, name: str, options: dict
) -> loop.Evaluator:
    options = dict(options)
    num_records = int(options.pop("num_records", NUM_RECORDS))
    folder = options.pop("tokenizers", "") or eval_data.tokenizers_of(workdir)
    evaluates = evaluator.load(name, options)
    is_divided = options.get("type", name) != "val_loss" and jax.process_count() > 1
    model = from_config.make_model(config)
    tokenizers = loading.tokenizers_of(model, folder) if folder else {}
    limit = config.max_left_out_records
    data = eval_data.EvalData(
        groups=tuple(config_lib.plain(config.data)), max_left_out_records=limit
    )
    datasets = data.datasets(model.modalities, "test", num_records)
    masking = eval_data.masking_of(data, model, config)
    bare = Generator(model, {}, tokenizers)
    read = eval_data.reader(data, bare, "test")

    context = Context(
        generator=bare,
        datasets=datasets,
        read=read,
        num_records=num_records,
        masking=masking,
        left_out=LeftOutLog(limit),
    )
    evaluates.check(context)

    def evaluate(state: TrainState, step: int) -> Iterable[tuple[str, float]]:
        del step
        mesh, params = jax.tree.leaves(state.params)[0].sharding.mesh, state.eval_params
        if is_divided:
            mesh, params = mesh_lib.make_mesh(devices=jax.local_devices()), shares.whole(params)
        with jax.set_mesh(mesh):
            generator = Generator(model, params, tokenizers, mesh, is_divided=is_divided)
            generator = generator.on_mesh(mesh) if is_divided else generator
            found = evaluates(dataclasses.replace(context, generator=generator)).values()
            yield from [(f"{name}/{measure}", value) for measure, value in found]

    return evaluate
