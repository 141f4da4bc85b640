"""Wrong command lines: what people type, command by command."""

import dataclasses
import shlex
from collections.abc import Iterator

SMALL = "--config=scenes:size=nano,runlocal"
TOY = "--config=quickstart:runlocal"


@dataclasses.dataclass(frozen=True)
class Line:
    """One command line.

    Attributes:
      command: module of experiments/.
      arguments: {base} is the folder of `wrong_files.make`, {run} a finished run, {new} no folder
        yet.
      is_taken: whether it is no mistake after all.
    """

    command: str
    arguments: str
    is_taken: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.command} {self.arguments}"[:90]


def lines() -> list[Line]:
    """All of them, command by command."""
    parts = (
        _train,
        _generate,
        _measure,
        _build,
        _convert,
        _import,
        _tokenize,
        _text,
        _quickstart,
        _rest,
    )
    return [line for part in parts for line in part()]


def _train() -> Iterator[Line]:
    workdir = "--workdir={new}"
    for arguments in ("", workdir, f"--config=nope.py {workdir}", f"--config= {workdir}"):
        yield Line("train", arguments)
    for name in ("raises", "syntax", "without", "none", "dict", "exits", "empty", "positional"):
        yield Line("train", f"--config={{base}}/{name}.py {workdir}")
    for name in ("empty", "positional", "other"):
        yield Line("train", f"--config={{base}}/{name}.py:size=nano {workdir}")
    for argument in ("size=huge", "foo=1", "size", "size=nano,data=/nope", "runlocal=maybe"):
        yield Line("train", f"--config=scenes:{argument} {workdir}")
    for path in ("{base}/file", "{base}/file/x", "/proc/x", ""):
        yield Line("train", f"{SMALL} --workdir={path}")
    for key in (
        "num_steps=-1", "num_steps=abc", "num_steps=1.5", "batch_size=0", "batch_size=-8",
        "log_every=0", "checkpoint_every=-1", "keep_checkpoints=-1", "eval_every=-1",
        "optimizer.lr=nan", "optimizer.lr=inf", "optimizer.lr=-1", "optimizer.schedule=foo",
        "optimizer.warmup_steps=-1", "optimizer.ema_decay=2.0", "optimizer.clip_norm=-1.0",
        "optimizer.clip_norm=nan", "optimizer.b1=2.0", "optimizer.b2=-0.1", "optimizer.eps=-1.0",
        "optimizer.eps=0.0", "optimizer.weight_decay=nan", "optimizer.name=sgd9",
        "optimizer.timescale=0.0", "optimizer.min_lr=1.0", "optimizer.accumulate_steps=0",
        "optimizer.learning_rate=1.0",
        "model.dim=0", "model.dim=-32", "model.num_heads=3", "model.num_heads=0",
        "model.encoder_depth=-1", "model.mlp=foo", "model.remat=foo", "model.drop_path=2.0",
        "model.scan_unroll=-1", "masking.num_inputs=0", "masking.num_inputs=100000",
        "masking.num_targets=-1", "dtype=int8", "dtype=float99", "seed=-1", f"seed={2**70}",
        "seed=1.5", "data[0].weight=0.0", "data[0].weight=nan", "data[0].weight=-1.0",
        "data[0].source=foo", "data[7].weight=1.0", "data=3", "modalities=3", "optimizer=3",
        "mesh.fsdp=0", "mesh.fsdp=7", "mesh.data=-3", "task=foo", "loss=foo",
        "\"modalities.inputs=('rgb','foo')\"", "\"modalities.outputs=()\"",
    ):  # fmt: skip
        flag = f'"--config.{key[1:]}' if key.startswith('"') else f"--config.{key}"
        yield Line("train", f"{SMALL} --workdir={{new}} {flag}")
    yield Line("train", f"{SMALL} {workdir} --hang_seconds=-1")
    yield Line("train", f"{SMALL} {workdir} foo")
    yield Line("train", f"{SMALL} {workdir} --foo=1")
    yield Line("train", f"{TOY} {workdir}")
    yield Line("train", f"--config=data/scenes:tokenize {workdir}")
    yield from _several_processes(workdir)


def _several_processes(workdir: str) -> Iterator[Line]:
    here = ("FOURM_COORDINATOR", "127.0.0.1:54321")
    short = ("FOURM_START_TIMEOUT", "3")
    for environment in (
        (here,),
        (here, ("FOURM_NUM_PROCESSES", "2"), ("FOURM_PROCESS_ID", "x")),
        (here, ("FOURM_NUM_PROCESSES", "2"), ("FOURM_PROCESS_ID", "5"), short),
        (here, ("FOURM_NUM_PROCESSES", "2"), ("FOURM_PROCESS_ID", "1"), short),
        (here, ("FOURM_NUM_PROCESSES", "2"), ("FOURM_PROCESS_ID", "0"), short),
    ):
        yield Line("train", f"{SMALL} {workdir}", environment=environment)


def _generate() -> Iterator[Line]:
    for source in ("/nope", "{base}/file", "{base}/nothing", "", "nobody/nothing"):
        yield Line("generate", f"--source={source} --output={{new}}.png")
    yield Line("generate", "--workdir={run}")
    fixed = "--source={run} --output={new}.png"
    pictures = ("text", "empty", "cut", "huge", "big")
    others = ("a.eps", "objects.npy", "text.npy", "huge.npy", "zip.npy", "file")
    files = (*(f"{name}.png" for name in pictures), *others, "list.json", "nothing", "nope.png")
    for arguments in (
        "--conditions=foo", "--targets=foo", "--targets=depth", "--targets=", "--conditions==x",
        *(f"--conditions=rgb={{base}}/{name}" for name in files),
        "--conditions=tok_depth={base}/nan.npy",
        "--record=-1", "--record=1000000000", "--record=abc", "--num_steps=0", "--num_steps=-3",
        "--guidance=nan", "--guidance=inf", "--guidance=x", "--temperature=-1", "--seed=-1",
        f"--seed={2**70}", "--conditions=rgb --targets=rgb", "--foo=1", "extra",
        "--conditions=caption=a --conditions=caption=b --targets=tok_depth",
        "--guide=caption", "--guide=caption=a:x", "--guide=foo=a:1", "--guide=caption=a:nan",
        "--guide=caption=a:2 --guidance=3",
        "--plan=nope", "--plan={base}/nope.json", "--plan={base}/list.json", "--plan={base}/file",
        "--conditions=tok_rgb --targets=tok_rgb --mask=0,0,1,0.5 --shift=1,1",
        "--mask=1,2", "--mask=0.9,0.1,0.2,0.3", "--mask={base}/nope.png", "--shift=a,b",
        "--prompts=/nope", "--prompts={base}/file", "--process_id=3 --process_count=2",
        "--num_samples=0", "--num_samples=4", "--best_of=0", "--batch_size=0", "--dtype=int8",
        "--animation={new}.mp4", "--mesh=data=x", "--intermediate=foo",
    ):  # fmt: skip
        # What is taken after all should not take long.
        few = "" if "--targets" in arguments else " --targets=caption"
        yield Line("generate", f"{fixed} {arguments}{few}")
    for output in (
        "x.jpg",
        "x.bmp",
        "x.PNG",
        "/nope/x.png",
        "{base}/file",
        "{base}/file/x.png",
        "",
    ):
        yield Line("generate", f"--source={{run}} --targets=caption --output={output}")
    yield Line("generate", f"{fixed} --tokenizers=/nope")
    for name in ("large.png", "dot.png", "L.png", "RGBA.png"):
        condition = f"--conditions=rgb={{base}}/{name}"
        yield Line("generate", f"{fixed} {condition} --targets=caption", True)
    for length, is_taken in ((3, True), (60, False)):  # which is more than the model's 40 tokens
        for text in ("red ball " * length, "猫\u202e\x01 " * length):
            quoted = shlex.quote(f"--conditions=caption={text}")
            arguments = f"{fixed} {quoted} --targets=tok_depth --num_steps=1"
            yield Line("generate", arguments, is_taken)


def _measure() -> Iterator[Line]:
    """Evaluation, vectors, search and comparison."""
    fixed = "--source={run} --num_records=4 --output={new}"
    for arguments in (
        "--evals=",
        "--evals=foo",
        "--split=foo",
        "--data=nope",
        "--evals=knn --option=knn.k=0",
        "--evals=val_loss --option=val_loss.seed=-1",
        "--evals=val_loss --option=knn.k=3",
        "--evals=val_loss --option=val_loss.batch_size=x",
        "--evals=val_loss --option=val_loss.weights=nan+1",
        "--evals=any_to_any --option=any_to_any.num_train=-1",
        "--evals=any_to_any --option=any_to_any.temperature=nan",
        "--evals=any_to_any --option=any_to_any.targets=foo",
        "--evals=knn --option=knn.label=det.classes.0 --option=knn.temperature=0",
    ):
        yield Line("evaluate", f"{fixed} {arguments}")
    yield Line("evaluate", "--source={run} --num_records=4 --evals=codebooks --output={run}")
    for arguments in ("--condition=foo", "--condition=", "--features=foo", "--depth=99"):
        yield Line("embed", f"{fixed} {arguments}")
    for arguments in ("", "--index={base}", "--index={base} --query=caption", "--index=/nope"):
        yield Line("search", arguments)
    yield Line("search", "--index={base} --query=caption=a --output={new}.jpg")
    for arguments in ("", "{run}", "{run} /nope", "{run} {base}/file", "-v 1 {run}"):
        yield Line("compare", arguments)


def _build() -> Iterator[Line]:
    yield Line("build_data", "")
    for images in ("/nope", "{base}/file", "{base}/nothing", ""):
        yield Line("build_data", f"--images={images} --output={{new}}")
    for output in ("{base}/odd/o", "{base}/file", "/proc/x", ""):
        yield Line("build_data", f"--images={{base}}/odd --output={output}")
    for arguments in (
        "--image_size=0", "--image_size=-5", "--image_size=abc", "--test_fraction=2",
        "--test_fraction=nan", "--labelers=foo", "--labelers=", "--models=depth",
        "--models=depth=/nope", "--models=foo=bar", "--process_index=5 --process_count=2",
        "--process_count=0",
    ):  # fmt: skip
        yield Line("build_data", f"--images={{base}}/odd --output={{new}} {arguments}")
    for folder in ("odd", "hard"):
        arguments = f"--images={{base}}/{folder} --output={{new}} --labelers=rgb"
        yield Line("build_data", f"{arguments} --image_size=32", True)


def _convert() -> Iterator[Line]:
    yield Line("convert_checkpoint", "")
    for source in (
        "/nope", "{base}/nothing", "{base}/pickle.pth", "{base}/file", "{base}/list.json",
        "nobody/nothing", "猫/x", "",
    ):  # fmt: skip
        yield Line("convert_checkpoint", f"--source={source} --output={{new}}")
    for overrides in ("/nope", "{base}/file", "{base}/list.json"):
        arguments = f"--source={{base}}/nothing --output={{new}} --overrides={overrides}"
        yield Line("convert_checkpoint", arguments)
    for output in ("{base}/nothing", "{base}/file"):
        yield Line("convert_checkpoint", f"--source={{run}}/tokenizers/rgb --output={output}")
    yield Line("convert_checkpoint", "--source={run}/tokenizers/text --output={new} --export")


def _import() -> Iterator[Line]:
    command = "import_webdataset"
    yield Line(command, "")
    yield Line(command, "--input=/nope --output={new} --modalities=rgb@224")
    fixed = "--input={base}/nothing --output={new}"
    for arguments in (
        "--modalities=foo", "--modalities=", "--modalities=tok_rgb@224",
        "--modalities=tok_rgb@224 --num_workers=0", "--modalities=tok_rgb@224=../x",
        "--modalities=tok_rgb@224 --family=foo", "--modalities=caption",
        "--modalities=caption --text_tokenizer={base}/file",
        "--modalities=caption --text_tokenizer=/nope", "--modalities=tok_rgb@224 --seed=x",
        "--modalities=tok_rgb@224 --incomplete=maybe",
    ):  # fmt: skip
        yield Line(command, f"{fixed} {arguments}")


def _tokenize() -> Iterator[Line]:
    command, config = "tokenize_dataset", "--config=data/scenes:tokenize"
    yield Line(command, "")
    trained, output = "--tokenizers={run}/tokenizers", "--output={new}"
    yield Line(command, f"{SMALL} {trained} {output}")
    yield Line(command, f"--config=data/scenes {trained} {output}")
    yield Line(command, f"{config} --tokenizers=/nope {output}")
    yield Line(command, f"{config} --tokenizers={{base}}/nothing {output}")
    yield Line(command, f"--config=data/folder:directory=/nope,tokenize {trained} {output}")
    for arguments in (
        "--split=foo", "--config.num_records.train=-1", "--config.records_per_shard=0",
        "--config.seed=-1", "--process_count=0", "--config.modalities=3", "--config.crops=3",
    ):  # fmt: skip
        yield Line(command, f"{config} {trained} {output} {arguments}")


def _text() -> Iterator[Line]:
    command, output = "train_text_tokenizer", "--output={new}"
    for arguments in (
        "", f"--records=foo {output}", f"--num_records=0 {output}", f"--num_records=-1 {output}",
        f"--num_records=8 --vocab_size=10 {output}", f"--num_records=8 --vocab_size=-1 {output}",
        f"--records=token_shards --directory=/nope {output}", f"--records=token_shards {output}",
        "--num_records=8 --output={base}/file", "--num_records=8 --output=",
    ):  # fmt: skip
        yield Line(command, arguments)


def _quickstart() -> Iterator[Line]:
    for arguments in (
        f"{TOY} --workdir={{base}}/file", f"{TOY} --workdir=", "--config=quickstart:data=foo",
        "--config.trunk.foo=1", "--config.trunk=3", "--config.tokenizers=3",
        f"{SMALL} --workdir={{new}}", f"{TOY} --workdir={{new}} --config.seed=-1",
        f"{TOY} --workdir={{new}} --config.pretokenize.num_records.train=0",
        f"{TOY} --workdir={{new}} --config.trunk.optimizer.lr=nan",
        f"{TOY} --workdir={{run}} --config.evaluation.num_records=0",
    ):  # fmt: skip
        yield Line("quickstart", arguments)


def _rest() -> Iterator[Line]:
    for cases in ("", "--cases=/nope", "--cases={base}/nothing", "--cases={base}/file", "--cases="):
        yield Line("verify_reference", cases)
    for source in ("", "--source=/nope", "--source={base}/nothing", "--source={base}/file"):
        yield Line("scrub", source)
    for suite in ("", "--suite=foo", "--suite=train --cases=foo", "--suite=train --compare=/nope"):
        yield Line("benchmark", suite)
    for arguments in ("", "--source=/nope --config=scenes --workdir={new}"):
        yield Line("add_modality", arguments)
    yield Line("add_modality", f"--source={{run}} {SMALL} --workdir=/proc/x")
    for arguments in (
        "--source=/nope --workdir={new}", "--source={run} --workdir={base}/file",
        "--source={run} --workdir={new} --tasks=foo", "--source={run} --workdir={new} --seeds=-1",
        "--source={run} --workdir={new} --labels=x", "--source={run} --workdir={new} --labels=",
        "--source={run} --workdir={new} --tasks=",
    ):  # fmt: skip
        yield Line("transfer_table", arguments)
    for arguments in (
        "--source=/nope", "--source={base}/nothing", "--source={run} --output={base}/file",
        "--source={run} --num_records=-1", "--source={run} --seed=-1",
    ):  # fmt: skip
        yield Line("showcase", arguments)
    for arguments in ("", "--config=nope", f"{SMALL} --num_devices=0", f"{SMALL} --num_devices=x"):
        yield Line("describe", arguments)
    for arguments in (
        "--config=nope",
        "--config={base}/raises.py --workdir={new}",
        f"{SMALL} --workdir={{new}}",
        "--config=ablation --config.masking.num_inputs=5 --workdir={new} --dry_run",
    ):
        yield Line("sweep", arguments)
    for flags in ("--config=ablation:runlocal", "--config ablation --config.num_steps 5"):
        yield Line("sweep", f"{flags} --workdir={{new}} --dry_run", True)
    for arguments in ("", "--config=nope", f"{SMALL} --topology=foo", f"{SMALL} --topology="):
        yield Line("compile_topology", arguments)
    for arguments in ("--cases=nope", "--cases=", "--topology=foo", "--topology=", "base_all_b1"):
        yield Line("plan_generation", arguments)
