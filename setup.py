"""What pyproject.toml cannot say: `model_card.md` stands at the top of the repository and is installed in the package."""

import os

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModelCard(build_py):
    """`build_py` with one more data file; editable installs read the card from the top of the repository."""

    def run(self):
        """Build the packages, then put the card among them."""
        super().run()
        if not self.editable_mode:
            self.copy_file("model_card.md", self._card())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """List every built file."""
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, self._card()]

    def _card(self) -> str:
        return os.path.join(self.build_lib, "transformer_theatre", "model_card.md")


setup(cmdclass={"build_py": BuildWithModelCard})
