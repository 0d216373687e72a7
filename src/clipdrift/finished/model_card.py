"""The README of an exported model: what it is, and the lines that classify with it.

transformers has no model that classifies as a run does. Its `CLIPForImageClassification` averages
patches, so a folder named to its pipeline alone is read with another classifier, at random.
"""

from __future__ import annotations

from clipdrift.records import RunRecord
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
images = AutoImageProcessor.from_pretrained(base, resample={resample})  # as in training
classify = pipeline("image-classification", model=model.eval(), image_processor=images)
print(classify("photo.jpg"))
"""

ADAPT = """\
PeftModel.from_pretrained(model.vision_model, folder)  # in place
if "projection.weight" in head:
    model.visual_projection.weight.data = head["projection.weight"]
"""


def card(
    record: RunRecord,
    config: RunConfig,
    *,
    model_class: str,
    resample: int,
    base: str | None = None,
) -> str:
    """Markdown of an exported run.

    Args:
        model_class: of the backbone, in transformers.
        resample: Pillow's number of the filter that the run's images were resized with.
        base: of an adapter: folder or hub id of the backbone that it is put onto.
    """
    accuracy = record.result.test_accuracy
    code = CODE.format(
        model_class=model_class,
        imports="from peft import PeftModel\n" if base else "",
        base=repr(base) if base else "folder",
        adapt=ADAPT if base else "",
        resample=resample,
    )
    return CARD.format(
        run_id=record.run_id,
        backbone=record.backbone,
        method=record.method,
        target=config.target.name,
        test="" if accuracy is None else f"Accuracy on its test part: {accuracy:.1%}.",
        and_peft=" and peft" if base else "",
        code=code,
    )


__all__ = ["card"]
