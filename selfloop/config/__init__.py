"""The recipe: how it is read, checked and turned into components.

yaml_source.py   YAML with the line of each value, and overrides from the command line
components.py    how a recipe writes a component, and the component that one wraps
defaults.py      the built-in components that are chosen where a recipe names none
recipe.py        the recipe as a model, with its defaults
options.py       the options of a component, read from its signature
prompts.py       prompt files
assembly.py      components built from a recipe
inputs.py        hashes of every file that a run depends on
"""
