"""A web page to generate with: conditions, masks, guidance, steps as they come, downloads.

python -m experiments.demo --source=runs/quickstart

Opens on this machine alone, http://127.0.0.1:7860; needs `pip install fourm_jax[demo]`. One request
is answered at a time, others wait; uploads are limited. Whoever reaches the page can use the model,
so think before --host names another address.
"""

import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from experiments import cli

cli.set_environment(GRADIO_ANALYTICS_ENABLED="False")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from fourm_jax import loading  # noqa: E402
from fourm_jax.demo import answers, examples, forms, typed  # noqa: E402
from fourm_jax.demo.examples import Example  # noqa: E402
from fourm_jax.generate.generator import Generator  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_TOKENIZERS = cli.define_path(
    "tokenizers", None, "Folder with one folder per tokenizer; default: that of the source."
)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of the computation.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 is everybody's.")
_PORT = flags.DEFINE_integer("port", 7860, "To listen on.", lower_bound=1, upper_bound=65535)
_UPLOAD = flags.DEFINE_integer("max_upload_mb", 10, "Largest upload in MB.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("num_examples", 12, "Held-out records shown.", lower_bound=0)

SHOWN = 448  # pixels of the longer side in the editor
WAITING = 16  # requests in line


def main() -> None:
    """Load the model, open the page."""
    try:
        import gradio
    except ImportError as error:
        raise ValueError("the page needs gradio: pip install 'fourm_jax[demo]'") from error
    generator = loading.load_generator(
        _SOURCE.value, tokenizers=_TOKENIZERS.value, dtype=_DTYPE.value
    )
    shown = examples.read(generator, _SOURCE.value, _EXAMPLES.value)
    with tempfile.TemporaryDirectory() as folder:
        page = Page(gradio, generator, str(_SOURCE.value), shown, pathlib.Path(folder))
        print(f"open http://{_HOST.value}:{_PORT.value}", flush=True)
        launch(page, _HOST.value, _PORT.value, _UPLOAD.value * 2**20)


def launch(page: "Page", host: str, port: int, max_upload: int, *, block: bool = True) -> Any:
    """Serve a page: one request at a time, uploads of at most `max_upload` bytes.

    Args:
      port: 0 takes any that is free.
      block: return when the page is closed.
    """
    page.blocks.queue(default_concurrency_limit=1, max_size=WAITING)
    return page.blocks.launch(
        server_name=host,
        server_port=port or None,
        share=False,
        quiet=True,
        prevent_thread_lock=not block,
        max_file_size=max_upload,
        footer_links=[],
        theme=page.gr.themes.Default(font="system-ui", font_mono="monospace"),
    )


class Page:
    """Fields, buttons and results; everything else is in `fourm_jax.demo`."""

    def __init__(
        self,
        gradio: Any,
        generator: Generator,
        source: str,
        shown: list[Example],
        folder: pathlib.Path,
    ) -> None:
        """Lay the page out; `folder` takes the archives of results."""
        self.gr, self.generator, self.source, self.folder = gradio, generator, source, folder
        self.shown = shown
        self.cancelled: set[str] = set()  # sessions whose request is no longer wanted
        self.texts: dict[str, Any] = {}
        self.files: dict[str, Any] = {}
        self.weights: dict[str, Any] = {}
        with gradio.Blocks(title="fourm_jax", analytics_enabled=False) as self.blocks:
            gradio.Markdown(f"## Any modality from any others\n{source}")
            with gradio.Row():
                with gradio.Column():
                    self._picture()
                    self._typed()
                    self._maps()
                with gradio.Column():
                    self._how()
                    self._results()
            self._examples()
            self._connect()

    def _picture(self) -> None:
        gr = self.gr
        self.picture = gr.State(None)
        self.upload = gr.File(label="Picture", elem_id="upload", height=130)
        self.editor = gr.ImageEditor(
            label="Draw over what is made anew",
            type="numpy",
            image_mode="RGBA",
            format="png",
            sources=(),
            transforms=(),
            layers=False,
            brush=gr.Brush(default_size=40, colors=["#ff00ff"], color_mode="fixed"),
            canvas_size=(SHOWN, SHOWN),
            elem_id="editor",
        )

    def _weight(self, name: str) -> None:
        self.weights[name] = self._number(f"guidance by {name}", "as all", f"weight-{name}")

    def _number(self, label: str, default: str, elem_id: str) -> Any:
        """A number that may stay empty."""
        return self.gr.Textbox(label=label, placeholder=default, elem_id=elem_id)

    def _typed(self) -> None:
        gr, generator = self.gr, self.generator
        for name in forms.texts_of(generator):
            spec = generator.spec(name)
            is_caption = name == forms.caption_of(generator)
            with gr.Accordion(name, open=is_caption), gr.Row():
                with gr.Column(scale=3):
                    self.texts[name] = gr.Textbox(
                        label=name,
                        info=typed.HINTS.get(spec.text_form, "text or JSON"),
                        lines=1 if is_caption else 3,
                        max_length=typed.MAX_CHARACTERS,
                        elem_id=f"text-{name}",
                    )
                    if spec.text_form == "palette":
                        self._colours(self.texts[name])
                    if spec.text_form == "boxes":
                        self._corners(self.texts[name])
                with gr.Column(scale=1):
                    self._weight(name)
        with gr.Row():
            self.away = gr.Textbox(label="away from this text", elem_id="away")
            self.away_weight = self._number("weight", f"{forms.AWAY:g}", "away-weight")

    def _colours(self, field: Any) -> None:
        """A colour picker that writes lines."""
        with self.gr.Row():
            picker = self.gr.ColorPicker(label="colour", value="#ff0000")
            add = self.gr.Button("Add colour", elem_id="add-colour")
        add.click(typed.with_colour, [field, picker], field, show_progress="hidden")

    def _corners(self, field: Any) -> None:
        """A square in which two clicks make a box."""
        import gradio as gr  # which finds the type of the event in the annotation

        blank = np.full((SHOWN // 2, SHOWN // 2, 3), 235, np.uint8)
        label = gr.Textbox(label="name of the box", value="", elem_id="box-name")
        first = gr.State(None)
        square = gr.Image(
            blank, label="click two corners", interactive=False, buttons=[], elem_id="corners"
        )

        def clicked(
            text: str | None, name: str | None, corner: Any, event: gr.SelectData
        ) -> tuple[Any, Any]:
            place = tuple(value / (SHOWN // 2) for value in event.index)
            if corner is None:
                return text, place
            return typed.with_box(text, name, corner, place), None

        square.select(clicked, [field, label, first], [field, first], show_progress="hidden")

    def _maps(self) -> None:
        names = forms.maps_of(self.generator)
        if names:
            with self.gr.Accordion("maps from files (picture or .npy)", open=False):
                for name in names:
                    with self.gr.Row():
                        self.files[name] = self.gr.File(label=name, height=130, scale=3)
                        self._weight(name)

    def _how(self) -> None:
        gr, outputs = self.gr, list(self.generator.model.outputs)
        default = [forms.painted(self.generator) or outputs[0]]
        self.targets = gr.CheckboxGroup(outputs, value=default, label="generate", elem_id="targets")
        with gr.Row():
            self.steps = self._number("steps", "default", "steps")
            self.guidance = self._number("guidance", "default", "guidance")
            self.temperature = self._number("temperature", "default", "temperature")
            self.seed = self._number("seed", "0", "seed")
        with gr.Row():
            self.start = gr.Button("Generate", variant="primary", elem_id="generate")
            self.cancel = gr.Button("Cancel", elem_id="cancel")

    def _results(self) -> None:
        gr = self.gr
        self.status = gr.Markdown("", elem_id="status")
        self.sheet = gr.Image(
            show_label=False, format="png", buttons=["fullscreen"], elem_id="sheet"
        )
        self.file = gr.File(label="all results", interactive=False, elem_id="results")
        with gr.Accordion("how it was made (result.json)", open=False):
            self.record = gr.JSON(show_label=False, elem_id="record")

    def _examples(self) -> None:
        gr = self.gr
        if not self.shown:
            return
        self.taken = gr.CheckboxGroup(
            ["picture", *self.texts],
            value=["picture"],
            label="held-out examples: what a click takes",
            elem_id="taken",
        )
        self.gallery = gr.Gallery(
            [enlarged(one.picture) for one in self.shown],
            columns=6,
            height="auto",
            show_label=False,
            interactive=False,
            allow_preview=False,
            buttons=[],
            format="png",
            elem_id="examples",
        )

    def _connect(self) -> None:
        import gradio as gr  # which finds the types of requests and events in annotations

        self.upload.change(self.uploaded, self.upload, [self.picture, self.editor, self.status])
        fields = [self.picture, self.editor, self.away, self.away_weight, self.targets]
        fields += [self.steps, self.guidance, self.temperature, self.seed]
        fields += [*self.texts.values(), *self.files.values(), *self.weights.values()]
        results = [self.status, self.sheet, self.file, self.record]

        # `cancels=` of gradio ends in an error on the page, so a request looks itself.
        def begin(request: gr.Request) -> str:
            self.cancelled.discard(request.session_hash)
            return "waiting: one request at a time"

        def cancel(request: gr.Request) -> str:
            self.cancelled.add(request.session_hash)
            return "cancelled: the step in hand is the last"

        def run(values: Mapping[Any, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
            yield from self.generate(values, request.session_hash)

        clicked = self.start.click(begin, None, self.status, queue=False)
        clicked.then(run, set(fields), results, show_progress="minimal")
        self.cancel.click(cancel, None, self.status, queue=False)
        if self.shown:

            def chosen(taken: list[str], event: gr.SelectData) -> list[Any]:
                return self.example(self.shown[event.index], taken)

            outputs = [self.picture, self.editor, *self.texts.values()]
            self.gallery.select(chosen, self.taken, outputs)

    def uploaded(self, path: str | None) -> tuple[Any, Any, str]:
        """Picture, what the editor shows, and the status, of an uploaded file."""
        if not path:
            return None, None, ""
        try:
            picture = forms.read_upload(path)
        except answers.EXPECTED as error:
            return None, None, f"error: {error}"
        return picture, enlarged(picture), f"picture of {picture.shape[1]} x {picture.shape[0]}"

    def example(self, one: Example, taken: list[str]) -> list[Any]:
        """What the fields hold of an example."""
        picture = one.picture if "picture" in taken else None
        shown = None if picture is None else enlarged(picture)
        return [picture, shown, *(one.texts.get(n, "") if n in taken else "" for n in self.texts)]

    def form(self, values: Mapping[Any, Any]) -> forms.Form:
        """The fields of the page by their meaning."""
        weights = {n: typed.number(values[field], n) for n, field in self.weights.items()}
        away_weight = typed.number(values[self.away_weight], "weight")
        picture, drawn = values[self.picture], values[self.editor]
        return forms.Form(
            picture=picture,
            mask=None if picture is None else drawn_mask(drawn),
            texts={name: values[field] or "" for name, field in self.texts.items()},
            files={name: values[field] for name, field in self.files.items() if values[field]},
            weights={name: weight for name, weight in weights.items() if weight is not None},
            away=values[self.away] or "",
            away_weight=forms.AWAY if away_weight is None else away_weight,
            targets=values[self.targets],
            num_steps=typed.integer(values[self.steps], "steps"),
            guidance=typed.number(values[self.guidance], "guidance"),
            temperature=typed.number(values[self.temperature], "temperature"),
            seed=typed.integer(values[self.seed], "seed") or 0,
        )

    def generate(self, values: Mapping[Any, Any], session: str) -> Iterator[dict[Any, Any]]:
        """Results after every step; what is wrong with the form in one line."""
        yield {self.status: "starting: the first request of a kind compiles", self.file: None}
        try:
            form = self.form(values)
            for one in answers.answer(self.generator, form, self.source, self.folder):
                if session in self.cancelled:
                    yield {self.status: "cancelled"}
                    return
                file = None if one.file is None else str(one.file)
                yield {
                    self.status: one.status,
                    self.sheet: one.sheet,
                    self.record: one.record,
                    self.file: file,
                }
        except answers.EXPECTED as error:
            yield {self.status: f"error: {error}"}


def enlarged(picture: np.ndarray) -> np.ndarray:
    """A small picture large enough to draw on, a large one small enough to send."""
    height, width = picture.shape[:2]
    scale = SHOWN / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(size, how))


def drawn_mask(value: Mapping[str, Any] | None) -> np.ndarray | None:
    """Where something is drawn in the editor; None where nothing is."""
    layers = [layer[..., 3] > 0 for layer in (value or {}).get("layers") or () if layer is not None]
    mask = np.logical_or.reduce(layers) if layers else None
    return mask if mask is not None and mask.any() else None


if __name__ == "__main__":
    cli.run(main)
