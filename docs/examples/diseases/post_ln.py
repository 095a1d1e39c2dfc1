"""A transformer encoder of 24 layers with its norms after the sums, torch's default: every norm is on the trunk. Cured by norms inside the branches."""

import torch
from torch import nn


def model(norm_first=False):
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 24, enable_nested_tensor=False)
    for parameter in encoder.parameters():  # as in nn.Transformer
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return encoder


inputs = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(0))
loss = "probe"
