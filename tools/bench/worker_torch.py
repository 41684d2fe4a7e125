"""The worker of PyTorch: the LSTM layer, and the attention decoder written by hand."""

from __future__ import annotations

import networks
import torch
import worker


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


class AttentionDecoder(torch.nn.Module):
    """The network of `networks.attention`."""

    def __init__(self) -> None:
        super().__init__()
        size = networks.SEQ2SEQ
        hidden, embed = size["hidden"], size["embed"]
        self.encoder = torch.nn.Linear(size["input"], hidden)
        self.context = torch.nn.Linear(hidden, hidden)
        self.embed = torch.nn.Embedding(size["vocabulary"], embed)
        self.cell = torch.nn.LSTMCell(embed + hidden, hidden)
        self.transform = torch.nn.Linear(hidden, hidden, bias=False)
        self.energy = torch.nn.Linear(hidden, 1, bias=False)
        self.readout = torch.nn.Linear(2 * hidden + embed, hidden)
        self.out = torch.nn.Linear(hidden, size["vocabulary"])

    def forward(self, data: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits [T, B, V] for source [B, S, F], its mask [B, S] and labels [T, B]."""
        encoder = torch.tanh(self.encoder(data))
        context = self.context(encoder)
        embedded = torch.nn.functional.pad(self.embed(labels[:-1]), (0, 0, 0, 0, 1, 0))
        batch, hidden = data.shape[0], encoder.shape[2]
        h = c = att = data.new_zeros(batch, hidden)
        frames = []
        for embed in embedded:
            h, c = self.cell(torch.cat([embed, att], 1), (h, c))
            energy = self.energy(torch.tanh(context + self.transform(h)[:, None]))[:, :, 0]
            weights = torch.softmax(energy.masked_fill(~mask, float("-inf")), 1)
            att = torch.bmm(weights[:, None], encoder)[:, 0]
            frames.append(torch.cat([h, embed, att], 1))
        return self.out(torch.relu(self.readout(torch.stack(frames))))


def attention_train() -> worker.Step:
    """The decoder with cross-entropy summed over real frames."""
    size = networks.SEQ2SEQ
    model = AttentionDecoder()
    data = torch.randn(size["batch"], size["source"], size["input"])
    source = torch.tensor(networks.lengths(size["batch"], size["source"]))
    target = torch.tensor(networks.lengths(size["batch"], size["target"], seed=2))
    labels = torch.randint(size["vocabulary"], (size["target"], size["batch"]))
    mask = torch.arange(size["source"])[None] < source[:, None]
    labels = labels.masked_fill(torch.arange(size["target"])[:, None] >= target[None], -100)

    def loss() -> torch.Tensor:
        logits = model(data, mask, labels.clamp(min=0))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")

    return _adam_step(list(model.parameters()), loss)


if __name__ == "__main__":
    worker.serve({"lstm_train": lstm_train, "attention_train": attention_train, "compile": attention_train})
