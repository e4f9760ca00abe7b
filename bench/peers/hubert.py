"""What the peers' steps have in common, whatever they compute on: the objective, its masks, and what a step costs."""

import torch
import torch.nn.functional as F

FEATURES, CLASSES, PROJECTION, GROUPS = 160, 100, 256, 16
TEMPERATURE = 0.1


def masked_rows(sequences, length, generator):
    """HuBERT's spans: 10 frames, expected starts .8 of the length over 10."""
    hidden = torch.zeros(sequences, length, dtype=torch.bool)
    for row in hidden:
        spans = max(2, int(0.8 * length / 10 + torch.rand((), generator=generator).item()))
        for start in torch.randperm(length - 10, generator=generator)[:spans].tolist():
            row[start : start + 10] = True
    return hidden


def cluster_loss(projected, embedding, targets):
    """Cross-entropy of cosines over the temperature: projected [masked, 256], embedding [clusters, 256]."""
    scores = F.linear(F.normalize(projected, dim=-1), F.normalize(embedding, dim=-1))
    return F.cross_entropy(scores.float() / TEMPERATURE, targets)


def step_flops(width, depth, feed_forward, taps, sequences, length, masked):
    """sotto's Cost<Model>::train and head, without the log-mel energies: 2 a multiply-add, the projection without
    its input's gradient. taps: of all convolutions of the position."""
    row = 2 * width * FEATURES + 3 * width * (width // GROUPS) * taps
    row += depth * 3 * (4 * width * width + 2 * width * feed_forward)
    pairs = depth * 3 * length * length * 2 * width
    head = 3 * masked * (width * PROJECTION + PROJECTION * CLASSES)
    return 2 * (sequences * (length * row + pairs) + head)
