"""What all checkpoint experts share: a frozen network rebuilt from plain options, and pictures as it wants them.

Letters: B batch, S side of Astrea's picture, H W height and width that the checkpoint is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from astrea.common.architecture import Network, restore
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.options import DTYPES, Options, checked
from astrea.experts.pretrained.preprocess import Preprocess
from astrea.experts.pretrained.slots import Labels
from astrea.experts.protocol import Expert


class CheckpointExpert(Expert):
    """An expert whose network is a transformers model. What it declares is the instance's.

    Args:
        architecture: what `architecture.describe` wrote of the checkpoint's configuration.
        preprocess: fields of `Preprocess`.
        source: where it came from, for people.
        options: fields of the class's ``accepts``.

    Raises:
        AstreaError: an option is unknown or out of range, or the architecture is none that this kind knows.
    """

    kind: ClassVar[str]
    accepts: ClassVar[type[Options]]
    networks: ClassVar[Mapping[str, Network]]

    def __init__(
        self, *, architecture: Mapping[str, Any], preprocess: Mapping[str, Any], source: str = "", **options: Any
    ) -> None:
        super().__init__()
        self.source = source
        self.settings = checked(self.accepts, options)
        self.preprocess = checked(Preprocess, preprocess)
        config = restore(architecture)
        if config.model_type not in self.networks:
            known = ", ".join(self.networks)
            raise AstreaError(f"{self.kind} knows no {config.model_type!r} networks", f"it knows {known}")
        self.network = self.networks[config.model_type]
        self.check_side(config)
        self.config = config
        self.model = self.network.build(config, DTYPES[self.settings.dtype])

    def describe_tokens(
        self, tokens: int, labels: Labels, slots: Mapping[str, tuple[int, int]], phrases: tuple[str, ...]
    ) -> None:
        """Declare what `forward` returns, and how it is written."""
        self.num_tokens, self.width, self.labels = tokens, len(labels), labels
        self.slots, self.phrases = slots, phrases

    def check_side(self, config: Any) -> None:
        """Whether the network takes pictures of the size that ``preprocess`` gives it.

        Raises:
            AstreaError: it does not; names the size that it takes.
        """
        side, step = self.preprocess.side, self.network.step
        if self.network.fixed:
            inner = getattr(config, "vision_config", config)
            size = inner.image_size
            wanted = (size, size) if isinstance(size, int) else tuple(size)
            if side != wanted:
                raise AstreaError(
                    f"the {config.model_type} takes pictures of {wanted} pixels only, not {side}",
                    f"leave the option image_size out, or set it to {wanted[0]}",
                )
        if side is None or any(length % step for length in side):
            raise AstreaError(
                f"the {config.model_type} cannot take pictures of {side} pixels",
                f"set the option image_size to a multiple of {step}",
            )

    def inputs(self, pixels_B3SS: Tensor) -> Tensor:
        """Pictures as the network wants them (B, 3, H, W), in the type of its weights."""
        return self.preprocess(pixels_B3SS.float()).to(next(self.model.parameters()).dtype)
