"""Tests of texts as rows of bytes."""

import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.core.text_bytes import bytes_of, cut_text, normal_text, texts_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(TEXT), st.integers(1, 40))
def test_a_row_holds_as_many_whole_characters_as_fit(texts, length):
    texts = [normal_text(text) for text in texts]
    rows = bytes_of(texts, length)
    assert rows.shape == (len(texts), length)
    assert rows.dtype == np.float32
    for text, found in zip(texts, texts_of(rows), strict=True):
        assert found == cut_text(text, length)
        assert text.startswith(found)
        whole = len(text.encode()) <= length
        assert (found == text) == whole
        if not whole:
            following = text[: len(found) + 1].rstrip()
            assert len(following.encode()) > length or following == found


@settings(deadline=None)
@given(TEXT, st.integers(1, 40))
def test_a_text_that_was_cut_is_read_as_it_is(text, length):
    cut = cut_text(normal_text(text), length)
    assert cut_text(normal_text(cut), length) == cut
    assert unicodedata.is_normalized("NFC", cut)


def test_a_zero_byte_is_a_blank_since_it_marks_the_end():
    assert normal_text("a\0b\0") == "a b"
