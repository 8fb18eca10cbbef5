"""The rules of English questions, by words and form alone: no model, no facts.

words.py          closed classes of words, as tables
standalone.py     whether a question is whole and stands alone
short_answers.py  whether a few words can answer a question
forms.py          what a question is about, and its form without that
entities.py       names, dates and numbers in a text
sentences.py      whole sentences of a text
likeness.py       how alike two questions are, by the words that carry meaning
rewording.py      whether a question asks for the same as another, or from its answer's side
mentions.py       whether a question names what it should be about

Each pattern has a comment with an example. Texts in other scripts pass most rules unharmed.
"""
