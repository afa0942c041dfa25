"""One line for every error, whatever a library says."""

import pytest

from allocsearch.core.errors import gist, line_of


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no\n  such\tkey "), "no such key"),
        (EOFError(), "EOFError"),
        (ValueError(" \n"), "ValueError"),
        ("usage:\nthis", "usage: this"),
    ],
)
def test_an_error_is_one_line_and_never_empty(error, line):
    assert line_of(error) == line


def test_a_long_error_is_cut_and_says_so():
    assert line_of(OSError("abcde"), limit=5) == "abcde"
    assert line_of(OSError("abcdef"), limit=5) == "abcd…"
    assert gist(OSError("page\n" * 100)) == ("page " * 60)[:299] + "…"
