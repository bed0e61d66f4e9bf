"""Examples as judges read them: a question and an answer, in text."""

from __future__ import annotations

from coretune.pool import Example


def record(example: Example, longest_characters: int | None) -> tuple[dict[str, str], bool]:
    """The texts `question` (all turns before the last answer, with roles where there are several) and `answer`.

    Each is cut to its first `longest_characters`; the second of the pair says whether one was.
    """
    last = max((i for i, turn in enumerate(example.messages) if turn.role == "assistant"), default=None)
    before = example.messages if last is None else example.messages[:last]
    said = [turn for turn in before if turn.content.strip()]
    alone = len(said) == 1 and said[0].role == "user"
    question = said[0].content if alone else "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in said)
    texts = {"question": question, "answer": example.answer}
    if longest_characters is None:
        return texts, False
    cut = {name: text[:longest_characters] for name, text in texts.items()}
    return cut, cut != texts
