"""Experts from transformers checkpoints: a kind of task, a hub id or a folder, and options.

A recipe entry with ``checkpoint`` is resolved once, when a model is assembled for training (`entry`): the checkpoint's
configuration and preprocessing become plain options, from which the expert can be built anywhere without any file, and
its weights travel in Astrea's own safetensors file.
"""
