"""The rules of English questions, by words and form alone: no model, no facts.

words.py          closed classes of words, as tables
standalone.py     whether a question is whole and stands alone
short_answers.py  whether a few words can answer a question
forms.py          the entity of a question, and its form without the entity
entities.py       names, dates and numbers in a text
sentences.py      whole sentences of a text
likeness.py       how alike two questions are, by the words that carry meaning
rewording.py      whether a question asks for the same as another, or from its answer's side
mentions.py       whether a question names its topic

Each pattern has a comment with an example. Texts in other scripts pass most rules unharmed.
"""
