"""The published tar or folder layout -> ArrayRecord shards, with every fault listed and counted.

Shard k of the output holds the good records of the k-th shard (tar, or folder of files) of the
input, whoever writes it, so any number of processes, killed and started again at will, ends with
the same files. Beside the shards lies `import_report/`: `<split>.problems.jsonl`, one line per
fault, and `<split>.summary.json`, what was found, written, dropped and why.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import process
from typing import Any, NamedTuple

from etils import epath

from fourm_jax.data.crops import stored
from fourm_jax.data.published import layout
from fourm_jax.data.storage import records, shard_writer, shards
from fourm_jax.jobs import import_records
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import text
from fourm_jax.utils import errors, io, progress

REPORT = "import_report"
MAX_MESSAGE = 500  # characters of one message: it may quote what is wrong
INCOMPLETE = ("drop", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to import.

    Attributes:
      input: folder that holds one folder per modality.
      output: folder of the shards.
      split: name of the split that is written.
      modalities: names, or "name=folder" where the folder is called otherwise than the tokens, or
        than the raw field of a text.
      family: of the modalities, see `registry.FAMILIES`.
      pictures: folder of the pictures, which pixels modalities read and to whose size crops and
        boxes refer; "" if there are none.
      crop_settings: folder of the crop settings; "" if there are none (one centred square crop).
      text_tokenizer: file or folder of the tokenizer that turns texts into ids.
      incomplete: "drop" or "keep" records that lack some modality, or have a bad one.
      shards: pattern of the shards (without .tar) or folders to read.
      seed: of the draws that texts make.
      num_workers: processes of this machine.
      process_index, process_count: which of several machines this is.
      show_progress: draw a bar.
    """

    input: str
    output: str
    split: str
    modalities: tuple[str, ...]
    family: str = "fourm"
    pictures: str = import_records.PICTURE
    crop_settings: str = stored.SETTINGS
    text_tokenizer: str = ""
    incomplete: str = "drop"
    shards: str = "*"
    seed: int = 0
    num_workers: int = 1
    process_index: int = 0
    process_count: int = 1
    show_progress: bool = False


class _Plan(NamedTuple):
    """A job, looked up."""

    root: pathlib.Path
    folders: Mapping[str, str]  # by modality; the picture's and the crop settings', too
    present: Mapping[str, frozenset[str]]  # shards that each folder has
    shards: tuple[str, ...]  # that any folder has
    rules: import_records.Rules
    recipe: Mapping[str, Any]
    schema: Mapping[str, Mapping[str, Any]]


def run(job: Job) -> dict[str, Any] | None:
    """Import the shards that are not there yet.

    Returns:
      The summary {"records_found", "records_written", "records_dropped", "records_incomplete",
      "problems": {reason: count}, …}; None while other machines are still at work.

    Raises:
      ValueError: a job that cannot be done (folder or modality that is not there, no text
        tokenizer, an output folder that holds something else), or no record worth keeping.
      ChildProcessError: a worker that was killed; running the job again continues.
    """
    plan = _make_plan(job)
    with _bar(job, plan):
        if job.num_workers == 1:
            _write(job, plan, 0)
        else:
            _work_together(job)
    summary = _finish_report(job, plan)
    if summary is not None and not summary["records_written"]:
        raise ValueError(
            f"none of {summary['records_found']} records could be imported ({summary['problems']});"
            f" see {report_path(job, 'problems.jsonl')}"
        )
    return summary


def report_path(job: Job, name: str) -> epath.Path:
    """Where a part of the report lies."""
    return epath.Path(job.output) / REPORT / f"{job.split}.{name}"


def _make_plan(job: Job) -> _Plan:
    if job.incomplete not in INCOMPLETE:
        raise ValueError(errors.unknown_value("incomplete", job.incomplete, INCOMPLETE))
    if job.num_workers < 1 or not 0 <= job.process_index < job.process_count:
        raise ValueError(
            f"{job.num_workers} workers of process {job.process_index} of {job.process_count}, "
            "allowed: at least one worker, processes 0..count - 1"
        )
    specs, folders = _resolve(job)
    tokenizer = text.TextTokenizer.load(job.text_tokenizer) if job.text_tokenizer else None
    rules = import_records.Rules(
        specs=specs,
        has_pictures=bool(job.pictures),
        has_crops=bool(job.crop_settings),
        keep_incomplete=job.incomplete == "keep",
        tokenizer=tokenizer,
        seed=job.seed,
    )
    root = pathlib.Path(job.input)
    present = {}
    for name, folder in folders.items():
        try:
            present[name] = frozenset(layout.list_shards(root / folder, job.shards))
        except ValueError as error:
            optional = {import_records.PICTURE: "pictures", stored.SETTINGS: "crop_settings"}
            hint = f" ({optional[name]}='' if there are none)" if name in optional else ""
            raise ValueError(f"{error}{hint}") from error
    fingerprint = (
        hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest() if tokenizer else ""
    )
    recipe = {
        "source": "webdataset",
        "input": _input_fingerprint(root, folders, present),
        "family": job.family,
        "folders": folders,
        "incomplete": job.incomplete,
        "text_tokenizer": fingerprint,
        "seed": job.seed,
    }
    names = tuple(sorted(frozenset().union(*present.values())))
    return _Plan(root, folders, present, names, rules, recipe, _schema(rules, fingerprint))


def _resolve(job: Job) -> tuple[tuple[ModalitySpec, ...], dict[str, str]]:
    """Specs of the modalities and the folder of each."""
    if not job.modalities:
        raise ValueError(f"no modality to import; allowed: those of family {job.family!r}")
    named = dict(item.partition("=")[::2] for item in job.modalities)
    specs = registry.resolve(job.family, [item.partition("=")[0] for item in job.modalities])
    folders = {}
    if job.pictures:
        folders[import_records.PICTURE] = job.pictures
    if job.crop_settings:
        folders[stored.SETTINGS] = job.crop_settings
    for spec in specs:
        if spec.kind != "pixels":
            default = spec.name if spec.kind in ("grid", "global") else spec.source
            folders[spec.name] = named[spec.name] or default
        elif named[spec.name]:
            raise ValueError(
                f"modality {spec.name!r} reads the pictures: their folder is set by pictures="
            )
    for folder in folders.values():
        if pathlib.PurePath(folder).name != folder or folder == "..":
            raise ValueError(f"folder {folder!r}, allowed: names of folders in {job.input}")
    return specs, folders


def _input_fingerprint(
    root: pathlib.Path, folders: Mapping[str, str], present: Mapping[str, frozenset[str]]
) -> str:
    """Changes with the names of the shards and the sizes of the tars."""
    digest = hashlib.sha256()
    for name, folder in folders.items():
        for shard in sorted(present[name]):
            tar = root / folder / f"{shard}.tar"
            size = tar.stat().st_size if tar.is_file() else None
            digest.update(json.dumps([name, shard, size]).encode())
    return digest.hexdigest()


def _schema(rules: import_records.Rules, fingerprint: str) -> dict[str, dict[str, Any]]:
    """What the manifest says about the fields, beside dtype and shape."""
    schema: dict[str, dict[str, Any]] = {import_records.PICTURE: {"kind": "pixels"}}
    for spec in rules.specs:
        if spec.kind == "sequence":
            vocab = {"vocab_size": rules.tokenizer.vocab_size, "fingerprint": fingerprint}
        else:
            vocab = {"vocab_size": spec.vocab_size} if spec.is_token else {}
        if spec.kind != "pixels":
            tokenizer = {"tokenizer": spec.tokenizer} if spec.is_token else {}
            schema[spec.name] = {"kind": spec.kind, "source": spec.source, **tokenizer, **vocab}
    return schema


def _work_together(job: Job) -> None:
    """Give every worker its share of this machine's shards."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        job.num_workers, mp_context=context, initializer=_end_with_parent
    ) as pool:
        shares = [pool.submit(_work, job, worker) for worker in range(job.num_workers)]
        try:
            for share in concurrent.futures.as_completed(shares):
                share.result()
        except process.BrokenProcessPool as error:
            raise ChildProcessError("a worker was killed; run again to continue") from error


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, even by kill -9."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(job: Job, worker: int) -> None:
    """Look the job up again: a text tokenizer does not travel between processes."""
    _write(job, _make_plan(job), worker)


def _write(job: Job, plan: _Plan, worker: int) -> None:
    """Write one worker's share. Machine p of P has the shards p, p + P, …, whatever its number of
    workers is; its worker w of W takes every W-th of them."""
    shard_writer.write_split(
        job.output,
        job.split,
        plan.recipe,
        len(plan.shards),
        lambda number: _import_shard(job, plan, number),
        extra_fields=plan.schema,
        process_index=job.process_index + worker * job.process_count,
        process_count=job.process_count * job.num_workers,
        allow_empty=True,
    )


def _import_shard(job: Job, plan: _Plan, number: int) -> Iterator[records.Record]:
    """Yield the good records of one shard, then write its part of the report."""
    shard = plan.shards[number]
    problems: list[dict[str, str]] = []

    def add(name: str, key: str, file: pathlib.Path | None, reason: str, message: str) -> None:
        file = file or plan.root / plan.folders[name] / f"{shard}.tar"
        problems.append(
            {
                "file": file.relative_to(plan.root).as_posix(),
                "record": _label(shard, key) if key else "",
                "modality": name,
                "reason": reason,
                "message": message[:MAX_MESSAGE],
            }
        )

    indices, faulty = {}, set()
    for name, folder in plan.folders.items():
        if shard not in plan.present[name]:
            message = f"shard {shard!r} is there in other modalities only"
            add(name, "", None, "missing_shard", message)
            indices[name] = {}
            continue
        indices[name], faults = layout.index_shard(plan.root / folder, shard)
        for fault in faults:
            add(name, fault.key, fault.file, fault.reason, fault.message)
            faulty.add((name, fault.key))
    keys = sorted(frozenset().union(*indices.values()))
    counts = collections.Counter(records_found=len(keys))
    for key in keys:
        files = {name: index[key] for name, index in indices.items() if key in index}
        record, wrong = import_records.convert(_label(shard, key), files, plan.rules)
        for name, error in wrong.items():
            if (name, key) not in faulty:  # otherwise it is listed with a better reason
                file = files[name].file if name in files else None
                add(name, key, file, error.reason, str(error))
        if record is None:
            counts["records_dropped"] += 1
        else:
            counts["records_incomplete"] += bool(wrong)
            counts["records_written"] += 1
            yield record
    io.write_json(_part(job, number), {"counts": counts, "problems": problems})


def _label(shard: str, key: str) -> str:
    """Name of a record; names in a tar need not be text."""
    return f"{shard}/{key}".encode(errors="surrogateescape").decode(errors="backslashreplace")


def _part(job: Job, number: int) -> epath.Path:
    return report_path(job, f"part-{number:05d}.json")


def _finish_report(job: Job, plan: _Plan) -> dict[str, Any] | None:
    """Join the parts of the report once the split is finished; None before that."""
    if not shards.manifest_path(job.output, job.split).exists():
        return None
    summary_path = report_path(job, "summary.json")
    parts = [_part(job, number) for number in range(len(plan.shards))]
    if not summary_path.exists():
        # A missing part: another process has just joined and removed them.
        with contextlib.suppress(FileNotFoundError):
            io.write_json(summary_path, _join(job, plan, parts))
    # The report is whole: what is left are its parts and the beginnings that killed writers left.
    for path in (*parts, *summary_path.parent.glob(f"{job.split}.*.tmp")):
        path.unlink(missing_ok=True)
    return io.read_json(summary_path)


def _join(job: Job, plan: _Plan, parts: list[epath.Path]) -> dict[str, Any]:
    """Write the list of problems; returns the summary."""
    path = report_path(job, "problems.jsonl")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    counts, reasons, modalities = (collections.Counter() for _ in range(3))
    with temporary.open("w") as file:
        for part in parts:
            content = io.read_json(part)
            counts.update(content["counts"])
            for problem in content["problems"]:
                file.write(json.dumps(problem) + "\n")
                reasons[problem["reason"]] += 1
                modalities[problem["modality"]] += 1
    temporary.replace(path)
    numbers = ("records_found", "records_written", "records_incomplete", "records_dropped")
    return {
        "split": job.split,
        "shards": len(plan.shards),
        "incomplete": job.incomplete,
        **{name: counts[name] for name in numbers},
        "problems": dict(sorted(reasons.items())),
        "problems_by_modality": dict(sorted(modalities.items())),
    }


@contextlib.contextmanager
def _bar(job: Job, plan: _Plan) -> Iterator[None]:
    """Bar over the shards of all processes, read off their receipts."""
    bar = progress.Bar(len(plan.shards), label=f"{job.split} shards", enabled=job.show_progress)
    done = threading.Event()

    def finished() -> int:
        if shards.manifest_path(job.output, job.split).exists():
            return len(plan.shards)
        return len(list(epath.Path(job.output).glob(f"{job.split}-*-of-*.json")))

    def watch() -> None:
        while not done.wait(0.5):
            bar.update(finished())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        bar.update(finished())
        bar.close()
