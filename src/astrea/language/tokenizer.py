"""The tiny recipe's tokenizer: whole words of the world, and letters for everything else.

Every word that the world can say is one token; any other ASCII word falls apart into letters, so nothing a user types
is lost, and what is not ASCII becomes ``<unk>``.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, IMAGE, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<unk>", "<image>", "<user>", "<assistant>"

CHAT_TEMPLATE = (
    "{{ '<bos>' }}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% for part in parts %}{% if part['type'] in ('image', 'image_url') %}{{ '<image>' }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' }}{% generation %}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<eos>' }}"
    "{% endgeneration %}"
    "{% else %}{{ '<user>' }}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""``<bos> <image> <user> question <assistant> answer <eos>``: pictures first, so that questions can share them."""


def build_tokenizer(words: Iterable[str], later: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over ``words`` (order kept, duplicates dropped) with letters as the fallback.

    Words that come ``later`` have the last ids, so that the others keep those they had without them.
    """
    special = [PAD, BOS, EOS, UNK, IMAGE, USER, ASSISTANT]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*special, *words, *letters, *(f"##{c}" for c in letters), *later]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=64))
    core.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents()])
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        padding_side="left",
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
