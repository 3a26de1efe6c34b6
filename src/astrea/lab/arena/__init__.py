"""The arena: Astrea against every other fusion strategy, and against itself with each ingredient off.

One run is one variant with one seed: trained, evaluated, and kept as one small JSON file. What is finished is never
done again, so a killed arena goes on with the same command.
"""
