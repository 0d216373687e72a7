"""The README of an exported model: what it is, and the lines that classify with it.

transformers has no model that classifies as a run does. Its `CLIPForImageClassification` averages
patches, so a folder named to its pipeline alone is read with another classifier, at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipdrift.records import RunRecord
from clipdrift.records.readings import Result
from clipdrift.spec import RunConfig

CARD = """\
# {run_id}

`{backbone}` under `{method}`, trained on `{target}` by clipdrift. {test}
Its classes, in the order of the classifier's outputs, and the templates of their prompts are in
`clipdrift.json`.

To classify with it, with transformers 5{and_peft} alone:

```python
{code}```

transformers says that `Classifier` is none of its own models, and that is so. Do not give this
folder alone to `pipeline("image-classification", ...)`: the class it takes for that averages
patches, and would get a classifier at random.
"""

SEARCH_CARD = """\
# {run_id}

`{backbone}` under `{method}`, trained on the images and captions of `{target}` by clipdrift. {test}

To find images by a text with it, with transformers 5{and_peft} alone:

```python
{code}```
"""

SEARCH = """\
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoTokenizer, {model_class}
{imports}
folder = "."  # where this file lies
base = {base}
model = {model_class}.from_pretrained(base).eval()
{adapt}images = AutoImageProcessor.from_pretrained(base, resample={resample})  # as in training
tokens = AutoTokenizer.from_pretrained(base)
names = ["photo.jpg"]
with torch.no_grad():
    pixels = images([Image.open(name).convert("RGB") for name in names], return_tensors="pt")
    shown = normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
    asked = tokens(["a dog on a beach"], padding={padding}, truncation=True, return_tensors="pt")
    said = normalize(model.get_text_features(**asked).pooler_output, dim=-1)
print(names[int((said @ shown.T).argmax())])
"""

CODE = """\
import json

import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize
from transformers import AutoImageProcessor, {model_class}, pipeline
from transformers.modeling_outputs import ImageClassifierOutput
{imports}
folder = "."  # where this file lies
base = {base}


class Classifier({model_class}):
    def forward(self, pixel_values):
        embeddings = self.get_image_features(pixel_values=pixel_values).pooler_output
        if self.bias is None:  # against class texts, by cosine
            embeddings = normalize(embeddings, dim=-1)
        return ImageClassifierOutput(logits=linear(embeddings, self.weight, self.bias))


head = load_file(f"{{folder}}/head.safetensors")
model = Classifier.from_pretrained(base)
{adapt}model.weight = torch.nn.Parameter(head["head.weight"])
model.bias = torch.nn.Parameter(head["head.bias"]) if "head.bias" in head else None
classes = json.load(open(f"{{folder}}/clipdrift.json"))["classes"]
model.config.id2label = dict(enumerate(classes))
model.config.label2id = {{name: number for number, name in enumerate(classes)}}
{sigmoid}images = AutoImageProcessor.from_pretrained(base, resample={resample})  # as in training
classify = pipeline("image-classification", model=model.eval(), image_processor=images)
print(classify("photo.jpg"))
"""

SIGMOID = 'model.config.problem_type = "multi_label_classification"  # each class by itself\n'
PEFT = "from peft import PeftModel\n"
LOAD = "from safetensors.torch import load_file\n"
HEAD = 'head = load_file(f"{folder}/head.safetensors")\n'
ADAPT = """\
PeftModel.from_pretrained(model.vision_model, folder)  # in place
if "projection.weight" in head:
    model.visual_projection.weight.data = head["projection.weight"]
"""


def card(
    record: RunRecord,
    config: RunConfig,
    *,
    made: Mapping[str, Any],
    model_class: str,
    resample: int,
    base: str | None = None,
) -> str:
    """Markdown of an exported run.

    Args:
        made: how weights were made of several runs, as `Saved` has it.
        model_class: of the backbone, in transformers.
        resample: Pillow's number of the filter that the run's images were resized with.
        base: of an adapter: folder or hub id of the backbone that it is put onto.
    """
    paired = config.target.paired
    imports, adapt = (LOAD + PEFT, HEAD + ADAPT) if paired else (PEFT, ADAPT)
    code = (SEARCH if paired else CODE).format(
        model_class=model_class,
        imports=imports if base else "",
        base=repr(base) if base else "folder",
        adapt=adapt if base else "",
        resample=resample,
        sigmoid=SIGMOID if config.target.several else "",
        padding="True" if model_class == "CLIPModel" else repr("max_length"),
    )
    return (SEARCH_CARD if paired else CARD).format(
        run_id=record.run_id,
        backbone=record.backbone,
        method=record.method,
        target=config.target.name,
        test=_made(made) if made else _reached(record.result),
        and_peft=" and peft" if base else "",
        code=code,
    )


def _made(made: Mapping[str, Any]) -> str:
    """How its weights came about, in a sentence. What the run reached is not what they reach."""
    runs, alpha, scale = made["runs"], made["alpha"], made["scale"]
    of = f"the mean of {len(runs)} runs ({', '.join(runs)})" if len(runs) > 1 else f"run {runs[0]}"
    moved = f", its towers' movement times {scale:g}" if scale != 1 else ""
    mixed = f", mixed with the untouched weights at alpha {alpha:g}" if alpha != 1 else ""
    return f"Its weights are those of {of}{moved}{mixed}."


def _reached(result: Result) -> str:
    """On the test part, in a sentence."""
    found = result.test_retrieval
    if found is not None:
        return (
            f"On its test part of {result.test_n_images:,} images R@1 is {found.i2t_r1:.1%} of "
            f"captions for images and {found.t2i_r1:.1%} of images for captions."
        )
    if result.test_average_precision is not None:
        return f"Mean average precision on its test part: {result.test_score:.1%}."
    accuracy = result.test_accuracy
    return "" if accuracy is None else f"Accuracy on its test part: {accuracy:.1%}."
