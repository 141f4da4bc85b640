"""The report is one safe page, and its galleries become one picture."""

import numpy as np

from fourm_jax.evals import galleries, panels, report
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
    for no_better in (1.0, float("nan")):
        task = {**TASK, "model": no_better}
        assert "class=bad>no" in report.tasks_html({"rgb->tok_depth": task})


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


def test_a_task_shows_the_numbers_of_one_pass_beside_those_of_the_defaults():
    assert "<td>–</td>" in report.tasks_html({"rgb->caption": TASK})
    assert "<td>7</td>" in report.tasks_html({"rgb->tok_depth": {**TASK, "one_pass": 7.0}})


def test_a_sheet_shows_the_first_records_and_the_legend():
    rows = [(f"row {number}", [PICTURE, "text", PICTURE]) for number in range(6)]
    legend = ("legend", ["", "", "near is bright"])
    gallery = Gallery(title="g", note="n", columns=["", "a", "b", "c"], rows=[*rows, legend])
    sheet = galleries.sheet(gallery, num_records=1)
    height = panels.LINE + panels.GAP + 3 * panels.CELL + panels.LINE + 2 * panels.GAP
    assert sheet.shape[0] == height
    assert sheet.shape[1] > 3 * panels.CELL


def test_the_records_of_a_gallery_are_drawn_by_seed_alone():
    assert galleries.choose(256, 6, 0).tolist() == galleries.choose(256, 6, 0).tolist()
    assert galleries.choose(256, 6, 0).tolist() != galleries.choose(256, 6, 1).tolist()
    assert galleries.choose(4, 6, 0).tolist() == [0, 1, 2, 3]
