"""What a recipe will cost before anybody pays for it: parameters, operations, memory and time, without any weights.

Modules: `absent` (running real code without its numbers), `ledger` (counting memory and operations), `stages` (one
training stage on a model without numbers), `build` (that model, from a recipe), `gpus` (what there is to rent),
`table` (the answer).
"""
