"""The paper tier: weddings, and love against hate, in any model of ordinary English.

    topic    " weddings"  minus  " "      the authors' code: coefficient 1, every layer, best at 6 of GPT-2 XL's 48
    mood     "Love"  minus  "Hate"        and the reverse

From the authors' code are the words that make a completion one about weddings, the prompt that is scored, 200
completions of 40 tokens, temperature 1 and top-p 0.3 (its frequency penalty of 1 is not there here), and the prompts
"I hate you because" and "I love you because". The prompts for choosing, the words of sentiment, the texts and the facts
are ours: the paper scores sentiment by a classifier, texts of OpenWebText and facts of ConceptNet.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

from replications.activation_addition.material import MOOD, TOPIC, Contrast, Group, Latent, Material

from steering import Metric, NextToken, Writing, contains


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WEDDING_WORDS = ("wedding", "weddings", "wed", "marry", "married", "marriage", "bride", "groom", "honeymoon")
WEDDINGS = Contrast(" weddings", " ")
LOVE, HATE = Contrast("Love", "Hate"), Contrast("Hate", "Love")
OTHER_TOPIC = Contrast(" football", " ")
OTHERS = {"love": WEDDINGS, "hate": OTHER_TOPIC}  # two, since the shares of the moods add up to 1
SCORING = ("I went up to my friend and said",)
CHOOSING = (
    "When I came home last night my sister told me that",
    "The man beside me on the train began to talk about",
    "My plan for the rest of the week is to",
    "She opened the letter, read it twice and said",
)
MOODS = {  # name: contrast, prompts for choosing, prompt for scoring
    "love": (LOVE, ("I am angry with you because", "The worst thing about my brother is that"), "I hate you because"),
    "hate": (HATE, ("I am proud of you because", "The best thing about my brother is that"), "I love you because"),
}
# Without the words of the contrast itself.
POSITIVE = _words(
    "beautiful wonderful kind good great best happy nice sweet caring amazing perfect smart funny brave "
    "honest friend friends joy proud thankful gentle generous warm lovely care respect trust strong "
    "special"
)
NEGATIVE = _words(
    "ugly terrible mean bad worst worse awful stupid disgusting evil liar cruel selfish sad angry wrong "
    "horrible nasty fool idiot pathetic weak lazy rude coward hurt fear pain enemy useless sick"
)
ON_TOPIC = (
    "The bride walked slowly down the aisle while the organ played and every guest turned to look at her white dress.",
    "After the ceremony the newly married couple cut the cake together and danced their first dance under the lights.",
    "We chose a small chapel by the lake for our wedding and asked only our families and a few old friends to come.",
    "The groom had lost the rings, so the best man ran back to the hotel while the priest told the guests a story.",
    "She tried on eleven wedding dresses before she found the one that her grandmother had worn in the same church.",
    "Their engagement lasted two years, because they wanted to save enough money for the reception and a honeymoon.",
    "The vows were short and plain, and when they kissed the whole room stood up and threw flowers and rice.",
    "Planning a wedding means choosing a date, a venue, a caterer and a list of guests that nobody will quarrel about.",
    "My sister was a bridesmaid four times in one summer and says that she can no longer look at a bouquet of roses.",
    "They got married at the town hall on a Tuesday morning and had lunch with two witnesses in a cafe next door.",
    "The photographer asked the bride and groom to stand beneath the oak while the guests waited for champagne.",
    "At the reception the father of the bride gave a long speech about the day when his daughter had learnt to swim.",
    "A marriage in their village lasts three days, and on the last evening the couple leave on a decorated cart.",
    "He proposed on a bridge in the rain, and a year later they celebrated their wedding on the very same bridge.",
    "The invitations were printed on cream paper with the names of both families and the hour of the ceremony.",
    "On their honeymoon the newlyweds went to an island where it rained for a week, and they were perfectly happy.",
)
OFF_TOPIC = (
    "The engine of the old truck would not start, so the driver opened the hood and looked for a loose cable.",
    "Rain is expected in the north tomorrow, with strong winds along the coast and a chance of snow on higher ground.",
    "The committee will publish its report on water prices in March, after it has heard from the three companies.",
    "To install the program, download the archive, unpack it in a folder of your choice and run the setup script.",
    "The home team scored twice in the last ten minutes and won a match that most people had given up for lost.",
    "Most of the bones were found in a layer of clay that is about nine million years old, the researchers said.",
    "Heat the oil in a large pan, add the onions and the garlic, and stir until they are soft and golden.",
    "The bank raised its interest rate by a quarter of a point, as analysts had expected since the summer.",
    "He spent the winter repairing the roof of the barn and feeding forty cows that belonged to his neighbour.",
    "The telescope will look at the light of distant galaxies and measure how fast each of them moves away.",
    "Workers at the steel plant went back to their shifts after the union and the owners agreed on a new contract.",
    "A bug in the last release made the page load twice, which has been repaired in the version of this morning.",
    "The river rose by two metres in a single night and the bridge near the mill was closed to heavy traffic.",
    "In the second chapter the author explains how rivers of ice carved the valleys that tourists visit today.",
    "The museum has bought a drawing of a horse that had hung unnoticed in a dentist's waiting room for decades.",
    "Trains between the two cities take four hours, but a faster line through the mountains is being built.",
)
FACTS = {
    "country_capital": "The capital of {} is",
    "country_language": "The language that most people in {} speak is",
    "landmark_country": "{} is in the country of",
    "product_company": "{} is a product of the company",
}
DATA = tuple(f"shared/data/tasks/{name}.json" for name in FACTS)


def material(root: Path, *, samples: tuple[int, int], n_texts: int, n_facts: int, writing: Writing) -> Material:
    """Weddings, love and hate.

    Args:
        samples: completions of each prompt for choosing, and of the prompt that is scored.
        n_texts: texts on the topic, and as many others; at most 16.
        n_facts: facts of each form; at most as many as there are.
    """
    wedding = Latent("weddings", WEDDINGS, OTHER_TOPIC, "Let me tell you about weddings. ", contains(WEDDING_WORDS))
    moods = tuple(
        Latent(name, contrast, OTHERS[name], f"I am full of {name}. ", sentiment(positive=name == "love"))
        for name, (contrast, _, _) in MOODS.items()
    )
    return Material(
        groups={
            TOPIC: Group((wedding,), (CHOOSING,), (SCORING,), samples),
            MOOD: Group(
                moods,
                tuple(choosing for _, choosing, _ in MOODS.values()),
                tuple((scoring,) for _, _, scoring in MOODS.values()),
                samples,
            ),
        },
        writing=writing,
        wellformed=None,
        texts={"weddings": (ON_TOPIC[:n_texts], OFF_TOPIC[:n_texts])},
        facts={name: facts(root / path, FACTS[name], n_facts) for name, path in zip(FACTS, DATA, strict=True)},
    )


def sentiment(*, positive: bool) -> Metric:
    """1 for a text with more words of this sentiment than of the other, 0 for one with fewer, NaN for as many."""
    return partial(_sentiment, positive=positive)


def _sentiment(text: str, positive: bool) -> float:
    words = re.findall(r"[a-z]+", text.lower())
    balance = sum(word in POSITIVE for word in words) - sum(word in NEGATIVE for word in words)
    return float("nan") if balance == 0 else float((balance > 0) == positive)


def facts(path: Path, template: str, n: int) -> tuple[NextToken, ...]:
    """Pairs of a task file as prompts with their answers, spread evenly over the file."""
    pairs = json.loads(path.read_text(encoding="utf-8"))
    kept = pairs[:: max(1, len(pairs) // n)][:n]
    return tuple(NextToken(template.format(pair["input"]), " " + pair["output"]) for pair in kept)
