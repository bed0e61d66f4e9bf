"""The dominant script, against a count of letters by the first word of their Unicode names."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.scripts_of_text import SCRIPTS, dominant_script


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Name three rivers.", "Latin"),
        ("Ça va été 42", "Latin"),
        ("列出三条河流 list", "Han"),
        ("川の名前を三つ", "Japanese"),
        ("Назови три реки (rivers)", "Cyrillic"),
        ("강 이름 세 개", "Hangul"),
        ("तीन नदियाँ", "Devanagari"),
        ("اذكر ثلاثة أنهار", "Arabic"),
        ("𠀀𠀁", "Han"),
        ("ＡＢＣ", "Latin"),
        ("1 + 1 = 2", None),
        ("🙂 🙂", None),
        ("", None),
    ],
)
def test_known_texts(text: str, script: str | None) -> None:
    assert dominant_script(text) == script


@given(st.text(st.characters(max_codepoint=0x2FFF), max_size=40))
def test_counts_letters_as_their_names_say(text: str) -> None:
    names = {name.upper(): name for name in SCRIPTS}
    words = [unicodedata.name(letter, " ").split(" ")[0] for letter in text if letter.isalpha()]
    counts = Counter(names[word] for word in words if word in names)
    expected = max(SCRIPTS, key=lambda name: (counts[name], -SCRIPTS.index(name))) if counts else None
    assert dominant_script(text) == expected
