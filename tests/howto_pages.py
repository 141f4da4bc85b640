"""The commands that the how-to pages show."""

import re

from tests import test_docs


def commands(*pages: str) -> list[str]:
    """The lines of the code blocks of these pages, in their order; continued lines are joined."""
    found = []
    for page in pages:
        text = (test_docs.ROOT / f"docs/howto/{page}.md").read_text()
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        found += [line for line in blocks.replace("\\\n", " ").splitlines() if line.strip()]
    return found
