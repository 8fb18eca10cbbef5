"""The steps of a round: ask · answer · critique · revise · verify · decide · tune.

Each takes attempts and returns as many attempts in the same order; `ask` makes them, and `tune`
returns an adapter. A fault of a component becomes a `Failure` on the attempts it was working on
(`guard.py`), and the others go on. All seeds depend on the run, the round and the question alone,
so a step that runs again asks the model for the same.

Read in this order:

context.py   RoundContext: the recipe, components and history that the steps of one round share
batching.py  one batch of requests for all attempts of a step, and log-probabilities of given texts
claims.py    the answers of an attempt, as claims for critics and detectors
ask.py       questions of the sources, and their scores
answer.py    the greedy draft and the samples
critique.py  the critique, and the revision that follows it
verify.py    the verdicts of each detector, which may consult the detectors before it
decide.py    belief, declined or undecided
tune.py      a new adapter
"""
