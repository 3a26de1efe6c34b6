"""Finding pictures by a text or by another picture, with or without an index of their vectors.

Modules: `pictures` (files of a folder to vectors), `rerank` (a shortlist ordered by likelihood), `folder` (search
without an index), `manifest`, `identity` and `store` (what an index is on the disk), `build` (making one and keeping it
up to date), `search` (asking it).
"""

from astrea.retrieval.folder import rank_folder
from astrea.retrieval.rerank import SHORTLIST, Hit

__all__ = ["SHORTLIST", "Hit", "rank_folder"]
