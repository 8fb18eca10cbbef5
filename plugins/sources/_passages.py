"""The passages that Self-Prompting shows before it asks for one, for kinds of topics."""

from typing import NamedTuple


class Exemplar(NamedTuple):
    """A passage about an entity, and the topics that it goes with: a pattern of their words."""

    topics: str
    topic: str
    entity: str
    passage: str


# The exemplar before a passage: one of the same kind where a word of the topic tells, else the
# first.
EXEMPLARS = (
    Exemplar(
        r"",
        "island",
        "Sicily",
        "Sicily is the largest island in the Mediterranean Sea and one of the twenty regions "
        "of Italy. Its capital is Palermo. Mount Etna, an active volcano more than 3,300 "
        "metres high, rises near Catania. Sicily was ruled by Greeks, Romans, Arabs and "
        "Normans. It became part of the Kingdom of Italy in 1861.",
    ),
    Exemplar(
        r"politic|athlet|figure|singer|actor|writer|painter\b|composer|scientist|king|queen"
        r"|president|philosoph|explorer|player|author|poet|artist|people|person|inventor"
        r"|leader",
        "physicist",
        "Marie Curie",
        "Marie Curie (7 November 1867 – 4 July 1934) was a Polish and French physicist and "
        "chemist. Curie was born in Warsaw and moved to Paris in 1891 to study at the "
        "Sorbonne. In 1903 Curie shared the Nobel Prize in Physics with Pierre Curie and Henri"
        " Becquerel. In 1911 Curie won the Nobel Prize in Chemistry for the discovery of "
        "radium and polonium.",
    ),
    Exemplar(
        r"song|movie|film|series|book|novel|painting|music|game|album|opera|play\b|poem",
        "play",
        "Hamlet",
        "Hamlet is a tragedy by the English playwright William Shakespeare, written around "
        "1600. The play is set in Denmark, at the castle of Elsinore. Prince Hamlet wants to "
        "avenge his father, who was murdered by Claudius, the new king. Ophelia, the daughter "
        "of Polonius, drowns in the fourth act. With about 30,000 words, Hamlet is the longest"
        " play that Shakespeare wrote.",
    ),
    Exemplar(
        r"event|war\b|battle|revolution|disaster|treat",
        "battle",
        "Battle of Hastings",
        "The Battle of Hastings was fought on 14 October 1066 between the army of William, "
        "Duke of Normandy, and the English army of King Harold Godwinson. It took place near "
        "the present town of Battle in East Sussex. Harold was killed in the battle. William "
        "was crowned king in Westminster Abbey on Christmas Day 1066. The Bayeux Tapestry "
        "shows the battle in pictures.",
    ),
    Exemplar(
        r"team|religion|enterprise|organi[sz]ation|compan|university|club|brand",
        "company",
        "Nokia",
        "Nokia is a company from Finland that makes equipment for telephone networks. It was "
        "founded in 1865 by Fredrik Idestam as a paper mill in Tampere. The headquarters of "
        "Nokia are in Espoo. From 1998 to 2012 Nokia was the largest maker of mobile phones in"
        " the world. In 2014 it sold its telephone business to Microsoft.",
    ),
    Exemplar(
        r"term|animal|plant|food|bird|fish|insect|tree|fruit|disease|element|drink",
        "bird",
        "emperor penguin",
        "The emperor penguin is the tallest and heaviest of all penguins. It lives only in "
        "Antarctica and feeds on fish, krill and squid. Emperor penguins can dive more than "
        "500 metres deep. The female lays one egg in winter, and the male keeps it warm for "
        "about 65 days. The species was described in 1844 by the English zoologist George "
        "Robert Gray.",
    ),
)
