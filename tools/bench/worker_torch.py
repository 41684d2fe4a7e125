"""The worker of PyTorch: its recurrent layers, and the decoders and the beam search written by hand."""

from __future__ import annotations

import functools

import networks
import torch
import worker
from cell_networks import NETWORKS, PROJECTION, SIZE
from torch_models import AttentionDecoder, TransformerDecoder

LAYERS = {
    "rnn": lambda: torch.nn.RNN(SIZE, SIZE),
    "lstm": lambda: torch.nn.LSTM(SIZE, SIZE),
    "lstm_projected": lambda: torch.nn.LSTM(SIZE, SIZE, proj_size=PROJECTION),
    "gru_after": lambda: torch.nn.GRU(SIZE, SIZE),
}
"""Of the table of cells."""


def _adam_step(parameters: list[torch.nn.Parameter], loss: worker.Step) -> worker.Step:
    optimizer = torch.optim.Adam(parameters, 1e-3)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        assert isinstance(value, torch.Tensor)
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step


def lstm_train() -> worker.Step:
    """torch.nn.LSTM on packed sequences; the loss is the sum of its outputs."""
    size = networks.LSTM
    model = torch.nn.LSTM(size["input"], size["hidden"])
    data = torch.randn(size["time"], size["batch"], size["input"])
    lengths = torch.tensor(networks.lengths(size["batch"], size["time"]))
    packed = torch.nn.utils.rnn.pack_padded_sequence(data, lengths, enforce_sorted=False)
    return _adam_step(list(model.parameters()), lambda: model(packed)[0].data.sum())


def cell_step(name: str) -> worker.Step:
    """Objective and gradients of a recurrent layer over sequences of one length: the sum of its outputs."""
    size = NETWORKS[name]
    layer = LAYERS[name]()
    data = torch.randn(size.time, size.batch, SIZE)

    def step() -> float:
        layer.zero_grad(set_to_none=True)
        objective = layer(data)[0].sum()
        objective.backward()
        return float(objective.detach())

    return step


def _source(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random data [B, S, F] and its mask [B, S]."""
    size = networks.SEQ2SEQ
    lengths = torch.tensor(networks.lengths(batch, size["source"]))
    return torch.randn(batch, size["source"], size["input"]), torch.arange(size["source"])[None] < lengths[:, None]


def decoder_train(model: torch.nn.Module) -> worker.Step:
    """A decoder with cross-entropy summed over real frames."""
    size = networks.SEQ2SEQ
    data, mask = _source(size["batch"])
    target = torch.tensor(networks.lengths(size["batch"], size["target"], seed=2))
    labels = torch.randint(size["vocabulary"], (size["target"], size["batch"]))
    labels = labels.masked_fill(torch.arange(size["target"])[:, None] >= target[None], -100)

    def loss() -> torch.Tensor:
        logits = model(data, mask, labels.clamp(min=0))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")

    return _adam_step(list(model.parameters()), loss)


def attention_search() -> worker.Step:
    """Decodes a fixed batch."""
    model = AttentionDecoder()
    data, mask = _source(networks.SEARCH["batch"])
    return lambda: model.search(data, mask).numpy()


if __name__ == "__main__":
    worker.serve(
        {
            "lstm_train": lstm_train,
            "attention_train": lambda: decoder_train(AttentionDecoder()),
            "transformer_train": lambda: decoder_train(TransformerDecoder()),
            "attention_search": attention_search,
            **{name: functools.partial(cell_step, name) for name in LAYERS},
            "compile": lambda: decoder_train(AttentionDecoder()),
        }
    )
