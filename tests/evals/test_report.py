"""The report is one safe page, and its galleries become one picture."""

import numpy as np

from fourm_jax.evals import galleries, report
from fourm_jax.evals.report import Gallery

TASK = {
    "metric": "mae",
    "unit": "m",
    "higher_is_better": False,
    "model": 2.0,
    "tokenizer_bound": 0.5,
    "constant": 1.0,
    "n": 3,
}
PICTURE = np.zeros((4, 4, 3), np.uint8)


def test_text_from_a_model_cannot_inject_markup():
    page = report.gallery_html(
        Gallery(
            title="<b>", note="", columns=["", "x"], rows=[("r", ["<script>alert(1)</script>"])]
        )
    )
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_task_below_its_constant_is_marked():
    assert "class=bad>no" in report.tasks_html({"rgb->tok_depth": TASK})
    assert "class=good>yes" in report.tasks_html({"rgb->tok_depth": {**TASK, "model": 0.6}})


def test_every_metric_of_a_task_has_a_row_with_its_unit_and_what_is_better():
    other = {**TASK, "metric": "accuracy", "unit": "", "higher_is_better": True}
    page = report.tasks_html({"rgb->tok_depth": {**TASK, "also": [other]}})
    assert "<td>rgb-&gt;tok_depth</td><td>mae [m] ↓</td><td>2</td>" in page
    assert "<td>rgb-&gt;tok_depth</td><td>accuracy ↑</td><td>2</td>" in page


def test_numbers_have_three_digits_and_missing_ones_a_dash():
    assert [report.number(x) for x in (0.12345, 12345.6, float("nan"))] == ["0.123", "12,346", "–"]


def test_the_page_is_written_whole_and_embeds_its_pictures(tmp_path):
    gallery = Gallery(title="g", note="n", columns=["", "x"], rows=[("r", [PICTURE])])
    report.write(tmp_path / "r.html", title="t", summary="s", parts=[report.gallery_html(gallery)])
    assert "data:image/png;base64," in (tmp_path / "r.html").read_text()


def test_a_sheet_shows_the_columns_that_hold_pictures():
    gallery = Gallery(
        title="g",
        note="n",
        columns=["", "a", "b", "c"],
        rows=[("one", [PICTURE, "text", PICTURE]), ("two", ["", "text", PICTURE])],
    )
    sheet = galleries.sheet(gallery, size=10)
    assert sheet.shape == (16 + 2 * 13, 110 + 2 * 13, 3)
