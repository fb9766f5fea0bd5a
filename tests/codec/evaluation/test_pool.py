import math

import pytest

from codec.errors import SottoError
from codec.evaluation.pool import ScorePool, score_many
from tests.support.syllables import RATE, noisy, voiced


def test_processes_give_what_one_process_gives():
    waves = [voiced(0.8, seed=seed) for seed in range(4)]
    pairs = [(wave, noisy(wave, 10.0**-i), RATE) for i, wave in enumerate(waves, start=1)]
    metrics = ("pesq_wb", "stoi", "mel_distance")
    serial = score_many(pairs, workers=0, metrics=metrics)
    assert len({scores["mel_distance"] for scores in serial}) == 4  # so an order can be wrong
    with ScorePool(2, metrics) as pool:
        assert pool.score(pairs) == serial
        assert pool.score(reversed(pairs)) == serial[::-1]
        wave = waves[0].copy()
        wave[0] = math.nan
        with pytest.raises(SottoError, match="NaN"):
            pool.score([(wave, wave, RATE)])
        assert pool.score(pairs[:1]) == serial[:1]  # it lives on after an error


def test_negative_workers_are_refused():
    with pytest.raises(ValueError, match="-1"):
        ScorePool(-1)


def test_what_cannot_be_scored_is_told_before_any_recording_is():
    with pytest.raises(SottoError, match=r"'pesk' is no metric: there are pesq_nb, pesq_wb, stoi"):
        ScorePool(0, ["stoi", "pesk"])
    with pytest.raises(
        SottoError, match="dwer needs a Whisper checkpoint: evaluate --whisper names one"
    ):
        ScorePool(0, ["dwer"])


def test_metrics_come_in_the_order_of_the_table():
    with ScorePool(0, ["stoi", "pesq_wb", "stoi"]) as pool:
        assert pool.metrics == ["pesq_wb", "stoi"]
        wave = voiced(0.8)
        assert list(pool.score([(wave, wave, RATE)])[0]) == ["pesq_wb", "stoi"]
