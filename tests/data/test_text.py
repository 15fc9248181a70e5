"""Character corpora: the text of Python, and files as enwik8 and the Penn Treebank have them."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_nets.data import text
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.splits import Split
from adaptive_nets.runtime.errors import UserError


def decoded(corpus, part):
    return "".join(corpus.vocabulary[number] for number in corpus.parts[part])


def test_the_embedded_text_needs_no_files_and_is_the_same_every_time(tmp_path):
    first = text.read_corpus(text.EMBEDDED, root=tmp_path)
    second = text.read_corpus(text.EMBEDDED, root=tmp_path)
    assert first.fingerprint == second.fingerprint
    assert len(first.parts["train"]) > 200_000
    assert len(first.parts["test"]) == len(first.parts["validation"])
    assert "Python" in decoded(first, "train")[:20000]
    assert list(first.vocabulary) == sorted(set(first.vocabulary))


def test_sequences_share_their_ends_and_predict_every_character_once():
    tokens = np.arange(11, dtype=np.uint8)
    cut = text.sequences(tokens, 3)
    np.testing.assert_array_equal(cut, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]])
    np.testing.assert_array_equal(text.sequences(tokens[:4], 3), [[0, 1, 2, 3]])


def test_encoding_is_undone_by_the_vocabulary():
    vocabulary = "abcé—"
    numbers = text.encode("a—bé", vocabulary, name="x")
    assert numbers.dtype == np.uint8
    assert [vocabulary[n] for n in numbers] == list("a—bé")


def test_characters_outside_the_vocabulary_are_named_in_one_line():
    message = r"x has 2 characters outside the vocabulary of 3: 'd', 'é'; expected a text of these"
    with pytest.raises(UserError, match=message) as raised:
        text.encode("abédd", "abc", name="x")
    assert "\n" not in str(raised.value)
    message = r"the train part of python-topics has \d+ characters outside the vocabulary of 96"
    with pytest.raises(UserError, match=message):
        text.read_corpus(text.EMBEDDED, vocabulary="ascii")


def write_ptb(root, train, test, *, prefix="ptb."):
    folder = root / "ptb"
    folder.mkdir()
    for part, content in (("train", train), ("valid", train), ("test", test)):
        (folder / f"{prefix}{part}.txt").write_text(content, encoding="utf-8")


def test_penn_treebank_has_the_vocabulary_of_its_training_part(tmp_path):
    write_ptb(tmp_path, " the cat\n", " that\n")
    corpus = text.read_corpus("ptb", root=tmp_path)
    assert corpus.vocabulary == "\n aceht"
    assert decoded(corpus, "test") == " that\n"
    assert corpus.location == str(tmp_path / "ptb")


def test_both_forms_of_the_penn_treebank_are_the_same_text(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_ptb(tmp_path / "a", "the cat\n", "a hat\n")
    write_ptb(tmp_path / "b", "t h e _ c a t\n", "a _ h a t\n", prefix="ptb.char.")
    first, second = (text.read_corpus("ptb", root=tmp_path / name) for name in "ab")
    assert first.fingerprint == second.fingerprint


def test_a_test_part_with_new_characters_is_refused(tmp_path):
    write_ptb(tmp_path, "the cat\n", "the dog\n")
    message = r"the test part of ptb has 3 characters outside the vocabulary of 7: 'd', 'g', 'o'"
    with pytest.raises(UserError, match=message):
        text.read_corpus("ptb", root=tmp_path)


def test_enwik8_is_read_by_bytes_and_divided_90_5_5(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "ENWIK8_BYTES", 100)
    (tmp_path / "enwik8").write_bytes(bytes([195, 169]) * 50)
    corpus = text.read_corpus("enwik8", root=tmp_path)
    assert [len(corpus.parts[part]) for part in text.PARTS] == [90, 5, 5]
    assert corpus.vocabulary == "\xa9\xc3"


def test_absent_and_damaged_files_are_named(tmp_path):
    with pytest.raises(AbsentDataError, match=r"corpus 'enwik8' is not in .* or read 'python-top"):
        text.read_corpus("enwik8", root=tmp_path)
    (tmp_path / "enwik8").write_bytes(b"short")
    with pytest.raises(DamagedDataError, match="enwik8 has 5 bytes; expected 100,000,000"):
        text.read_corpus("enwik8", root=tmp_path)
    with pytest.raises(UserError, match="corpus 'enwiki' is unknown; did you mean 'enwik8'"):
        text.read_corpus("enwiki", root=tmp_path)


def test_datasets_have_sequences_and_say_whether_they_are_complete():
    corpus = text.read_corpus(text.EMBEDDED)
    whole = corpus.dataset(length=100)
    assert whole.train is not None
    assert whole.train.arrays[text.TOKEN].shape[1] == 101
    assert whole.complete
    part = corpus.dataset(length=100, train_limit=1001, test_limit=301)
    assert (part.count("train"), part.count("test")) == (10, 3)
    assert not part.complete
    with pytest.raises(UserError, match="has 50 characters; expected more than the length 100"):
        corpus.dataset(length=100, train_limit=50)


@pytest.mark.parametrize(("count", "length"), [(11, 5), (12, 5), (6, 5), (7, 1)])
def test_sequences_join_to_the_text_without_its_tail(count, length):
    tokens = np.arange(count, dtype=np.uint8)
    split = Split(**{text.TOKEN: text.sequences(tokens, length)})
    whole = 1 + (count - 1) // length * length
    np.testing.assert_array_equal(text.joined(split), tokens[:whole])
