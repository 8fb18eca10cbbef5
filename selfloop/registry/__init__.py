"""The installed hooks, the plugins that implement them, and the components they offer.

hookspecs.py     the hooks
builtin.py       the components that selfloop comes with
manager.py       finds plugins and keeps their components and commands in a catalogue
signatures.py    checks that a run can call the methods of a component
isolation.py     contains the effects of a plugin on the process while it loads
"""
