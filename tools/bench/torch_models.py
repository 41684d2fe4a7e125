"""The networks of `networks` in PyTorch, written by hand as its users do."""

from __future__ import annotations

import networks
import torch
from torch import nn
from torch.nn import functional


class AttentionDecoder(nn.Module):
    """The network of `networks.attention`."""

    def __init__(self) -> None:
        super().__init__()
        size = networks.SEQ2SEQ
        hidden, embed = size["hidden"], size["embed"]
        self.encoder = nn.Linear(size["input"], hidden)
        self.context = nn.Linear(hidden, hidden)
        self.embed = nn.Embedding(size["vocabulary"], embed)
        self.cell = nn.LSTMCell(embed + hidden, hidden)
        self.transform = nn.Linear(hidden, hidden, bias=False)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.readout = nn.Linear(2 * hidden + embed, hidden)
        self.out = nn.Linear(hidden, size["vocabulary"])

    def forward(self, data: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits [T, B, V] for source [B, S, F], its mask [B, S] and labels [T, B]."""
        encoder = torch.tanh(self.encoder(data))
        context = self.context(encoder)
        embedded = functional.pad(self.embed(labels[:-1]), (0, 0, 0, 0, 1, 0))
        h = c = att = data.new_zeros(data.shape[0], encoder.shape[2])
        frames = []
        for embed in embedded:
            frame, h, c, att = self.step(embed, h, c, att, encoder, context, mask)
            frames.append(frame)
        return self.out(torch.relu(self.readout(torch.stack(frames))))

    def step(
        self,
        embed: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        att: torch.Tensor,
        encoder: torch.Tensor,
        context: torch.Tensor,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the readout reads, and the states after a step; all but the last three arguments are [N, ...]."""
        h, c = self.cell(torch.cat([embed, att], 1), (h, c))
        energy = self.energy(torch.tanh(context + self.transform(h)[:, None]))[:, :, 0]
        weights = torch.softmax(energy.masked_fill(~mask, float("-inf")), 1)
        att = torch.bmm(weights[:, None], encoder)[:, 0]
        return torch.cat([h, embed, att], 1), h, c, att

    @torch.inference_mode()
    def search(self, data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Labels [B, K, steps] of a beam search that no hypothesis ends before its last step."""
        beam, batch = networks.SEARCH["beam"], data.shape[0]
        encoder = torch.tanh(self.encoder(data))
        context = self.context(encoder)
        encoder, context, mask = (x.repeat_interleave(beam, 0) for x in (encoder, context, mask))
        h = c = att = data.new_zeros(batch * beam, encoder.shape[2])
        embed = data.new_zeros(batch * beam, self.embed.embedding_dim)
        scores = data.new_full((batch, beam), float("-inf"))
        scores[:, 0] = 0
        labels = torch.zeros(batch, beam, 0, dtype=torch.long)
        first = torch.arange(batch)[:, None] * beam
        for _ in range(networks.SEARCH["steps"]):
            frame, h, c, att = self.step(embed, h, c, att, encoder, context, mask)
            log_probs = torch.log_softmax(self.out(torch.relu(self.readout(frame))), 1)
            classes = log_probs.shape[1]
            scores, best = (scores[:, :, None] + log_probs.view(batch, beam, -1)).view(batch, -1).topk(beam)
            back, label = best // classes, best % classes
            labels = torch.cat(
                [labels.gather(1, back[:, :, None].expand(-1, -1, labels.shape[2])), label[..., None]], 2
            )
            rows = (first + back).flatten()
            h, c, att, embed = h[rows], c[rows], att[rows], self.embed(label.flatten())
        return labels


class DecoderBlock(nn.Module):
    """One block of `networks.transformer`: causal self-attention, attention to the encoder, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        model = networks.MODEL
        self.norms = nn.ModuleList(nn.LayerNorm(model, eps=1e-6) for _ in range(3))
        self.qkv = nn.Linear(model, 3 * model, bias=False)
        self.lin = nn.Linear(model, model, bias=False)
        self.query = nn.Linear(model, model, bias=False)
        self.key, self.value = nn.Linear(model, model), nn.Linear(model, model)
        self.ff = nn.Sequential(nn.Linear(model, 4 * model), nn.ReLU(), nn.Linear(4 * model, model))

    def forward(self, x: torch.Tensor, encoder: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, T, F] from [B, T, F], encoder [B, S, F] and its mask [B, 1, 1, S]."""
        q, k, v = (_heads(part) for part in self.qkv(self.norms[0](x)).chunk(3, 2))
        x = x + self.lin(_joined(functional.scaled_dot_product_attention(q, k, v, is_causal=True)))
        q, k, v = _heads(self.query(self.norms[1](x))), _heads(self.key(encoder)), _heads(self.value(encoder))
        x = x + _joined(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return x + self.ff(self.norms[2](x))


class TransformerDecoder(nn.Module):
    """The network of `networks.transformer`."""

    def __init__(self) -> None:
        super().__init__()
        size = networks.SEQ2SEQ
        self.encoder = nn.Linear(size["input"], networks.MODEL)
        self.embed = nn.Embedding(size["vocabulary"] + 1, networks.MODEL)
        self.blocks = nn.ModuleList(DecoderBlock() for _ in range(2))
        self.out = nn.Linear(networks.MODEL, size["vocabulary"])

    def forward(self, data: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits [T, B, V] for source [B, S, F], its mask [B, S] and labels [T, B]."""
        encoder = torch.tanh(self.encoder(data))
        x = self.embed(functional.pad(labels[:-1], (0, 0, 1, 0))).transpose(0, 1)
        for block in self.blocks:
            x = block(x, encoder, mask[:, None, None])
        return self.out(x).transpose(0, 1)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(2, (networks.HEADS, -1)).transpose(1, 2)


def _joined(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)
