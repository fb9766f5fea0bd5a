"""Mozilla Common Voice (CC0) to 16 kHz files and a manifest, one archive a language.

python -m data_scripts.common_voice OUT --archive cv-corpus-17.0-2024-03-15-de.tar.gz
python -m data_scripts.common_voice OUT --hub de:validated

Archives come from Mozilla (datacollective.mozillafoundation.org), which took the corpus off the
Hugging Face hub in 2025; --repository names a copy there. Do not try to find out who speaks.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import typer

from codec.errors import DataError
from data_scripts.commands import Archives, Hours, Out, Repository, Subsets, run_on
from data_scripts.prepare import Utterance, split_of_speaker
from data_scripts.sources import hub_rows, members, row_audio

REPOSITORY = "fixie-ai/common_voice_17_0"  # a copy of version 17 as parquet
_TABLE = "validated.tsv"


def from_archives(paths: Sequence[Path], problems: list[str]) -> Iterator[Utterance]:
    """Utterances of ``CORPUS/LANGUAGE/clips/*.mp3`` that ``validated.tsv`` lists."""
    for path in paths:
        # The table may come after the clips, so an archive is read twice.
        table = _table(path)
        for member in members([path], problems):
            row = table.get(member.name.name)
            if row is None or member.name.parent.name != "clips":
                continue
            client, text = row
            lang = member.name.parts[-3] if len(member.name.parts) > 2 else "unknown"
            yield _utterance(member.name.name, member.load, client, lang, text)


def from_hub(subsets: Sequence[str], repository: str) -> Iterator[Utterance]:
    """Utterances of hub subsets ``LANGUAGE:SPLIT``."""
    for subset in subsets:
        for row in hub_rows(repository, subset):
            name = Path(str(row.get("path") or row["audio"]["path"])).name
            lang = row.get("locale") or subset.partition(":")[0]
            load = partial(row_audio, row)
            yield _utterance(name, load, row["client_id"], lang, row.get("sentence"))


def _utterance(
    name: str, load: Callable[[], bytes | Path], client: str, lang: str, text: str | None
) -> Utterance:
    # Whoever speaks several languages is one speaker: the split goes by the client alone.
    return Utterance(
        key=f"{lang}/{Path(name).stem}",
        load=load,
        split=split_of_speaker(client),
        speaker=f"cv-{client[:16]}",
        lang=lang,
        text=text,
    )


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker and sentence by file name, from an archive's ``validated.tsv``."""
    found: list[str] = []
    for member in members([path], found):
        if member.name.name == _TABLE:
            lines = member.bytes().decode("utf-8", "replace").splitlines()
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            return {row["path"]: (row["client_id"], row.get("sentence") or "") for row in rows}
    raise DataError(f"{path}: not a Common Voice archive (no {_TABLE} in it){_because(found)}")


def _because(problems: list[str]) -> str:
    return f"; {problems[0]}" if problems else ""


def main(
    out: Out,
    archive: Archives = None,
    hub: Subsets = None,
    repository: Repository = REPOSITORY,
    hours: Hours = None,
) -> None:
    """Prepare Common Voice; run again to go on after an interruption."""
    run_on(
        out,
        "Common Voice",
        archive,
        hub,
        hours,
        from_archives=lambda paths, _, bad: from_archives(paths, bad),
        from_hub=lambda subsets: from_hub(subsets, repository),
    )


if __name__ == "__main__":
    typer.run(main)
