"""The datasets: RETURNN's rules and numbers, files that come back as written, and messages for what cannot be read."""

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from returnn_lite.data import DataError, HDFDataset, HdfKey, HdfWriter, make_dataset, write_hdf
from returnn_lite.data.artificial import CopyTaskDataset, DummyDataset, Task12AXDataset, answers_12ax
from returnn_lite.data.cmudict import CmuDictDataset, part_of, pronunciations
from returnn_lite.data.ordering import SeqOrdering
from returnn_lite.data.vocabulary import read_vocabulary


@pytest.mark.parametrize(
    ("symbols", "answers"),
    [  # taken from RETURNN's data
        ("1AX", "LLR"),
        ("2BY", "LLR"),
        ("AX2BY1BYAX", "LLLLRLLLLR"),
        ("1A3X", "LLLR"),
        ("1AYX", "LLLL"),
        ("2BCY", "LLLR"),
        ("A31X", "LLLR"),
        ("1AXX", "LLRL"),
        ("1BAX", "LLLR"),
    ],
)
def test_12ax_answers(symbols: str, answers: str) -> None:
    assert "".join("LR"[answer] for answer in answers_12ax(symbols)) == answers


def test_12ax_sequences() -> None:
    data = Task12AXDataset(num_seqs=200)
    sequences = [data.sequence(index).data for index in range(200)]
    lengths = [len(sequence["data"]) for sequence in sequences]
    assert (data.lengths("data") == lengths).all()
    assert min(lengths) >= 10 and max(lengths) < 100
    assert all((sequence["data"].sum(axis=1) == 1).all() for sequence in sequences)
    share = np.concatenate([sequence["classes"] for sequence in sequences]).mean()
    assert 0.11 < share < 0.16  # RETURNN: 0.135


def test_random_tasks_depend_on_the_epoch_unless_the_seed_is_fixed() -> None:
    for fixed in (None, 3):
        data = CopyTaskDataset(5, nsymbols=50, minlen=20, maxlen=20, ordering=SeqOrdering(fixed_random_seed=fixed))
        first, again, other = (data.at_epoch(epoch).sequence(2).data["data"].tolist() for epoch in (1, 1, 2))
        assert first == again
        assert (first == other) is (fixed is not None)


def test_copy_task_lengths_grow_with_the_epoch() -> None:
    data = CopyTaskDataset(300, nsymbols=3, minlen=2, maxlen=5, minlen_epoch_factor=1, maxlen_epoch_factor=2)
    assert set(data.at_epoch(3).lengths("data")) == set(range(5, 12))
    sequence = data.sequence(0).data
    assert sequence["data"].tolist() == sequence["classes"].tolist()


def test_dummy_ramps() -> None:
    """The numbers are RETURNN's."""
    sequence = DummyDataset(input_dim=3, output_dim=4, num_seqs=3, seq_len=4).sequence(1)
    expected = [[-0.4, -0.3, -0.2], [-0.1, 0.0, 0.1], [0.2, 0.3, 0.4], [-0.5, -0.4, -0.3]]
    np.testing.assert_allclose(sequence.data["data"], expected, atol=1e-6)
    assert sequence.data["classes"].tolist() == [1, 2, 3, 0]
    scaled = DummyDataset(3, 7, 3, seq_len=5, input_max_value=5.0, input_shift=-1.0, input_scale=0.5).sequence(0)
    assert scaled.data["data"].ravel()[:6].tolist() == [-0.5, 0.0, 0.5, 1.0, 1.5, -0.5]
    assert scaled.data["classes"].tolist() == [1, 2, 3, 4, 5]


def test_hdf_comes_back_as_written(tmp_path: Path) -> None:
    path = str(tmp_path / "x.hdf")
    original = make_dataset({"class": "Task12AXDataset", "num_seqs": 5})
    write_hdf(path, original)
    found = make_dataset({"class": "HDFDataset", "files": [path, path]})
    assert found.num_seqs == 10
    assert found.keys["classes"] == original.keys["classes"]
    assert found.lengths("classes").tolist() == [*original.lengths("data")] * 2
    for index in (0, 4, 7):
        for key, array in original.sequence(index % 5).data.items():
            assert found.sequence(index).data[key].tolist() == array.tolist()
        assert found.tag(index) == f"seq-{index % 5}"
    assert list(tmp_path.iterdir()) == [tmp_path / "x.hdf"]


def test_hdf_of_arrays_with_three_axes_is_flattened(tmp_path: Path) -> None:
    path = str(tmp_path / "x.hdf")
    with HdfWriter(path, HdfKey(4, 3)) as writer:
        writer.insert("a", np.arange(24.0).reshape(3, 2, 4))
    sequence = HDFDataset(path).sequence(0)
    assert sequence.data["data"].shape == (6, 4)
    assert sequence.data["sizes"].tolist() == [3, 2]


FRAMES = {"a": [[1, 2], [3]], "b": [[4], [0, 5, 1]]}


def layout(path: str, lengths: list, keys: dict[str, list] = FRAMES, **changed: object) -> HDFDataset:
    """A file with targets only, of two sequences, with these seqLengths; `changed` says what else it has."""
    with h5py.File(path, "w") as file:
        for key, sequences in keys.items():
            file[f"targets/data/{key}"] = np.concatenate(sequences).astype("uint8")
            file.require_group("targets/size").attrs[key] = (6, 1)
        file["seqLengths"] = np.array(lengths)
        file["seqTags"] = np.array([b"x", b"y"])
        for name, value in changed.items():
            if value is None:
                del file[name.replace("_", "/")]
            else:
                file[name.replace("_", "/")] = value
    return HDFDataset(path)


def of_keys(dataset: HDFDataset) -> dict[str, list]:
    return {
        key: [dataset.sequence(index).data[key].tolist() for index in range(dataset.num_seqs)] for key in dataset.keys
    }


@pytest.mark.parametrize("lengths", [[[2, 1], [1, 3]], [[0, 2, 1], [0, 1, 3]], [[9, 2, 1], [9, 1, 3]]])
def test_hdf_with_targets_only(tmp_path: Path, lengths: list) -> None:
    """With and without a column for the inputs that are not there."""
    dataset = layout(str(tmp_path / "x.hdf"), lengths)
    assert of_keys(dataset) == FRAMES
    assert dataset.keys["a"].dim == 6 and dataset.keys["a"].sparse
    assert dataset.lengths("b").tolist() == [1, 3]


def test_hdf_whose_keys_are_equally_long(tmp_path: Path) -> None:
    keys = {"a": [[1, 2], [3]], "b": [[4, 5], [0]]}
    assert of_keys(layout(str(tmp_path / "x.hdf"), [2, 1], keys)) == keys


def test_hdf_that_does_not_say_sizes(tmp_path: Path) -> None:
    """Features are counted, and so are the names of classes; how many labels without names there are, nobody knows."""
    names = np.array([b"one", b"two", b"three", b"four"])
    keys = {"a": [[1, 2], [3]]}
    labelled = layout(str(tmp_path / "x.hdf"), [2, 1], keys, targets_size=None, targets_labels_a=names)
    assert (labelled.keys["a"].dim, labelled.keys["a"].labels) == (4, ("one", "two", "three", "four"))
    dense = layout(str(tmp_path / "y.hdf"), [2, 1], {}, inputs=np.arange(9.0).reshape(3, 3))
    assert (dense.keys["data"].dim, dense.keys["data"].sparse) == (3, False)
    with pytest.raises(DataError, match="does not say the dim of 'a' as an integer"):
        layout(str(tmp_path / "z.hdf"), [2, 1], keys, targets_size=None)


def test_hdf_without_a_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no array 'inputs'"):
        layout(str(tmp_path / "x.hdf"), [2, 1], {})
    with pytest.raises(DataError, match=r"seqLengths has shape \[2, 1\], expected \[2 tags, 2 keys\]"):
        layout(str(tmp_path / "y.hdf"), [[2], [1]])


def test_hdf_writer_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "x.hdf")
    with (
        pytest.raises(DataError, match=r"sequence 'b', key 'data': shape \[2, 5\]"),
        HdfWriter(path, HdfKey(4, 2)) as w,
    ):
        w.insert("a", np.zeros((2, 4)))
        w.insert("b", np.zeros((2, 5)))
    assert list(tmp_path.iterdir()) == []
    with HdfWriter(path, HdfKey(4, 2)) as writer:
        writer.insert("a", np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"exists already"):
        HdfWriter(path, HdfKey(4, 2))


def test_hdf_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf"
    with pytest.raises(DataError, match=r"x.hdf' does not exist"):
        HDFDataset(str(path))
    write_hdf(str(path), make_dataset({"class": "Task12AXDataset", "num_seqs": 3}))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no HDF5 file at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x.hdf"):
            HDFDataset(str(path)).sequence(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["seqLengths"].__setitem__((0, 0), -1), "seqLengths must be integers of at least 0"),
        (lambda file: file.__delitem__("seqTags"), "has no array 'seqTags'"),
        (lambda file: (file.__delitem__("inputs"), file.create_group("inputs")), "has no array 'inputs'"),
        (lambda file: file.attrs.__setitem__("inputPattSize", "x"), "does not say the dim of 'data' as an integer"),
        (lambda file: (file.__delitem__("targets/data"), file.create_dataset("targets/data", data=3)), "a group"),
    ],
)
def test_hdf_with_something_else_in_it_is_named(
    tmp_path: Path, change: Callable[[h5py.File], object], message: str
) -> None:
    path = str(tmp_path / "x.hdf")
    write_hdf(path, make_dataset({"class": "Task12AXDataset", "num_seqs": 3}))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=f"x.hdf'.*{message}"):
        HDFDataset(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": [{"data": [[1, 2], [3]]}]}, "sequence 0, data key 'data': rows of different lengths"),
        ({"data": [{"data": ["a"]}]}, "expected numbers"),
        ({"data": [{"data": [1]}], "output_dim": {"data": [1, 2, 3]}}, "output_dim of 'data' is a number"),
    ],
)
def test_static_data_that_are_no_arrays_are_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_dataset({"class": "StaticDataset", **options})


def write(path: Path, text: str) -> str:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def pairs(tmp_path: Path, source: str = "ab\nb\n", target: str = "x y\ny\n") -> dict:
    return {
        "class": "TextPairDataset",
        "source": write(tmp_path / "source.gz", source),
        "target": write(tmp_path / "target", target),
        "source_vocab": write(tmp_path / "chars", "a\nb\n"),
        "target_vocab": write(tmp_path / "words", "{'</s>': 0, 'y': 2, 'x': 1}"),
        "source_level": "char",
    }


def test_text_pairs(tmp_path: Path) -> None:
    data = make_dataset(pairs(tmp_path))
    assert {key: array.tolist() for key, array in data.sequence(0).data.items()} == {
        "data": [0, 1],
        "classes": [1, 2, 0],
    }
    assert data.references(0, "classes") == (("x", "y"),)
    assert data.lengths("classes").tolist() == [3, 2]
    assert data.keys["classes"].labels == ("</s>", "x", "y")


def test_text_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source.gz:2: 'c' in 'bc' is not in the vocabulary"):
        make_dataset(pairs(tmp_path, source="a\nbc\n"))
    with pytest.raises(DataError, match=r"has 2 lines and .*target' 1"):
        make_dataset(pairs(tmp_path, target="x\n"))
    truncated = pairs(tmp_path)
    Path(truncated["source"]).write_bytes(Path(truncated["source"]).read_bytes()[:-9])
    with pytest.raises(DataError, match=r"source.gz' cannot be read"):
        make_dataset(truncated)


def test_text_for_a_language_model(tmp_path: Path) -> None:
    file, vocab = write(tmp_path / "lm", "b a\n\n"), write(tmp_path / "vocab", "a\nb\n</s>\n")
    data = make_dataset({"class": "TextDataset", "file": file, "vocab": vocab})
    assert data.sequence(0).data["data"].tolist() == [1, 0, 2]
    assert data.sequence(0).data["delayed"].tolist() == [2, 1, 0]
    assert data.sequence(1).data["data"].tolist() == [2]


def test_vocabulary_files(tmp_path: Path) -> None:
    found = read_vocabulary(write(tmp_path / "vocab", "</s>\na\nb\n"))
    assert found.labels == ("</s>", "a", "b")
    assert found.decode([2, 1]) == "b a"
    with pytest.raises(DataError, match=r"not numbered 0..1"):
        read_vocabulary(write(tmp_path / "bad", "{'a': 0, 'b': 2}"))
    with pytest.raises(DataError, match=r"'a' occurs twice"):
        read_vocabulary(write(tmp_path / "twice", "a\nb\na\n"))


def test_cmudict_split() -> None:
    words = {part: len(pronunciations(part)) for part in ("train", "dev", "test")}
    shares = {part: count / sum(words.values()) for part, count in words.items()}
    assert shares == pytest.approx({"train": 0.9, "dev": 0.05, "test": 0.05}, abs=0.005)
    assert (part_of("hello"), part_of("abductees"), part_of("abducted")) == ("train", "dev", "test")


def test_cmudict_sequences() -> None:
    test = make_dataset({"class": "CmuDictDataset", "part": "test", "max_words": 200})
    assert test.num_seqs == 200
    assert (test.keys["data"].dim, test.keys["classes"].dim) == (29, 40)
    several = next(i for i in range(200) if len(test.references(i, "classes")) > 1)
    sequence = test.sequence(several)
    assert test.keys["data"].names(sequence.data["data"]) == tuple(sequence.tag)
    assert (*test.references(several, "classes")[0], "</s>") == test.keys["classes"].names(sequence.data["classes"])
    every = CmuDictDataset("test", variants="all", max_words=200)
    assert {every.tag(i).partition("#")[0] for i in range(every.num_seqs)} == {test.tag(i) for i in range(200)}
    assert f"{sequence.tag}#2" in {every.tag(i) for i in range(every.num_seqs)}


def test_source_text_is_split_into_sequences() -> None:
    data = make_dataset({"class": "SourceTextDataset", "part": "dev", "seq_len": 50, "max_chars": 1234})
    assert data.lengths("data").sum() == 1234 + data.num_seqs
    sequence = data.sequence(0).data
    assert sequence["delayed"][1:].tolist() == sequence["data"][:-1].tolist()
    assert sequence["delayed"][0] == sequence["data"][-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class": "HDFDatset"}, "train: there is no dataset class 'HDFDatset'. Did you mean 'HDFDataset'"),
        ({"class": "HDFDataset", "file": ["x"]}, "no option 'file'. Did you mean 'files'"),
        ({"class": "HDFDataset"}, "needs the option 'files'"),
        ({"class": "ExternSprintDataset"}, "is not supported. Write its sequences to HDF"),
        ({"class": "Task12AXDataset", "num_seqs": "3"}, "num_seqs: expected an int, got '3'"),
        ({"class": "Task12AXDataset", "num_seqs": 0}, "must be positive"),
        ({"class": "Task12AXDataset", "num_seqs": 3, "chunking": "5:2"}, "Give 'chunking' in the config itself"),
        ({"class": "StaticDataset", "data": []}, "no sequences"),
        ({"class": "CopyTaskDataset", "num_seqs": 3, "nsymbols": 3}, "minlen <= maxlen"),
        ({"num_seqs": 3}, "a dataset is a dict with a 'class'"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_dataset(options, "train")
