"""Published pen data becomes the stroke files that are known to be right, and damaged files say so.

The comparisons need the raw excerpts beside the ready-made files ($DIGITNET_DATA/pen, or ../shared/data/pen); all other
tests write their own small files.
"""

import argparse
import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import data_root

from digitnet.convert import (
    LIKE_DIGITS,
    add_arguments,
    flaw,
    pseudonym,
    read_pendigits,
    read_unipen,
    run,
    without_duplicates,
)
from digitnet.drawings import Drawing, DrawingError, read_drawings

READY = ("pendigits", "unipen", "unipen-letters", "unipen-symbols")


@pytest.fixture(scope="module")
def pen() -> Path:
    """The folder of raw excerpts and ready-made files."""
    folder = data_root() / "pen"
    if not (folder / "raw").is_dir():
        reason = f"no raw pen data in {folder}; set DIGITNET_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


def convert(*words) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


def rows(path) -> list[dict]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def lists(drawing: Drawing) -> list:
    return [stroke.tolist() for stroke in drawing.strokes]


# The raw excerpts against the ready-made files


def test_pendigits_excerpt_is_the_ready_made_file_line_by_line(pen, tmp_path):
    convert("pendigits", pen / "raw" / "pendigits-orig.tra.head", "--out", tmp_path / "pd.jsonl.gz")
    assert rows(tmp_path / "pd.jsonl.gz") == rows(pen / "pendigits.jsonl.gz")[:100]


def test_unipen_excerpt_is_the_ready_made_file_line_by_line(pen, tmp_path):
    assert convert("unipen", pen / "raw" / "unipen", "--category", "1a", "--out", tmp_path / "un.jsonl.gz") == 0
    ours, ready = rows(tmp_path / "un.jsonl.gz"), rows(pen / "unipen.jsonl.gz")
    start = next(i for i, row in enumerate(ready) if row["strokes"] == ours[0]["strokes"])
    theirs = ready[start : start + len(ours)]
    assert len(ours) == 50
    for key in ("label", "strokes"):
        assert [row[key] for row in ours] == [row[key] for row in theirs]
    # The excerpt was published under stand-in writer ids, so its pseudonyms differ; who is who does not.
    pairs = {(mine["writer"], their["writer"]) for mine, their in zip(ours, theirs, strict=True)}
    assert {mine for mine, _ in pairs} == {pseudonym("aga/sample1"), pseudonym("aga/sample2")}
    assert len(pairs) == len({their for _, their in pairs}) == 2
    assert not {their for _, their in pairs} & {row["writer"] for row in ready[:start] + ready[start + len(ours) :]}


def test_pseudonyms_are_those_of_the_ready_made_files(pen):
    pendigits = {row["writer"] for row in rows(pen / "pendigits.jsonl.gz")}
    assert pendigits == {pseudonym(f"pd-tra{number:02d}") for number in range(1, 31)}


@pytest.mark.parametrize("name", READY)
def test_nothing_in_the_ready_made_files_would_be_left_out(pen, name):
    drawings = read_drawings(pen / f"{name}.jsonl.gz")
    assert [(i, flaw(d.strokes, d.label)) for i, d in enumerate(drawings) if flaw(d.strokes, d.label)] == []
    assert not {drawing.label for drawing in drawings} & LIKE_DIGITS
    assert len(without_duplicates(drawings)) == len(drawings)


# Pendigits, from files written here

SEVEN = """.INCLUDE dene.doc
.COMMENT free text before any segment
.SEGMENT DIGIT 0 ? "7"
.COMMENT 7 3 1
.PEN_DOWN
 10 400
 60  400
 20 300
.PEN_UP
.DT 12
.PEN_DOWN
 15 350
 50 351
.PEN_UP
.DT 100
"""


@pytest.mark.parametrize("part", ["tra", "tes"])
def test_pendigits_keeps_strokes_and_turns_y_down(tmp_path, part):
    path = tmp_path / f"pendigits-orig.{part}"
    path.write_text(SEVEN)
    (drawing,) = read_pendigits(path)
    assert (drawing.label, drawing.writer) == ("7", hashlib.sha1(f"pd-{part}03".encode()).hexdigest()[:8])
    assert lists(drawing) == [[[10, 100], [60, 100], [20, 200]], [[15, 150], [50, 149]]]


def test_pendigits_takes_both_files_at_once(tmp_path, capsys):
    for part in ("tra", "tes"):
        (tmp_path / f"pendigits-orig.{part}").write_text(SEVEN)
    convert("pendigits", *sorted(tmp_path.glob("*.t*")), "--out", tmp_path / "pd.jsonl.gz")
    assert len({drawing.writer for drawing in read_drawings(tmp_path / "pd.jsonl.gz")}) == 2
    assert "2 drawings by 2 writers" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "holds no .SEGMENT"),
        ("\x00\xff just bytes \n\n", "holds no .SEGMENT"),
        (SEVEN.replace(".COMMENT 7 3 1", ""), "line 3.*no .*COMMENT"),
        (SEVEN.replace(".COMMENT 7 3 1", ".COMMENT 17 3 1"), "line 3.*no .*COMMENT"),
        (SEVEN[: SEVEN.index(".PEN_DOWN")], "line 3.*no ink"),
        (SEVEN.replace(" 60  400", " 60"), "line 5.*not rows of coordinates"),
        (SEVEN.replace(" 60  400", " 60 4oo"), "line 5.*not rows of coordinates"),
        (SEVEN.replace(" 60  400", " 60 nan"), "line 5.*no number that a tablet gives"),
        (SEVEN.replace(" 60  400", " 60 4e39"), "line 5.*no number that a tablet gives"),
        ("\x1f\x9d\x90", "is compressed; unpack it first"),
    ],
)
def test_damaged_pendigits_name_the_file_and_what_to_do(tmp_path, text, says):
    path = tmp_path / "pendigits-orig.tra"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DrawingError, match=says) as error:
        read_pendigits(path)
    assert str(path) in str(error.value)


def test_pendigits_needs_a_file_whose_writers_it_can_tell(tmp_path):
    with pytest.raises(DrawingError, match="cannot be read"):
        read_pendigits(tmp_path / "no.tra")
    (tmp_path / "digits.txt").write_text(SEVEN)
    with pytest.raises(DrawingError, match=r"needs \.tra or \.tes in its name"):
        read_pendigits(tmp_path / "digits.txt")


# UNIPEN, from files written here

HOOK = [(10, 90), (60, 88), (30, 10)]  # a 7
BOW = [(50, 90), (10, 50), (30, 20), (60, 40), (20, 60)]  # a 6
BAR = [(20, 50), (55, 52)]


def down(*points) -> str:
    return ".PEN_DOWN\n" + "".join(f"{x} {y}\n" for x, y in points)


def up(*points) -> str:
    return down(*points).replace("DOWN", "UP")


def sheet(folder, segments, ink, *, category="1a", site="abc", name="one.dat", head=".WRITER_ID  w 1\n.COORD X Y\n"):
    """A master file with its segments ("delineation", "label") and the ink file that it includes."""
    master, included = folder / "data" / category / site / name, folder / "include" / site / "data" / name
    master.parent.mkdir(parents=True, exist_ok=True)
    included.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'.SEGMENT CHARACTER {where} ? "{label}"\n' for where, label in segments]
    master.write_text(f".VERSION 1.0\n.INCLUDE {site}/data/{name}\n" + "".join(lines), encoding="latin-1")
    included.write_text(head + ink, encoding="latin-1")
    return master


def flip(points) -> list:
    return [[x, -y] for x, y in points]


def test_components_count_up_and_down_but_not_empty_ones(tmp_path):
    ink = down((0, 0)) + up() + down(*HOOK) + up((1, 1), (2, 2)) + down(*BAR) + up() + down(*BOW)
    sheet(tmp_path, [("1-3", "7"), ("4", "6")], ink)
    seven, six = read_unipen(tmp_path)
    assert (seven.label, lists(seven)) == ("7", [flip(HOOK), flip(BAR)])
    assert (six.label, lists(six)) == ("6", [flip(BOW)])
    assert seven.writer == six.writer == pseudonym("abc/w 1")


def test_placeholders_hold_a_number_but_no_ink(tmp_path):
    sheet(tmp_path, [("0", "0"), ("0-2", "7")], down((0, 0)) + up() + down((0, 0), (0, 0)) + up() + down(*HOOK))
    (drawing,) = read_unipen(tmp_path)
    assert lists(drawing) == [flip(HOOK)]


@pytest.mark.parametrize(
    "where, strokes",
    [
        ("0", [HOOK]),
        ("0-2", [HOOK, BAR]),
        ("2,0", [BAR, HOOK]),
        ("0,2-3", [HOOK, BAR, BOW]),
        ("0, 2-3", [HOOK, BAR, BOW]),
        ("3:1-3:3", [BOW[1:4]]),
        ("3:1-3", [BOW[1:]]),
        ("0:1-3:2", [HOOK[1:], BAR, BOW[:3]]),
        ("0-3:2", [HOOK, BAR, BOW[:3]]),
        ("0,3:2-3:4", [HOOK, BOW[2:]]),
        ("0,3:2", [HOOK, [BOW[2]]]),
    ],
)
def test_a_segment_names_ranges_lists_and_points(tmp_path, where, strokes):
    sheet(tmp_path, [(where, "7")], down(*HOOK) + up((5, 5)) + down(*BAR) + down(*BOW))
    (drawing,) = read_unipen(tmp_path)
    assert lists(drawing) == [flip(stroke) for stroke in strokes]


@pytest.mark.parametrize(
    "head, scale",
    [
        (".X_POINTS_PER_INCH 100\n.Y_POINTS_PER_INCH 200\n", 0.5),
        (".X_POINTS_PER_MM 30\n.Y_POINTS_PER_MM 20.0\n", 1.5),
        (".X_POINTS_PER_INCH 100\n", 1),
        (".X_POINTS_PER_INCH 100\n.Y_POINTS_PER_MM 10\n", 1),
    ],
)
def test_y_is_in_units_of_x_where_both_are_told(tmp_path, head, scale):
    sheet(tmp_path, [("0", "7")], down(*HOOK), head=head)
    (drawing,) = read_unipen(tmp_path)
    assert lists(drawing) == [[[x, -y * scale] for x, y in HOOK]]


def test_coordinates_keep_one_decimal_as_the_ready_made_files_do(tmp_path):
    sheet(
        tmp_path,
        [("0", "1")],
        down((1, 415), (2, 260), (3, 430)),
        head=".X_POINTS_PER_MM 856.7\n.Y_POINTS_PER_MM 979.3\n",
    )
    (drawing,) = read_unipen(tmp_path)
    assert np.array_equal(drawing.strokes[0][:, 1], np.float32([-363.1, -227.4, -376.2]))


def test_coord_tells_the_columns(tmp_path):
    ink = ".PEN_DOWN\n" + "".join(f"{i} {y} {x} 9\n" for i, (x, y) in enumerate(HOOK))
    sheet(tmp_path, [("0", "7")], ink, head=".COORD T Y X P\n")
    assert lists(read_unipen(tmp_path)[0]) == [flip(HOOK)]
    sheet(tmp_path, [("0", "1")], ink.replace("9\n", "\n"), head="")  # no .COORD: the first two of each line
    assert lists(read_unipen(tmp_path)[0]) == [[[i, -y] for i, (_, y) in enumerate(HOOK)]]


def test_includes_may_include_and_name_the_writer(tmp_path):
    sheet(tmp_path, [("0", "7")], ".INCLUDE abc/who.doc\n.INCLUDE abc/ink.dat\n", head="")
    (tmp_path / "include/abc/who.doc").write_text(".WRITER_ID\tng \n")
    (tmp_path / "include/abc/ink.dat").write_text(down(*HOOK))
    (drawing,) = read_unipen(tmp_path)
    assert drawing.writer == pseudonym("abc/ng")


def test_each_ink_has_the_writer_in_force_and_no_writer_is_one_writer(tmp_path):
    two = ".WRITER_ID a\n" + down(*HOOK) + ".WRITER_ID b\n" + down(*BOW)
    sheet(tmp_path, [("0", "7"), ("1", "6")], two, head="", name="a.dat")
    sheet(tmp_path, [("0", "7")], down(*HOOK, (1, 2)), head="", name="b.dat")
    sheet(tmp_path, [("0", "7")], down(*HOOK, (1, 3)), head="", name="c.dat")
    sheet(tmp_path, [("0", "7")], down(*HOOK, (1, 4)) + ".WRITER_ID late\n", head="", name="d.dat")
    names = ["abc/a", "abc/b", "abc/unknown", "abc/unknown", "abc/late"]
    assert [drawing.writer for drawing in read_unipen(tmp_path)] == [pseudonym(name) for name in names]


def test_a_category_holds_its_own_labels_but_none_that_look_like_digits(tmp_path):
    labels = ["7", "A", "a", "O", "l", "+", "|", '\\"', "", "12", "\xe9", "\\\\"]
    ink = "".join(down(*HOOK, (i, i + 1)) for i in range(len(labels)))
    wanted = {"1a": ["7"], "1b": ["A"], "1c": ["a"], "1d": ["+", '"']}
    for category, kept in wanted.items():
        sheet(tmp_path, [(str(i), label) for i, label in enumerate(labels)], ink, category=category)
        assert [drawing.label for drawing in read_unipen(tmp_path, category)] == kept


def test_a_quote_may_be_written_without_its_backslash(tmp_path):
    sheet(tmp_path, [("0-1", '"')], down((0, 9), (0, 5)) + down((4, 9), (4, 5)), category="1d")
    assert [drawing.label for drawing in read_unipen(tmp_path, "1d")] == ['"']


def test_segments_without_a_label_or_of_another_kind_are_none(tmp_path):
    master = sheet(tmp_path, [("0", "7")], down(*HOOK))
    master.write_text(master.read_text() + '.SEGMENT CHARACTER 0 ?\n.SEGMENT WORD 0 ? "7"\n.SEGMENT TEXT\n')
    assert len(read_unipen(tmp_path)) == 1


def test_several_categories_go_into_one_file(tmp_path):
    sheet(tmp_path, [("0", "A")], down(*HOOK), category="1b")
    sheet(tmp_path, [("0", "a"), ("1", "c")], down(*HOOK) + down(*BOW), category="1c")
    convert("unipen", tmp_path, "--category", "1b", "1c", "--out", tmp_path / "letters.jsonl")
    assert [drawing.label for drawing in read_drawings(tmp_path / "letters.jsonl")] == [
        "A",
        "c",
    ]  # "a" is A's ink again


# What is left out


def test_exact_duplicates_are_left_out_and_near_ones_kept(tmp_path):
    sheet(tmp_path, [("0", "7"), ("1", "7"), ("0", "7")], down(*HOOK) + down(*HOOK), name="a.dat")
    sheet(tmp_path, [("0", "7"), ("1", "7")], down(*HOOK) + down(*HOOK, (31, 10)), name="b.dat", site="xyz")
    assert [lists(drawing) for drawing in read_unipen(tmp_path)] == [[flip(HOOK)], [flip([*HOOK, (31, 10)])]]


def test_digits_cut_into_overlapping_segments_are_left_out(tmp_path):
    ink = down(*HOOK) + up((9, 9)) + down(*BAR) + down(*BOW)
    sheet(tmp_path, [("0-2", "7"), ("2", "1"), ("3", "6")], ink)
    assert [drawing.label for drawing in read_unipen(tmp_path)] == ["6"]
    sheet(tmp_path, [("3:0-3:2", "0"), ("3:2-3:4", "6")], ink)
    assert read_unipen(tmp_path) == []
    sheet(tmp_path, [("0-1", "7"), ("1-3", "6")], ink)  # they share a way through the air, which is no ink
    assert len(read_unipen(tmp_path)) == 2


def rod(width, height, *, waist=0.0) -> np.ndarray:
    """A stroke from corner to corner of a box; waist: how far its middle stands off, in the box's units."""
    return np.float32([[0, 0], [width / 2 + waist, height / 2 - waist], [width, height]])


@pytest.mark.parametrize(
    "strokes, label, why",
    [
        ([[[5, 5]]], "3", "single point"),
        ([[[5, 5], [5, 5]], [[5, 5]]], ".", "single point"),
        ([rod(0, 100)], "7", "straight line"),
        ([rod(80, 90)], "7", "straight line"),
        ([rod(0, 100)], "1", None),
        ([rod(80, 90)], "1", None),
        ([rod(0, 100)], "t", "straight line"),
        ([rod(0, 100), rod(5, 100)], "4", "straight line"),
        ([rod(100, 20)], "1", "flat dash"),
        ([rod(100, 20, waist=3)], "2", "flat dash"),
        ([rod(100, 0)], "-", None),
        ([rod(10, 100, waist=30)], "7", None),
        ([rod(30, 100, waist=20), rod(30, 100, waist=20) + np.float32([80, 0])], "4", "two glyphs"),
        ([rod(30, 100, waist=20), rod(30, 100, waist=20) + np.float32([60, 0])], "4", None),
        ([rod(30, 100, waist=20), rod(30, 30) + np.float32([80, 0])], "5", None),
        ([rod(30, 100), rod(30, 100) + np.float32([99, 0])], '"', None),
    ],
)
def test_flaws(strokes, label, why):
    assert flaw([np.float32(stroke) for stroke in strokes], label) == why


def test_flawed_segments_are_left_out(tmp_path):
    bar, apart = [(0, 0), (0, 50), (1, 99)], [(200 + x, y) for x, y in HOOK]
    ink = down((7, 7)) + down(*bar) + down(*HOOK) + down(*apart) + down(*[(x, y + 1) for x, y in bar])
    sheet(tmp_path, [("0", "0"), ("1", "7"), ("2-3", "7"), ("4", "1")], ink)
    assert [drawing.label for drawing in read_unipen(tmp_path)] == ["1"]


# Damage


@pytest.mark.parametrize(
    "segments, ink, says",
    [
        ([("1", "7")], down(*HOOK), "one.dat, line 3: 1 names ink that is not there"),
        ([("0-999999999", "7")], down(*HOOK), "names ink that is not there"),
        ([("0:1-0:3", "7")], down(*HOOK), "names ink that is not there"),
        ([("0:2-0:1", "7")], down(*HOOK), "names ink that is not there"),
        ([("1-0", "7")], down(*HOOK) + down(*BOW), "runs backwards"),
        ([("0--1", "7")], down(*HOOK), "is no range of components"),
        ([("0", "7")], down(*HOOK) + "12\n", "one.dat, line 3: these are not rows of coordinates"),
        ([("0", "7")], down(*HOOK) + "1 two\n", "these are not rows of coordinates"),
        ([("0", "7")], down(*HOOK) + "1 inf\n", "no number that a tablet gives"),
        ([("0", "7")], ".X_POINTS_PER_INCH 0\n" + down(*HOOK), "must be a positive number"),
        ([("0", "7")], ".Y_POINTS_PER_MM\n" + down(*HOOK), "must be a positive number"),
        ([("0", "7")], ".COORD T P\n" + down(*HOOK), "names no X and Y"),
        ([("0", "7")], ".INCLUDE abc/gone.dat\n", "line 3: no 'abc/gone.dat' in .*; unpack the whole"),
        ([("0", "7")], ".INCLUDE ../data/1a/abc/one.dat\n", "unpack the whole"),
        ([("0", "7")], ".INCLUDE abc/\x00.dat\n", "unpack the whole"),
        ([("0", "7")], ".INCLUDE abc/data/one.dat\n", "includes itself"),
    ],
)
def test_damaged_unipen_names_the_file_and_what_to_do(tmp_path, segments, ink, says):
    sheet(tmp_path, segments, ink)
    with pytest.raises(DrawingError, match=says) as error:
        read_unipen(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_not_unipen_says_which_is_wanted(tmp_path):
    with pytest.raises(DrawingError, match="give train_r01_v07"):
        read_unipen(tmp_path)
    sheet(tmp_path, [("0", "7")], down(*HOOK))
    with pytest.raises(DrawingError, match="data/1d"):
        read_unipen(tmp_path, "1d")
    (tmp_path / "data" / "1d").mkdir()
    with pytest.raises(DrawingError, match="holds no files"):
        read_unipen(tmp_path, "1d")
    with pytest.raises(AssertionError, match="category is one of"):
        read_unipen(tmp_path, "2")


def test_damaged_files_can_be_skipped_and_are_told(tmp_path, capsys):
    sheet(tmp_path, [("5", "7")], down(*HOOK), name="bad.dat")
    sheet(tmp_path, [("0", "7")], down(*HOOK), name="good.dat")
    out = tmp_path / "digits.jsonl"
    with pytest.raises(DrawingError, match=r"bad\.dat"):
        convert("unipen", tmp_path, "--out", out)
    assert not out.exists()
    assert convert("unipen", tmp_path, "--skip-damaged", "--out", out) == 1
    assert len(read_drawings(out)) == 1
    assert "bad.dat" in capsys.readouterr().err


def test_out_must_be_a_stroke_file_that_can_be_written(tmp_path):
    sheet(tmp_path, [("0", "7")], down(*HOOK))
    for out, says in [("digits.csv", "must end in .jsonl"), ("none/digits.jsonl", "cannot be written")]:
        with pytest.raises(DrawingError, match=says):
            convert("unipen", tmp_path, "--out", tmp_path / out)
    sheet(tmp_path, [("0", "l")], down(*HOOK))
    with pytest.raises(DrawingError, match="holds no such drawings"):
        convert("unipen", tmp_path, "--out", tmp_path / "digits.jsonl")


def test_the_arguments_must_say_what_and_where(capsys):
    for words in (["mnist"], ["pendigits", "a.tra"], ["unipen", "f", "--category", "9", "--out", "o.jsonl"], []):
        with pytest.raises(SystemExit):
            convert(*words)
    capsys.readouterr()
