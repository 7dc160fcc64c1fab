"""The report on synthetic run folders: what it shows, and that nothing half-written stops it."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mixtura.errors import RunError
from mixtura.report import write_report
from mixtura.report.charts import Series, line_chart, log_ticks, number, segments, smoothed, stacked_chart, thinned, ticks
from mixtura.report.compare import flat
from mixtura.report.data import read_run
from mixtura.report.media import Budget
from mixtura.report.parts import duration
from mixtura.report.sections import mixtures

CONFIG = {
    "system": {"type": "toy"},
    "run": {"name": "tiny", "dir": "runs/tiny", "seed": 3},
    "data": {"global_batch": 8},
    "stages": [
        {"name": "first", "steps": 50, "mixture": {"robot": 1}},
        {"name": "second", "steps": 50, "mixture": {"robot": 3, "qa": 1}},
    ],
    "evaluate": [{"type": "closed_loop", "every": 50}],
}


def train_line(step: int) -> dict:
    share = 0.0 if step <= 50 else 0.25
    return {
        "kind": "train", "step": step, "stage": "first" if step <= 50 else "second", "loss": 100 / step, "loss/flow": 50 / step,
        "loss/flow/robot": 40 / step, "loss/flow/qa": 60 / step, "loss/qa": 50 / step, "mix/robot": 1 - share, "mix/qa": share,
        "mix_planned/robot": 0.75, "mix_planned/qa": 0.25, "epoch/robot": (step - 1) % 50 / 10, "lr": 1e-3, "grad_norm": 1.5,
        "bad_samples": 0, "samples_per_s": 80.0, "step_s": 0.1, "wait_share": 0.01, "memory_mb": 200.0, "mixer/alpha": 0.5,
    }  # fmt: skip


def eval_line(step: int, won: int, media: dict | None = None) -> dict:
    rows = [
        {"task": "reach", "successes": won, "trials": 10, "seconds": 2.5},
        {"task": "push", "successes": 0, "trials": 10, "seconds": 3.5},
    ]
    scalars = {"error": 1 / (step + 1), "success": won / 20}
    return {
        "kind": "eval",
        "step": step,
        "name": "closed_loop",
        "scalars": scalars,
        "tables": {"By task": rows},
        "media": media or {},
    }


def make_run(folder: Path, lines: list[dict] | None = None, config: dict | None = None) -> Path:
    """A run folder; a finished run of two stages when no lines are given."""
    folder.mkdir(parents=True)
    if lines is None:
        steps = [train_line(step) for step in range(10, 101, 10)]
        stages = [{"kind": "stage", "step": 0, "name": "first"}, {"kind": "stage", "step": 50, "name": "second"}]
        measured = [eval_line(0, 1), eval_line(50, 9), eval_line(100, 8)]
        lines = [*stages, *measured, *steps, {"kind": "done", "step": 100, "seconds": 75.0}]
    (folder / "config.yaml").write_text(yaml.safe_dump(config or CONFIG))
    (folder / "env.json").write_text(json.dumps({"versions": {"torch": "2.13"}, "python": "3.11", "machine": {"cores": 2}}))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def page_of(*folders: Path, out: Path | None = None) -> str:
    return write_report(folders, out).read_text()


def words(page: str) -> str:
    """What a reader sees."""
    page = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


class Balance(HTMLParser):
    """Checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href") and not v.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_whole(page: str) -> None:
    """Well-formed, without reference to another file, without numbers that aren't."""
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.outside == []
    assert "http" not in page
    assert not re.search(r'[ "M,L](nan|inf)[ ",L]', page)


def test_one_run_has_one_file_that_needs_nothing_else(tmp_path):
    out = write_report([make_run(tmp_path / "tiny")])
    assert out == tmp_path / "tiny" / "report.html"
    assert_whole(out.read_text())
    assert not list(tmp_path.glob("**/*.tmp"))


def test_the_headline_tells_last_best_and_untrained_success_with_intervals(tmp_path):
    text = words(page_of(make_run(tmp_path / "tiny")))
    assert "closed_loop: success at step 100 40 % 8 of 20, 95 % interval 22–61 %" in text
    assert "best: 45 % at step 50 (9 of 20, 95 % interval 26–66 %)" in text
    assert "untrained: 5.0 % (1 of 20, 95 % interval 1–24 %)" in text
    assert "Run time 1 min 15 s" in text
    assert "Samples seen 800" in text


def test_every_evaluation_step_stands_in_the_table(tmp_path):
    text = words(page_of(make_run(tmp_path / "tiny")))
    for column in ("step 0 (untrained)", "step 50", "step 100"):
        assert column in text
    assert "reach 10 % 1/10" in text
    assert "all 5 % 1/20" in text


def test_a_total_row_is_used_and_not_added_again(tmp_path):
    rows = [{"task": "reach", "successes": 1, "trials": 2}, {"task": "all", "successes": 1, "trials": 2}]
    run = make_run(tmp_path / "tiny", [{**eval_line(5, 0), "tables": {"By task": rows}}])
    assert "1 of 2, 95 %" in words(page_of(run))
    assert page_of(run).count('class="sum"') == 1


def test_rows_that_cannot_be_told_apart_are_listed_by_step(tmp_path):
    rows = [{"value": 1.0}, {"value": 1.0}]
    run = make_run(tmp_path / "tiny", [{**eval_line(5, 0), "tables": {"Plain": rows}}])
    assert "Plain Evaluation value step 5 1 step 5 1" in words(page_of(run))


def test_terms_sources_mixture_and_mixer_have_charts(tmp_path):
    page = page_of(make_run(tmp_path / "tiny"))
    labels = re.findall(r'aria-label="([^"]+)"', page)
    assert {"Loss", "loss: flow", "loss: qa", "mixture of tiny", "Learning rate", "Gradient norm", "mixer: alpha"} <= set(labels)
    assert "robot 87.50 % 75.00 % 700 9.8" in words(page)


def test_stages_are_told_with_their_losses(tmp_path):
    text = words(page_of(make_run(tmp_path / "tiny")))
    assert "first 1–50 all parts robot 100 % static 10 → 2" in text
    assert "second 51–100 all parts qa 25 %, robot 75 % static 1.667 → 1" in text


def test_charts_name_their_axes_and_units(tmp_path):
    page = page_of(make_run(tmp_path / "tiny"))
    axes = re.findall(r'<text class="axis"[^>]*>([^<]*)</text>', page)
    assert axes.count("step") == page.count("<svg viewBox") > 0
    assert {"learning rate", "samples a second", "share of the time", "MiB", "share of the samples", "success"} <= set(axes)
    assert {"loss", "loss, log scale"} & set(axes)


def test_a_part_of_a_run_holds_the_log_of_one_stage(tmp_path):
    run = read_run(make_run(tmp_path / "tiny"))
    first, second = run.part(stage="first"), run.part(stage="second")
    assert [line["step"] for line in first.train] == [10, 20, 30, 40, 50]
    assert [line["step"] for line in second.train] == [60, 70, 80, 90, 100]
    assert [record["step"] for record in first.evals] == [0, 50]
    assert [record["step"] for record in second.evals] == [100]
    assert (first.samples_seen, second.samples_seen, first.done, second.done) == (400, 400, None, run.done)
    assert (second.seconds, first.seconds) == (pytest.approx(75.0), pytest.approx(5.0))


def test_the_mixture_of_a_part_weighs_its_own_steps_only(tmp_path):
    rows = mixtures([read_run(make_run(tmp_path / "tiny")).part(stage="second")])
    assert "robot 75.00 % 75.00 % 300" in words(rows)


def test_a_part_of_a_run_holds_the_figures_of_one_source(tmp_path):
    bad = [{"kind": "bad", "step": 7, "source": name, "item": 1, "reason": "x"} for name in ("robot", "qa")]
    part = read_run(make_run(tmp_path / "tiny", [*bad, *(train_line(step) for step in (10, 60))])).part(source="qa")
    assert part.keys("loss/") == ["flow/qa"]
    assert part.keys("mix/") == ["qa"]
    assert part.series("lr")[0] == [10, 60]
    assert part.series("loss") == ([], [])
    assert [record["source"] for record in part.bad] == ["qa"]


def test_a_source_that_is_called_like_a_term_keeps_its_own_losses_only(tmp_path):
    part = read_run(make_run(tmp_path / "tiny", [{**train_line(10), "loss/qa/qa": 1.0}])).part(source="qa")
    assert set(part.keys("loss/")) == {"flow/qa", "qa/qa"}


def test_several_runs_are_compared(tmp_path):
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", config={**CONFIG, "run": {"name": "other", "seed": 4}, "optim": {"lr": 0.1}})
    out = write_report([a, b])
    assert out == tmp_path / "comparison.html"
    assert_whole(out.read_text())
    text = words(out.read_text())
    assert "2 runs side by side" in text
    assert "run.seed 3 4" in text
    assert "optim.lr – 0.1" in text
    assert "run.name" not in text.split("Configuration")[1].split("tiny: config.yaml")[0]


def test_runs_of_one_name_go_by_their_folders(tmp_path):
    text = words(page_of(make_run(tmp_path / "a"), make_run(tmp_path / "b")))
    assert text.startswith("2 runs side by side · Mixtura 2 runs side by side a, b ")
    assert "All settings are the same." in text


def test_pictures_are_embedded_and_made_smaller(tmp_path):
    run = make_run(tmp_path / "tiny", [eval_line(5, 1, {"Sheet": "eval/sheet.png", "Dots": "eval/dots.gif"})])
    (run / "eval").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (900, 2600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "eval" / "sheet.png")
    frames = [Image.new("RGB", (64, 64), (k * 9, 0, 0)) for k in range(5)]
    frames[0].save(run / "eval" / "dots.gif", save_all=True, append_images=frames[1:], duration=50)
    page = page_of(run)
    assert_whole(page)
    assert "data:image/webp;base64," in page
    assert "data:image/gif;base64," in page
    assert len(page) < (run / "eval" / "sheet.png").stat().st_size / 2


def test_a_video_that_browsers_do_not_play_becomes_an_animation(tmp_path):
    av = pytest.importorskip("av")
    run = make_run(tmp_path / "tiny", [eval_line(5, 1, {"Clip": "clip.mp4"})])
    with av.open(str(run / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for k in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), k, np.uint8))))
        container.mux(stream.encode())
    assert "data:image/webp;base64," in page_of(run)


def test_pictures_that_are_absent_broken_or_outside_cost_a_sentence_only(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    run = make_run(tmp_path / "tiny", [eval_line(5, 1, {"A": "gone.png", "B": "bad.png", "C": "../secret.png"})])
    (run / "bad.png").write_bytes(b"no picture")
    text = words(page_of(run))
    assert "gone.png is absent" in text
    assert "bad.png can't be shown" in text
    assert "../secret.png lies outside the run folder" in text


def test_media_past_the_budget_are_left_out_with_a_word(tmp_path):
    run = make_run(tmp_path / "tiny")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(run / "a.png")
    budget = Budget(room=300)
    assert "left out to keep this file small" in budget.embed(run, "a.png", "A")
    assert budget.left_out == ["a.png"]


def test_bad_samples_are_named(tmp_path):
    bad = {"kind": "bad", "step": 7, "source": "robot", "item": 41, "reason": "action holds <nan>"}
    text = page_of(make_run(tmp_path / "tiny", [bad, {**train_line(10), "bad_samples": 1}]))
    assert "next item of their source: 1," in words(text)
    assert "action holds &lt;nan&gt;" in text


def test_a_log_cut_off_in_the_last_line_is_read_up_to_there(tmp_path):
    run = make_run(tmp_path / "tiny", [train_line(10), train_line(20)])
    text = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(text[:-40])
    page = page_of(run)
    assert_whole(page)
    assert "the last line of log.jsonl is cut off" in words(page)
    assert "it was at step 10 of 100" in words(page)


@pytest.mark.parametrize(
    "line", ["nonsense", "[1, 2]", '{"kind": "train"}', '{"kind": "train", "step": "x"}', '{"step": 3}', "\x00\x00"]
)
def test_lines_that_are_no_records_are_left_out_and_counted(tmp_path, line):
    run = make_run(tmp_path / "tiny", [train_line(10)])
    (run / "log.jsonl").write_text(f"{line}\n" + (run / "log.jsonl").read_text())
    page = page_of(run)
    assert_whole(page)
    assert "1 of 2 lines of log.jsonl can't be read and are left out (line 1)" in words(page)


def test_losses_that_are_not_finite_leave_gaps_not_crashes(tmp_path):
    lines = [{**train_line(step), "loss": math.nan if step == 20 else 1.0, "grad_norm": math.inf} for step in (10, 20, 30)]
    page = page_of(make_run(tmp_path / "tiny", lines))
    assert_whole(page)
    assert "the loss is not finite in 1 of 3 log lines" in words(page)


def test_odd_evaluations_do_not_stop_the_report(tmp_path):
    odd = [
        {"kind": "eval", "step": 1, "name": "a", "scalars": None, "tables": {"T": "text"}, "media": 3},
        {"kind": "eval", "step": 2, "name": "a", "scalars": {"x": math.nan, "y": None}, "tables": {"T": [{}]}, "media": {"m": 5}},
        {"kind": "eval", "step": 3, "name": "a", "tables": {"T": [{"successes": 5, "trials": 3}, {"successes": 0, "trials": 0}]}},
        {"kind": "eval", "step": 4, "name": "<script>", "tables": {"<b>": [{"<i>": "<u>", "flag": True}]}},
    ]
    page = page_of(make_run(tmp_path / "tiny", odd))
    assert_whole(page)
    assert "<u>" not in page


@pytest.mark.parametrize("config", ["a: [", "just words", "stages: 3\nrun: x\ndata: []\n", "stages: [3, {steps: x}]"])
def test_a_broken_config_costs_its_figures_only(tmp_path, config):
    run = make_run(tmp_path / "tiny")
    (run / "config.yaml").write_text(config)
    (run / "env.json").write_text("{")
    assert_whole(page_of(run))


def test_a_run_that_has_logged_nothing_says_so(tmp_path):
    run = make_run(tmp_path / "tiny")
    for name in ("log.jsonl", "env.json"):
        (run / name).unlink()
    page = page_of(run)
    assert_whole(page)
    assert "log.jsonl is absent" in words(page)
    assert "env.json is absent" in words(page)


def test_an_absent_evaluation_is_noted(tmp_path):
    assert "no evaluation is logged yet" in words(page_of(make_run(tmp_path / "a", [train_line(10)])))
    config = {**CONFIG, "evaluate": []}
    assert "the configuration asks for none" in words(page_of(make_run(tmp_path / "b", [train_line(10)], config)))


def test_steps_that_were_logged_twice_count_once(tmp_path):
    run = read_run(make_run(tmp_path / "tiny", [train_line(10), train_line(20), train_line(30), train_line(20), train_line(40)]))
    assert run.series("loss")[0] == [10, 20, 40]


def test_stages_are_found_without_stage_lines(tmp_path):
    run = read_run(make_run(tmp_path / "tiny", [train_line(step) for step in (10, 50, 60)]))
    assert run.stages == [(0, "first"), (50, "second")]


def test_a_folder_without_a_run_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(RunError, match="is no folder; give the folder of a run"):
        write_report([tmp_path / "gone"])
    with pytest.raises(RunError, match="holds no run"):
        write_report([tmp_path])
    make_run(tmp_path / "inside")
    with pytest.raises(RunError, match="it holds the runs inside"):
        write_report([tmp_path])
    with pytest.raises(RunError, match="one or more run folders"):
        write_report([])


def test_a_report_that_cannot_be_written_says_where_to(tmp_path):
    run = make_run(tmp_path / "tiny")
    with pytest.raises(RunError, match="--out"):
        write_report([run], run / "log.jsonl" / "report.html")


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.3, 4700)[-1] <= 4700
    assert log_ticks(0.5, 20) == [0.5, 1, 2, 5, 10, 20]
    assert len(log_ticks(1e-9, 1e9)) <= 8


def test_numbers_and_times_are_short():
    assert [number(v) for v in (0, 0.00012, 3e-4, 12345.6, 1.23456, -0.5)] == ["0", "1.2e-4", "3e-4", "12,346", "1.235", "-0.5"]
    assert [duration(s) for s in (3.14, 75, 3725)] == ["3.1 s", "1 min 15 s", "1 h 02 min"]


def test_smoothing_keeps_a_straight_middle_and_does_not_lag():
    y = np.arange(400.0)
    assert smoothed(y)[50:350] == pytest.approx(y[50:350])
    assert np.array_equal(smoothed(y[:10]), y[:10])


def test_thinning_keeps_highs_and_lows():
    y = np.zeros(10_000)
    y[4321], y[8765] = 7, -7
    x, thin = thinned(np.arange(10_000.0), y, 200)
    assert len(x) <= 202
    assert {7, -7} <= set(thin)


def test_curves_break_where_a_stage_begins():
    assert segments(np.array([10.0, 20, 30, 40]), [0, 20]) == [slice(0, 2), slice(2, 4)]


def test_charts_of_flat_single_and_empty_data_are_drawn():
    assert line_chart([], "none") == ""
    assert stacked_chart([], [], [], np.zeros((0, 0)), None, "none") == ""
    for values in ([0.0], [5.0, 5.0], [-1.0, 1.0], [1e-30, 1e30]):
        assert "nan" not in line_chart([Series("s", range(len(values)), values)], "chart")


def test_wide_positive_curves_have_a_log_axis():
    assert ">10</text>" in line_chart([Series("s", [1, 2, 3], [1.0, 10.0, 100.0])], "chart")


def test_settings_are_flattened_by_name():
    config = {"stages": [{"name": "a", "steps": 1}], "evaluate": [{"type": "x"}, {"type": "x"}], "betas": [0.9, 0.95]}
    assert flat(config) == {
        "stages[a].name": "a",
        "stages[a].steps": "1",
        "evaluate[x#0].type": "x",
        "evaluate[x#1].type": "x",
        "betas": "[0.9, 0.95]",
    }
