"""What a trunk in training makes of a few held-out records, for those who watch its log."""

from collections.abc import Iterable

import jax
import ml_collections
import numpy as np
from etils import epath

from fourm_jax import loading
from fourm_jax.data import pipeline
from fourm_jax.data.left_out_log import LeftOutLog
from fourm_jax.evals import any_to_any, drawing, panels
from fourm_jax.evals.drawing import Cell
from fourm_jax.generate.generator import Generator
from fourm_jax.jobs import eval_data, training_evals
from fourm_jax.models import from_config
from fourm_jax.train import loop, run_config, writers
from fourm_jax.train.state import TrainState

NUM_RECORDS = 4


def make_evaluators(
    config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> tuple[loop.Evaluator, ...]:
    """An evaluator that yields a picture "predictions" and a text "captions"; else none.

    From the picture of a record, or another input where there are no pictures, everything else is
    generated. Only modalities whose tokenizer lies in `workdir` or beside it are drawn; one process
    alone draws, as several hold the parameters in parts.
    """
    model = from_config.make_model(config)
    folder = eval_data.tokenizers_of(epath.Path(workdir))
    tokenizers = loading.tokenizers_of(model, folder) if folder else {}
    drawn = [
        spec
        for spec in sorted(model.modalities, key=lambda spec: spec.decoding_order)
        if not spec.tokenizer or spec.tokenizer in tokenizers
    ]
    inputs = [spec for spec in drawn if spec.name in model.inputs]
    given = next((spec for spec in inputs if spec.kind == "pixels"), inputs[0] if inputs else None)
    if given is None or jax.process_count() > 1:
        return ()
    outputs = [spec for spec in drawn if spec.name in model.outputs]
    targets = [spec.name for spec in outputs if spec.source != given.source]
    if not targets:
        return ()
    datasets = run_config.make_datasets(config, "test")
    batches = pipeline.one_pass(
        datasets,
        model.modalities,
        batch_size=NUM_RECORDS,
        num_records=NUM_RECORDS,
        left_out=LeftOutLog(config.max_left_out_records),
    )
    records, _ = next(batches)

    def evaluate(state: TrainState, step: int) -> Iterable[tuple[str, writers.Shown]]:
        del step
        mesh = getattr(jax.tree.leaves(state.params)[0].sharding, "mesh", None)
        generator = Generator(model, state.eval_params, tokenizers, mesh)
        yield from _draw(generator, given.name, targets, records)

    return (training_evals.periodic(evaluate, config.eval_every, config.num_steps),)


def _draw(
    generator: Generator, given: str, targets: list[str], records: any_to_any.Tokens
) -> Iterable[tuple[str, writers.Shown]]:
    found = generator.generate({given: records[given]}, targets)
    specs = [generator.spec(name) for name in targets]
    values = [any_to_any.record_values(spec, found.decoded[spec.name]) for spec in specs]
    draw = [drawing.of(spec, signal=any_to_any.signal_of(generator, spec)) for spec in specs]
    rows, texts = [], []
    for number in range(NUM_RECORDS):
        picture = records[given]["pixels"][number] if "pixels" in records[given] else None
        cells: list[Cell] = ["" if picture is None else np.asarray(picture)]
        cells += [one(value[number], picture) for one, value in zip(draw, values, strict=True)]
        rows.append((str(number), cells))
        said = zip(targets, cells[1:], strict=True)
        words = [f"{name}: {cell}" for name, cell in said if isinstance(cell, str)]
        texts.append(f"{number}. " + "; ".join(words).replace("\n", ", "))
    yield "predictions", panels.table([f"{given} (given)", *targets], rows)
    yield "captions", "\n".join(texts)
