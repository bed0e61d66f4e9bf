"""Finding out what an endpoint gives: log-probabilities, or words alone."""

from __future__ import annotations

from coretune.judge.asking import ask
from coretune.judge.endpoint import Judge
from coretune.judge.failures import JudgeError
from coretune.judge.prompts import RatingPrompt
from coretune.judge.readings import Expected, Stated

PROBE = [{"role": "user", "content": "Which number follows 3? Reply with one digit and nothing else."}]


def reading_for(judge: Judge, prompt: RatingPrompt) -> Expected | Stated:
    """Log-probabilities where the scale allows and the server gives them, else the number stated.

    One short request, whose answer is stored for this address. Raises `JudgeError` where the server does not answer.
    """
    if prompt.low < 0 or prompt.high > 9:
        return Stated()
    expected = Expected()
    (settings,) = expected.settings()
    try:
        (reply,) = ask(judge, [judge.payload(PROBE, settings)], salt=judge.url)
    except JudgeError as error:
        if "logprob" in str(error).lower():  # refused for asking
            return Stated()
        raise
    return expected if reply.first else Stated()
