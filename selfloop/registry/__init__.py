"""What is installed: the hooks, the plugins that implement them, and the components they offer.

hookspecs.py     the hooks
builtin.py       the components that selfloop comes with
manager.py       finds plugins and keeps what they offer in a catalogue
isolation.py     contains what a plugin does to the process while it loads
"""
