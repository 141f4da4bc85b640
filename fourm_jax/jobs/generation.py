"""Generate for one request or for many: one folder of results, which can be continued.

OUTPUT/settings.json    what all requests share
OUTPUT/NAME/            one request (one sample of it), written last: result.json
  sheet.png             conditions, as the model reads them, and results side by side
  MODALITY.png, .npy    each result drawn, and as the array it is
  ids.npz               ids of all results
  result.json           texts and typed values, and everything needed to repeat it
"""

import dataclasses
import hashlib
import io as bytes_io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

import fourm_jax
from fourm_jax.evals import any_to_any, drawing, galleries, panels, pictures
from fourm_jax.evals.drawing import Cell
from fourm_jax.generate import conditions as condition_entries
from fourm_jax.generate import defaults, results
from fourm_jax.generate.conditions import Entry
from fourm_jax.generate.generator import Generated, Generator
from fourm_jax.jobs import output_folder
from fourm_jax.jobs.requests import Request
from fourm_jax.models import weights
from fourm_jax.utils import io, progress

MAX_LISTED = 256  # numbers of an array that JSON lists; of a longer one it has the digest
GIVEN = " (given)"
WEIGHTS = "weights"  # their fingerprint; a folder of an older version does not know it
SETTINGS, RESULT, SHEET = "settings.json", "result.json", "sheet.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What all requests share.

    Attributes:
      options: of `Generator.generate`, but seeds and samples.
      source: where the generator came from, for `result.json`.
      num_samples: results per request.
      best_of: samples of which each result is the best, see `Generator.best_of`.
      verifier: the condition that decides which one that is.
      batch_size: samples on the device at once.
    """

    options: Mapping[str, Any]
    source: str
    num_samples: int = 1
    best_of: int = 1
    verifier: str = "caption"
    batch_size: int = 64

    def __post_init__(self):
        if self.best_of > 1 and self.num_samples > 1:
            raise ValueError(
                f"the best of {self.best_of} and {self.num_samples} samples, allowed: one of both"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data from which the job can be made again, also where the defaults change."""
        names = ("source", "options", "num_samples", "best_of", "verifier")
        own = {name: plain(getattr(self, name)) for name in names}
        return {**own, "defaults": plain(defaults.DEFAULTS)}


def run(
    generator: Generator,
    requests: Sequence[Request],
    output: epath.Path,
    job: Job,
    *,
    show_progress: bool = True,
) -> int:
    """Answer all requests that have no result yet; return how many these were.

    Raises:
      ValueError: the folder has results of other settings or of other requests under these names,
        or other things and no results, or what `generate` refuses.
    """
    settings = {**job.to_json(), WEIGHTS: weights.fingerprint(generator.params)}
    _check_settings(output, settings)
    todo = [one for one in requests if not _is_done(output, one, job.num_samples)]
    bar = progress.Bar(len(todo), label="generate", unit="request", enabled=show_progress)
    count = 0
    for block in _blocks(todo, max(job.batch_size // (job.num_samples * job.best_of), 1)):
        entries = encode(generator, block)
        made = generate(generator, entries, [one.seed for one in block], job)
        for number, request in enumerate(block):
            for sample in range(job.num_samples):
                folder = output / _folder_name(request, sample, job.num_samples)
                given = {name: rows(entry, number) for name, entry in entries.items()}
                one = made.rows([number * job.num_samples + sample])
                record = {**settings, **request.to_json(), "sample": sample}
                write(generator, given, one, folder, record)
        count += len(block)
        bar.update(count)
    bar.close()
    return len(todo)


def check_output(output: epath.Path) -> None:
    """Refuse a folder that holds something and no results, such as a run or a data set.

    Raises:
      ValueError: names the first thing that is there.
    """
    output_folder.check(output, SETTINGS, "no results of generation")


def generate(
    generator: Generator, entries: Mapping[str, Entry], seeds: Sequence[int], job: Job
) -> Generated:
    """One call of the generator."""
    options = {**job.options, "seed": seeds, "batch_size": job.batch_size}
    targets = options.pop("targets")
    if job.best_of > 1:
        return generator.best_of(entries, targets, job.best_of, verifier=job.verifier, **options)
    return generator.generate(entries, targets, num_samples=job.num_samples, **options)


def draw_one(generator: Generator, request: Request, job: Job, output: epath.Path) -> Generated:
    """Generate for one request and draw it as one PNG picture, conditions first."""
    entries = encode(generator, [request])
    made = generate(generator, entries, [request.seed], job)
    cells = draw(generator, values(generator, entries, made))
    io.write_bytes(output, pictures.png(panels.sheet(cells)))
    return made


def animate(generator: Generator, request: Request, job: Job, output: epath.Path) -> None:
    """Draw every step of one request as an animation.

    Open positions of grids are grey. Texts appear when they are whole.
    """
    entries = encode(generator, [request])
    frames = [step.cells for step in steps(generator, entries, request.seed, job)]
    everything = list(frames[-1])
    sheets = [panels.sheet({n: cells.get(n, "") for n in everything}) for cells in frames]
    height = max(sheet.shape[0] for sheet in sheets)
    padded = [
        np.pad(one, [(0, height - one.shape[0]), (0, 0), (0, 0)], constant_values=255)
        for one in sheets
    ]
    io.write_bytes(output, pictures.animation(padded, output.suffix))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What there is after one step of a request.

    Attributes:
      target: in hand.
      made: results so far.
      cells: conditions and results drawn, open positions of grids grey.
    """

    target: str
    made: Generated
    cells: Mapping[str, Cell]


def steps(
    generator: Generator, entries: Mapping[str, Entry], seed: int, job: Job
) -> Iterator[Step]:
    """The steps of one request, as they are made; the last one is the whole result."""
    options = dict(job.options)
    targets = options.pop("targets")
    for target, made in generator.stream(entries, targets, seed=[seed], **options):
        cells = draw(generator, values(generator, entries, made), with_legends=False)
        for name, known in made.known.items():
            cell, spec = cells.get(name), generator.spec(name)
            if isinstance(cell, np.ndarray) and spec.kind == "grid":
                cells[name] = _veiled(cell, known[0].reshape(spec.grid))
        yield Step(target=target, made=made, cells=cells)


def _veiled(picture: pictures.Picture, known: np.ndarray) -> pictures.Picture:
    """The picture with grey where a cell is open."""
    height, width = picture.shape[:2]
    rows_of = np.arange(height) * known.shape[0] // height
    columns_of = np.arange(width) * known.shape[1] // width
    seen = known[rows_of[:, None], columns_of]
    return np.where(seen[..., None], picture, np.uint8(160))


def _check_settings(output: epath.Path, settings: Mapping[str, Any]) -> None:
    path = output / SETTINGS
    check_output(output)
    if not path.exists():
        io.write_json(path, settings)
        return
    there = io.read_json(path)
    for key in {**there, **settings}:
        if there.get(key, settings[key] if key == WEIGHTS else None) != settings.get(key):
            raise ValueError(
                f"{output} has results of other settings: {key} is {there.get(key)} there, "
                f"{settings.get(key)} here; use another output"
            )


def _folder_name(request: Request, sample: int, num_samples: int) -> str:
    return request.name if num_samples == 1 else f"{request.name}_{sample}"


def _is_done(output: epath.Path, request: Request, num_samples: int) -> bool:
    """Whether all results are there; ValueError where one of them answers another request."""
    asked = plain(request.to_json())
    for sample in range(num_samples):
        folder = output / _folder_name(request, sample, num_samples)
        if not (folder / RESULT).exists():
            return False
        there = io.read_json(folder / RESULT)
        for key, value in asked.items():
            if there.get(key) != value:
                raise ValueError(
                    f"{folder} has the result of another request: {key} is {there.get(key)} there, "
                    f"{value} here; use another output"
                )
    return True


def _blocks(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Requests for one call: of the same conditions, at most `size`, in their order."""
    block: list[Request] = []
    for request in requests:
        if block and (len(block) == size or set(block[0].conditions) != set(request.conditions)):
            yield block
            block = []
        block.append(request)
    if block:
        yield block


def encode(generator: Generator, block: Sequence[Request]) -> dict[str, Entry]:
    """Conditions of several requests of the same modalities, encoded."""
    return {
        name: condition_entries.encode_rows(
            generator.spec(name), [one.conditions[name] for one in block], generator.tokenizers
        )
        for name in block[0].conditions
    }


def rows(entry: Entry, number: int) -> Entry:
    """One row of an entry of the batch contract."""
    return {key: array[number : number + 1] for key, array in entry.items()}


def write(
    generator: Generator,
    given: Mapping[str, Entry],
    made: Generated,
    folder: epath.Path,
    record: Mapping[str, Any],
) -> None:
    """Write one row of conditions and results; `record` is what `result.json` says of it."""
    shown = values(generator, given, made)
    cells = draw(generator, shown)
    folder.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {}
    for name, one in made.decoded.items():
        if isinstance(shown[name], np.ndarray) and generator.spec(name).kind != "sequence":
            np.save(folder / f"{name}.npy", shown[name])
        else:
            said[name] = plain(shown[name])
            said[f"{name} (text)"] = one.texts[0]
        cell = cells[name]
        if isinstance(cell, np.ndarray):
            io.write_bytes(folder / f"{name}.png", pictures.png(cell))
    ids = {name: ids[0][made.known[name][0]] for name, ids in made.ids.items()}
    buffer = bytes_io.BytesIO()
    np.savez(buffer, **ids)
    io.write_bytes(folder / "ids.npz", buffer.getvalue())
    io.write_bytes(folder / SHEET, pictures.png(panels.sheet(cells)))
    versions = {"fourm_jax": fourm_jax.__version__, "jax": jax.__version__}
    device = jax.devices()[0].device_kind
    not_drawn = made.decoded.lacking
    io.write_json(
        folder / RESULT,
        {
            **record,
            "results": said,
            "not_decoded": not_drawn,
            "versions": versions,
            "device": device,
        },
    )


def values(generator: Generator, given: Mapping[str, Entry], made: Generated) -> dict[str, Any]:
    """Conditions as the model reads them and results, as record fields; of the first row.

    What was given of a modality that is generated too stands under "NAME (given)".
    """
    made_values = {
        name: any_to_any.record_values(generator.spec(name), one)[0]
        for name, one in made.decoded.items()
    }
    read = readings(generator, given)
    renamed = {f"{name}{GIVEN}" if name in made.ids else name: read[name] for name in read}
    return renamed | made_values


def readings(generator: Generator, given: Mapping[str, Entry]) -> dict[str, Any]:
    """Conditions as the model reads them, where they can be decoded; one row each."""
    found: dict[str, Any] = {}
    for name, entry in given.items():
        spec = generator.spec(name)
        if "pixels" in entry:
            found[name] = np.asarray(entry["pixels"])[0]
        elif "ids" in entry:
            ids = np.asarray(entry["ids"])
            known = np.ones(ids.shape, bool)
            if "length" in entry:
                known = np.arange(ids.shape[1]) < np.asarray(entry["length"])[:, None]
            decoded = results.decode(spec, ids, known, generator.tokenizers)
            if decoded is not None:
                found[name] = any_to_any.record_values(spec, decoded)[0]
    return found


def draw(
    generator: Generator, shown: Mapping[str, Any], *, with_legends: bool = True
) -> dict[str, Cell]:
    """Drawings of one value of each modality; boxes stand on the picture generated with them."""
    rows_of_one = {name.removesuffix(GIVEN): [value] for name, value in shown.items()}
    picture = galleries.picture_of(generator, dict(reversed(rows_of_one.items())), 0)
    cells: dict[str, Cell] = {}
    for name, value in shown.items():
        spec = generator.spec(name.removesuffix(GIVEN))
        signal = any_to_any.signal_of(generator, spec)
        cells[name] = drawing.of(spec, signal=signal)(value, picture)
        legend = drawing.legend(spec, value, signal=signal) if with_legends else ""
        if isinstance(legend, np.ndarray):
            cells[f"{name}: legend"] = legend
    return cells


def plain(value: Any) -> Any:
    """JSON of settings and typed values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.size > MAX_LISTED:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
