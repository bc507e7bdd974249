"""Timing of candidates against each other, on a machine that is never quite quiet.

Candidates take turns, round after round, so that whatever slows the machine down for a while slows all of them down.
They are compared within each round, and the median of the rounds' ratios counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from .clocks import Clock, device_clock, host_seconds
from .peak import gemm_flops, gemms

Key = TypeVar('Key', bound=Hashable)

MIN_CALLS = 2
"""Timed calls of a turn at least, however long one takes."""

WARM_UP_CALLS = dict(cpu=1, cuda=4)
"""Calls before the first turn, by device. On a GPU the first ones choose kernels, compile, and record CUDA graphs."""


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    Attributes:
        name: what it is, as 'fasternet_s'.
        engine: what runs it, as 'optimized'. No two candidates of a comparison have both in common.
        prepare: makes it ready, and returns a function that does it once; on a GPU it need not wait for the result.
        baseline: name and engine of the candidate that it is compared with. Default: none.
        images: that one call takes. Default: 1.
        macs: multiply-adds of one call. Default: not known.
        precision: what it computes in, 'float32', 'bfloat16', 'float16' or 'int8'. Default: 'float32'.
        clock: what times a call. Default: the host's.
        facts: what else is to stand in its row.
        result_facts: takes what one call returned, and tells what of it is to stand there as well.
        packages: imported before its memory is measured, so that their code does not count.
    """

    name: str
    engine: str
    prepare: Callable[[], Callable[[], Any]]
    baseline: tuple[str, str] | None = None
    images: int = 1
    macs: int | None = None
    precision: str = 'float32'
    clock: Clock = host_seconds
    facts: Mapping[str, Any] = field(default_factory=dict)
    result_facts: Callable[[Any], Mapping[str, Any]] = lambda result: {}
    packages: Sequence[str] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.engine


def compare(
    candidates: Sequence[Candidate], rounds: int, seconds: float, peaks: Sequence[str] = (), device: str = 'cpu'
) -> dict[str, Any]:
    """Time candidates in turns.

    Args:
        candidates: at least one; the baseline of each is among them.
        rounds: how often each gets a turn.
        seconds: how long a turn lasts at least.
        peaks: precisions in which the machine's matrix products take turns with the candidates. Default: none.
        device: 'cpu' or 'cuda', of the matrix products and of the calls that warm up.

    Returns:
        ``peak_flops_per_second``, FLOP/s of the fastest matrix product in each round, by precision; and ``rows``, one
        for each candidate: see `result_row`.

    Raises:
        UserError: a candidate cannot be made ready.
    """
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    result_facts: dict[tuple[str, str], Mapping[str, Any]] = {}
    for candidate in tqdm(candidates, 'preparing', disable=None):
        runs[candidate.key], result_facts[candidate.key] = _make_ready(candidate, WARM_UP_CALLS[device])
    products = {(precision, way): run for precision in peaks for way, run in gemms(precision, device).items()}
    clocks = {candidate.key: candidate.clock for candidate in candidates} | dict.fromkeys(
        products, device_clock(device)
    )
    times = take_turns({**runs, **products}, rounds, seconds, clocks)
    peak_speeds = {}
    for precision in peaks:
        turns = [times[key] for key in products if key[0] == precision]
        fastest = [min(map(median, turns_of_round)) for turns_of_round in zip(*turns)]
        peak_speeds[precision] = [gemm_flops(device) / duration for duration in fastest]
    rows = []
    for candidate in candidates:
        row = result_row(
            candidate, times[candidate.key], times.get(candidate.baseline), peak_speeds.get(candidate.precision)
        )
        rows.append({**row, **result_facts[candidate.key]})
    return dict(peak_flops_per_second=peak_speeds, rows=rows)


def _make_ready(candidate: Candidate, warm_up_calls: int) -> tuple[Callable[[], Any], Mapping[str, Any]]:
    try:
        run = candidate.prepare()
        for _ in range(warm_up_calls):
            result = run()
        return run, candidate.result_facts(result)
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f'{candidate.name} does not run with {candidate.engine}, leave one of the two out: {reason}'
        ) from error


def take_turns(
    runs: dict[Key, Callable[[], Any]], rounds: int, seconds: float, clocks: Mapping[Key, Clock] | None = None
) -> dict[Key, list[list[float]]]:
    """Seconds of the single calls of each turn, one turn per round. Every other round goes backwards.

    Without ``clocks`` the host's clock times all.
    """
    clocks = clocks or {}
    times: dict[Key, list[list[float]]] = {key: [] for key in runs}
    for number in tqdm(range(rounds), 'rounds', disable=None):
        for key in runs if number % 2 == 0 else reversed(runs):
            times[key].append(_turn(runs[key], seconds, clocks.get(key, host_seconds)))
    return times


def _turn(run: Callable[[], Any], seconds: float, clock: Clock) -> list[float]:
    run()  # Untimed: what ran before has left its own data in the caches.
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        times.append(clock(run))
    return times


def ratios(baseline: Sequence[Sequence[float]], times: Sequence[Sequence[float]]) -> list[float]:
    """How many times as fast as the baseline: of each round, the quotient of the two medians."""
    return [median(theirs) / median(ours) for theirs, ours in zip(baseline, times)]


def result_row(
    candidate: Candidate,
    times: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]] | None = None,
    peak: Sequence[float] | None = None,
) -> dict[str, Any]:
    """What was measured of a candidate.

    Args:
        candidate: what was timed.
        times: its seconds, call by call in round by round.
        baseline: those of its baseline.
        peak: FLOP/s of the machine's matrix products in each round, in the candidate's precision.

    Returns:
        ``name``, ``engine``, ``precision``, ``images``, ``macs`` (multiply-adds of a call) and the facts as in the
        candidate; ``baseline`` as '<name> <engine>'; ``seconds``, the ``times``; ``p50`` and ``p95`` of all calls, in
        seconds; ``images_per_second``; ``ratio`` to the baseline: of each of the ``rounds``, their ``median``, and
        between which two (``low``, ``high``) the middle half of them lies; ``flops_per_second``, two FLOPs for each
        multiply-add, and ``share_of_peak``, that rate over the peak's, both the median of the rounds. None stands for
        what is not known.
    """
    p50, p95 = np.percentile([call for turn in times for call in turn], [50, 95]).tolist()
    speeds = [2 * candidate.macs / median(turn) for turn in times] if candidate.macs else []
    shares = [speed / fastest for speed, fastest in zip(speeds, peak or [])]
    return dict(
        name=candidate.name,
        engine=candidate.engine,
        precision=candidate.precision,
        images=candidate.images,
        macs=candidate.macs,
        **candidate.facts,
        baseline=' '.join(candidate.baseline) if candidate.baseline else None,
        seconds=[list(turn) for turn in times],
        p50=p50,
        p95=p95,
        images_per_second=candidate.images / p50,
        ratio=_spread(ratios(baseline, times)) if baseline else None,
        flops_per_second=median(speeds) if speeds else None,
        share_of_peak=median(shares) if shares else None,
    )


def _spread(values: Sequence[float]) -> dict[str, Any]:
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return dict(rounds=list(values), median=middle, low=low, high=high)
