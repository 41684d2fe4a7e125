"""A hundred single mistakes in valid configs: each is reported as a ConfigError, in the right line.

A mistake is one text replaced in a valid config by another; the line that is expected is the one where the new text
stands (or the `line` that contains the given text, where the mistake is the absence of something).
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from returnn_lite.cli.checking import mistakes
from returnn_lite.cli.loading import load
from returnn_lite.config.diagnostics import ConfigError

TOP = Path(__file__).parents[2]
ATTENTION = (TOP / "configs/g2p_attention.yaml").read_text()
LANGUAGE_MODEL = (TOP / "configs/lm_lstm.yaml").read_text()
TASK = (TOP / "configs/task12ax.yaml").read_text()
LAYERS = (Path(__file__).parent / "layers.yaml").read_text()
CONFIGS = {"attention": ATTENTION, "lm": LANGUAGE_MODEL, "12ax": TASK, "layers": LAYERS}
LEAST_RIGHT = 100


@dataclass(frozen=True)
class Mistake:
    """`new` in place of `old` in one of the configs; `line` is text of the line to be reported, by default `new`."""

    config: str
    old: str
    new: str
    line: str = ""


MISTAKES = [
    # A typo in a key of a layer
    Mistake(
        "attention",
        "energy: {class: linear, from: energy_tanh, n_out: 1",
        "energy: {class: linear, form: energy_tanh, n_out: 1",
    ),
    Mistake(
        "attention", "s_transformed: {class: linear, from: s, n_out", "s_transformed: {class: linear, from: s, nout"
    ),
    Mistake(
        "attention",
        "readout: {class: reduce_out, mode: max, num_pieces",
        "readout: {class: reduce_out, mode: max, num_pices",
    ),
    Mistake(
        "attention",
        "att_weights: {class: softmax_over_spatial, from: energy}",
        "att_weights: {clas: softmax_over_spatial, from: energy}",
    ),
    Mistake("attention", "loss_opts:", "loss_opt:"),
    Mistake("attention", "initial_output: 0}\n      end", "inital_output: 0}\n      end", "inital_output"),
    Mistake("attention", "beam_size", "beam_sise"),
    Mistake("attention", "direction: 1}", "dirction: 1}"),
    Mistake("attention", "label_smoothing", "label_smothing"),
    Mistake("attention", "    max_seq_len:", "    max_seqlen:"),
    Mistake("lm", "dropout: 0.1", "droput: 0.1"),
    Mistake("12ax", "loss: ce", "los: ce"),
    Mistake("layers", "filter_size: [3]", "filter_sise: [3]"),
    Mistake("layers", "num_heads: 2", "num_head: 2"),
    Mistake("layers", "subnetwork:", "subnetwrk:"),
    # A typo in the name of a layer that is referred to
    Mistake(
        "attention",
        "from: [encoder0_fw, encoder0_bw], n_out: 128, direction: 1",
        "from: [encoder0_fw, encoder_bw], n_out: 128, direction: 1",
    ),
    Mistake("attention", "from: energy_tanh", "from: energy_tan"),
    Mistake("attention", "from: energy_tanh", "collocate_with: energy_tan, from: energy_tanh"),
    Mistake("attention", '"base:enc_ctx"', '"base:enc_ctxt"'),
    Mistake("attention", '"base:encoder"}', '"base:encodr"}'),
    Mistake("attention", '["prev:embed", "prev:att"]', '["prev:embed", "prev:attt"]'),
    Mistake("attention", "weights: att_weights", "weights: att_weight"),
    Mistake("attention", "end: {class: compare, from: output", "end: {class: compare, from: outputs"),
    Mistake("attention", "from: output\n    loss: edit", "from: ouput\n    loss: edit", "from: ouput"),
    Mistake("attention", "choice, from: output_prob", "choice, from: output_prop"),
    Mistake("attention", "max_len_from('base:encoder')", "max_len_from('base:encodr')"),
    Mistake("lm", "from: lstm", "from: lstn"),
    Mistake("12ax", "from: lstm", "from: lst"),
    Mistake("layers", "reuse_params: hidden", "reuse_params: hiden"),
    Mistake("layers", "from: [scaled, hidden]", "from: [scald, hidden]"),
    Mistake("layers", "size_base: hidden", "size_base: hiddn"),
    # A name without the prefix that it needs
    Mistake("attention", '"base:enc_ctx"', '"enc_ctx"'),
    Mistake("attention", 'base: "base:encoder"', "base: encoder"),
    Mistake(
        "attention",
        "from: source_embed, n_out: 128, direction: -1",
        'from: "base:source_embed", n_out: 128, direction: -1',
    ),
    Mistake(
        "attention",
        "from: source_embed, n_out: 128, direction: 1",
        'from: "prev:source_embed", n_out: 128, direction: 1',
    ),
    # A value that is wrong
    Mistake("attention", "class: softmax_over_spatial", "class: softmax_over_spacial"),
    Mistake("attention", "class: decide", "class: decode"),
    Mistake("attention", "unit: LSTMBlock", "unit: LSTMBlok"),
    Mistake("attention", "kind: add", "kind: ad"),
    Mistake("attention", "kind: equal", "kind: equals"),
    Mistake("attention", "activation: tanh", "activation: tahn"),
    Mistake("attention", "mode: max", "mode: maxx"),
    Mistake("attention", "axes: except_batch", "axes: except_bach"),
    Mistake("attention", "loss: edit_distance", "loss: edit_distnace"),
    Mistake("attention", "loss: ce", "loss: cee"),
    Mistake("attention", "num_pieces: 2", "num_pieces: 3"),
    Mistake("attention", "num_pieces: 2", "num_pieces: 0"),
    Mistake("attention", "direction: -1}", "direction: 2}"),
    Mistake("attention", "beam_size: 12", "beam_size: 0"),
    Mistake("attention", "dropout: 0.2}\n  encoder1_bw", "dropout: 1.2}\n  encoder1_bw", "dropout: 1.2"),
    Mistake("attention", "n_out: 256}", "n_out: -256}"),
    Mistake("lm", "unit: nativelstm2", "unit: nativlstm2"),
    Mistake("layers", "padding: same", "padding: some"),
    Mistake("layers", "mode: mean", "mode: men"),
    Mistake("layers", "forward_weights_init: glorot_normal", "forward_weights_init: glorot_nromal"),
    # A value of the wrong type
    Mistake(
        "attention",
        "n_out: 64, activation: null, with_bias: false}",
        "n_out: many, activation: null, with_bias: false}",
    ),
    Mistake("attention", "n_out: 1,", "n_out: [1],"),
    Mistake("attention", "n_out: 1,", "n_out: 1.5,"),
    Mistake("attention", "with_bias: false}\n      energy_in", "with_bias: no}\n      energy_in", "with_bias: no"),
    Mistake("attention", "from: energy_tanh", "from: {a: energy_tanh}"),
    Mistake("attention", "only_on_search: true", "only_on_search: 2"),
    Mistake("attention", "loss_opts: {label_smoothing: 0.1}", "loss_opts: 0.1"),
    Mistake(
        "attention", "att_weights: {class: softmax_over_spatial, from: energy}", "att_weights: softmax_over_spatial"
    ),
    Mistake("attention", "beam_size: 12", "beam_size: twelve"),
    Mistake("attention", "loss: ce", "loss: 3"),
    # As many classes as the target does not have
    Mistake("12ax", "from: lstm, loss: ce", "from: lstm, n_out: 7, loss: ce"),
    Mistake(
        "layers",
        "output: {class: softmax, from: all, loss: ce, target: classes}",
        "output:\n    class: softmax\n    from: all\n    n_out: 7\n    loss: ce",
        "n_out: 7",
    ),
    Mistake(
        "layers",
        "output: {class: softmax, from: all, loss: ce, target: classes}",
        "output:\n    class: copy\n    from: all\n    loss: mse\n    target: classes # five",
        "target: classes # five",
    ),
    Mistake("attention", "dropout: 0.2\n", "dropout: strong\n", "dropout: strong"),
    Mistake("layers", "filter_size: [3]", "filter_size: three"),
    # Something is missing
    Mistake("attention", "energy: {class: linear, from: energy_tanh, n_out: 1,", "energy: {class: linear, n_out: 1,"),
    Mistake(
        "attention",
        "energy: {class: linear, from: energy_tanh, n_out: 1,",
        "energy: {class: linear, from: energy_tanh,",
    ),
    Mistake("attention", "energy_in: {class: combine, kind: add,", "energy_in: {class: combine,"),
    Mistake("attention", "{class: generic_attention, weights: att_weights,", "{class: generic_attention,"),
    Mistake("attention", "s: {class: rnn_cell, unit: LSTMBlock,", "s: {class: rnn_cell,"),
    Mistake("attention", "energy_tanh: {class: activation, activation: tanh,", "energy_tanh: {class: activation,"),
    Mistake("attention", "  decision:\n    class: decide\n", "  decision:\n", "decision:"),
    Mistake("attention", "batch_size: 4000\n", "", "task: train"),
    Mistake("12ax", "train: {class: Task12AXDataset, num_seqs: 1000}\n", "", "task: train"),
    Mistake("layers", "self_attention, num_heads: 2,", "self_attention,"),
    # Cycles and dims
    Mistake(
        "attention",
        "source_embed: {class: linear, from: data",
        "source_embed: {class: linear, from: encoder",
        "source_embed",
    ),
    Mistake("attention", '["prev:embed", "prev:att"]', '["prev:embed", att]'),
    Mistake("12ax", "from: data, n_out: 10", "from: output, n_out: 10", "from: "),
    Mistake(
        "attention",
        "enc_ctx: {class: linear, from: encoder, n_out: 128",
        "enc_ctx: {class: linear, from: encoder, n_out: 127",
        "energy_in:",
    ),
    Mistake("layers", "from: [scaled, hidden]", "from: [scaled, wide]"),
    Mistake("layers", "dims: [2, 4]", "dims: [3, 4]"),
    Mistake("layers", "n_out: 8, activation: relu}", "n_out: 8, activation: relu, n_out: 9}"),
    Mistake("layers", "{class: copy, from: pooled, n_out: 8}", "{class: copy, from: pooled, n_out: 9}"),
    # Axes
    Mistake("attention", "axes: except_batch", "axes: [F, Q]"),
    Mistake("layers", "axis: T, mode: mean", "axis: X, mode: mean"),
    Mistake("layers", "axis: F, dims", "axis: S, dims"),
    # Duplicates and notation
    Mistake(
        "attention",
        "      readout: {",
        "      readout_in: {class: copy, from: s}\n      readout: {",
        "readout_in: {class: copy",
    ),
    Mistake("attention", "max_seqs: 200", "max_seqs: 200\nbatch_size: 3", "batch_size: 3"),
    Mistake("attention", "initial_output: 0}\n      end", "initial_output: None}\n      end", "initial_output: None"),
    Mistake("attention", '["base:enc_ctx", s_transformed]', '["base:enc_ctx", s_transformed'),
    Mistake("attention", '"base:encoder"}', '"base:encoder}'),
    Mistake("layers", "filter_size: [3]", "filter_size: (3, 3)"),
    Mistake("attention", "      end: {class", "      end {class"),
    # Expressions
    Mistake("attention", "max_len_from('base:encoder') * 2 + 5", "max_len_from('base:encoder') * 2 +"),
    Mistake("attention", "max_len_from('base:encoder') * 2 + 5", "max_len_of('base:encoder') * 2"),
    Mistake("layers", "source(0) * 2.0", "source(0) * 2.0)"),
    Mistake("layers", "source(0) * 2.0", "sorce(0) * 2.0"),
    Mistake("layers", "source(0) * 2.0", "source(1) * 2.0"),
    Mistake("layers", "source(0) * 2.0", "tf.nn.relv(source(0))"),
    Mistake("layers", "source(0) * 2.0", "__import__('os').system('x')"),
    # Data
    Mistake("attention", "source_embed: {class: linear, from: data", 'source_embed: {class: linear, from: "data:dta"'),
    Mistake("attention", "target: classes\n    only_on_search", "target: clases\n    only_on_search", "target: clases"),
    Mistake("attention", "choice, from: output_prob, target: classes", "choice, from: output_prob, target: class"),
    Mistake("attention", "classes: {dim: 40", "classes: {dm: 40"),
    Mistake("attention", "classes: {dim: 40", "classes: {dim: forty"),
    Mistake("attention", "data: {dim: 29", "data: {dim: 0"),
    Mistake("12ax", "same_dim_tags_as: {t: data}", "same_dim_tags_as: {t: dta}"),
    Mistake("12ax", "same_dim_tags_as: {t: data}", "same_dim_tag_as: {t: data}"),
    Mistake("12ax", "class: Task12AXDataset, num_seqs: 1000", "class: Task12AXDatset, num_seqs: 1000"),
    Mistake("12ax", "num_seqs: 1000", "num_seq: 1000"),
    Mistake("12ax", "num_seqs: 100,", "num_seqs: all,"),
    # Keys of the config
    Mistake("12ax", "num_epochs", "num_epohcs"),
    Mistake("12ax", "batch_size: 5000", "batch_size: big"),
    Mistake("12ax", "learning_rate: 0.01", "learning_rate: -0.01"),
    Mistake("12ax", "task: train", "task: trian"),
    Mistake("12ax", "network:", "netwrk:"),
    Mistake("attention", "learning_rate_control: newbob", "learning_rate_control: newbop"),
    Mistake("attention", "gradient_clip_global_norm: 20.0", "gradient_clip_global_norm: -1"),
    Mistake("attention", "num_epochs: 12", "pretrain: default"),
    # What other layers name
    Mistake("layers", "reuse_params: hidden", "reuse_params: scaled"),
    Mistake("layers", "reuse_params: hidden", "reuse_params: conv"),
]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@functools.cache
def reported(mistake: Mistake) -> tuple[int, list[tuple[int | None, str]]]:
    """The line where the mistake is, and the lines and messages that are reported."""
    valid = CONFIGS[mistake.config]
    assert valid.count(mistake.old) >= 1, mistake
    text = valid.replace(mistake.old, mistake.new, 1)
    wanted = line_of(text, mistake.line) if mistake.line else line_of(valid, mistake.old)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.yaml"
        path.write_text(text)
        try:
            found = mistakes(load(str(path), []))
        except ConfigError as error:
            found = list(error.diagnostics)
    return wanted, [(one.position and one.position.line, str(one).replace(f"{path}:", "")) for one in found]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_configs_are_valid(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(CONFIGS[name])
    assert mistakes(load(str(path), [])) == []


def test_a_hundred_different_mistakes() -> None:
    assert len(set(MISTAKES)) == len(MISTAKES) >= 100


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.config}: {mistake.new}"[:70].strip())
def test_a_mistake_is_reported_without_a_traceback(mistake: Mistake) -> None:
    _, found = reported(mistake)
    assert found, "nothing is reported"


def test_the_right_line_is_reported() -> None:
    missed = []
    for mistake in MISTAKES:
        wanted, found = reported(mistake)
        if [line for line, _ in found] != [wanted]:
            missed.append(f"{mistake.config}: {mistake.new!r}: line {wanted}, but reported: {[m for _, m in found]}")
    print("\n".join(missed))
    assert (len(MISTAKES) - len(missed)) * 100 >= LEAST_RIGHT * len(MISTAKES), "\n".join(missed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("behavior_version: 21", "behavior_version: new", "behavior_version: expected an int, got 'new'."),
        ("target: classes\nextern", "target: [classes]\nextern", "target: expected a string, got ['classes']."),
        ("  wide: {", "  7: {", "network.7: 7 is no name for a layer. Write it in quotes."),
        ("n_out: 12,", "n_out: 12, 5: 6,", "network.wide.5: unknown option '5' of linear. "),
    ],
)
def test_values_that_nothing_can_be_built_with(old: str, new: str, message: str) -> None:
    _, found = reported(Mistake("layers", old, new))
    assert any(message in text for _, text in found), found
