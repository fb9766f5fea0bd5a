"""Judges that were learnt from what people said, or that imitate their ears; packages of `metrics`.

Each carries its weights in its wheel: nothing is downloaded. They hear 16 kHz, and are loaded when
they are first asked, once in a process, to run on one thread where torch or ONNX Runtime would take
all of them.
"""

import contextlib
import io
import logging
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from codec.evaluation.judges import EXTRA
from codec.evaluation.pairs import SCORED_RATE, Wave, judging
from codec.extras import needing


@judging(shortest=0.5)
def distillmos(reference: Wave, decoded: Wave) -> float:
    """DistillMOS (Stahl & Gamper 2025): what listeners would say of a recording, 1 to 5.

    A small network distilled from one that judges by XLS-R's features; it hears no reference.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s.
    """
    with torch.inference_mode():
        score = _distillmos()(torch.from_numpy(decoded)[None])
    return float(score.reshape(()))


@lru_cache(maxsize=1)
def _distillmos() -> Any:
    # It prints where its weights are from.
    with needing(EXTRA), contextlib.redirect_stdout(io.StringIO()):
        from distillmos import ConvTransformerSQAModel

        return ConvTransformerSQAModel().eval()


@judging(shortest=0.5)
def visqol(reference: Wave, decoded: Wave) -> float:
    """ViSQOL v3 (Chinen et al. 2020) for speech: similarity of gammatone spectrograms, 1 to 5.

    Similarity becomes opinion by the lattice that ViSQOL's own program has had since version 3.3;
    without `ai-edge-litert` the package would take a polynomial instead, which says 3.8 where the
    lattice says 2.4, so it is asked for the lattice or nothing.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s, or
    where no stretch of the reference is loud enough to compare.
    """
    try:
        result = _visqol().measure_from_arrays(
            reference.astype(np.float64), decoded.astype(np.float64), SCORED_RATE
        )
    except ValueError:  # no patch of speech in the reference
        return float("nan")
    return float(result.moslqo)


@lru_cache(maxsize=1)
def _visqol() -> Any:
    logging.getLogger("visqol").setLevel(logging.ERROR)
    with needing(EXTRA):
        from ai_edge_litert import interpreter  # noqa: F401  (an ImportError of visqol's names none)
        from visqol import VisqolApi
    judge = VisqolApi()
    judge.create(mode="speech", use_lattice_model=True)
    return judge
