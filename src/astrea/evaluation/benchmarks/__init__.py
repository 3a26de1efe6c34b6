"""The twelve public tasks: official files in, official figures and submission files out.

`suite` is the list, with the files each task wants; the readers turn files into items; `run` lets a model answer them;
each family scores its own; `command` is what ``astrea benchmark`` does.
"""
