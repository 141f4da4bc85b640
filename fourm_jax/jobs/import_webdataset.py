"""The published tar or folder layout -> ArrayRecord shards, with every fault listed and counted.

Shard k of the output holds the good records of the k-th shard (tar, or folder of files) of the
input.
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
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import process
from typing import Any, NamedTuple

from etils import epath

from fourm_jax.data.crops import settings
from fourm_jax.data.published import layout
from fourm_jax.data.storage import left_out, shards
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.jobs import import_records, shard_job
from fourm_jax.modalities import registry
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.tokenizers import text
from fourm_jax.utils import errors, progress

INCOMPLETE = ("drop", "keep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(shard_job.ShardJob):
    """What to import.

    Attributes:
      input: folder that holds one folder per modality.
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
    """

    input: str
    split: str
    modalities: tuple[str, ...]
    family: str = "fourm"
    pictures: str = import_records.PICTURE
    crop_settings: str = settings.SETTINGS
    text_tokenizer: str = ""
    incomplete: str = "drop"
    shards: str = "*"
    seed: int = 0
    num_workers: int = 1


class _Plan(NamedTuple):
    """A job, looked up."""

    root: pathlib.Path
    folders: Mapping[str, str]  # by modality; the picture's and the crop settings', too
    present: Mapping[str, frozenset[str]]  # shards that each folder has
    shards: tuple[str, ...]  # that any folder has
    rules: import_records.Rules
    recipe: Mapping[str, Any]
    schema: Mapping[str, Mapping[str, Any]]


def run(job: Job) -> shard_job.Result:
    """Import the shards that are not there yet.

    Raises:
      ValueError: a job that cannot be done (folder or modality that is not there, no text
        tokenizer, an output folder that holds something else), or no record worth keeping.
      ChildProcessError: a worker that was killed; running the job again continues.
    """
    plan = _make_plan(job)
    for name, folder in plan.folders.items() if job.shards == "*" else ():
        layout.announce_unread(plan.root / folder, plan.present[name])
    with _bar(job, plan):
        if job.num_workers == 1:
            _write(job, plan, 0)
        else:
            _work_together(job)
    result = shard_job.read_result(job.output, job.split)
    shard_job.check_not_empty(job, job.split, result)
    return result


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
            optional = {import_records.PICTURE: "pictures", settings.SETTINGS: "crop_settings"}
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
    if job.pictures and not _has_pixels(specs):
        recipe["pixels"] = False  # pictures are read for their sizes alone
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
        folders[settings.SETTINGS] = job.crop_settings
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


def _has_pixels(specs: Iterable[ModalitySpec]) -> bool:
    return any(spec.kind == "pixels" for spec in specs)


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
    schema: dict[str, dict[str, Any]] = {}
    if _has_pixels(rules.specs):
        schema[import_records.PICTURE] = {"kind": "pixels"}
    for spec in rules.specs:
        if spec.kind == "sequence":
            vocab = {"vocab_size": rules.text(spec).vocab_size, "fingerprint": fingerprint}
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

    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(job: Job, worker: int) -> None:
    """Look the job up again: a text tokenizer does not travel between processes."""
    _write(job, _make_plan(job), worker)


def _write(job: Job, plan: _Plan, worker: int) -> None:
    """Write one worker's share. Machine p of P has the shards p, p + P, …, whatever its number of
    workers is; its worker w of W takes every W-th of them."""
    share = shard_job.ShardJob(
        output=job.output,
        process_index=job.process_index + worker * job.process_count,
        process_count=job.process_count * job.num_workers,
    )
    shard_job.write_shards(
        share,
        job.split,
        recipe=plan.recipe,
        num_shards=len(plan.shards),
        make_entries=lambda number: _import_shard(plan, plan.shards[number]),
        schema=plan.schema,
    )


def _import_shard(plan: _Plan, shard: str) -> Iterator[shard_job.Entry]:
    """Yield the good records of one shard, and what is wrong with the others."""
    indices: dict[str, dict[str, layout.Member]] = {}
    faults: dict[str, list[LeftOutRecord]] = collections.defaultdict(list)
    for name, folder in plan.folders.items():
        if shard in plan.present[name]:
            indices[name], damaged = layout.index_shard(plan.root / folder, shard)
        else:
            message = f"shard {shard!r} is there in other modalities only"
            place = str(_tar(plan, name, shard))
            indices[name] = {}
            damaged = (LeftOutRecord(place=place, reason="missing_shard", message=message),)
        for one in damaged:
            fault = dataclasses.replace(one, modality=name)
            if one.record is None:
                yield _named(plan, shard, fault)
            else:
                faults[str(one.record)].append(fault)
    found = frozenset().union(*indices.values())
    for key in sorted({*found, *faults}):
        files = {name: index[key] for name, index in indices.items() if key in index}
        made = import_records.Converted(None, {})
        if key in found:
            made = import_records.convert(_label(shard, key), files, plan.rules)
        listed = {fault.modality for fault in faults[key]}  # with a better reason than "missing"
        for name, error in made.errors.items():
            if name not in listed:
                place = str(files[name].file if name in files else _tar(plan, name, shard))
                fault = LeftOutRecord(
                    place=place,
                    record=key,
                    modality=name,
                    reason=error.reason,
                    message=str(error),
                )
                faults[key].append(fault)
        for fault in faults[key]:
            yield _named(plan, shard, dataclasses.replace(fault, kept=made.record is not None))
        if made.record is None:
            continue
        for name, changes in made.changes.items():
            if name not in made.errors:
                for one in left_out.about_changes(str(files[name].file), key, name, changes):
                    yield _named(plan, shard, one)
        yield made.record


def _tar(plan: _Plan, name: str, shard: str) -> pathlib.Path:
    folder = plan.root / plan.folders[name]
    return folder if shard == layout.FLAT else folder / f"{shard}.tar"


def _named(plan: _Plan, shard: str, one: LeftOutRecord) -> LeftOutRecord:
    """The entry with its place and record as the list names them."""
    place = pathlib.Path(one.place).relative_to(plan.root).as_posix()
    record = None if one.record is None else _label(shard, str(one.record))
    return dataclasses.replace(one, place=place, record=record)


def _label(shard: str, key: str) -> str:
    """Name of a record; names in a tar need not be text."""
    name = layout.record_name(shard, key)
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


@contextlib.contextmanager
def _bar(job: Job, plan: _Plan) -> Iterator[None]:
    """Bar over the shards of all processes, read off their receipts."""
    bar = progress.Bar(len(plan.shards), label=job.split, unit="shard", enabled=job.show_progress)
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
