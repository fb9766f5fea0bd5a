from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from codec import audio
from codec.codec import Codec
from codec.data.manifest import Entry
from codec.errors import SottoError
from codec.evaluation.contenders import ModelAtRates
from codec.evaluation.judges import DEFAULT
from codec.evaluation.opus import OpusAtRates
from codec.evaluation.report import evaluate
from codec.evaluation.results import Evaluation, Row
from infer.listening import PAGE, choose_clips, write_page


class Sources(HTMLParser):
    """What a page refers to, and how many of each tag it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]


def row(file: str, seconds: float) -> Row:
    return Row(file, seconds, "Sotto", 1, 1.5, 1.5, dict.fromkeys(DEFAULT, 1.0))


def make(codec: Codec, entries: list[Entry], target: Path) -> list[Path]:
    beside = [OpusAtRates([8, 12], codec.sample_rate)]
    evaluation = evaluate(codec, entries, kbps=[1.2, 4.8], beside=beside)
    clips = choose_clips(evaluation, 5)
    write_page(
        target,
        evaluation,
        [ModelAtRates(codec, [1.2, 4.8]), *beside],
        clips,
        sample_rate=codec.sample_rate,
        title="A <page>",
        about="on a & b",
        replace=False,
        report=lambda: None,
    )
    return clips


@pytest.fixture
def entries(wav: Callable[..., Path]) -> list[Entry]:
    return [Entry(wav(name, 8000), 1.0) for name in ("a <b>.wav", "c.wav")]


def test_the_page_has_all_it_refers_to_and_nothing_from_elsewhere(
    codec: Codec, entries: list[Entry], tmp_path: Path
) -> None:
    target = tmp_path / "docs" / "listen"
    assert make(codec, entries, target) == [entry.path for entry in entries]
    text = (target / PAGE).read_text()
    page = Sources(text)
    versions = 2 * (1 + 2 + 2)
    assert page.tags.count("audio") == page.tags.count("figure") == versions
    assert page.tags.count("img") == versions + 1
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert set(page.sources) == files - {PAGE}
    assert "http" not in text and str(tmp_path) not in text and "$" not in text
    assert "A &lt;page&gt;" in text and "a &lt;b&gt;.wav" in text and "on a &amp; b" in text
    assert [path.name for path in target.parent.iterdir()] == ["listen"]


def test_what_is_heard_is_the_recording_and_what_the_codecs_made_of_it(
    codec: Codec, entries: list[Entry], tmp_path: Path
) -> None:
    make(codec, entries[1:], tmp_path / "page")
    original, _ = audio.read(entries[1].path)
    heard = {p.name[0]: audio.read(p)[0] for p in (tmp_path / "page/01").glob("*.wav")}
    assert np.array_equal(heard["1"], original)
    for number, n_quantizers in (("2", 1), ("3", 4)):
        codes = codec.encode(original[0], n_quantizers)
        expected = codec.decode(codes, original.shape[1]).numpy().clip(-1, 1)
        np.testing.assert_allclose(heard[number][0], expected, atol=1e-4)
    assert heard["4"].shape == original.shape and not np.array_equal(heard["4"], heard["5"])


def test_only_a_page_is_replaced(entries: list[Entry], tmp_path: Path) -> None:
    target = tmp_path / "page"

    def write(count: int, *, replace: bool) -> None:
        evaluation = Evaluation([row(str(entry.path), 1.0) for entry in entries], [])
        clips = choose_clips(evaluation, count)
        write_page(
            target,
            evaluation,
            [],
            clips,
            sample_rate=8000,
            title="",
            about="",
            replace=replace,
            report=lambda: None,
        )

    write(2, replace=False)
    assert (target / "02").is_dir()
    with pytest.raises(SottoError, match="--force replaces a page"):
        write(1, replace=False)
    write(1, replace=True)
    assert not (target / "02").exists()
    (target / PAGE).unlink()
    with pytest.raises(SottoError, match="name another"):
        write(1, replace=True)


def test_clips_are_spread_and_short() -> None:
    rows = [row(f"{number}", 31.0 if number == 3 else 2.0) for number in range(9)]
    evaluation = Evaluation([one for one in rows for _ in range(2)], [])
    assert [path.name for path in choose_clips(evaluation, 3)] == ["0", "2", "6"]
    assert len(choose_clips(evaluation, 100)) == 8
    with pytest.raises(SottoError, match="30 s or less"):
        choose_clips(Evaluation(rows[3:4], []), 3)
