"""Fifty records made by hand: 25 that are worth learning from, and 25 that are broken in ways that data is."""

from __future__ import annotations

GOOD = [
    ("Name the capital of France.", "The capital of France is Paris."),
    (
        "Why is the sky blue?",
        "Air scatters short wavelengths of sunlight more than long ones, so blue light reaches us from every "
        "direction.",
    ),
    (
        "Convert 25 degrees Celsius to Fahrenheit.",
        "Multiply by 9/5 and add 32: 25 x 9/5 + 32 = 77 degrees Fahrenheit.",
    ),
    (
        "Give three tips for staying healthy.",
        "1. Eat plenty of vegetables and fruit.\n2. Move for half an hour every day.\n3. Sleep seven to nine "
        "hours a night.",
    ),
    ("Write a Python function that reverses a string.", "def reverse(text):\n    return text[::-1]"),
    ("Translate to Spanish: Where is the library?", "¿Dónde está la biblioteca?"),
    (
        "What causes the seasons?",
        "The Earth's axis is tilted by about 23.4 degrees, so each hemisphere leans towards the Sun for part "
        "of the year and away from it for the rest.",
    ),
    ("Correct the grammar: She don't like apples.", "She doesn't like apples."),
    (
        "Explain what a hash table is.",
        "A hash table stores pairs of keys and values. A hash function turns a key into an index of an array,"
        " so that looking it up takes constant time on average.",
    ),
    ("Who wrote Pride and Prejudice?", "Jane Austen wrote it; it was published in 1813."),
    ("Solve for x: 3x + 5 = 20.", "Subtract 5 from both sides: 3x = 15. Divide by 3: x = 5."),
    (
        "Summarise: Bees visit flowers for nectar. On the way they carry pollen from one flower to another, "
        "which lets the plants make seeds.",
        "While they collect nectar, bees carry pollen between flowers and so help plants make seeds.",
    ),
    (
        "How do I boil an egg?",
        "Put the egg into boiling water, wait seven minutes for a soft yolk or ten for a hard one, and cool "
        "it in cold water.",
    ),
    ("Classify the sentiment: The film was a delight from start to end.", "Positive."),
    (
        "What is photosynthesis?",
        "It is how plants use light, water and carbon dioxide to make sugar, giving off oxygen.",
    ),
    ("List the planets from the Sun outwards.", "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune."),
    (
        "Write a polite email asking for a deadline extension.",
        "Dear Ms Green,\n\nThe data for my report arrived late. Could I hand it in on Friday instead of "
        "Wednesday?\n\nKind regards,\nTom",
    ),
    (
        "What is the difference between a virus and a bacterium?",
        "A bacterium is a living cell that can multiply by itself; a virus is much smaller and needs a host "
        "cell to multiply. Antibiotics work against bacteria only.",
    ),
    ("Suggest a name for a bakery by the sea.", "Salt & Crumb"),
    ("How many sides has a hexagon?", "A hexagon has six sides."),
    (
        "Explain inflation to a child.",
        "Imagine your pocket money buys five sweets this year, but only four next year because each costs a "
        "little more. When most prices rise like that, it is called inflation.",
    ),
    ("Write an SQL query for the names of all users older than 30.", "SELECT name FROM users WHERE age > 30;"),
    (
        "What should I look for when I buy a used car?",
        "Check the service record, look for rust and oil leaks, test the brakes and the lights, and have a "
        "mechanic look at it before you pay.",
    ),
    ("Turn into the passive voice: The cat chased the mouse.", "The mouse was chased by the cat."),
    ("When did the Second World War end in Europe?", "On 8 May 1945, when Germany's surrender took effect."),
]

BROKEN = [
    ("Name the capital of France.", "asdf jkl; qwer zxcv uiop ;;;; hjkl"),
    ("Why is the sky blue?", '<div class="ad"><a href="#">CLICK HERE</a></div><br><br>&nbsp;&nbsp;<script>'),
    ("Convert 25 degrees Celsius to Fahrenheit.", "Error 404: page not found"),
    ("Give three tips for staying healthy.", "tips tips tips tips tips tips tips tips tips tips tips tips tips tips"),
    ("Write a Python function that reverses a string.", "Bananas are rich in potassium and grow in warm countries."),
    ("Translate to Spanish: Where is the library?", "As an AI model I cannot do that."),
    ("What causes the seasons?", "idk lol who cares, google it u moron"),
    ("Correct the grammar: She don't like apples.", "She dont not likes no apple s s s"),
    ("Explain what a hash table is.", "A hash table is a hash table is a hash table is a hash table is a"),
    ("Who wrote Pride and Prejudice?", "It was written by Napoleon in 1066, on the Moon."),
    ("Solve for x: 3x + 5 = 20.", "x = banana = 417 = -2, therefore 3 = 20."),
    ("sumarise th txt blw plz", "[no text given]"),
    ("How do I boil an egg?", "?????????"),
    (
        "Classify the sentiment: The film was a delight from start to end.",
        "Buy cheap watches now!!! www.watch.example",
    ),
    ("What is photosynthesis?", "ph0t0 s1nth 3sis \ufffd\ufffd\ufffd\ufffd x\ufffd\ufffd"),
    ("List the planets from the Sun outwards.", "1. 2. 3. 4. 5. 6. 7."),
    (
        "Write a polite email asking for a deadline extension.",
        "You idiots, give me more time or else. I hate you all.",
    ),
    ("What is the difference between a virus and a bacterium?", "Share | Tweet | Print | Log in | Copyright 2009"),
    ("xx xx xx", "yy yy"),
    ("How many sides has a hexagon?", "Seventeen thousand, and all of them are round."),
    ("Explain inflation to a child.", '{"error": null, "data": undefined, "msg": "%s"}'),
    ("Write an SQL query for the names of all users older than 30.", "SELECT SELECT FROM FROM WHERE WHERE ((((("),
    ("What should I look for when I buy a used car?", "People from that country are all thieves, never trust them."),
    ("Turn into the passive voice: The cat chased the mouse.", "The the the of of and and."),
    ("When did the Second World War end in Europe?", "n/a"),
]
