"""The benchmark measures what it says; no test here is tied to the clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from digitnet import benchmark, engine
from digitnet.__main__ import main
from digitnet.baseline import BaselineNet, train_baseline
from digitnet.benchmark import PARTS, Effort, Figure, figure, in_turns, sheets, table
from digitnet.model import DigitNet, ModelConfig

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_calls_take_turns_after_a_warmup():
    order = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=2)
    assert order == [*"aabb", *"ababab"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_a_figure_is_a_median_with_its_range():
    item = figure("part", "name", [5.0, 1.0, 2.0, 3.0, 4.0], unit="ms", floor="other")
    assert (item.median, item.n, item.floor) == (3.0, 5, "other")
    assert item.low == pytest.approx(1.4) and item.high == pytest.approx(4.6)


def test_the_table_sets_each_figure_beside_its_floor():
    figures = [
        Figure("first", "whole", "ms", 3.0, 2.5, 3.5, 9, floor="bare"),
        Figure("first", "bare", "ms", 2.0, 1.9, 2.1, 9),
        Figure("second", "bare", "s", 4000.0, 3900.0, 4100.0, 2),
    ]
    lines = table(figures).splitlines()
    assert lines[0] == "first" and lines[4] == "second"
    assert "1.50 × “bare”" in lines[1] and "×" not in lines[2] and "4,000 s" in lines[5]
    assert table([]) == ""


def test_sheets_are_what_a_page_delivers_and_all_differ():
    made = sheets(5)
    assert all(sheet.shape == (280, 280) and str(sheet.dtype) == "uint8" and sheet.max() == 255 for sheet in made)
    assert len({sheet.tobytes() for sheet in made}) == 5 and sheets(1, seed=3)[0].tobytes() == sheets(1, seed=3)[0].tobytes()


@LINUX
def test_one_sheet_is_measured_beside_bare_forward_passes(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "QUICK_LOOK", Effort(answers=3))
    out = tmp_path / "new" / "benchmark.json"
    assert main(["benchmark", "--quick", "--only", "one", "--checkpoint", weights, "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    by_name = {item["name"]: item for item in report["figures"]}
    whole = by_name["Recognizer, one sheet"]
    assert whole["n"] == 3 and by_name[whole["floor"]]["name"] == "bare forward, all views"
    assert all(0 < item["low"] <= item["median"] <= item["high"] for item in report["figures"])
    assert report["machine"]["cores"] and report["machine"]["torch"] == torch.__version__
    assert report["notes"]["one"]["parameters"] == DigitNet(ModelConfig((8,), (1,))).parameter_count
    assert report["notes"]["one"]["bfloat16"] == engine.fast_bf16(torch.device("cpu"))
    assert "Recognizer, one sheet" in capsys.readouterr().out


def test_batches_count_every_sheet(weights):
    result = benchmark.child_batches({"engine": weights, "threads": torch.get_num_threads(), "rounds": 2, "sizes": (1, 4, 40)})
    names = ["one by one", *(f"{what}, {n}" for n in (1, 4, 40) for what in ("many()", "network alone"))]
    assert list(result["seconds"]) == names
    assert all(len(values) == 2 for values in result["seconds"].values())


@LINUX
def test_memory_is_read_after_20_and_after_all(weights):
    result = benchmark.child_memory({"engine": weights, "predictions": 25})
    assert result["after_20"] > 20 and result["after_all"] > 20
    assert benchmark.resident(peak=True) >= benchmark.resident() > 20


def test_throughput_measures_both_loops():
    seconds = benchmark.child_throughput({"steps": 1})["seconds"]
    assert len(seconds) == 3 and all(len(values) == 1 and values[0] > 0 for values in seconds.values())


@LINUX
def test_the_quick_recipe_is_timed_with_its_data(mnist_root, monkeypatch):
    from dataclasses import replace

    from digitnet import train

    tiny = replace(
        train.QUICK, samples=256, batch_size=64, model=ModelConfig((4,), (1,)), data=replace(train.QUICK.data, doodles=18)
    )
    monkeypatch.setattr(train, "QUICK", tiny)
    result = benchmark.child_quick({"data": str(mnist_root), "epochs": 1, "seed": 0})
    assert 0 < result["data_seconds"] < result["seconds"] and len(result["validation"]) == 1
    assert 0 <= result["test"] <= 1 and 0 <= result["test_views"] <= 1 and result["peak_mb"] >= result["imports_mb"] > 0


def test_the_baseline_is_the_basic_example_and_learns(mnist_root):
    assert sum(p.numel() for p in BaselineNet().parameters()) == 1_199_882
    assert BaselineNet().eval()(torch.zeros(2, 1, 28, 28)).exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    said = []
    rows = train_baseline(mnist_root, epochs=2, seed=0, batches=10, say=said.append)
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["seconds"] >= rows[0]["seconds"]
    assert rows[1]["test"] > 0.3 and len(said) == 2  # a guess is right one time in ten


def test_a_part_that_fails_is_told_and_costs_only_itself(weights, tmp_path, capsys, monkeypatch):
    def broken(effort, settings):
        raise RuntimeError("the machine is on fire")

    def fine(effort, settings):
        return [figure("fine", "one", [1.0], unit="s")], {}

    monkeypatch.setattr(benchmark, "PARTS", {"one": (broken, "that"), "training": (fine, "this")})
    assert main(["benchmark", "--checkpoint", weights]) == 1
    told = capsys.readouterr()
    assert "one: the machine is on fire" in told.err
    report = json.loads(told.out[told.out.index("{") :])
    assert report["failed"] == {"one": "the machine is on fire"} and len(report["figures"]) == 1


def test_a_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match="does not exist"):
        benchmark.in_child("one", {"checkpoint": "/nowhere.pt", "answers": 1})


def test_mistakes_are_told_before_minutes_are_spent(tmp_path, capsys):
    assert main(["benchmark", "--checkpoint", str(tmp_path / "nowhere.pt")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_help_names_every_part():
    done = subprocess.run(
        [sys.executable, "-m", "digitnet", "benchmark", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(f"  {part} " in done.stdout for part in PARTS) and "nothing else running" in done.stdout


def test_the_baseline_s_first_mean_of_99_is_the_floor_of_the_quick_recipe(monkeypatch):
    log = [{"seconds": 50.0 * epoch, "test": test} for epoch, test in ((1, 0.985), (2, 0.989), (3, 0.991), (4, 0.992))]
    quick = {"seconds": 6.0, "test": 0.9905, "test_views": 0.992, "imports_mb": 300.0, "peak_mb": 420.0}
    asked = []

    def in_child(work, settings):
        asked.append((work, settings["seed"], settings["epochs"]))
        return {"log": log} if work == "baseline" else quick

    monkeypatch.setattr(benchmark, "in_child", in_child)
    effort = Effort(seeds=2, baseline_seeds=1, baseline_epochs=4)
    figures, notes = benchmark.measure_accuracy(effort, {"data": "data"})
    by_name = {item.name: item for item in figures}
    floor = by_name["quick recipe, the length for 99.0 %"].floor
    assert by_name[floor].median == 150.0 and "3 epochs (first mean of 99.0 %)" in floor
    assert by_name["quick recipe, the length for 99.0 %"].n == 2 and notes["baseline_logs"] == [log]
    assert [work for work, *_ in asked] == ["baseline", "quick", "quick", "quick", "quick"], "the two loops take turns"
    assert "0.04 × “baseline, 3 epochs" in table(figures)
