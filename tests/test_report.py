"""The report: one page that stands alone, says what must be said, and comes out the same each time."""

import hashlib
import html.parser
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ser_eval.evaluate import Summary, evaluate_experiment
from tests import fabricated_runs as made


class Page(html.parser.HTMLParser):
    """Collects the text, the tags and the addresses, and refuses tags that are not closed."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.raw = file.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(self.raw)
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), "no scripts"
            if name in ("href", "src"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if tag == "img" and name == "alt":
                assert value

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = made.make_experiment(tmp_path_factory.mktemp("runs"))
    (folder / "plan.json").write_text(json.dumps({"runs": ["hubert-a/home/seed-0", "hubert-a/home/seed-7"]}))
    return evaluate_experiment(folder)


@pytest.fixture(scope="module")
def page(summary: Summary) -> Page:
    return Page(summary.folder / "report" / "report.html")


def test_stands_alone(page: Page) -> None:
    assert "script" not in page.tags
    assert "link" not in page.tags
    images = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    anchors = [address for address in page.addresses if address.startswith("#")]
    assert len(images) + len(anchors) == len(page.addresses)
    assert {anchor[1:] for anchor in anchors} <= set(page.ids)
    assert not re.search(r"https?:|@import|url\(", page.raw)
    # per cell: confusion, classes, two genders; per comparison: overview; per model: training curves
    assert len(images) == 4 * 4 + 2 + 2


def test_says_the_numbers(page: Page, summary: Summary) -> None:
    for cell in summary.cells:
        mean, sd = cell.mean_sd("uar")
        assert f"{mean:.3f} ± {sd:.3f}" in page.text
        if cell.interval:
            assert f"{cell.interval.low:.3f} to {cell.interval.high:.3f}" in page.text
    home = [cell for cell in summary.cells if cell.test_corpus == "home"]
    best = max(home, key=lambda cell: cell.mean_sd("uar")[0] or 0)
    sentence = f"{best.model} did best on home : it names the emotion right in about"
    assert sentence in page.text
    assert f"{round(100 * (best.mean_sd('uar')[0] or 0))} of 100 clips" in page.text
    assert page.text.index("home → home") < page.text.index("home → away")


def test_protocol_card(page: Page) -> None:
    for text in (
        "highest UAR on the validation side; the test side selects nothing",
        "3 used, 9 possible",
        "3: 0-2 (split seeds 0-2; training seeds 0-2)",
        "training 36, validation 12, test 40, unused 0",
        "training 3, validation 1, test 4",
        "loudness (lufs -23.0)",
        "angry, happy, neutral, sad (4; guessing reaches UAR 0.250)",
        "lab/hubert-a",
        "none recorded",
        "version 0.1.0, commit abc1234",
        "away: cross-corpus unmasked, 3 classes",
        "ser train experiments/made-up.json",
    ):
        assert text in page.text, text


def test_shortcuts_stand_beside_every_model(page: Page, summary: Summary) -> None:
    worse = next(cell for cell in summary.cells if cell.model == "wavlm-b" and cell.test_corpus == "away")
    assert worse.beats_shortcuts is False
    assert "does not beat duration + loudness" in page.text
    assert "above every shortcut" in page.text


def test_what_is_missing_or_left_out_is_told(page: Page) -> None:
    assert "UNFINISHED. 1 of 7 planned runs are missing: hubert-a/home/seed-7" in page.text
    assert "does not know their label: bored (4)" in page.text
    assert "Not run yet" in page.text


def test_no_stamp_where_none_is_due(page: Page) -> None:
    for stamp in ("NOT COMPARABLE", "SPEAKER-DEPENDENT", "SPEAKERS UNKNOWN"):
        assert stamp not in page.text


def test_confusion_csv_holds_the_counts(summary: Summary) -> None:
    for cell in summary.cells:
        figures = summary.folder / "report" / "figures"
        table = pd.read_csv(figures / f"confusion--{cell.slug}.csv", index_col="expressed")
        assert table.index.tolist() == list(cell.labels)
        assert table.columns.tolist() == list(cell.columns)
        assert (table.to_numpy() == cell.counts).all()
        female, male = (
            pd.read_csv(figures / f"confusion--{cell.slug}--{gender}.csv", index_col="expressed").to_numpy()
            for gender in ("female", "male")
        )
        assert (female + male == cell.counts).all()


def test_same_bytes_again_and_no_stale_figures(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    def contents() -> dict[str, str]:
        files = [file for file in (summary.folder / "report").rglob("*") if file.is_file()]
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    before = contents()
    stale = summary.folder / "report" / "figures" / "confusion--gone.png"
    stale.write_bytes(b"old")
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")  # a reader's matplotlibrc must not matter
    evaluate_experiment(summary.folder)
    assert contents() == before
    assert mpl.rcParams["axes.facecolor"] == "black"


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Page]:
    """Leave-one-speaker-out, one model honest, one not; hostile texts; statistics."""
    folder = tmp_path_factory.mktemp("runs") / "stamped"
    labels = ("a", "b")
    clips = made.corpus_clips("home", actors=("f1", "m1", "m2"), classes=labels, without=[("m2", "b")])
    made.write_clips(folder, clips)
    for actor in ("f1", "m1", "m2"):
        split = made.sides(clips, test=[actor], validation=["f1" if actor == "m2" else "m2"])
        test = split[split["split"] == "test"]
        answers = made.answers(test["class_id"].tolist(), labels, 0.7, ord(actor[1]))
        for model, changes in (
            ("honest", {}),
            ("leaky", {"split_kind": "random", "speaker_dependent": True, "not_comparable": True}),
        ):
            made.write_run(
                folder,
                model=model,
                seed=0,
                fold=actor,
                split=split,
                tables={"home": made.prediction_table(test, answers, labels)},
                train_corpora=["home"],
                labels=labels,
                description="<script>alert(1)</script>",
                dropped=[{"corpus": "home", "path": "m2/b-0.wav", "reason": "silent & short"}],
                left_out=[{"corpus": "home", "path": "m2/c-0.wav", "class_id": "calm"}],
                **changes,
            )
    (folder / "stats").mkdir()
    (folder / "stats" / "report.md").write_text("# Statistics\n\n| p < .05 | <b>yes</b> |\n")
    result = evaluate_experiment(folder)
    return result, Page(folder / "report" / "report.html")


def test_stamps_are_on_banner_table_and_headline(stamped: tuple[Summary, Page]) -> None:
    summary, page = stamped
    assert [len(cell.stamps) for cell in summary.cells] == [0, 2]
    for stamp in ("SPEAKER-DEPENDENT", "NOT COMPARABLE"):
        assert f'<div class="banner"><strong>{stamp}.</strong>' in page.raw
        assert page.raw.count(f'<span class="stamp">{stamp}</span>') == 3  # headline, table, figures
    assert "random pooled SPEAKER-DEPENDENT NOT COMPARABLE" in page.text
    assert "This says nothing about people the model has never heard." in page.text
    assert "the test side selects nothing" not in page.text
    # Stamped and unstamped results never share a table: neither is called the better of two.
    assert "did best" not in page.text
    assert page.text.index("honest , trained on") < page.text.index("leaky , trained on")


def test_folds_are_shown_over_the_classes_present(stamped: tuple[Summary, Page]) -> None:
    _, page = stamped
    assert "Single folds" in page.text
    assert "1 of 2" in page.text
    assert "leave_one_speaker_out pooled" in page.text
    assert "home/m2/b-0.wav (silent & short)" in page.text
    assert "home: calm (1)" in page.text


def test_texts_from_files_are_escaped(stamped: tuple[Summary, Page]) -> None:
    _, page = stamped
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "p < .05 <b>yes</b>" in page.text  # a row of a table of stats/report.md


def test_undefined_and_unknown(tmp_path: Path) -> None:
    """No clips of b, nobody knows who speaks: no UAR, no interval, both said."""
    labels = ("a", "b")
    clips = made.corpus_clips("home", actors=("f1", "m1"), classes=labels, speakers_known=False)
    clips["split"] = ["train" if path.startswith("f1") else "test" for path in clips["path"]]
    clips.loc[(clips["split"] == "test") & (clips["class_id"] == "b"), "split"] = "unused"
    test = clips[clips["split"] == "test"]
    folder = tmp_path / "e"
    made.write_clips(folder, clips)
    made.write_run(
        folder,
        model="m",
        seed=0,
        split=clips,
        tables={"home": made.prediction_table(test, ["a", "b", "a"], labels)},
        train_corpora=["home"],
        labels=labels,
        speakers_unknown=True,
    )
    evaluate_experiment(folder)
    page = Page(folder / "report" / "report.html")
    assert "SPEAKERS UNKNOWN. The corpus does not say who speaks." in page.text
    assert "the result of m is not defined" in page.text
    assert "the UAR is not defined, no clips of b; mean recall over the 1 classes present: 0.667" in page.text


def test_names_with_a_dollar_or_a_foreign_script_are_drawn_as_they_are(tmp_path: Path) -> None:
    """Two `$` are formulas to matplotlib, and `$_$` is a faulty one; nothing is told about a script its font lacks."""
    labels = ("$_$", "喜")
    clips = made.corpus_clips("h$_$", actors=("f1", "m1"), classes=labels)
    clips["split"] = ["train" if path.startswith("f1") else "test" for path in clips["path"]]
    test = clips[clips["split"] == "test"]
    folder = tmp_path / "e"
    made.write_clips(folder, clips)
    made.write_run(
        folder,
        model="m$_$" + "x" * 90,  # too long for a figure
        seed=0,
        split=clips,
        tables={"h$_$": made.prediction_table(test, test["class_id"], labels)},
        train_corpora=["h$_$"],
        labels=labels,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_experiment(folder)
    assert "h$_$" in Page(folder / "report" / "report.html").text


def test_a_report_without_any_score(tmp_path: Path) -> None:
    """The only test corpus shares one class with the model."""
    clips = made.corpus_clips("home", actors=("f1", "f2"), classes=("a", "b"))
    away = made.corpus_clips("away", actors=("m1",), classes=("a",))
    folder = tmp_path / "e"
    made.write_clips(folder, clips, away)
    made.write_run(
        folder,
        model="m",
        seed=0,
        split=pd.concat([clips.assign(split="train"), away.assign(split="test")]),
        tables={"away": made.prediction_table(away, away["class_id"], ("a", "b"))},
        train_corpora=["home"],
        labels=("a", "b"),
    )
    summary = evaluate_experiment(folder)
    assert summary.results.empty
    assert (
        "NOT SCORED on away: the corpus shares a with the model's labels a, b"
        in Page(folder / "report" / "report.html").text
    )


def test_a_band_limited_corpus_is_stamped_and_its_card_says_where_it_ends(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=("hubert-a",), seeds=(0,))
    clips = pd.read_csv(folder / "clips.csv")
    clips.loc[clips["corpus"] == "away", "bandwidth_hz"] = 5400.0
    clips.to_csv(folder / "clips.csv", index=False)
    evaluate_experiment(folder)
    text = Page(folder / "report" / "report.html").text
    assert "BAND-LIMITED. The audio of a corpus ends far below the 8 kHz" in text
    assert "away: BAND-LIMITED: nothing above 5.4 kHz; figures are not comparable with 16 kHz audio" in text
    assert "home: up to 8.0 kHz" in text


def test_models_alike_are_all_named_and_long_names_fit_the_figures(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    titles: list[tuple[float, float]] = []
    save = Figure.savefig

    def measured(figure: Figure, *arguments: Any, **options: Any) -> None:
        if title := figure._suptitle:
            box = title.get_window_extent()
            titles.append((box.x0, figure.bbox.width - box.x1))
        save(figure, *arguments, **options)

    names = ("whisper-large-v3-frozen-weighted-layers", "whisper-large-v3-frozen-weighted-layers-uniform-prior")
    folder = made.make_experiment(tmp_path, models=names, seeds=(0,), skill=lambda model: 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", measured)
        evaluate_experiment(folder)
    assert titles
    assert min(min(pair) for pair in titles) >= 0, "a title is cut off"
    page = " ".join(re.sub("<[^>]*>", " ", (folder / "report/report.html").read_text(encoding="utf-8")).split())
    assert f"{names[0]} and {names[1]} did best on home , all with one UAR" in page
