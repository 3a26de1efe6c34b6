"""What a recipe will cost, before it is paid for: parameters, operations, memory and time, without any weights.

Modules: `fake_tensors` (running real code without its numbers), `tracker` (counting memory and operations), `stages`
(one training stage on a model without numbers), `build` (that model, from a recipe), `gpus` (what there is to rent),
`table` (the answer).
"""
