"""Many pictures: order, bounds, what cannot be read, and going on after a cut at any byte."""

import csv
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digitnet import PictureError, Recognizer
from digitnet.__main__ import main
from digitnet.drawings import draw, read_drawings
from digitnet.predict import AHEAD, CHUNK, COLUMNS, find_pictures, line_of, read_files

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recognizer(weights):
    return Recognizer.load(weights)


def sheet(x: int) -> np.ndarray:
    return draw([np.array([[x, 40.0], [140, 240]])], brush=14)


@pytest.fixture
def folder(tmp_path):
    """Nine pictures in two levels, one of them blank, two damaged, and files that are no pictures."""
    root = tmp_path / "Bücher 书"
    (root / "b").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for number in range(6):
        Image.fromarray(sheet(40 + 30 * number)).save(root / f"{number}.png")
    Image.fromarray(sheet(60)).save(root / "b" / 'a "quoted", one.PNG')
    Image.fromarray(sheet(60)).save(root / ".hidden" / "x.png")
    Image.new("L", (50, 50), 255).save(root / "b" / "blank.png")
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:60])
    (root / "b" / "empty.jpg").touch()
    (root / "notes.txt").write_text("no picture")
    return root


def rows(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_csv_in_the_order_of_names(folder, weights, tmp_path, capsys):
    out = tmp_path / "results" / "out.csv"
    assert main(["predict", str(folder), "--out", str(out), "--checkpoint", weights]) == 1
    table = rows(out)
    assert tuple(table[0]) == COLUMNS
    names = [os.path.relpath(row["picture"], folder) for row in table]
    assert names == [
        *(f"{n}.png" for n in range(6)),
        *(os.path.join("b", n) for n in ('a "quoted", one.PNG', "blank.png", "empty.jpg")),
    ]
    by_name = dict(zip(names, table, strict=True))
    assert by_name["0.png"]["digit"].isdigit() and 0 < float(by_name["0.png"]["confidence"]) <= 1
    blank = by_name[os.path.join("b", "blank.png")]
    assert (blank["digit"], blank["verdict"], blank["error"]) == ("", "blank", "")
    for name in ("3.png", os.path.join("b", "empty.jpg")):
        assert by_name[name]["error"] and by_name[name]["digit"] == by_name[name]["verdict"] == ""
    told = capsys.readouterr().err
    assert "3.png" in told and "empty.jpg" in told and "2 could not be read" in told and "9 rows" in told


def test_rows_are_what_the_recognizer_says(folder, weights, recognizer, tmp_path):
    out = tmp_path / "out.csv"
    assert main(["predict", str(folder / "0.png"), str(folder / "5.png"), "--out", str(out), "--checkpoint", weights]) == 0
    for row in rows(out):
        p = recognizer(row["picture"])
        assert (int(row["digit"]), row["verdict"]) == (p.digit, p.verdict)
        assert float(row["confidence"]) == pytest.approx(p.confidence, abs=5e-3)
        assert float(row["p_digit"]) == pytest.approx(p.p_digit, abs=5e-3)


def test_lines_without_a_file(folder, weights, capsys):
    assert main(["predict", str(folder / "b" / "blank.png"), str(folder / "0.png"), "--checkpoint", weights]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].endswith("blank.png: blank") and "0.png: " in lines[1] and "%" in lines[1]


def test_doubt_stands_in_the_line(recognizer):
    p = recognizer(sheet(60))
    shares = (0.05,) * 8 + (0.35, 0.25)
    unsure = type(p)(8, 0.35, shares, 0.9, "unsure", p.seen)
    assert line_of("x.png", unsure) == "x.png: 8  35.0%  unsure, or 9 (25.0%)"
    assert "does not look like a digit" in line_of("x.png", type(p)(8, 0.35, shares, 0.1, "not_a_digit", p.seen))


def test_a_glob_takes_what_it_matches(folder, weights, capsys):
    assert main(["predict", str(folder / "[0-2].png"), "--checkpoint", weights]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(list(find_pictures([str(folder / "**" / "*.PNG")]))) == 1
    odd = folder / "[odd].png"
    Image.fromarray(sheet(50)).save(odd)
    assert list(find_pictures([str(odd)])) == [str(odd)]


def test_a_file_that_is_named_is_taken_whatever_its_name(folder, weights, capsys):
    (folder / "0.png").rename(folder / "scan.dat")
    assert main(["predict", str(folder / "scan.dat"), str(folder / "gone.png"), "--checkpoint", weights]) == 1
    told = capsys.readouterr()
    assert "scan.dat: " in told.out and "does not exist" in told.err and "1 could not be read" in told.err


@pytest.mark.parametrize("arguments", [["--resume"], ["--workers", "0"], ["--checkpoint", "nowhere.pt"]])
def test_mistakes_are_one_sentence(folder, arguments, capsys):
    assert main(["predict", str(folder), *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_nothing_to_read_is_said(tmp_path, capsys):
    assert main(["predict", str(tmp_path), str(tmp_path / "*.png")]) == 2
    assert "No pictures in" in capsys.readouterr().err


def test_a_csv_that_cannot_be_written_is_said(folder, weights, capsys):
    assert main(["predict", str(folder), "--out", str(folder / "0.png" / "out.csv"), "--checkpoint", weights]) == 2
    assert "--out" in capsys.readouterr().err


def test_going_on_after_a_cut_at_any_byte_gives_the_same_file(folder, weights, tmp_path, capsys):
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), "--out", str(out), "--checkpoint", weights, "--workers", "1"]
    assert main(command) == 1
    whole = out.read_bytes()
    expected = [(row["picture"], row["digit"], row["verdict"], row["error"]) for row in rows(out)]
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {
        0,
        1,
        7,
        *ends,
        *(end - 1 for end in ends),
        *(end + 9 for end in ends[:-1]),
        whole.index(b'""') + 1,
        len(whole),
    }:
        out.write_bytes(whole[:cut])
        assert main([*command, "--resume"]) == 1
        assert [(row["picture"], row["digit"], row["verdict"], row["error"]) for row in rows(out)] == expected, cut
        assert "2 could not be read" in capsys.readouterr().err, "those before the cut count too"


def test_resume_reads_only_what_is_missing(folder, weights, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), "--out", str(out), "--checkpoint", weights]
    main(command)
    kept = b"".join(out.read_bytes().splitlines(keepends=True)[:6])
    out.write_bytes(kept + b"half a li")
    taken = []
    monkeypatch.setattr("digitnet.predict.to_digit", lambda path: taken.append(os.path.basename(path)))
    main([*command, "--resume"])
    assert sorted(taken) == sorted(["5.png", 'a "quoted", one.PNG', "blank.png", "empty.jpg"])
    assert out.read_bytes().startswith(kept)


def test_resume_without_a_file_begins_one(folder, weights, tmp_path):
    out = tmp_path / "new.csv"
    assert main(["predict", str(folder), "--out", str(out), "--checkpoint", weights, "--resume"]) == 1
    assert len(rows(out)) == 9


def test_resume_refuses_other_pictures_and_foreign_files(folder, weights, tmp_path, capsys):
    out = tmp_path / "out.csv"
    command = ["predict", str(folder), "--out", str(out), "--checkpoint", weights, "--resume"]
    main(command)
    before = out.read_bytes()
    (folder / "0.png").unlink()
    assert main(command) == 2
    assert "start anew without --resume" in capsys.readouterr().err
    assert out.read_bytes() == before
    out.write_text("name,price\nbread,3\n")
    assert main(command) == 2
    assert "not a CSV of this command" in capsys.readouterr().err and out.read_text() == "name,price\nbread,3\n"


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
def test_names_that_are_no_text_and_names_with_line_breaks(tmp_path, weights, capsys):
    odd = [os.fsencode(tmp_path) + b"/caf\xe9.png", os.fsencode(tmp_path) + b"/two\nlines.png"]
    for name in odd:
        with open(name, "wb") as file:
            Image.fromarray(sheet(60)).save(file, "PNG")
    out = tmp_path / "out.csv"
    command = ["predict", str(tmp_path), "--out", str(out), "--checkpoint", weights]
    assert main(command) == 0
    whole = out.read_bytes()
    assert [os.fsencode(row["picture"]) for row in rows(out)] == odd
    for cut in range(len(",".join(COLUMNS)), len(whole), 3):
        out.write_bytes(whole[:cut])
        assert main([*command, "--resume"]) == 0
        assert [os.fsencode(row["picture"]) for row in rows(out)] == odd
    assert main(["predict", str(tmp_path), "--checkpoint", weights]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_spared_views_change_the_thousandths_of_sure_answers_only(tmp_path):
    drawings = [d for d in read_drawings(ROOT / "tests" / "drawings" / "page.jsonl") if d.digit is not None]
    for number, drawing in enumerate(drawings):
        Image.fromarray(draw(drawing.strokes, brush=14)).save(tmp_path / f"{number:02}.png")
    tables = []
    for flags in ([], ["--spare-views"]):
        assert main(["predict", str(tmp_path), "--out", str(tmp_path / "out.csv"), *flags]) == 0
        tables.append(rows(tmp_path / "out.csv"))
    whole, spared = tables
    assert whole != spared and len(whole) == len(drawings)
    assert [(row["digit"], row["verdict"]) for row in whole] == [(row["digit"], row["verdict"]) for row in spared]
    for name in ("confidence", "p_digit"):
        assert [float(row[name]) for row in whole] == pytest.approx([float(row[name]) for row in spared], abs=5e-3)


def test_it_looks_no_further_ahead_than_the_window(recognizer, tmp_path):
    Image.fromarray(sheet(60)).save(tmp_path / "one.png")
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield str(tmp_path / "one.png")

    stream = read_files(recognizer, endless(), workers=2)
    for _ in range(10 * CHUNK):
        path, answer = next(stream)
        assert not isinstance(answer, PictureError) and path.endswith("one.png")
    stream.close()
    assert len(taken) <= (10 + 2 * AHEAD) * CHUNK


def test_order_is_kept_whatever_a_picture_costs(recognizer, tmp_path):
    paths = []
    for number in range(20):
        side = 1500 if number % 5 == 0 else 28
        Image.fromarray(sheet(60)).resize((side, side)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    assert [path for path, _ in read_files(recognizer, iter(paths), workers=4)] == paths
    assert list(read_files(recognizer, [])) == []


def test_a_reader_that_has_had_enough_is_no_error(folder, weights):
    command = [sys.executable, "-m", "digitnet", "predict", *[str(folder / "0.png")] * 3000, "--checkpoint", weights]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"0.png" in process.stdout.readline()
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0


def test_the_help_tells_columns_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(column in told for column in COLUMNS) and "exit code: 0" in told and "could not be read" in told


def test_columns_are_one_line_of_csv():
    assert next(csv.reader(io.StringIO(",".join(COLUMNS)))) == list(COLUMNS)
