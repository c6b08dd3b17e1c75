"""The one build step that pyproject.toml cannot express: the start-up hook.

``espnet_ofa.pth`` must lie at the root of site-packages, where Python reads it at
every start, after a normal and after an editable install alike.
"""

import os

from setuptools import setup
from setuptools.command.build_py import build_py

HOOK = "espnet_ofa.pth"


class BuildWithHook(build_py):
    """Puts the hook beside the package."""

    def run(self) -> None:
        """Builds the package, then copies the hook to the root of the wheel."""
        super().run()
        os.makedirs(self._wheel_root(), exist_ok=True)
        self.copy_file(HOOK, os.path.join(self._wheel_root(), HOOK))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Lists the files written, the hook included."""
        outputs = super().get_outputs(include_bytecode)
        return [*outputs, os.path.join(self._wheel_root(), HOOK)]

    def _wheel_root(self) -> str:
        # An editable wheel leaves the package where it is and ignores build_lib;
        # what it does contain is gathered in install_lib.
        if self.editable_mode:
            install = self.get_finalized_command("install")
            return install.install_lib  # pyright: ignore[reportAttributeAccessIssue]
        return self.build_lib


setup(cmdclass={"build_py": BuildWithHook})
