"""The report is one file that opens offline, holds every patient, and says nothing that the evidence does not."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from bedside.core.evidence import CaseTiming
from bedside.core.workspace import Workspace
from bedside.evaluate import view
from bedside.evaluate.measure import worst_first
from bedside.evaluate.pipeline import digest_of
from bedside.evaluate.report import render, write_report

VOID = {"meta", "img", "br", "link", "hr", "input"}
LOADING = {"script", "iframe", "object", "embed", "link", "base", "form", "video", "audio", "svg", "source"}


class Page(HTMLParser):
    """Reads a page and refuses one whose elements are not properly closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.tables, self.words = [], [], {}, []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        table = self.table
        if table is not None and tag == "tr":
            self.tables.setdefault(table, []).append([])
        elif table is not None and tag in {"td", "th"}:
            self.tables[table][-1].append("")

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag
        self.open.pop()

    def handle_data(self, data):
        if any(tag == "style" for tag, _ in self.open):
            return
        self.words.append(data)
        if self.open and any(tag in {"td", "th"} for tag, _ in self.open):
            self.tables[self.table][-1][-1] += data

    @property
    def table(self):
        tables = [attrs.get("id") or attrs.get("class") for tag, attrs in self.open if tag == "table"]
        return tables[-1] if tables else None

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def path(shelf, evidence):
    return write_report(evidence, workspace=shelf.workspace)


@pytest.fixture(scope="module")
def html(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return read(html)


def test_it_lies_in_the_reports_under_the_evidences_digest(path, shelf, evidence):
    assert path == shelf.workspace.reports / f"evaluation-{digest_of(evidence)[:12]}.html"
    assert sorted(found.suffix for found in shelf.workspace.reports.iterdir()) == [".html", ".json"]


def test_the_json_beside_it_equals_the_evidence(path, evidence):
    assert json.loads(path.with_suffix(".json").read_bytes()) == json.loads(json.dumps(evidence.model_dump(mode="json")))


def test_it_asks_the_network_for_nothing(html, page):
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"url\s*\(|@import", html)
    assert not {tag for tag, _ in page.elements} & LOADING
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action", "data", "background"}:
                assert value.startswith("data:image/png;base64,")


def test_its_policy_forbids_the_network_and_scripts(page):
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "script-src" not in rules


def test_every_picture_can_be_decoded_and_has_words_beside_it(page):
    shown = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(shown) == 3
    for attributes in shown:
        pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1])), format="png")
        assert np.ptp(pixels) > 0.5
        assert pixels.shape[1] / pixels.shape[0] == pytest.approx(int(attributes["width"]) / int(attributes["height"]), rel=0.02)
        assert len(attributes["alt"]) > 40


def test_every_patient_stands_in_it_the_worst_first(page, evidence):
    rows = [row[0] for row in page.tables["patients"][2:]]
    assert rows == list(worst_first(evidence))
    assert rows[0] == "patient-07"
    assert rows[1] == "patient-04"


def test_the_numbers_of_a_patient_are_those_of_the_evidence(page, evidence):
    row = next(row for row in page.tables["patients"] if row[0] == "patient-05")
    wanted = [
        f"{evidence.scores[metric][label]['patient-05']:.{places}f}"
        for metric, places in (("dice", 3), ("surface_dice", 3), ("hd95_mm", 2))
        for label in ("left_box", "right_box")
    ]
    assert row[1:] == wanted
    assert row[1] == "0.750"


def test_the_summary_has_mean_interval_n_unit_and_definition(page, evidence):
    rows = page.tables["summary"][1:]
    assert len(rows) == len(evidence.definitions) * 3
    found = evidence.summaries["dice"]["left_box"]
    assert rows[0][1:] == ["left box", f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}", "0.000", "9", "ratio"]
    for definition in evidence.definitions:
        assert definition.text in page.text


def test_what_was_missed_or_refused_is_named(page):
    assert page.tables["missed"][1:] == [
        ["left box", "1", "patient-07", "0", "none"],
        ["right box", "2", "patient-04, patient-07", "0", "none"],
    ]
    assert page.tables["failed"][1:] == [["case-7", "SPACING"]]
    assert "1 case could not be predicted" in page.text


def test_outside_words_stay_words(html, page):
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Sons" in html
    assert "<script>alert(1)</script> & Sons" in page.text


def test_groups_too_small_for_a_conclusion_say_so(page):
    unsafe, plain = page.tables["groups"][2], page.tables["groups"][1]
    assert (plain[0], plain[1], plain[-1].strip()) == ("Plain 7", "6", "")
    assert " to " in plain[2]
    assert (unsafe[1], unsafe[-1].strip()) == ("3", "too few")
    assert " to " not in unsafe[2]


def test_the_header_says_what_was_measured_on_what(page, evidence, shelf):
    event = shelf.workspace.ledger.last("evaluated")
    for wanted in (
        evidence.model,
        evidence.dataset,
        "ab" * 32,
        f"{event.seq}:{event.hash}",
        event.time[:10],
        digest_of(evidence),
    ):
        assert wanted in page.text
    assert "test, 9 patients, 9 cases" in page.text
    assert "torch" in page.text


def test_seconds_and_memory_stand_at_p50_p95_and_max(evidence):
    costs = {f"case-{n}": CaseTiming(seconds=float(n), peak_memory_mb=100.0 * n) for n in range(1, 101)}
    rows = view._costs(evidence.model_copy(update={"timings": costs}))
    assert [(row.name, row.p50, row.p95, row.largest, row.n, row.unit) for row in rows] == [
        ("time", "50.50", "95.05", "100.00", 100, "s"),
        ("peak memory", "5050", "9505", "10000", 100, "MB"),
    ]


def test_time_and_memory_stand_in_the_page(page, evidence):
    assert [row[0] for row in page.tables["cost"][1:]] == ["time", "peak memory"]
    assert all(row[4] == str(len(evidence.timings)) for row in page.tables["cost"][1:])


def test_equal_evidence_gives_equal_bytes(html, shelf, evidence):
    again = type(evidence).model_validate_json(evidence.model_dump_json())
    assert render(again, workspace=shelf.workspace) == html


def test_evidence_of_another_study_is_reported_without_pictures_and_says_so(tmp_path, evidence):
    page = read(render(evidence, workspace=Workspace(tmp_path)))
    assert "not kept here any more" in page.text
    assert "not in the ledger" in page.text
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 1


def test_a_broken_ledger_is_said_at_the_top(tmp_path, evidence):
    (tmp_path / "ledger.jsonl").write_text("nonsense\n")
    assert any("ledger is broken: line 1" in note for note in view._notes(evidence, Workspace(tmp_path), digest_of(evidence)))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"split": "fold0"}, "scores of the split fold0"),
        ({"rules": ""}, "No promotion rules had been frozen"),
        ({"settings": {"test_split_reads": 3}}, "had been read 3 times"),
    ],
)
def test_reasons_for_doubt_are_said_at_the_top(tmp_path, evidence, change, note):
    changed = evidence.model_copy(update=change)
    assert any(note in said for said in view._notes(changed, Workspace(tmp_path), digest_of(changed)))
    assert not any(note in said for said in view._notes(evidence, Workspace(tmp_path), digest_of(evidence)))


def test_words_that_mean_something_to_a_formula_engine_are_drawn_as_they_are(study):
    labels = {"background": 0, "$x_1$ {\\frac": 1, "b" * 40: 2}
    names = list(labels)[1:]
    found = study.evaluate([study.planned("a", "pa"), study.planned("b", "pb")])
    renamed = {metric: dict(zip(names, rows.values(), strict=True)) for metric, rows in found.scores.items()}
    summaries = {metric: dict(zip([*names, "mean"], rows.values(), strict=True)) for metric, rows in found.summaries.items()}
    changed = found.model_copy(
        update={
            "scores": renamed,
            "summaries": summaries,
            "missed": {},
            "hallucinated": {},
            "settings": {"structures": list(labels)},
        }
    )
    assert "$x 1$ {\\frac" in read(render(changed, workspace=study.workspace)).text
