"""The configuration: what is right loads, every fault is reported at once with file, line, key, rule and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.streamer.config import load_config
from vedette.streamer.errors import ConfigError
from vedette.streamer.rules.base import Schedule

GOOD = """\
version: 1
site: warehouse-3
engine: {detector: vedette-nano, backend: auto, precision: fp16, window: 64}
defaults: {fps: 10, classes: [person, vehicle]}
cameras:
  dock:
    source: rtsp://viewer:${DOCK_PASSWORD}@10.0.0.5/stream1
    privacy: [[[0.0, 0.0], [0.2, 0.0], [0.2, 0.3], [0.0, 0.3]]]
    zones: {gate: [[0.1, 0.4], [0.9, 0.4], [0.9, 1.0], [0.1, 1.0]]}
    lines: {door: [[0.2, 0.5], [0.8, 0.5]]}
    rules:
      - {kind: zone, zone: gate, on: enter, classes: [person]}
alerts: {publish: "tcp://127.0.0.1:5556", replay: "tcp://127.0.0.1:5557", store: /var/lib/vedette, sinks: []}
http: {listen: "127.0.0.1:8642"}
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    """The problem lines of a configuration, without the folder."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def one_camera(body: str) -> str:
    """A minimal file whose camera has these lines."""
    indented = "\n".join("    " + line for line in body.splitlines())
    return f"version: 1\ncameras:\n  dock:\n{indented}\n"


def test_the_design_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published example is valid, defaults reach the camera, secrets are known."""
    monkeypatch.setenv("DOCK_PASSWORD", "opensesame")
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    loaded = load_config(path)
    dock = loaded.config.cameras["dock"]
    assert dock.source == "rtsp://viewer:opensesame@10.0.0.5/stream1"
    assert dock.fps == 10
    assert dock.rules[0].title() == "zone:gate"
    assert loaded.secrets == ("opensesame",)


def test_a_camera_overrides_defaults_and_joins_zones(tmp_path: Path) -> None:
    """Camera keys win over defaults; zones of both are there; a list is replaced, not joined."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\n"
        "defaults: {fps: 5, classes: [person], zones: {all: [[0, 0], [1, 0], [1, 1]]}}\n"
        "cameras:\n  a: {source: /x.mp4, fps: 7, classes: [car], zones: {own: [[0, 0], [1, 0], [1, 1]]}}\n"
    )
    camera = load_config(path).config.cameras["a"]
    assert (camera.fps, camera.classes, sorted(camera.zones)) == (7, ["car"], ["all", "own"])


def test_file_secrets_are_read_beside_the_config(tmp_path: Path) -> None:
    """`!file` brings the content of a file without its last newline."""
    (tmp_path / "url.txt").write_text("rtsp://u:p@h/s\n")
    path = tmp_path / "c.yaml"
    path.write_text(one_camera("source: !file url.txt"))
    assert load_config(path).config.cameras["dock"].source == "rtsp://u:p@h/s"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("source: /x\nfsp: 3", "c.yaml:5: cameras.dock.fsp: unknown key, got 3"),
        ("source: /x\nfps: fast", "c.yaml:5: cameras.dock.fps: needs a number, got 'fast'"),
        ("source: /x\nfps: 0", "c.yaml:5: cameras.dock.fps: input should be greater than 0, got 0"),
        ("fps: 3", "c.yaml:3: cameras.dock.source: is required, got nothing"),
        ("source: ftp://h/x", "c.yaml:4: cameras.dock.source: needs one of"),
        ("source: exec:rm", "cameras.dock.source"),
        ("source: rtsp:///x", "needs a host"),
        ("source: /x\nzones:\n  a: [[0, 0], [1, 1]]", "c.yaml:6: cameras.dock.zones.a: needs at least 3 points, got 2"),
        ("source: /x\nzones: {a: [[0, 0], [1, 1], [1, 0], [0, 1]]}", "edges must not cross"),
        ("source: /x\nzones: {a: [[0, 0], [1.5, 1], [1, 0]]}", "need 0..1, got [1.5, 1.0]"),
        ("source: /x\nzones: {a: [[0, 0], [1, 1, 3], [1, 0]]}", "cameras.dock.zones.a[1]"),
        ("source: /x\nlines: {a: [[0.2, 0.5], [0.2, 0.5]]}", "needs two different points, got [0.2, 0.5] twice"),
        ("source: /x\nprivacy: [[[0, 0], [1, 0]]]", "c.yaml:5: cameras.dock.privacy[0]: needs at least 3 points"),
        (
            "source: /x\nrules:\n  - {kind: zone, zone: gate}",
            "c.yaml:6: cameras.dock.rules[0].zone: no such zone (this camera has: none), got 'gate'",
        ),
        ("source: /x\nrules: [{kind: teleport}]", "c.yaml:5: cameras.dock.rules[0].kind: `kind` must be one of"),
        ("source: /x\nrules: [{zone: gate}]", "`kind` must be one of"),
        ("source: /x\nrules: [3]", "cameras.dock.rules[0]"),
        ("source: /x\nclasses: [persn]", "c.yaml:5: cameras.dock.classes: unknown class"),
        ("source: /x\nclasses: []", "cameras.dock.classes"),
        ("source: rtsp://h/x\nloop: true", "c.yaml:5: cameras.dock.loop: useless: only files can loop, got True"),
        ("source: rtsp://${NOT_SET_ANYWHERE}@h/x", "must be set, got nothing for ${NOT_SET_ANYWHERE}"),
        ("source: !file nowhere.txt", "!file must name a readable text file, got 'nowhere.txt'"),
        ("source: !!python/object:os.system x", "unknown tag"),
        ("source: /x\nsource: /y", "c.yaml:5: cameras.dock.source: appears twice, first at line 4"),
        ("source: /x\nfps: .nan", "cameras.dock.fps"),
    ],
)
def test_a_fault_names_file_line_key_rule_and_value(tmp_path: Path, body: str, expected: str) -> None:
    """Each fault is one line that says where, what is wrong and what was found."""
    lines = faults(tmp_path, one_camera(body))
    assert any(expected in line for line in lines), lines


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """Independent faults in one file come in one go, each with its own line."""
    text = one_camera("source: /x\nfps: -1\nbogus: 1\nzones: {a: [[0, 0], [1, 1]]}").replace("version: 1", "version: 2")
    lines = faults(tmp_path, text + "http: {listen: nowhere}\nalerts: {publish: 5}\n")
    keys = {line.split(": ")[1] for line in lines}
    assert keys == {
        "version",
        "cameras.dock.fps",
        "cameras.dock.bogus",
        "cameras.dock.zones.a",
        "http.listen",
        "alerts.publish",
    }


def test_an_inherited_fault_is_reported_once_where_it_stands(tmp_path: Path) -> None:
    """A wrong default is one fault at its own line, not one for every camera."""
    lines = faults(tmp_path, "version: 1\ndefaults: {fps: -1}\ncameras:\n  a: {source: /x}\n  b: {source: /y}\n")
    assert lines == ["c.yaml:2: defaults.fps: input should be greater than 0, got -1"]


@pytest.mark.parametrize(
    ("name", "value"), [("Dock", "needs the form"), ("a b", "needs the form"), ("x" * 33, "needs the form")]
)
def test_camera_names_are_plain(tmp_path: Path, name: str, value: str) -> None:
    """Names that could not be a topic or a file name are refused."""
    assert any(value in line for line in faults(tmp_path, f"version: 1\ncameras:\n  {name}: {{source: /x}}\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs keys and values, got NoneType"),
        ("- 1\n", "needs keys and values, got list"),
        ("a: [1\n", "is not YAML"),
        ("a: &x [*x]\n", "alias must not contain itself"),
        ("\x00", "is not YAML"),
        ("version: 1\ncameras: [a]\n", "cameras: needs keys and values"),
        ("version: 1\n", "cameras: is required"),
        ("version: one\ncameras: {}\n", "version"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    """Empty, broken and foreign files give a sentence, not a traceback."""
    assert any(words in line for line in faults(tmp_path, text))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """A missing file and a folder are both reported by name."""
    for path in (tmp_path / "no.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused with the offending byte."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="0xff"):
        load_config(path)


def test_secrets_never_appear_in_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password taken from the environment is not echoed by the error about its URL."""
    monkeypatch.setenv("CAM_PW", "tr0ub4dor")
    lines = faults(tmp_path, one_camera("source: ftp://u:${CAM_PW}@h/x"))
    assert lines
    assert "tr0ub4dor" not in "\n".join(lines)


def test_no_cameras_is_allowed(tmp_path: Path) -> None:
    """`cameras: {}` loads: `vedette process` needs none."""
    path = tmp_path / "c.yaml"
    path.write_text("version: 1\ncameras: {}\n")
    assert load_config(path).config.cameras == {}


@pytest.mark.parametrize(
    ("text", "moment", "awake"),
    [
        ("22:00-05:30", (0, 22 * 60), True),
        ("22:00-05:30", (0, 5 * 60 + 30), False),
        ("Mon-Fri 18:00-06:00", (5, 3 * 60), True),  # Saturday 03:00 is still Friday's night
        ("Mon-Fri 18:00-06:00", (6, 3 * 60), False),
        ("Mon-Fri 18:00-06:00", (0, 3 * 60), False),  # Monday 03:00 belongs to Sunday
        ("Sat-Mon 08:00-10:00", (6, 8 * 60), True),
        ("Sat-Mon 08:00-10:00", (2, 8 * 60), False),
        ("08:00-24:00", (2, 1439), True),
    ],
)
def test_schedules(text: str, moment: tuple[int, int], awake: bool) -> None:
    """Days and hours mean local time, may pass midnight, and exclude the end."""
    assert Schedule.parse(text).awake(*moment) is awake


@pytest.mark.parametrize(
    "text", ["always", "25:00-26:00", "Mon 18:00", "Foo 18:00-19:00", "18:00-19:60", "10:00-24:30"]
)
def test_bad_schedules_show_an_example(text: str) -> None:
    """A schedule that cannot be read is refused with the right form."""
    with pytest.raises(ValueError, match="Mon-Fri 18:00-06:00"):
        Schedule.parse(text)
