"""The judge: a language model behind any OpenAI-compatible endpoint, asked about records, every answer stored at once.

prompts     what is asked: text around a record that is fenced off as data
readings    how an answer becomes a number: log-probabilities of the scale, or the number stated; tags; preferences
endpoint    `Judge`, `Budget`: which model, where, how fast, for how much
answers     the file of answers and accounts, shared by threads and processes
sending     one request through the official client: a reply, or a failure in words without keys
asking      many requests: stored ones found, the others sent at once, retried, paid for, committed
"""

from coretune.judge.asking import Gate, ask
from coretune.judge.endpoint import Budget, Judge
from coretune.judge.failures import BudgetSpent, JudgeError
from coretune.judge.pairs import Pair, Verdict, prefer
from coretune.judge.probing import reading_for
from coretune.judge.prompts import (
    ACCURACY,
    BETTER,
    COMPLEXITY,
    HELPFULNESS,
    QUALITY,
    TAGGING,
    PreferencePrompt,
    RatingPrompt,
    TagPrompt,
)
from coretune.judge.rating import Rated, rate, tag
from coretune.judge.readings import Expected, Stated
from coretune.judge.spending import Spent

__all__ = [
    "ACCURACY",
    "BETTER",
    "COMPLEXITY",
    "HELPFULNESS",
    "QUALITY",
    "TAGGING",
    "Budget",
    "BudgetSpent",
    "Expected",
    "Gate",
    "Judge",
    "JudgeError",
    "Pair",
    "PreferencePrompt",
    "Rated",
    "RatingPrompt",
    "Spent",
    "Stated",
    "TagPrompt",
    "Verdict",
    "ask",
    "prefer",
    "rate",
    "reading_for",
    "tag",
]
