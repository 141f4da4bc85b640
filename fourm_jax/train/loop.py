"""The one train loop, for trunk and tokenizers: build, init or resume, steps, log, save, leave."""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from clu import parameter_overview
from etils import epath
from jax.sharding import Mesh

from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.models import trained, weights
from fourm_jax.parallel import distributed, sharding
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import (
    checkpoint,
    finite,
    init,
    logbook,
    metrics,
    optimizer,
    prefetch,
    rates,
    run_config,
    schedules,
    step,
)
from fourm_jax.train.state import TrainState
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import (
    device_memory,
    folder_lock,
    interrupt,
    io,
    plain_data,
    progress,
    run_folder,
    tree,
    upgrades,
)

Evaluator = Callable[[TrainState, int], Iterable[tuple[str, float]]]

# Config keys that a continued run may change, as they change neither data nor mathematics;
# `num_steps` may too, while the schedule has not yet begun to depend on it.
MAY_CHANGE = (
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "mesh.",
    "model.remat",
    "model.scan_unroll",
    "model.attention",
    "optimizer.accumulate_steps",
    "optimizer.moment_dtype",  # a checkpoint is cast as it is read
    "max_bad_records",
    "num_threads",
    "num_workers",
)
SMALLER = (
    "Make config.batch_size, the masking budgets or the model smaller; a trunk may also take a "
    "batch in parts (config.optimizer.accumulate_steps) or compute twice (config.model.remat)"
)
STEPS_IN_FLIGHT = 2  # dispatched ahead of the device; bounds the memory of waiting batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
      state: after the last step.
      metrics: last logged values; those of evaluators as "eval/<name>".
      seconds: that this call took.
    """

    state: TrainState
    metrics: dict[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The compiled parts of a run.

    Attributes:
      abstract: shapes, types and shardings of the state.
      init: example batch -> state.
      train_step: (state, batch) -> (state, loss); donates the state.
    """

    abstract: TrainState
    init: Callable[[Any], TrainState]
    train_step: Callable[[TrainState, Any], tuple[TrainState, jax.Array]]


def train(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    show_progress: bool = True,
    evaluators: Sequence[Evaluator] = (),
    devices: Sequence[jax.Device] | None = None,
    read_weights: weights.Read = trained.read_weights,
) -> TrainResult:
    """Train what `config` describes, or continue it from the last checkpoint in `workdir`.

    A continued run repeats the interrupted one bit for bit; a finished one returns at once.

    Args:
      evaluators: called with (state, step) every `config.eval_every` steps (0: after the last one
        only); each yields (name, value).
      devices: to train on, default all.
      read_weights: reads `config.init.source`; default: run folders, `loading.weights` reads more.

    Raises:
      ValueError: an invalid config, or a workdir that holds another run's checkpoint or that
        another process writes; before any step, nothing is overwritten.
      FloatingPointError: too many steps without a finite gradient, or parameters that are not
        finite; they are not saved.
      interrupt.Interrupted: SIGTERM, SIGHUP or Ctrl-C; the state is saved, the same call continues.
    """
    watch, workdir = progress.Stopwatch(), epath.Path(workdir).expanduser()
    with (
        interrupt.StopRequest() as stop,
        contextlib.ExitStack() as held,
        device_memory.explained(SMALLER),
    ):
        # ---------------- What: task, data, mesh; everything in the config is checked here.
        run = run_config.build(config)
        mesh = mesh_lib.make_mesh(**run.mesh, devices=devices)
        description = checkpoint.Description(
            config=config_lib.to_json(config),
            modalities=config_lib.to_json({s.name: s.describe() for s in run.specs}),
            place=_place(workdir),
        )
        if jax.process_index() == 0:
            held.enter_context(folder_lock.hold(workdir))
        saver = checkpoint.Checkpointer(workdir, keep=config.keep_checkpoints)
        try:
            # ---------------- State: the newest checkpoint, or a fresh start.
            _check_workdir(saver, description, workdir)
            with contextlib.closing(run.batches(0)) as batches:
                example = distributed.put_batch(next(batches), mesh)
            program = make_program(config, run, mesh, example)
            state = saver.restore(program.abstract)
            if state is not None and _is_finished(config, workdir, state, evaluators):
                _say(f"{workdir}: finished at step {int(state.step):,}, reused")
                values = {k: v for k, v in metrics.read_history(workdir)[-1].items() if k != "step"}
                return TrainResult(state=state, metrics=values, seconds=watch.seconds())
            if state is None:
                state = _first_state(run, program, example, workdir, read_weights)
            start = int(state.step)
            _announce(config, program, mesh, start, example)
            _describe(workdir, description, program)
            left_out = _left_out_log(config, workdir, start)
            # ---------------- Steps. Restoring is over: orbax and a mesh context do not mix.
            book = logbook.Logbook(
                workdir,
                state,
                mesh,
                start=start,
                num_steps=config.num_steps,
                labels=run.task.labels,
                samples_per_step=config.batch_size,
                flops_per_sample=run.task.flops_per_sample,
                left_out=left_out,
                show_progress=show_progress and jax.process_index() == 0,
                label=_label(config),
            )
            training = _Training(config, program, saver, description, book, stop, tuple(evaluators))
            try:
                stop.defer()
                batches = prefetch.to_device(
                    run.batches(start, left_out),
                    mesh,
                    # several processes stop after a step that all of them reach
                    stopped=lambda: stop.requested and jax.process_count() == 1,
                )
                with jax.set_mesh(mesh), contextlib.closing(batches):
                    state = training.run(state, start, batches)
            finally:
                book.close()
        finally:
            saver.close()
    reached = f"{_label(config)} done: step {config.num_steps}"
    _say(f"{reached}, {_summary(book.values)}{watch.seconds():.0f} s")
    return TrainResult(state=state, metrics=book.values, seconds=watch.seconds())


def _first_state(
    run: run_config.Run,
    program: Program,
    example: Any,
    workdir: epath.Path,
    read_weights: weights.Read,
) -> TrainState:
    """The state before the first step, from scratch or from weights."""
    if run.init is None:
        return program.init(example)
    found = read_weights(run.init.source)  # before anything is compiled
    state, report = init.start(
        program.init(example),
        run.init,
        found,
        packed=run.task.packed,
        specs=run.specs,
        function=run.task.function,
    )
    if jax.process_index() == 0:
        io.write_json(workdir / run_folder.INIT, dataclasses.asdict(report))
    _say(f"starts from {run.init.source}: {report}")
    return state


def _describe(workdir: epath.Path, description: checkpoint.Description, program: Program) -> None:
    """Write what the run is, for readers of its folder: its config and its parameters."""
    place = dataclasses.asdict(_place(workdir))
    io.write_json(workdir / "config.json", {**description.config, "place": place})
    table = parameter_overview.get_parameter_overview(
        program.abstract.params, include_stats="sharding"
    )
    io.write_text(workdir / run_folder.PARAMETERS, table + "\n")


def _left_out_log(config: ml_collections.ConfigDict, workdir: epath.Path, start: int) -> LeftOutLog:
    """The list of the records that this process leaves out, from step `start` on."""
    left_out = LeftOutLog(
        config.max_bad_records,
        workdir,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    left_out.resume(start)
    return left_out


def make_program(
    config: ml_collections.ConfigDict, run: run_config.Run, mesh: Mesh, example: Any
) -> Program:
    """Jit initialisation and step, with the layout of the whole state fixed by the rule table."""
    settings = run.settings
    schedule = optimizer.make_schedule(settings, config.num_steps)
    params, model_state = jax.eval_shape(run.task.init, jax.random.key(config.seed), example)
    optimizer.check_selectors(settings, params)
    param_rates, state_rates = _rates(run, params, model_state)
    transform = rates.limit(optimizer.make(settings), param_rates)

    def first_state(batch):
        return step.init_state(
            run.task, transform, batch, seed=config.seed, ema=settings.ema_decay > 0
        )

    shapes = jax.eval_shape(first_state, example)
    layout = sharding.state_shardings(shapes, mesh)
    train_step = step.make_train_step(
        run.task,
        transform,
        schedule,
        seed=config.seed,
        ema_decay=settings.ema_decay,
        rates=param_rates,
        state_rates=state_rates,
    )
    return Program(
        abstract=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
        ),
        init=jax.jit(first_state, out_shardings=layout),
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=(layout, None)),
    )


def _rates(run: run_config.Run, params: Any, model_state: Any) -> tuple[rates.Rates, rates.Rates]:
    """How fast the parameters learn, and what of the other variables is frozen."""
    settings, freeze = run.settings, run.init.freeze if run.init else ""
    if not (freeze or settings.lr_scales or settings.layer_decay != 1):
        return rates.ALL, rates.ALL
    variables = {**params, **model_state}
    found = rates.make(
        variables,
        run.task.packed,
        freeze=freeze,
        scales=settings.lr_scales,
        layer_decay=settings.layer_decay,
    )
    of_state = {p: r for p, r in found.by_path.items() if p.split("/")[0] in model_state}
    of_params = {p: r for p, r in found.by_path.items() if p not in of_state}
    return rates.Rates(of_params), rates.Rates(of_state)


@dataclasses.dataclass
class _Training:
    """What the steps need at hand."""

    config: ml_collections.ConfigDict
    program: Program
    saver: checkpoint.Checkpointer
    description: checkpoint.Description
    book: logbook.Logbook
    stop: interrupt.StopRequest
    evaluators: tuple[Evaluator, ...]

    def run(self, state: TrainState, start: int, batches: Iterator[Any]) -> TrainState:
        """Take the steps from `start` on; return the final state, saved.

        Raises:
          interrupt.Interrupted: stopped on request, after saving.
        """
        config, watch = self.config, progress.Stopwatch()
        in_flight: collections.deque[jax.Array] = collections.deque()
        done = start
        while done < config.num_steps and not distributed.should_stop(self.stop.requested, done):
            try:
                batch = next(batches)
            except prefetch.Stopped:
                break
            state, loss = self.program.train_step(state, batch)
            in_flight.append(loss)
            self.book.note(done, loss)
            done += 1
            self.book.flush()
            if done == start + 1:
                loss.block_until_ready()
                _say(f"first step after {watch.seconds():.1f} s (compilation)")
                self.book.restart_clock(done)
            if done % config.log_every == 0 or done == config.num_steps:
                state = self.book.take(state, done)
            if _due(done, config.checkpoint_every):
                self._save(state, done)
            if _due(done, config.eval_every) and done < config.num_steps:
                self._evaluate(state, done)
            if len(in_flight) > STEPS_IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            self.book.tick(done)
        self.book.flush()
        if done >= config.num_steps:
            self._evaluate(state, done)
        self._save(state, done, wait=True)
        if done < config.num_steps or self.stop.requested:
            raise interrupt.Interrupted(
                f"{self.stop.name or 'preemption'}: stopped at step {done} of {config.num_steps}, "
                "state saved; the same command continues from here"
            )
        return state

    def _save(self, state: TrainState, done: int, *, wait: bool = False) -> None:
        self.book.flush()  # a checkpoint never knows of a log point that the files lack
        finite.check(state, done)
        with self.stop.saving():
            self.saver.save(state, self.description, done)
            if wait:
                self.saver.wait()

    def _evaluate(self, state: TrainState, done: int) -> None:
        """Run the evaluators; a request to stop drops their values and leaves at once.

        Of several processes none may leave alone, as they compute together.
        """
        self.book.flush()
        alone = jax.process_count() == 1
        if alone and self.stop.requested:
            return
        values = {}
        try:
            with self.stop.cutting_off() if alone else contextlib.nullcontext():
                for evaluator in self.evaluators:
                    for name, value in evaluator(state, done):
                        values[f"eval/{name}"] = float(value)
        except interrupt.CutOff:
            return
        if values:
            self.book.record(done, values)
            self.book.restart_clock(done)


def check_same_config(
    before: Mapping[str, Any], config: ml_collections.ConfigDict, where: epath.PathLike
) -> None:
    """Refuse a finished run of another config; `before` is the config.json in its workdir `where`.

    Raises:
      ValueError: names the first keys that differ, with both values.
    """
    plain_data.check(before, {}, where)
    stored = {key: value for key, value in before.items() if key != "place"}
    found = checkpoint.Description(
        config=upgrades.upgrade_config(stored), modalities={}, place=trained.place_of(before)
    )
    expected = checkpoint.Description(
        config=config_lib.to_json(config), modalities={}, place=_place(where)
    )
    checkpoint.check_same_run(found, expected, may_change=MAY_CHANGE, where=str(where))


def _place(workdir: epath.PathLike) -> trained.Place:
    here = pathlib.Path.cwd()
    return trained.Place(workdir=os.path.normpath(here / pathlib.Path(workdir)), current=str(here))


def _check_workdir(
    saver: checkpoint.Checkpointer, description: checkpoint.Description, workdir: epath.Path
) -> None:
    """Refuse a workdir whose checkpoint belongs to another run."""
    found = saver.describe()
    if found is None:
        return
    step_found, before = found
    may_change: tuple[str, ...] = MAY_CHANGE
    if schedules.extendable(
        before.config["optimizer"]["schedule"],
        num_steps=before.config["num_steps"],
        cooldown_steps=before.config["optimizer"].get("cooldown_steps", 0),
        step=step_found,
    ):
        may_change += ("num_steps",)
    checkpoint.check_same_run(before, description, may_change=may_change, where=str(workdir))


def _is_finished(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    state: TrainState,
    evaluators: Sequence[Evaluator],
) -> bool:
    """Whether nothing is left to do: all steps, and the evaluation after the last one."""
    if state.step < config.num_steps:
        return False
    history = metrics.read_history(workdir)
    evaluated = history and any(name.startswith("eval/") for name in history[-1])
    return bool(history) and (not evaluators or bool(evaluated))


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _label(config: ml_collections.ConfigDict) -> str:
    """What is trained, for people."""
    if config.task == "tokenizer":
        return f"tokenizer {config.tokenizer.name}"
    return "transfer" if config.task == "transfer" else "trunk"


def _announce(
    config: ml_collections.ConfigDict, program: Program, mesh: Mesh, start: int, example: Any
) -> None:
    count = tree.num_elements(program.abstract.params)
    device = mesh.devices.flat[0]
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
    where = f"{mesh.size} {device.device_kind} device(s)" + (f" ({axes})" if mesh.size > 1 else "")
    origin = f"resuming at step {start:,} of" if start else "steps:"
    _say(
        f"{_label(config)}: {count:,} parameters on {where}, batch {config.batch_size}, "
        f"{origin} {config.num_steps:,}"
    )
    records = jax.tree.leaves(example)[0]
    if mesh.size > mesh.shape["tensor"] and records.sharding.is_fully_replicated:
        _say(
            f"note: {len(records)} records per batch do not divide over the mesh ({axes}), so "
            "every device computes all of them; a multiple of data × fsdp is faster"
        )


def _say(message: str) -> None:
    if jax.process_index() == 0:
        progress.announce(message)


def _summary(values: dict[str, float]) -> str:
    return f"loss {values['loss']:.4f}, " if "loss" in values else ""
