"""The part of a backend that all backends with logits share: prompts, sampling, completions.

chat.py      chat messages -> pieces of text; only the template's own may hold special tokens
sampling.py  a row of logits -> one token and its log-probability
prompting.py a request or a continuation -> the tokens of its prompt and of the text that follows
tasks.py     the work on a sequence: generate, score given tokens, give hidden states
backend.py   requests -> tasks, and the proof that an adapter is in effect
"""
