"""The worker of PyTorch: its LSTM layer, and the decoders and the beam search written by hand."""

from __future__ import annotations

import networks
import torch
import worker
from torch_models import AttentionDecoder, TransformerDecoder


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
            "compile": lambda: decoder_train(AttentionDecoder()),
        }
    )
