"""Something that needs a known amount of memory, in a module that another process can import."""

import torch

MIB = 2**20


def hold_and_double():
    weights = torch.ones(256 * MIB // 4)

    def run():
        return weights * 2  # as much again, for a while

    return run
