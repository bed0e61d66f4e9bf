"""Five ways to spoil an answer, each with the records that it can be done to. Used by corruption_study.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

NUMBER = re.compile(r"\d+")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")  # capital words inside a sentence
SYLLABLES = (
    "bra",
    "cor",
    "del",
    "fen",
    "gar",
    "hol",
    "jin",
    "kel",
    "lor",
    "mar",
    "nev",
    "os",
    "pel",
    "quil",
    "ran",
    "tev",
)
FOREIGN = (
    "Das Wetter an der Küste wechselt im Frühling oft von einer Stunde zur anderen.",
    "Wer früh aufsteht, findet auf dem Markt noch frisches Brot und reife Kirschen.",
    "Die Brücke über den Fluss wurde nach dem Hochwasser neu gebaut.",
    "Im Winter heizen viele Familien mit Holz aus dem eigenen Wald.",
    "Am Abend spielen die Kinder auf dem Platz vor der alten Kirche.",
    "Der Zug nach Norden hält nur noch zweimal am Tag in unserem Dorf.",
    "Le boulanger ouvre sa boutique avant le lever du soleil.",
    "Les rues de la vieille ville sont trop étroites pour les voitures.",
    "Chaque été, mes cousins passent deux semaines au bord du lac.",
    "On reconnaît un bon fromage à son odeur plus qu'à sa couleur.",
    "La bibliothèque ferme à midi le samedi et reste fermée le dimanche.",
    "Après l'orage, le jardin sentait la terre et les feuilles mouillées.",
    "El tren de la mañana llega casi siempre con diez minutos de retraso.",
    "En la plaza venden naranjas, aceite y pan recién hecho.",
    "Mi abuela guardaba las cartas en una caja de madera junto a la ventana.",
    "Los pescadores salen al mar cuando todavía es de noche.",
    "La casa tiene un patio pequeño con un limonero y dos sillas.",
    "Durante la cosecha trabaja todo el pueblo, también los niños.",
)

Spoil = Callable[[str, str, np.random.Generator], str]
"""From an answer and another record's answer to the spoilt one."""


def shuffled(answer: str, other: str, rng: np.random.Generator) -> str:
    """Another record's answer."""
    return other


def truncated(answer: str, other: str, rng: np.random.Generator) -> str:
    """The first half of the words."""
    words = answer.split(" ")
    return " ".join(words[: len(words) // 2])


def wrong_numbers(answer: str, other: str, rng: np.random.Generator) -> str:
    """Every number replaced by another of as many digits."""

    def wrong(found: re.Match[str]) -> str:
        digits = len(found[0])
        low = 10 ** (digits - 1) if digits > 1 else 0
        number = int(rng.integers(low, 10**digits - 1)) if digits < 18 else low
        return str(number + (number >= int(found[0])))

    return NUMBER.sub(wrong, answer)


def invented_names(answer: str, other: str, rng: np.random.Generator) -> str:
    """Every capital word inside a sentence replaced by a name that does not exist, the same one each time."""
    made: dict[str, str] = {}

    def invented(found: re.Match[str]) -> str:
        if found[0] not in made:
            words = ("".join(rng.choice(SYLLABLES, 2)).capitalize() for _ in found[0].split(" "))
            made[found[0]] = " ".join(words)
        return made[found[0]]

    return NAME.sub(invented, answer)


def another_language(answer: str, other: str, rng: np.random.Generator) -> str:
    """Sentences of about the same length in German, French or Spanish, which do not answer."""
    language = int(rng.integers(3)) * 6
    sentences = rng.permutation(np.array(FOREIGN[language : language + 6]))
    made = ""
    for place in range(1000):
        made = f"{made} {sentences[place % 6]}".strip()
        if len(made) >= len(answer):
            break
    return made


SPOILT: dict[str, tuple[Spoil, Callable[[str], bool]]] = {
    "wrong numbers": (wrong_numbers, lambda answer: bool(NUMBER.search(answer))),
    "invented names": (invented_names, lambda answer: len(NAME.findall(answer)) >= 2),
    "truncated": (truncated, lambda answer: len(answer.split(" ")) >= 8),
    "shuffled": (shuffled, lambda answer: True),
    "another language": (another_language, lambda answer: True),
}


def spoil(answers: Sequence[str], share: float, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """The answers with `share` of them spoilt, equally many each way; and how each was spoilt, empty where it was not.

    Ways that few answers can be spoilt in choose first.
    """
    each = round(share * len(answers) / len(SPOILT))
    free = rng.permutation(len(answers))
    made, how = list(answers), [""] * len(answers)
    for name, (way, fits) in SPOILT.items():
        rows = [row for row in free.tolist() if not how[row] and fits(answers[row])][:each]
        if len(rows) < each:
            raise ValueError(f"{len(rows)} answers can be spoilt by {name}, {each} are asked; give more records")
        for row, other in zip(rows, np.roll(rows, 1).tolist(), strict=True):
            made[row] = way(answers[row], answers[other], rng)
            how[row] = name
    return made, how
