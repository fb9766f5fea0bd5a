"""LibriTTS (Zen et al. 2019; CC BY 4.0, openslr.org/60) to 16 kHz files and a manifest.

python -m data_scripts.libritts OUT --archive dev-clean.tar.gz --archive train-clean-100.tar.gz
python -m data_scripts.libritts OUT --hub clean:dev.clean --hub clean:train.clean.100
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import typer

from data_scripts.commands import Archives, Hours, Out, Repository, Subsets, run_on
from data_scripts.librispeech import split_of
from data_scripts.prepare import Utterance
from data_scripts.sources import hub_rows, members, row_audio

REPOSITORY = "mythicinfinity/libritts"
_TEXT = ".normalized.txt"


def from_archives(
    paths: Sequence[Path], texts: dict[str, str], problems: list[str]
) -> Iterator[Utterance]:
    """Utterances of ``LibriTTS/SUBSET/SPEAKER/CHAPTER/*.wav``; transcripts go to ``texts``."""
    for member in members(paths, problems):
        if len(member.name.parts) < 4:
            continue
        subset, speaker = member.name.parts[-4:-2]
        folder, name = f"{subset}/{speaker}", member.name.name
        if name.endswith(_TEXT):
            text = member.bytes().decode("utf-8", "replace").strip()
            texts[f"{folder}/{name.removesuffix(_TEXT)}"] = text
        elif member.name.suffix == ".wav":
            key = f"{folder}/{member.name.stem}"
            # The readers are LibriSpeech's, under the same numbers.
            yield Utterance(key, member.load, split_of(subset), f"libri-{speaker}", "en")


def from_hub(subsets: Sequence[str], repository: str) -> Iterator[Utterance]:
    """Utterances of hub subsets ``CONFIG:SPLIT``."""
    for subset in subsets:
        for row in hub_rows(repository, subset):
            speaker = str(row["speaker_id"])
            yield Utterance(
                key=f"{subset.replace(':', '-')}/{speaker}/{row['id']}",
                load=partial(row_audio, row),
                split=split_of(subset.partition(":")[2]),
                speaker=f"libri-{speaker}",
                lang="en",
                text=row.get("text_normalized"),
            )


def main(
    out: Out,
    archive: Archives = None,
    hub: Subsets = None,
    repository: Repository = REPOSITORY,
    hours: Hours = None,
) -> None:
    """Prepare LibriTTS; run again to go on after an interruption."""
    run_on(
        out,
        "LibriTTS",
        archive,
        hub,
        hours,
        from_archives=from_archives,
        from_hub=lambda subsets: from_hub(subsets, repository),
    )


if __name__ == "__main__":
    typer.run(main)
