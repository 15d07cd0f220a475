"""``vedette track`` turns a detection file into a track file, online."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from vedette.streamer.commands import track

SEQINFO = "[Sequence]\nname=yard\nframeRate=10\nseqLength=40\nimWidth=640\nimHeight=480\n"


def run(folder: Path, det: str, *extra: str, seqinfo: str = SEQINFO) -> tuple[int, str]:
    """Run the command on the text of a detection file; exit status and the result's text."""
    (folder / "det.txt").write_text(det)
    (folder / "seqinfo.ini").write_text(seqinfo)
    parser = argparse.ArgumentParser()
    track.add_arguments(parser)
    words = ["--det", "det.txt", "--seqinfo", "seqinfo.ini", "--out", "tracks.txt"]
    words = [str(folder / w) if not w.startswith("-") else w for w in words]
    status = track.run(parser.parse_args([*words, *extra]))
    out = folder / "tracks.txt"
    return status, out.read_text() if out.exists() else ""


def scene(frames: int = 40) -> str:
    """Two people who walk towards each other, one of them missed now and then."""
    lines = []
    for k in range(1, frames + 1):
        lines.append(f"{k},-1,{20 + 8 * k},100,50,150,0.9")
        if k % 9:
            lines.append(f"{k},-1,{560 - 8 * k},120,50,170,0.8")
    return "\n".join(lines) + "\n"


def test_two_walkers_are_two_ids_in_motchallenge_form(tmp_path: Path) -> None:
    """Each line has ten fields, frames ascend, and there are exactly two identities."""
    status, text = run(tmp_path, scene())
    rows = [line.split(",") for line in text.splitlines()]
    assert status == 0
    assert {len(r) for r in rows} == {10}
    assert {r[1] for r in rows} == {"1", "2"}
    frames = [int(r[0]) for r in rows]
    assert frames == sorted(frames)
    assert len(rows) > 65


@pytest.mark.parametrize("cut", [5, 17, 30])
def test_the_output_for_a_frame_does_not_depend_on_later_lines(tmp_path: Path, cut: int) -> None:
    """A file cut after frame k gives, for the frames up to k, byte for byte what the whole file gives."""
    _, whole = run(tmp_path, scene())
    _, part = run(tmp_path, scene(cut))
    kept = "".join(line + "\n" for line in whole.splitlines() if int(line.split(",")[0]) <= cut)
    assert part == kept
    assert part


def test_bad_lines_are_reported_with_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run goes on, says what it skipped, and stops listing after a while."""
    lines = scene().splitlines()
    lines[3] = "rubbish"
    status, text = run(tmp_path, "\n".join([*lines, *["40,-1,x,1,1,1,1"] * 50]))
    said = capsys.readouterr().err
    assert status == 0
    assert text
    assert f"{tmp_path / 'det.txt'}:4: needs" in said
    assert "more lines were skipped" in said
    assert said.count("needs numbers") < 50


def test_scores_that_are_no_scores_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Detections the tracker refuses are counted by reason."""
    run(tmp_path, scene() + "40,-1,5,5,10,10,73\n")
    assert "refused 1 detections: score" in capsys.readouterr().err


def test_a_missing_or_wrong_file_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a broken seqinfo nor an absent detection file is a traceback."""
    assert run(tmp_path, scene(), seqinfo="[Sequence]\nframeRate=10\n")[0] == 2
    assert "imWidth" in capsys.readouterr().err
    assert run(tmp_path, scene(), "--det", str(tmp_path / "absent.txt"))[0] == 2
    assert "absent.txt" in capsys.readouterr().err


@pytest.mark.data
def test_a_real_sequence_keeps_its_people_apart(data_dir: Path, tmp_path: Path) -> None:
    """TUD-Stadtmitte, ten people: no more than two and a half ids a person, and most boxes are tracked."""
    source = data_dir / "mot" / "MOT15" / "TUD-Stadtmitte"
    det = (source / "det" / "frcnn_public.txt").read_text()
    status, text = run(tmp_path, det, seqinfo=(source / "seqinfo.ini").read_text())
    sure = sum(float(line.split(",")[6]) >= 0.7 for line in det.splitlines())
    assert status == 0
    assert len({line.split(",")[1] for line in text.splitlines()}) <= 25
    assert len(text.splitlines()) > 0.9 * sure
