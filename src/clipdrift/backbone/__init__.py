"""Backbones: reading a CLIP or SigLIP from a folder, its image encoder and its text encoder.

`finding` finds the folder, `converted` makes one of a model of another library's, `described` says
what model it holds, `loading` accounts for every key, `preprocessing` reads how images are shown,
`clip` and `siglip` hold what differs between the kinds, `model`, `encoder` and `text` what others
use.
"""

from clipdrift.backbone.class_texts import partly_read, same_texts
from clipdrift.backbone.content import folder_hash
from clipdrift.backbone.described import precision_on_disk
from clipdrift.backbone.encoder import ImageEncoder, n_tokens, weights_of
from clipdrift.backbone.finding import EMBEDDED, at_hand, backbone_folder, backbone_source
from clipdrift.backbone.loading import load_backbone, load_model, load_tokenizer
from clipdrift.backbone.model import Backbone
from clipdrift.backbone.preprocessing import Preprocessing, preprocessing
from clipdrift.backbone.text import Encoder, TextEncoder

__all__ = [
    "EMBEDDED",
    "Backbone",
    "Encoder",
    "ImageEncoder",
    "Preprocessing",
    "TextEncoder",
    "at_hand",
    "backbone_folder",
    "backbone_source",
    "folder_hash",
    "load_backbone",
    "load_model",
    "load_tokenizer",
    "n_tokens",
    "partly_read",
    "precision_on_disk",
    "preprocessing",
    "same_texts",
    "weights_of",
]
