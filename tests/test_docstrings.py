"""Docstrings in the three styles that people write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.docstrings import described

NAMES = ("city", "days", "unit")

GOOGLE = """Tell the weather
    of a city.

    More of it.

    Args:
        city: Its name,
            in any language: also "Oslo".
        days (int, optional): How many.

            At most ten.
        other: Not a parameter.
        unit:

    Returns:
        days: No parameter either.
    """

NUMPY = """Tell the weather of a city.

    Parameters
    ----------
    city : str
        Its name.
    days, unit
        Both of them.

    Returns
    -------
    city : str
        No parameter.
    """

SPHINX = """Tell the weather of a city.

    :param city: Its name,
        in any language.
    :param int days: How many.
    :type days: int
    :returns: city: nothing
    """


@pytest.mark.parametrize(
    ("docstring", "summary", "said"),
    [
        pytest.param(None, "", {}, id="none"),
        pytest.param("   ", "", {}, id="blank"),
        pytest.param("One line.", "One line.", {}, id="one-line"),
        pytest.param(
            GOOGLE,
            "Tell the weather of a city.",
            {"city": 'Its name, in any language: also "Oslo".', "days": "How many. At most ten."},
            id="google",
        ),
        pytest.param(
            NUMPY,
            "Tell the weather of a city.",
            {"city": "Its name.", "days": "Both of them.", "unit": "Both of them."},
            id="numpy",
        ),
        pytest.param(
            SPHINX,
            "Tell the weather of a city.",
            {"city": "Its name, in any language.", "days": "How many."},
            id="sphinx",
        ),
        pytest.param("Args:\n    city: Its name.", "", {"city": "Its name."}, id="no-summary"),
        pytest.param("Parameters\n----------\ncity\n    Its name.", "", {"city": "Its name."}, id="numpy-alone"),
        pytest.param(":param city: Its name.", "", {"city": "Its name."}, id="sphinx-alone"),
        pytest.param("Words.\n\nArgs:", "Words.", {}, id="an-empty-section"),
    ],
)
def test_the_first_paragraph_and_every_parameter_are_found(
    docstring: str | None, summary: str, said: dict[str, str]
) -> None:
    assert described(docstring, NAMES) == (summary, said)


LINES = st.sampled_from(
    ["", "Args:", "Parameters", "----------", "city: x", "  city (str): y", "    days : z", ":param city: w", ":param:", "words", "\tunit"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(LINES | st.text(max_size=10), max_size=8))
def test_any_docstring_is_read(lines: list[str]) -> None:
    summary, said = described("\n".join(lines), NAMES)
    assert "\n" not in summary
    assert set(said) <= set(NAMES)
    assert all(words and words == " ".join(words.split()) for words in said.values())
