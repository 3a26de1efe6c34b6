"""Any pretrained language model with its tokenizer: loaded safely, given the words that Astrea needs, and checked.

Safetensors only, no code of the checkpoint's own, and from the hub only a commit that cannot change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AddedToken, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from astrea.common.config_only import check_agreement, read_architecture
from astrea.common.errors import AstreaError
from astrea.common.foreign_files import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES, first_line, read_json
from astrea.common.hub import HUB_ID, fetch_folder
from astrea.common.paths import exists, is_file, is_folder, list_folder, refuse_url
from astrea.common.quiet import quiet
from astrea.common.weight_files import pickles_hint, tensor_shapes
from astrea.language.attention import WARMED_UP
from astrea.language.chat import settled_template
from astrea.language.chat_format import ChatFormat
from astrea.language.gguf_name import names_gguf
from astrea.language.plain import ReferenceOutputs, reference_outputs
from astrea.language.requirements import check_language_model
from astrea.language.tokenizer import IMAGE, PAD

if TYPE_CHECKING:
    from astrea.recipes.recipe import LanguageModel

AGAIN = "copy or download the checkpoint again"
SLACK = 1 << 20
"""Values that a model may hold beyond twice those of its files."""


class Loaded(NamedTuple):
    """A checkpoint. reference: what it says of plain sentences before anything is changed; None if nobody asked for it,
    or its weights are fresh."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    reference: ReferenceOutputs | None


def load_language(language: LanguageModel, *, pretrained: bool = True, reference: bool = False) -> Loaded:
    """The language model and tokenizer of a recipe's checkpoint, with ``<image>`` and a padding token.

    Args:
        pretrained: False = the same architecture with fresh weights. reference: whether plain sentences are read, to be
            compared with later: a pass over the model, and the scores of every word in memory.

    Raises:
        AstreaError: there is no such checkpoint, its commit is not pinned, its files are damaged, pickled, too large or
            need code of their own, or the model is of a make that Astrea cannot use. Names checkpoint and file.
    """
    if language.checkpoint is None:
        raise AstreaError("the recipe names no checkpoint", "set llm.checkpoint")
    folder = find_checkpoint(language.checkpoint, language.revision)
    check_files(folder)
    dtype: torch.dtype = getattr(torch, language.dtype)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    found: dict[str, Any] = {}
    try:
        with quiet():
            config = without_dropout(AutoConfig.from_pretrained(folder, **safe))
            if language.architecture is not None:
                check_agreement(language.architecture, config, "llm.architecture", folder)
            with torch.device("meta"):
                skeleton = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
            check_size(folder, skeleton)
            tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
            options: dict[str, Any] = {"dtype": dtype, "attn_implementation": language.attention}
            if pretrained:
                model, found = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
                    folder, config=config, **safe, **options, use_safetensors=True, output_loading_info=True
                )
            else:
                model = AutoModelForCausalLM.from_config(config, **options)
    except AstreaError:
        raise
    except Exception as error:  # somebody else's files make transformers and tokenizers raise nearly any type
        raise AstreaError(f"the checkpoint {folder} cannot be loaded: {first_line(error)}", AGAIN) from error
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found.get(kind):
            names = sorted(map(str, found[kind]))[:3]
            raise AstreaError(f"the checkpoint {folder} has {kind.replace('_', ' ')}: {names}", AGAIN)
    if not isinstance(getattr(model.config, "hidden_size", None), int):
        raise AstreaError(f"the checkpoint {folder} is no text-only language model", "name one of text alone")
    check_language_model(model, f"the checkpoint {folder}")
    said = None
    if pretrained and reference:
        known = max(tokenizer.get_vocab().values()) + 1
        said = reference_outputs(lambda ids, _: model(input_ids=ids, use_cache=False).logits, tokenizer, known)
    grow(model, tokenizer, prepare_tokenizer(tokenizer))
    return Loaded(model, tokenizer, said)


def trained_word_match(config: Any) -> float:
    """The word match that a language model was trained with before, as its configuration says; 0 where it says nothing.

    A model that never met one cannot bear it: in every layer a word would be drawn to whatever its embedding resembles.
    """
    reference = getattr(config, WARMED_UP, 0.0)
    return float(reference) if isinstance(reference, int | float) else 0.0


def language_from_architecture(language: LanguageModel, words: int) -> PreTrainedModel:
    """The language model that a recipe describes, with random weights.

    Args:
        words: how many its tokenizer has, which is not its own.

    Raises:
        AstreaError: the recipe describes none, one of a make that Astrea cannot use, or one of fewer words.
    """
    config: Any = without_dropout(read_architecture(language.architecture or {}, "llm.architecture"))
    if not all(isinstance(getattr(config, name, None), int) for name in ("hidden_size", "vocab_size")):
        raise AstreaError("llm.architecture is no text-only language model", "describe one of text alone")
    if config.vocab_size < words:
        raise AstreaError(
            f"the language model knows {config.vocab_size} tokens; the embedded world's tokenizer needs {words}",
            "give the architecture a larger vocab_size",
        )
    options: dict[str, Any] = {"dtype": getattr(torch, language.dtype), "attn_implementation": language.attention}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)
    except Exception as error:  # values that fit nothing make transformers raise nearly any type
        raise AstreaError(
            f"llm.architecture describes no language model that can be built: {first_line(error)}",
            "give what the checkpoint's config.json says",
        ) from error
    # Their ids are the checkpoint's tokenizer's, and mean other words here.
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, None)
    return model


def without_dropout(config: Any) -> Any:
    """The same configuration with every dropout off: a frozen language model says the same each time it is asked, and
    one that learns here learns for a short while. Adapters have a dropout of their own."""
    for name, value in config.to_dict().items():
        if name.endswith(("dropout", "pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def find_checkpoint(name: str, revision: str | None) -> Path:
    """The folder of a checkpoint: a local one, or a snapshot of a hub id at a pinned commit.

    Raises:
        AstreaError: there is none, or the commit is not pinned.
    """
    refuse_url(name)
    if names_gguf(name):
        raise AstreaError(
            f"{name} is a GGUF file, which only training reads",
            "write it out as a folder with astrea.language.gguf.folder_from_gguf, and give that",
        )
    folder = Path(name).expanduser()
    if is_folder(folder):
        return folder
    if not HUB_ID.fullmatch(name):
        raise AstreaError(f"there is no checkpoint folder {folder}", "give a folder, or a hub id such as owner/name")
    if revision is None:
        raise AstreaError(
            f"llm.checkpoint {name!r} is no local folder, and as a hub id it needs a revision",
            "set llm.revision to the commit of the checkpoint, all 40 digits (its page on the hub shows them)",
        )
    return fetch_folder(name, revision, f"the checkpoint {name} at {revision}")


def check_files(folder: Path) -> None:
    """Whether a checkpoint's files may be read at all.

    Raises:
        AstreaError: one is missing, too large, quantised, pickled or points elsewhere; names it.
    """
    described = read_json(folder / "config.json", MAX_JSON_BYTES)
    if "quantization_config" in described:
        raise AstreaError(f"{folder / 'config.json'} describes a quantised model", "name one with plain weights")
    for name, most in (("tokenizer.json", MAX_TOKENIZER_BYTES), ("tokenizer_config.json", MAX_JSON_BYTES)):
        if exists(folder / name):
            read_json(folder / name, most)
    index = folder / "model.safetensors.index.json"
    if exists(index):
        names = read_json(index, MAX_JSON_BYTES).get("weight_map")
        files = set(names.values()) if isinstance(names, dict) else {None}
        for file in files:
            if not isinstance(file, str) or Path(file).name != file or not is_file(folder / file):
                raise AstreaError(f"{index} names {file!r:.80}, which is no file beside it", AGAIN)
    if not any(path.suffix == ".safetensors" for path in list_folder(folder)):
        hint = pickles_hint(folder) + "convert the checkpoint to safetensors"
        raise AstreaError(f"{folder} holds no safetensors file", hint)


def check_size(folder: Path, skeleton: nn.Module) -> None:
    """Whether a model is about as large as its files: these, not the configuration, decide how much is allocated.

    Raises:
        AstreaError: it is much larger, or a file is damaged.
    """
    files = [path for path in list_folder(folder) if path.suffix == ".safetensors"]
    held = sum(math.prod(shape) for path in files for shape in tensor_shapes(path, AGAIN).values())
    wanted = sum(tensor.numel() for tensor in skeleton.parameters())
    if wanted > 2 * held + SLACK:
        raise AstreaError(
            f"{folder / 'config.json'} describes a model of {wanted:,} values, its safetensors files hold {held:,}",
            AGAIN,
        )


def prepare_tokenizer(tokenizer: Tokenizer) -> list[int]:
    """Give a tokenizer ``<image>``, a padding token if it has none, and a chat template for pictures; returns the new
    ids. No other word is added: it has its pieces for everything.

    The padding token is one of its own and never the end token: the end of an answer is to be learned.
    """
    before = set(tokenizer.get_vocab().values())
    if IMAGE not in tokenizer.added_tokens_encoder:
        tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": AddedToken(PAD, special=True, normalized=False)})
    tokenizer.padding_side = "left"
    tokenizer.chat_template = settled_template(tokenizer)
    return sorted(set(tokenizer.get_vocab().values()) - before)


@torch.no_grad()
def grow(model: PreTrainedModel, tokenizer: Tokenizer, new: list[int]) -> None:
    """Rows for new words, in the table of words and in the output layer (tied or not): the mean of the others.

    A table may be longer than the tokenizer (padded to a round number); rows nobody used are taken first.
    """
    # In order: the vocabulary comes in another one every time, and sums would differ in their last bits.
    known = sorted(set(tokenizer.get_vocab().values()) - set(new))
    needed = max(*known, *new, 0) + 1
    if needed > len(model.get_input_embeddings().get_parameter("weight")):
        model.resize_token_embeddings(needed, mean_resizing=False)
    rows = torch.tensor(known)
    for tensor in _tables(model):
        mean = torch.zeros_like(tensor[0], dtype=torch.float32)
        for part in rows.split(1 << 14):
            mean += tensor[part].float().sum(0)
        tensor[new] = (mean / len(rows)).to(tensor.dtype)


def _tables(model: PreTrainedModel) -> Iterator[Tensor]:
    """Whatever has a row per word: (V, D), or (V,) for a bias; tied ones once."""
    seen: set[int] = set()
    for end in (model.get_input_embeddings(), model.get_output_embeddings()):
        for tensor in (getattr(end, "weight", None), getattr(end, "bias", None)):
            if isinstance(tensor, Tensor) and tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                yield tensor


def settle_generation(model: Any, tokenizer: Tokenizer, language_model: PreTrainedModel) -> None:
    """How a model with this language model generates: greedily, until any of its end tokens, never ``<image>``."""
    own = getattr(language_model.generation_config, "eos_token_id", None)
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id, ChatFormat(tokenizer).stop_id}
    model.generation_config.eos_token_id = sorted(int(i) for i in ends if i is not None)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.suppress_tokens = [int(tokenizer.convert_tokens_to_ids(IMAGE))]  # type: ignore[arg-type]
