"""Results, cards and specs show themselves in notebooks; nothing in them becomes markup."""

import numpy as np

from fourm_jax.generate.generator import Generated
from fourm_jax.generate.results import Decoded, DecodedResults
from fourm_jax.modalities import registry
from fourm_jax.tokenizers.card import Card
from fourm_jax.utils import notebook


def test_texts_are_escaped_and_cut():
    shown = notebook.cell("<script>" + "x" * 1_000)
    assert shown.startswith("&lt;script&gt;")
    assert shown.endswith(" …")
    assert len(shown) < 600


def test_pictures_are_shown_and_other_arrays_described():
    assert notebook.cell(np.zeros((4, 4, 3), np.uint8)).startswith("<img ")
    assert notebook.cell(np.zeros((4, 4), np.uint8)).startswith("<img ")
    assert notebook.cell(np.array([[0.5, 2.0]])) == "float64 [1, 2] in 0.5 … 2"
    assert notebook.cell(np.zeros((0, 4))) == "[]"


def test_generated_shows_pictures_texts_and_what_is_lacking():
    ids = np.zeros((1, 4), np.int32)
    decoded = DecodedResults(
        {
            "tok_rgb": Decoded(np.zeros((1, 4, 4, 3), np.uint8)),
            "caption": Decoded([None], texts=("a <b> cone",)),
        },
        {"tok_depth": "no tokenizer 'depth'"},
    )
    known = dict.fromkeys(("tok_rgb", "caption", "tok_depth"), ids == 0)
    shown = Generated(ids=dict.fromkeys(known, ids), known=known, decoded=decoded)._repr_html_()
    assert "<img " in shown
    assert "a &lt;b&gt; cone" in shown
    assert "4 ids; no tokenizer &#x27;depth&#x27;" in shown
    assert "1 of 1 rows" in shown


def test_cards_and_specs_show_their_fields():
    card = Card(
        name="edge",
        family="vqvae",
        arguments={},
        signal={},
        grid=(2, 2),
        vocab_size=16,
        codes_per_position=1,
    )
    assert "<caption>tokenizer edge</caption>" in card._repr_html_()
    (spec,) = registry.resolve("scenes", ("caption",))
    assert "<caption>modality caption</caption>" in spec._repr_html_()
    assert "<th>vocab_size</th>" in spec._repr_html_()
