"""Whether a question names its topic."""

from selfloop.text.answers import content, normalise

_MIN_STEM = 3  # letters: "gas" keeps its "s"
_TOPIC_STEM = 5  # letters of a topic's word that tell it again: "mountains", "Mount"


def mentions(question: str, entity: str, topic: str = "") -> bool:
    """Return whether a question has half the words of an entity's name, in singular or plural.

    Words of the topic tell nothing: "Which tree is the tallest?" does not say "oak tree".
    """
    topic_stems = tuple(_stem(word)[:_TOPIC_STEM] for word in content(topic))
    all_words = content(entity) or normalise(entity).split()
    words = all_words
    if topic_stems:
        words = [word for word in all_words if not word.startswith(topic_stems)] or all_words
    text = f" {normalise(question)}"
    count = sum(_stands_in(_stem(word), text) for word in words)
    return bool(words) and 2 * count >= len(words)


def _stands_in(stem: str, text: str) -> bool:
    """Return whether a word of `text` begins with `stem`; in other scripts, whether it is in it."""
    return f" {stem}" in text or (not stem.isascii() and stem in text)


def _stem(word: str) -> str:
    return word[:-1] if len(word) > _MIN_STEM and word.endswith("s") else word
