"""The one train loop, for trunk and tokenizers: build, init or resume, steps, log, save, leave."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from clu import parameter_overview
from etils import epath
from jax.sharding import Mesh

from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.models import trained, weights
from fourm_jax.parallel import distributed
from fourm_jax.parallel import mesh as mesh_lib
from fourm_jax.train import (
    announcements,
    best,
    checkpoint,
    finite,
    init,
    logbook,
    metrics,
    prefetch,
    profile,
    run_config,
    same_run,
    writers,
)
from fourm_jax.train import program as program_lib
from fourm_jax.train.state import TrainState
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import (
    device_memory,
    folder_lock,
    interrupt,
    io,
    progress,
    run_folder,
    tree,
    watchdog,
)

Evaluator = Callable[[TrainState, int], Iterable[tuple[str, float | writers.Shown]]]

SMALLER = (
    "Make config.batch_size, the masking budgets or the model smaller; a trunk may also take a "
    "batch in parts (config.optimizer.accumulate_steps) or compute twice (config.model.remat)"
)
HANG_SECONDS = 1_800.0  # compilation and the largest checkpoint take a fraction of it
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


def train(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    show_progress: bool = True,
    evaluators: Sequence[Evaluator] = (),
    devices: Sequence[jax.Device] | None = None,
    read_weights: weights.Read = trained.read_weights,
    hang_seconds: float = HANG_SECONDS,
    profile_steps: tuple[int, int] = (0, 0),
    histograms: bool = False,
) -> TrainResult:
    """Train what `config` describes, or continue it from the last checkpoint in `workdir`.

    A continued run repeats the interrupted one bit for bit, and makes up first for an evaluation
    that was cut off; a finished one returns at once.

    Args:
      evaluators: called with (state, step) where `run_config.eval_periods` says, and after the last
        one; each yields (name, value), or (name, picture or text) for those who watch.
      devices: to train on, default all.
      read_weights: reads `config.init.source`; default: run folders, `loading.weights` reads more.
      hang_seconds: without a step or the like until the process ends (see `Watchdog`); 0: never.
      profile_steps: first and last step of a trace in <workdir>/profile; (0, 0): none.
      histograms: also show, at every checkpoint, how the parameters are distributed; not of several
        processes, none of which holds all of them.

    Raises:
      ValueError: an invalid config, one that differs between processes, or a workdir that holds
        another run's checkpoint or that another process writes; nothing is overwritten.
      FloatingPointError: too many steps without a finite gradient, or parameters that are not
        finite; they are not saved.
      interrupt.Interrupted: SIGTERM, SIGHUP or Ctrl-C; the state is saved, the same call continues.
    """
    watch, workdir = progress.Stopwatch(), epath.Path(workdir).expanduser()
    with (
        watchdog.Watchdog(hang_seconds) as dog,
        interrupt.StopRequest(distributed.abandon, lambda: dog.doing) as stop,
        contextlib.ExitStack() as held,
        distributed.losses_named(),
        device_memory.explained(SMALLER),
    ):
        # ---------------- What: task, data, mesh; everything in the config is checked here.
        run = run_config.build(config)
        trace = held.enter_context(contextlib.closing(profile.Profile(workdir, *profile_steps)))
        mesh = mesh_lib.make_mesh(**run.mesh, devices=devices)
        description = _description(config, run, workdir)
        distributed.check_same("config key", config_lib.flatten(description.config))
        if jax.process_index() == 0:
            held.enter_context(folder_lock.hold(workdir))
        saver = _checkpointer(config, workdir)
        try:
            # ---------------- State: the newest checkpoint, or a fresh start.
            same_run.check_workdir(saver, description, workdir)
            with contextlib.closing(run.batches(0, mesh=mesh, ahead=False)) as batches:
                example = distributed.put_batch(next(batches), mesh)
            program = program_lib.make(config, run.task, mesh, example)
            state = saver.restore(program.abstract)
            if state is not None and _is_finished(config, workdir, state, evaluators):
                return _reuse(workdir, state, watch)
            if state is None:
                state = _first_state(run, program, example, workdir, read_weights)
            start = int(state.step)
            announcements.of_start(config, program, mesh, start, example)
            del example  # the steps need its memory
            _describe(workdir, description, program)
            left_out = _left_out_log(config, workdir, start)
            # ---------------- Steps. Restoring is over: orbax and a mesh context do not mix.
            book = _logbook(config, run, workdir, state, mesh, left_out, show_progress)
            training = _Training(
                config, program, saver, description, book, stop, dog, trace, evaluators, histograms
            )
            with contextlib.closing(book), jax.set_mesh(mesh):
                stop.defer()
                with contextlib.closing(_input(run, start, left_out, mesh, stop)) as batches:
                    state = training.run(state, start, batches)
        finally:
            saver.close()
    return _finish(config, state, book.values, watch)


def _first_state(
    run: run_config.Run,
    program: program_lib.Program,
    example: Any,
    workdir: epath.Path,
    read_weights: weights.Read,
) -> TrainState:
    """The state before the first step, from scratch or from weights."""
    if run.init is None:
        return program.init(example, program.root)
    found = read_weights(run.init.source)  # before anything is compiled
    state, report = init.start(
        program.init(example, program.root),
        run.init,
        found,
        packed=run.task.packed,
        specs=run.specs,
        function=run.task.function,
    )
    init.check_learned(report, run.init, run.task.never_learns)
    if jax.process_index() == 0:
        io.write_json(workdir / run_folder.INIT, dataclasses.asdict(report))
    announcements.say(f"starts from {run.init.source}: {report}")
    return state


def _checkpointer(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> checkpoint.Checkpointer:
    keep_best = int(run_config.option(config, "keep_best"))
    return checkpoint.Checkpointer(workdir, keep=config.keep_checkpoints, keep_best=keep_best)


def _finish(
    config: ml_collections.ConfigDict,
    state: TrainState,
    values: dict[str, float],
    watch: progress.Stopwatch,
) -> TrainResult:
    """The result of a run that has just ended."""
    reached = f"{announcements.label(config)} done: step {config.num_steps}"
    announcements.say(f"{reached}, {_summary(values)}{watch.seconds():.0f} s")
    return TrainResult(state=state, metrics=values, seconds=watch.seconds())


def _reuse(workdir: epath.Path, state: TrainState, watch: progress.Stopwatch) -> TrainResult:
    """The result of a run that is through."""
    announcements.say(f"{workdir}: finished at step {int(state.step):,}, reused")
    values = {k: v for k, v in metrics.read_history(workdir)[-1].items() if k != "step"}
    return TrainResult(state=state, metrics=values, seconds=watch.seconds())


def _description(
    config: ml_collections.ConfigDict, run: run_config.Run, workdir: epath.Path
) -> checkpoint.Description:
    return checkpoint.Description(
        config=config_lib.to_json(config),
        modalities=config_lib.to_json({spec.name: spec.describe() for spec in run.specs}),
        place=same_run.place(workdir),
    )


def _logbook(
    config: ml_collections.ConfigDict,
    run: run_config.Run,
    workdir: epath.Path,
    state: TrainState,
    mesh: Mesh,
    left_out: LeftOutLog,
    show_progress: bool,
) -> logbook.Logbook:
    return logbook.Logbook(
        workdir,
        state,
        mesh,
        start=int(state.step),
        num_steps=config.num_steps,
        labels=run.task.labels,
        samples_per_step=config.batch_size,
        flops_per_sample=run.task.flops_per_sample,
        left_out=left_out,
        show_progress=show_progress and jax.process_index() == 0,
        label=announcements.label(config),
        config=config_lib.to_json(config),
    )


def _describe(
    workdir: epath.Path, description: checkpoint.Description, program: program_lib.Program
) -> None:
    """Write what the run is, for readers of its folder: its config and its parameters."""
    place = dataclasses.asdict(same_run.place(workdir))
    io.write_json(workdir / "config.json", {**description.config, "place": place})
    table = parameter_overview.get_parameter_overview(
        program.abstract.params, include_stats="sharding"
    )
    io.write_text(workdir / run_folder.PARAMETERS, table + "\n")


def _input(
    run: run_config.Run,
    start: int,
    left_out: LeftOutLog,
    mesh: Mesh,
    stop: interrupt.StopRequest,
) -> Generator[Any, None, None]:
    """Batches on the devices from step `start` on."""
    return prefetch.to_device(
        run.batches(start, left_out, mesh=mesh),
        mesh,
        # several processes stop after a step that all of them reach
        stopped=lambda: stop.requested and jax.process_count() == 1,
    )


def _left_out_log(config: ml_collections.ConfigDict, workdir: epath.Path, start: int) -> LeftOutLog:
    """The list of the records that this process leaves out, from step `start` on."""
    left_out = LeftOutLog(
        config.max_left_out_records,
        workdir,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    left_out.resume(start)
    return left_out


@dataclasses.dataclass
class _Training:
    """What the steps need at hand."""

    config: ml_collections.ConfigDict
    program: program_lib.Program
    saver: checkpoint.Checkpointer
    description: checkpoint.Description
    book: logbook.Logbook
    stop: interrupt.StopRequest
    dog: watchdog.Watchdog
    trace: profile.Profile
    evaluators: Sequence[Evaluator]
    histograms: bool
    held_out_losses: dict[int, float] = dataclasses.field(default_factory=dict)
    since_save: progress.Stopwatch = dataclasses.field(default_factory=progress.Stopwatch)

    def run(self, state: TrainState, start: int, batches: Iterator[Any]) -> TrainState:
        """Take the steps from `start` on; return the final state, saved.

        Raises:
          interrupt.Interrupted: stopped on request, after saving.
        """
        config, watch = self.config, progress.Stopwatch()
        periods = run_config.eval_periods(config)
        in_flight: collections.deque[jax.Array] = collections.deque()
        done = start
        if self._lacks_evaluation(start):
            self._evaluate(state, start)
        while done < config.num_steps and not distributed.should_stop(self.stop.name, done):
            self.dog.beat(f"step {done}")
            waiting = progress.Stopwatch()
            try:
                batch = next(batches)
            except prefetch.Stopped:
                break
            waited = waiting.seconds()
            self.book.note_wait(waited)
            self.trace.before(done + 1)
            state, loss = self.program.train_step(state, batch, self.program.root)
            self.trace.after(done + 1, loss)
            in_flight.append(loss)
            self.book.note(done, loss)
            done += 1
            self.book.flush()
            if done == start + 1:
                loss.block_until_ready()
                announcements.say(
                    f"first step after {watch.seconds():.1f} s, {waited:.1f} of them for the first "
                    "batch, the others for compilation"
                )
                self.book.restart_clock(done)
            if done % config.log_every == 0 or done == config.num_steps:
                state = self.book.take(state, done)
            if any(_due(done, n) for n in periods) and done < config.num_steps:
                self._evaluate(state, done)
            if self._is_to_be_saved(done):
                self._save(state, done)
            if len(in_flight) > STEPS_IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            del batch  # while the reading thread is idle (see `prefetch`) and no wait is counted
            self.book.tick(done)
        stopped = done < config.num_steps
        self.book.flush()
        if not stopped:
            self._evaluate(state, done)
        self._save(state, done, wait=True)
        if stopped or (self.stop.requested and jax.process_count() == 1):
            reason = distributed.stop_reason() or self.stop.name
            raise interrupt.Interrupted(
                f"{reason}: stopped at step {done} of {config.num_steps}, "
                "state saved; the same command continues from here"
            )
        return state

    def _save(self, state: TrainState, done: int, *, wait: bool = False) -> None:
        self.dog.beat(f"checkpoint of step {done}")
        with self.stop.saving():
            self._write(state, done, wait)

    def _write(self, state: TrainState, done: int, wait: bool) -> None:
        self.book.flush()  # a checkpoint never knows of a log point that the files lack
        finite.check(state, done)
        if self.histograms and jax.process_count() == 1:
            params = tree.named_leaves(state.params)
            self.book.show(done, {f"params/{name}": np.asarray(x) for name, x in params.items()})
        self.since_save = progress.Stopwatch()
        loss = self.held_out_losses.get(done)
        self.saver.save(state, self.description, done, held_out_loss=loss)
        if wait:
            self.saver.wait()

    def _is_to_be_saved(self, done: int) -> bool:
        """Whether a checkpoint is due, by steps or minutes (process 0 says so at log points).

        Where the best are kept, the last one waits for its held-out loss as others do.
        """
        if done == self.config.num_steps and run_config.option(self.config, "keep_best"):
            return False
        if _due(done, self.config.checkpoint_every):
            return True
        minutes = run_config.option(self.config, "checkpoint_minutes")
        if not minutes or not _due(done, self.config.log_every):
            return False
        return bool(distributed.decided_by_first(lambda: self.since_save.seconds() > 60 * minutes))

    def _lacks_evaluation(self, start: int) -> bool:
        """Whether the step that a run continues from was to be evaluated and was not."""
        due = any(_due(start, every) for every in run_config.eval_periods(self.config))
        if not (self.evaluators and due and 0 < start < self.config.num_steps):
            return False
        assert self.description.place is not None  # `_description` says it
        workdir = epath.Path(self.description.place.workdir)
        return bool(distributed.decided_by_first(lambda: not _is_evaluated(workdir, start)))

    def _evaluate(self, state: TrainState, done: int) -> None:
        """Run the evaluators; a request to stop drops their values and leaves at once.

        Of several processes none may leave alone, as they compute together. One process saves the
        state before an evaluator's error ends the run.
        """
        self.book.flush()
        self.dog.beat(f"evaluation at step {done}")
        alone = jax.process_count() == 1
        if alone and self.stop.requested:
            return
        values: dict[str, float] = {}
        shown: dict[str, writers.Shown] = {}
        try:
            with self.stop.cutting_off() if alone else contextlib.nullcontext():
                for evaluator in self.evaluators:
                    for name, value in evaluator(state, done):
                        if isinstance(value, str) or (isinstance(value, np.ndarray) and value.ndim):
                            shown[f"eval/{name}"] = value
                        else:
                            values[f"eval/{name}"] = float(value)
                        self.dog.beat(f"evaluation at step {done}, after {name}")
            loss = best.held_out_loss(self.config, values, done) if self.evaluators else None
        except interrupt.CutOff:
            return
        except BaseException:
            if alone:
                self._save(state, done, wait=True)
            raise
        if loss is not None:
            # Its checkpoint is there already where an evaluation is made up for. First, as what is
            # in the history is not evaluated again.
            self.saver.add_held_out_loss(done, loss)
            self.held_out_losses[done] = loss
        if shown:
            self.book.show(done, shown)
        if values:
            self.book.record(done, values)
            self.book.restart_clock(done)


def _is_finished(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    state: TrainState,
    evaluators: Sequence[Evaluator],
) -> bool:
    """Whether nothing is left to do: all steps, and the evaluation after the last one."""
    if state.step < config.num_steps:
        return False
    if not evaluators:
        return bool(metrics.read_history(workdir))
    return _is_evaluated(workdir, int(state.step))


def _is_evaluated(workdir: epath.Path, step: int) -> bool:
    """Whether the history has what evaluators measured after `step` steps."""
    points = [point for point in metrics.read_history(workdir) if point["step"] == step]
    return any(name.startswith("eval/") for point in points for name in point)


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _summary(values: dict[str, float]) -> str:
    return f"loss {values['loss']:.4f}, " if "loss" in values else ""
