import ast
import json
import re
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from transformer_theatre import LSTMConfig, LSTMForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.modeling import AUTO_CLASSES
from transformer_theatre.modeling.remote_code import flat_sources


CLASSES = {
    f"{auto_class}-{model_class.config_class.model_type}": (model_class, auto_class)
    for auto_class, members in AUTO_CLASSES.items()
    for model_class in members
}

STRANGER = """
import sys, torch

sys.modules["transformer_theatre"] = None  # importing the package now fails, as where it is not installed
import transformers

folder, again, auto_class = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
torch.save(model(**torch.load(folder + "/inputs.pt"))[0].detach(), again + ".pt")
model.save_pretrained(again)
torch.save(torch.load(folder + "/inputs.pt"), again + "/inputs.pt")
"""


def _load_as_a_stranger(folder, again, auto_class):
    command = [sys.executable, "-c", STRANGER, str(folder), str(again), auto_class]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return torch.load(f"{again}.pt")


@pytest.fixture
def make(make_transformer, make_gpt, make_lstm):
    """Build a tiny model of any class."""

    def build(model_class):
        if model_class.config_class is LSTMConfig:
            fields = {"is_encoder_decoder": False} if model_class is LSTMForCausalLM else {}
            return make_lstm(model_class, **fields)
        config = (
            make_transformer() if model_class.config_class is TransformerConfig else make_gpt(norm_first=True)
        ).config
        return model_class(config).eval()

    return build


# Each is a process of its own; what all of them have in common shows in the first of a kind.
QUICK = {f"AutoModelForSeq2SeqLM-theatre_{kind}" for kind in ("transformer", "lstm")} | {
    "AutoModelForCausalLM-theatre_gpt"
}


@pytest.mark.parametrize(
    ("model_class", "auto_class"),
    [pytest.param(*pair, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, pair in CLASSES.items()],
)
def test_a_stranger_gets_the_same_from_every_class_and_can_save_it_again(make, tmp_path, model_class, auto_class):
    model = make(model_class)
    ids = torch.tensor([[3, 4, 5, 6]])
    inputs = {"input_ids": ids[:, None] if auto_class == "AutoModelForMultipleChoice" else ids}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :2]
    expected = model(**inputs)[0]

    model.save_pretrained(tmp_path / "first")
    torch.save(inputs, tmp_path / "first" / "inputs.pt")
    assert_close(_load_as_a_stranger(tmp_path / "first", tmp_path / "second", auto_class), expected)
    assert_close(_load_as_a_stranger(tmp_path / "second", tmp_path / "third", auto_class), expected)
    assert_close(model_class.from_pretrained(tmp_path / "third").eval()(**inputs)[0], expected)


@pytest.mark.parametrize("model_class", [c for members in AUTO_CLASSES.values() for c in members])
def test_published_files_import_nothing_of_the_package(model_class):
    sources = flat_sources(model_class)
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert f"{node.module}.py" in sources, f"{name} imports {node.module}, which does not travel"
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in {
                    "huggingface_hub",
                    "torch",
                    "tqdm",  # the library needs it too
                    "transformers",
                    *sys.stdlib_module_names,
                }


@pytest.mark.parametrize("model_class", [c for members in AUTO_CLASSES.values() for c in members])
def test_published_files_name_all_that_their_siblings_need(model_class):
    """Version 5.4 of the library fetches the files that a file imports, and not those which these import."""
    sources = flat_sources(model_class)
    direct = {
        name: {f"{n.module}.py" for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom) and n.level}
        for name, text in sources.items()
    }
    for siblings in direct.values():
        assert set().union(*(direct[sibling] for sibling in siblings)) <= siblings


def test_only_one_published_file_knows_of_versions():
    """What differs between versions of the library is bridged in one place, which can be mended for all models."""
    sources = {
        name: text for members in AUTO_CLASSES.values() for cls in members for name, text in flat_sources(cls).items()
    }
    asks = {
        name
        for name, text in sources.items()
        if re.search(r"__version__|except (Import|Attribute)Error|__dataclass_fields__", text)
    }
    assert asks == {"cache_names.py"}


def test_a_class_of_somebody_else_is_saved_without_our_code(make_transformer, tmp_path):
    class Mine(TransformerForConditionalGeneration):
        pass

    Mine(make_transformer().config).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert Mine.from_pretrained(tmp_path).config.d_model == 16


def test_a_sharded_model_is_saved_with_the_code_of_its_class(make_transformer, tmp_path):
    model = make_transformer()
    sharded = type("FSDPTransformerForConditionalGeneration", (type(model),), {"__module__": "torch.distributed.fsdp"})
    model.__class__ = sharded
    model.save_pretrained(tmp_path)
    assert (tmp_path / "modeling_transformer.py").is_file()
    auto_map = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert auto_map["AutoModelForSeq2SeqLM"] == "modeling_transformer.TransformerForConditionalGeneration"


def test_the_map_of_a_folder_names_every_auto_class_that_loads_it(make_transformer, tmp_path):
    make_transformer().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_transformer.TransformerConfig",
        "AutoModel": "modeling_transformer.TransformerModel",
        "AutoModelForSeq2SeqLM": "modeling_transformer.TransformerForConditionalGeneration",
    }
    for reference in auto_map.values():
        assert (tmp_path / f"{reference.partition('.')[0]}.py").is_file()
