"""Which networks run with which engines, and what each is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..errors import UserError
from .clocks import device_clock
from .network_engines import ENGINES, prepare_network
from .networks import OURS, NetworkTask, count, own_baseline, published_accuracy, published_size
from .timing import Candidate


def pair(networks: Sequence[str], engines: Sequence[str], baseline: str | None = None) -> list[tuple[str, str]]:
    """Each network with each engine, after the baselines in eager mode. `NetworkEngine.takes` has the exceptions.

    Args:
        networks, engines: by name: see `check_networks` and `check_engines`.
        baseline: the network that all others are compared with. Default: see `own_baseline`.

    Raises:
        UserError: no network is for any of the engines.
    """
    pairs = [
        (network, engine)
        for network in networks
        for engine in engines
        if ENGINES[engine].takes(is_ours=network in OURS)
    ]
    if not pairs:
        of_others = any(ENGINES[engine].runtime == 'graphed' for engine in engines)
        allowed = 'networks of others alone' if of_others else f'{OURS[0]} to {OURS[-1]} alone'
        raise UserError(f'engines {", ".join(engines)} are for {allowed}: name one, or take others')
    engines_of = {baseline or own_baseline(network): ['eager'] for network in networks}
    for network, engine in pairs:
        if engine not in engines_of.setdefault(network, []):
            engines_of[network].append(engine)
    return [(network, engine) for network, its_engines in engines_of.items() for engine in its_engines]


def network_candidates(
    pairs: Sequence[tuple[str, str]],
    form: str = 'classifier',
    batch: int = 1,
    size: tuple[int, int] | None = None,
    device: str = 'cpu',
    baseline: str | None = None,
) -> list[Candidate]:
    """What is timed for pairs of network and engine.

    Args:
        form, batch, device: see `NetworkTask`.
        size: (height, width) of the images. Default: for each network those that its accuracy is published for.
        baseline: as for `pair`.

    Raises:
        UserError: a network does not take images of this size.
    """
    candidates = []
    for network, engine in pairs:
        height, width = size or (published_size(network), published_size(network))
        task = NetworkTask(network, form, batch, height, width, device)
        try:
            complexity = count(task)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(f'{network} does not take images of {height}x{width} (H x W): give another size') from error
        accuracy = published_accuracy(network)
        package = network.rpartition('/')[0]
        candidate = Candidate(
            name=network,
            engine=engine,
            prepare=partial(prepare_network, engine, task),
            baseline=(baseline or own_baseline(network), 'eager'),
            images=batch,
            macs=complexity.macs,
            precision=ENGINES[engine].precision,
            clock=device_clock(device),
            facts=dict(
                form=form,
                height=height,
                width=width,
                parameters=complexity.parameters,
                top1=accuracy.top1 if accuracy else None,
                top1_source=accuracy.source if accuracy else None,
            ),
            packages=(*ENGINES[engine].modules, *([package] if package else [])),
        )
        candidates.append(candidate)
    return candidates
