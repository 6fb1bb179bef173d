"""The transformers library's own model tests on ours, and what they leave out; run_conformance.py starts them."""

import copy
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
import transformers
import transformers.utils
from model_tester import ModelTester, announce_classes, classes_of
from sharding import sharded_equals_whole, shared_equals_whole
from transformers.exporters import DynamoConfig, DynamoExporter

from transformer_theatre.configuration import GPTConfig, LSTMConfig, TransformerConfig
from transformer_theatre.modeling import (
    GPTForCausalLM,
    GPTForMultipleChoice,
    GPTForSequenceClassification,
    LSTMForCausalLM,
    LSTMForConditionalGeneration,
    LSTMForMultipleChoice,
    LSTMForSequenceClassification,
    LSTMModel,
    TransformerForConditionalGeneration,
)


# ConfigTester imports the library from the folder above the tests (a checkout); the installed one is meant.
transformers.utils.direct_transformers_import = lambda *args, **kwargs: transformers
announce_classes()

from tests.distributed_testing_utils import run_distributed  # noqa: E402
from tests.generation.test_utils import GenerationTesterMixin  # noqa: E402
from tests.test_configuration_common import ConfigTester  # noqa: E402
from tests.test_modeling_common import ModelTesterMixin  # noqa: E402
from tests.test_training_mixin import TrainingTesterMixin  # noqa: E402

from tests import test_fsdp_mixin, test_tensor_parallel_mixin  # noqa: E402


# The distributed tests run for listed model types only; None means every one.
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None

# Loads a saved folder where our package cannot be imported, computes logits, and saves once more.
STRANGER = """
import sys
sys.modules["transformer_theatre"] = None
import torch, transformers
auto_class, folder = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder + "/model", trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model)
with torch.no_grad():
    torch.save(model(**torch.load(folder + "/inputs.pt"))[0], folder + "/outputs.pt")
model.save_pretrained(folder + "/again")
"""


class TheatreTests:
    """Tests of our own, and the set-up of the library's."""

    config_class: type
    # What differs from the tiny configuration.
    fields: dict = {}
    # Our `_init_weights` is checked whatever year the file's licence line names.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = ModelTester(self.config_class, **self.fields)
        # ConfigTester looks its arguments up in the saved file, which leaves defaults out.
        defaults = self.config_class().to_dict()
        changed = {name: value for name, value in self.model_tester.arguments.items() if defaults.get(name) != value}
        self.config_tester = ConfigTester(self, config_class=self.config_class, **changed)

    def test_config(self):
        self.config_tester.run_common_tests()

    def _tested_classes(self):
        """Give the name of each Auto class with our class that it loads, of those under test."""
        return [(name, c) for name, c in classes_of(self.config_class).items() if c in self.all_model_classes]

    def test_own_save_and_load_is_complete(self):
        for model_class in self.all_model_classes:
            with tempfile.TemporaryDirectory() as folder:
                model_class(self.model_tester.get_config()).save_pretrained(folder)
                _, loading = model_class.from_pretrained(folder, output_loading_info=True)
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                self.assertFalse(loading[kind], f"{model_class.__name__}: {kind}")

    def test_own_auto_classes(self):
        for auto_class, model_class in self._tested_classes():
            model = model_class(self.model_tester.get_config())
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                again = getattr(transformers, auto_class).from_pretrained(folder)
            self.assertIs(type(again), model_class)
            torch.testing.assert_close(dict(again.state_dict()), dict(model.state_dict()))

    def test_own_remote_code(self):
        """A stranger without our package computes the same, and what they save has the same code in it."""
        for auto_class, model_class in self._tested_classes():
            _, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs = self._prepare_for_class(inputs, model_class)
            model = model_class(self.model_tester.get_config()).eval()
            with self.subTest(model_class.__name__), tempfile.TemporaryDirectory() as name, torch.no_grad():
                folder = Path(name)
                model.save_pretrained(folder / "model")
                torch.save(inputs, folder / "inputs.pt")
                result = subprocess.run(
                    [sys.executable, "-c", STRANGER, auto_class, name],
                    env={**os.environ, "HF_HOME": f"{name}/home"},
                    capture_output=True,
                    text=True,
                )
                self.assertEqual(result.returncode, 0, result.stderr)
                torch.testing.assert_close(torch.load(folder / "outputs.pt"), model(**inputs)[0])
                code, again = (
                    {path.name: path.read_bytes() for path in (folder / saved).glob("*.py")}
                    for saved in ("model", "again")
                )
                self.assertTrue(code)
                self.assertEqual(code, again)

    def test_own_num_items_in_batch(self):
        """The Trainer hands it to every `forward` with `**kwargs`, and then leaves all scaling of the loss to it."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_language_model()
        model = self.model_tester.language_model_class(config).eval()
        predicted = inputs["labels"].numel()
        if not config.is_encoder_decoder:
            predicted -= self.model_tester.batch_size  # nothing predicts the first token
        with torch.no_grad():
            mean = model(**inputs).loss
            half = model(**inputs, num_items_in_batch=torch.tensor(2 * predicted)).loss
        torch.testing.assert_close(half, mean / 2)

    def test_own_fsdp2(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_language_model()
        config.use_cache = False
        model_class = self.model_tester.language_model_class
        with tempfile.TemporaryDirectory() as folder:
            model_class(config).save_pretrained(folder)
            ranks = run_distributed(world_size=2)(sharded_equals_whole)
            ranks(folder, inputs, model_class.__module__, model_class.__name__)

    def test_own_torch_export(self):
        for model_class in self.all_model_classes:
            with self.subTest(model_class.__name__), torch.no_grad():
                config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
                inputs = self._prepare_for_class(inputs, model_class)
                config.use_cache = False
                model = model_class(config).eval()
                exported = DynamoExporter().export(model, copy.copy(inputs), DynamoConfig(dynamic=True))
                torch.testing.assert_close(exported.program.module()(**inputs)[0], model(**inputs)[0])

    def test_own_activation_checkpointing_keeps_gradients(self):
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs = self._prepare_for_class(inputs, model_class)
            config.use_cache, config.dropout = False, 0.1  # what is computed again is dropped again
            model = model_class(config).train()
            gradients = []
            for switch_on in (None, model.activation_checkpointing_enable):
                if switch_on:
                    switch_on()
                model.zero_grad()
                torch.manual_seed(0)
                model(**inputs)[0].square().mean().backward()
                gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
            torch.testing.assert_close(*gradients)


class EncoderDecoderTest(TheatreTests, ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    config_class = TransformerConfig
    is_encoder_decoder = True
    all_model_classes = tuple(classes_of(TransformerConfig).values())

    def test_own_tensor_parallel(self):
        """The library's mixin reads a text with the model, as only language models do."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_language_model()
        with tempfile.TemporaryDirectory() as folder:
            TransformerForConditionalGeneration(config).save_pretrained(folder)
            run_distributed(world_size=2)(shared_equals_whole)(folder, inputs, True)


class DecoderTest(
    TheatreTests,
    ModelTesterMixin,
    GenerationTesterMixin,
    TrainingTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
    test_fsdp_mixin.FSDPTesterMixin,
    unittest.TestCase,
):
    config_class = GPTConfig
    all_model_classes = tuple(classes_of(GPTConfig).values())

    def test_own_tensor_parallel(self):
        """What the library's mixin asks too, and that every sub-layer is really shared."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_language_model()
        with tempfile.TemporaryDirectory() as folder:
            GPTForCausalLM(config).save_pretrained(folder)
            run_distributed(world_size=2)(shared_equals_whole)(folder, inputs, False)

    def test_own_fsdp2_of_fine_tuned_models(self):
        for model_class in (GPTForSequenceClassification, GPTForMultipleChoice):
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs = self._prepare_for_class(inputs, model_class, return_labels=True)
            with self.subTest(model_class.__name__), tempfile.TemporaryDirectory() as folder:
                model_class(config).save_pretrained(folder)
                ranks = run_distributed(world_size=2)(sharded_equals_whole)
                ranks(folder, inputs, model_class.__module__, model_class.__name__)


def _skipped(reason: str):
    def test(self):
        self.skipTest(reason)

    return test


class LSTMTests(TheatreTests):
    """What both kinds of LSTM share: the set-up, and what cannot apply to a recurrent network."""

    config_class = LSTMConfig
    # It has no self-attention; its attention to the source is tested in tests/modeling/test_lstm.py.
    has_attentions = False
    training_overfit_learning_rate = 1e-2

    test_own_static_cache_equals_dynamic = _skipped("states are kept in a DynamicCache only, and others are refused")
    test_own_activation_checkpointing_keeps_gradients = _skipped(
        "all layers are one call of nn.LSTM: no layer to redo"
    )

    def setUp(self):
        super().setUp()
        # The library's count is one for the embeddings and one for each layer; nn.LSTM shows the last layer only.
        self.model_tester.expected_num_hidden_layers = 2


class LSTMEncoderDecoderTest(LSTMTests, ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    is_encoder_decoder = True
    all_model_classes = (LSTMModel, LSTMForConditionalGeneration)

    test_own_torch_export = _skipped("torch.export cannot trace packed sequences, which the encoder reads")


class LSTMLanguageModelTest(
    LSTMTests, ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin, unittest.TestCase
):
    all_model_classes = (LSTMModel, LSTMForCausalLM, LSTMForSequenceClassification, LSTMForMultipleChoice)
    fields = {"is_encoder_decoder": False}
