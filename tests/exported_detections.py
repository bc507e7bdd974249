"""What a detector finds in an image, and whether an exported one finds the same."""

import torch
from small_models import sample


def predict(model, image, **meta):
    data = dict(inputs=[image], data_samples=[sample(*image.shape[1:], **meta)])
    with torch.no_grad():
        return model.test_step(data)[0].pred_instances


def assert_same_detections(actual, expected):
    assert len(actual) == len(expected)
    torch.testing.assert_close(actual.bboxes, expected.bboxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=2e-5)
    assert torch.equal(actual.labels, expected.labels)
    if 'masks' in expected:
        assert actual.masks.shape == expected.masks.shape
        assert (actual.masks != expected.masks).sum() <= 1e-4 * actual.masks.numel()
