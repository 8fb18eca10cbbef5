"""What backends that see logits have in common: prompts to tokens, logits to tokens, tokens to
completions.

chat.py      chat messages -> pieces of text, of which only the template's own may hold special tokens
sampling.py  a row of logits -> one token and its log-probability
prompting.py what is asked -> the tokens of its prompt, and of what follows it
tasks.py     what is done with a sequence: write, score given tokens, look at hidden states
backend.py   requests -> tasks, and the proof that an adapter is in effect: a backend, but for its engine
"""
