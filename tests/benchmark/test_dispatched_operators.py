import torch

from fasternet_mm.benchmark.dispatched_operators import dispatched_operators


def test_each_operator_of_a_call_is_counted():
    values = torch.ones(3)
    assert dispatched_operators(lambda: values.add(1).mul(2)) == 2
    assert dispatched_operators(lambda: None) == 0


def test_operators_of_the_backward_pass_are_counted():
    weight = torch.ones(3, requires_grad=True)
    forward = dispatched_operators(lambda: weight.exp().sum())
    both = dispatched_operators(lambda: weight.exp().sum().backward())
    assert forward >= 2
    assert both > forward
