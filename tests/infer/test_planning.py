from pathlib import Path

import pytest

from codec.errors import SottoError
from infer.planning import PIPE, Plan, named_inputs, plan_outputs

ENDINGS = {".wav", ".mp3"}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files a.wav, b.mp3, in/1.wav, in/sub/2.MP3 and some that are not audio."""
    monkeypatch.chdir(tmp_path)
    names = ["a.wav", "b.mp3", "in/1.wav", "in/sub/2.MP3", "in/cover.jpg", "in/.hidden.wav"]
    for name in [*names, "in/.git/3.wav"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def plan(*paths: str, force: bool = False) -> Plan:
    *sources, target = (Path(path) for path in paths)
    return plan_outputs(sources, target, endings=ENDINGS, ending=".sc", force=force)


def pairs(made: Plan) -> list[tuple[str, str]]:
    return [(item.source.as_posix(), item.target.as_posix()) for item in made.items]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param("a.wav x.sc", [("a.wav", "x.sc")], id="file-to-file"),
        pytest.param("a.wav in/sub", [("a.wav", "in/sub/a.sc")], id="file-to-folder"),
        pytest.param("in/cover.jpg x.sc", [("in/cover.jpg", "x.sc")], id="any-name"),
        pytest.param("- x.sc", [("-", "x.sc")], id="from-stdin"),
        pytest.param("a.wav -", [("a.wav", "-")], id="to-stdout"),
        pytest.param("a.wav b.mp3 out", [("a.wav", "out/a.sc"), ("b.mp3", "out/b.sc")], id="files"),
        pytest.param(
            "in out", [("in/1.wav", "out/1.sc"), ("in/sub/2.MP3", "out/sub/2.sc")], id="folder"
        ),
        pytest.param(
            "in in", [("in/1.wav", "in/1.sc"), ("in/sub/2.MP3", "in/sub/2.sc")], id="in-place"
        ),
        pytest.param(
            "in a.wav out",
            [
                ("in/1.wav", "out/in/1.sc"),
                ("in/sub/2.MP3", "out/in/sub/2.sc"),
                ("a.wav", "out/a.sc"),
            ],
            id="folder-and-file",
        ),
        pytest.param("in in/sub", [("in/1.wav", "in/sub/1.sc")], id="into-a-folder-of-itself"),
    ],
)
def test_every_input_gets_its_output(arguments: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(plan(*arguments.split())) == expected


@pytest.mark.usefixtures("tree")
def test_a_folder_gives_the_same_whether_the_output_is_there_or_not() -> None:
    first = pairs(plan("in", "out"))
    Path("out/sub").mkdir(parents=True)
    assert pairs(plan("in", "out")) == first


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("gone.wav x.sc", "gone.wav is not there", id="missing"),
        pytest.param("a.wav b.mp3 in/1.wav", "in/1.wav is a file", id="many-to-a-file"),
        pytest.param("in -", "one input or output", id="folder-to-stdout"),
        pytest.param("- a.wav out", "one input or output", id="stdin-among-others"),
        pytest.param("in/.git/../sub/../.git in/out.sc", "no files found", id="nothing-in-it"),
        pytest.param("a.wav x.mp3", "writes .sc files", id="ending"),
        pytest.param("a.wav no/x.sc", "no folder no", id="no-folder"),
        pytest.param("a.wav a.wav", "is the input", id="itself"),
        pytest.param("a.wav b.mp3 b.mp3", "is a file", id="last-is-a-file"),
    ],
)
def test_what_cannot_be_planned_is_named(arguments: str, message: str) -> None:
    for folder in ("in/.git",):
        Path(folder, "3.wav").unlink()
    with pytest.raises(SottoError, match=message):
        plan(*arguments.split(), force=True)


@pytest.mark.usefixtures("tree")
def test_one_output_that_is_there_needs_force_and_a_folder_does_not() -> None:
    Path("x.sc").touch()
    with pytest.raises(SottoError, match="--force"):
        plan("a.wav", "x.sc")
    assert pairs(plan("a.wav", "x.sc", force=True)) == [("a.wav", "x.sc")]
    made = plan("in", ".")
    assert made.many and ("in/1.wav", "1.sc") in pairs(made)


@pytest.mark.usefixtures("tree")
def test_two_inputs_of_one_output_are_one_and_a_refusal() -> None:
    Path("in/1.mp3").touch()
    made = plan("in", "out")
    assert ("in/1.mp3", "out/1.sc") in pairs(made) and len(made.items) == 2
    [(path, reason)] = made.refused
    assert path == Path("in/1.wav") and "in/1.mp3" in reason


def test_an_input_that_would_be_its_own_output_is_refused(tree: Path) -> None:
    (tree / "in/4.sc").touch()
    made = plan_outputs([Path("in")], Path("in"), endings={".sc"}, ending=".sc")
    assert not made.items and "its own output" in made.refused[0][1]


@pytest.mark.usefixtures("tree")
def test_inputs_have_names_that_tell_them_apart() -> None:
    found = named_inputs([Path("in"), Path("a.wav")], endings=ENDINGS)
    assert [name for _, name in found] == ["in/1.wav", "in/sub/2.MP3", "a.wav"]
    assert named_inputs([PIPE], endings=ENDINGS) == [(PIPE, "stdin")]
    with pytest.raises(SottoError, match="is not there"):
        named_inputs([Path("gone")], endings=ENDINGS)
