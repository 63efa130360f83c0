"""The pages of `specs/` are part of the site; they live beside the code that they speak of."""

from pathlib import Path

from mkdocs.structure.files import File

SPECS = Path(__file__).parents[1] / "specs"


def on_files(files, config):
    for page in sorted(SPECS.glob("*.md")):
        name = f"specs/{page.name}"
        files.append(File.generated(config, name, abs_src_path=str(page)))
    return files
